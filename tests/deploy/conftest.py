"""The demo project behind a real nginx."""

from __future__ import annotations

import http.client
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.conftest import Serve, Servers
from tests.deploy.nginx import PROGRAM, Nginx
from tests.e2e.conftest import KINDS, PROJECT, data, prepared
from tests.process.harness import PATIENCE, Server

__all__ = ["data", "prepared"]  # fixtures of the end-to-end tests

# Each kind of worker, and each way from nginx to it.
WAYS = (("sync", "unix"), ("threaded", "tcp"), ("asgi", "unix"))

# nginx passes the client on in a header, because its own address is that of the connection.
FORMAT = '%({x-forwarded-for}i)s "%(r)s" %(s)s %(Q)s'


@dataclass
class Deployed:
    """The demo project on a running server, nginx before it, and a browser."""

    server: Server
    nginx: Nginx
    browser: httpx.Client
    kind: str = ""
    _clients: list[http.client.HTTPConnection] = field(default_factory=list)

    def connect(self) -> http.client.HTTPConnection:
        """A connection to nginx, as `Load` wants it."""
        connection = http.client.HTTPConnection("localhost", self.nginx.port, timeout=PATIENCE)
        connection.connect()
        self._clients.append(connection)
        return connection

    def token(self, path: str) -> str:
        """The CSRF token of the form on a page."""
        page = self.browser.get(path)
        assert page.status_code == 200, page.text
        return page.text.split('name="csrfmiddlewaretoken" value="')[1].split('"')[0]

    def post(self, path: str, fields: dict[str, str], **options: object) -> httpx.Response:
        """The answer to a form, sent as a browser sends it: with the token and the Origin."""
        form = {**fields, "csrfmiddlewaretoken": self.token(path)}
        origin = str(self.browser.base_url).rstrip("/")
        return self.browser.post(path, data=form, headers={"Origin": origin}, **options)

    def log_in(self) -> httpx.Response:
        """Log in as the admin, anew."""
        self.browser.cookies.clear()
        return self.post("/admin/login/", {"username": "admin", "password": "admin"})


Deploy = Callable[..., Deployed]


class Deployments:
    """The demo project behind nginx, started as often as is asked for, in one folder."""

    def __init__(self, serve: Serve, data: Path, folder: Path) -> None:
        if PROGRAM is None:
            pytest.skip("nginx is not installed")
        self.serve, self.data, self.folder = serve, data, folder
        self._started: list[Deployed] = []
        self._tolerated: list[str] = []

    def start(
        self,
        kind: str = "sync",
        *arguments: str,
        transport: str = "unix",
        site: str = "project.conf",
        text: str = "",
        tolerate: Sequence[str] = (),
    ) -> Deployed:
        """One more.  `tolerate`: problems that nginx may log."""
        unix = self.folder / "forkmaster.sock"
        binds = ("-b", f"unix:{unix}") if transport == "unix" else ()
        server = self.serve(
            *("--access-logfile", str(self.folder / "access.log"), "--access-logformat", FORMAT),
            *(*binds, *arguments, *KINDS[kind]),
            cwd=PROJECT,
            env={"PROJECT_DATA": str(self.data)},
            binds=transport == "tcp",
        ).wait_until_ready(2)
        server.tolerate("Not Found", "Bad Request", "Warning: ")
        upstream = f"unix:{unix}" if transport == "unix" else f"127.0.0.1:{server.port}"
        nginx = Nginx(self.folder / "nginx", site, self.data, upstream, text)
        deployed = Deployed(server, nginx, httpx.Client(base_url=nginx.url, timeout=PATIENCE))
        self._started.append(deployed)
        self._tolerated += tolerate
        return deployed

    def stop(self) -> None:
        """Stop every nginx.  Raises AssertionError if one has logged a problem."""
        for deployed in self._started:
            deployed.browser.close()
            for client in deployed._clients:
                client.close()
            deployed.nginx.stop()
            problems = [
                line
                for line in deployed.nginx.problems()
                if not any(each in line for each in self._tolerated)
            ]
            assert not problems, "\n".join(problems)


@pytest.fixture
def deploy(serve: Serve, data: Path, tmp_path: Path) -> Iterator[Deploy]:
    """Starts the demo project behind nginx: `deploy("sync")`, over a unix socket or TCP.

    Afterwards neither may have logged a problem.
    """
    deployments = Deployments(serve, data, tmp_path)
    yield deployments.start
    deployments.stop()


@pytest.fixture(
    scope="module",
    # Those who share one are run by the same process of the tests, one after the other.
    params=[
        pytest.param(way, marks=pytest.mark.xdist_group(f"nginx {way[0]}"), id="-".join(way))
        for way in WAYS
    ],
)
def shared(
    request: pytest.FixtureRequest, prepared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployed]:
    """The same in each of WAYS, one for all tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("shared")
    data = Path(shutil.copytree(prepared, folder / "data"))
    servers = Servers(folder)
    deployments = Deployments(servers.start, data, folder)
    kind, transport = request.param
    allowed = ("missing.css", "client intended to send too large body")
    deployed = deployments.start(kind, transport=transport, tolerate=allowed)
    deployed.kind = kind
    deployed.server.tolerate("Forbidden", "Origin checking failed")
    yield deployed
    deployments.stop()
    servers.close()
