"""The demo project, prepared once and copied for each test, served by each kind of worker."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.conftest import Serve, Servers
from tests.process.harness import PATIENCE, ROOT, Server

PROJECT = ROOT / "tests" / "django_project"


@dataclass(frozen=True)
class Site:
    """The demo project on a running server, and a browser that keeps its cookies."""

    server: Server
    browser: httpx.Client

    def token(self, path: str) -> str:
        """The CSRF token of the form on a page."""
        page = self.browser.get(path)
        assert page.status_code == 200, page.text
        return page.text.split('name="csrfmiddlewaretoken" value="')[1].split('"')[0]

    def log_in(self) -> None:
        """Log in as the admin, by the form."""
        form = {"username": "admin", "password": "admin", "next": "/admin/"}
        token = self.token("/admin/login/")
        answer = self.browser.post("/admin/login/", data={**form, "csrfmiddlewaretoken": token})
        assert answer.status_code == 302, answer.text


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the database, migrated, and the collected static files."""
    folder = tmp_path_factory.mktemp("prepared")
    subprocess.run(
        [sys.executable, PROJECT / "manage.py", "prepare"],
        env={**os.environ, "PROJECT_DATA": str(folder)},
        check=True,
    )
    return folder


@pytest.fixture
def data(prepared: Path, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    return Path(shutil.copytree(prepared, tmp_path / "data"))


KINDS = {
    "sync": ("-w", "2", "project.wsgi"),
    "threaded": ("-w", "2", "--threads", "4", "project.wsgi"),
    "asgi": ("-w", "2", "-k", "uvicorn", "project.asgi"),
}


@pytest.fixture(params=KINDS.values(), ids=KINDS)
def site(request: pytest.FixtureRequest, serve: Serve, data: Path) -> Iterator[Site]:
    """The demo project under each kind of worker in turn, for one test to change."""
    yield from _visited(serve(*request.param, cwd=PROJECT, env={"PROJECT_DATA": str(data)}))


@pytest.fixture(
    scope="module",
    # Those who share a site are run by the same process of the tests, one after the other.
    params=[
        pytest.param(arguments, marks=pytest.mark.xdist_group(f"django {kind}"), id=kind)
        for kind, arguments in KINDS.items()
    ],
)
def shared_site(
    request: pytest.FixtureRequest, prepared: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """The same for tests that only read: one server for all of them."""
    folder = tmp_path_factory.mktemp("shared")
    data = shutil.copytree(prepared, folder / "data")
    servers = Servers(folder)
    yield from _visited(servers.start(*request.param, cwd=PROJECT, env={"PROJECT_DATA": str(data)}))
    servers.close()


def _visited(server: Server) -> Iterator[Site]:
    # Django says so when an async server streams a file; it is right, and works.
    server.tolerate("StreamingHttpResponse must consume", "Not Found", "Warning: ")
    with httpx.Client(base_url=server.url, timeout=PATIENCE) as browser:
        yield Site(server, browser)
