"""The demo project behind a real nginx."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.conftest import Serve
from tests.deploy.nginx import PROGRAM, Nginx
from tests.e2e.conftest import KINDS, PROJECT, data, prepared
from tests.process.harness import PATIENCE, Server

__all__ = ["data", "prepared"]  # fixtures of the end-to-end tests

# nginx passes the client on in a header, because its own address is that of the connection.
FORMAT = '%({x-forwarded-for}i)s "%(r)s" %(s)s %(Q)s'


@dataclass
class Deployed:
    """The demo project on a running server, nginx before it, and a browser."""

    server: Server
    nginx: Nginx
    browser: httpx.Client
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
        """Log in as the admin."""
        return self.post("/admin/login/", {"username": "admin", "password": "admin"})


Deploy = Callable[..., Deployed]


@pytest.fixture
def deploy(serve: Serve, data: Path, tmp_path: Path) -> Iterator[Deploy]:
    """Starts the demo project behind nginx: `deploy("sync")`, over a unix socket or TCP.

    Afterwards neither may have logged a problem.
    """
    if PROGRAM is None:
        pytest.skip("nginx is not installed")
    started: list[Deployed] = []
    allowed: list[str] = []

    def start(
        kind: str = "sync",
        *arguments: str,
        transport: str = "unix",
        site: str = "project.conf",
        text: str = "",
        tolerate: str = "",
    ) -> Deployed:
        unix = tmp_path / "forkmaster.sock"
        binds = ("-b", f"unix:{unix}") if transport == "unix" else ()
        server = serve(
            *("--access-logfile", str(tmp_path / "access.log"), "--access-logformat", FORMAT),
            *(*binds, *arguments, *KINDS[kind]),
            cwd=PROJECT,
            env={"PROJECT_DATA": str(data)},
            binds=transport == "tcp",
        ).wait_until_ready(2)
        server.tolerate("Not Found", "Bad Request", "Warning: ")
        upstream = f"unix:{unix}" if transport == "unix" else f"127.0.0.1:{server.port}"
        nginx = Nginx(tmp_path / "nginx", site, data, upstream, text)
        deployed = Deployed(server, nginx, httpx.Client(base_url=nginx.url, timeout=PATIENCE))
        started.append(deployed)
        allowed.append(tolerate)
        return deployed

    yield start
    for deployed, tolerated in zip(started, allowed, strict=True):
        deployed.browser.close()
        for client in deployed._clients:
            client.close()
        deployed.nginx.stop()
        problems = [
            line for line in deployed.nginx.problems() if not tolerated or tolerated not in line
        ]
        assert not problems, "\n".join(problems)
