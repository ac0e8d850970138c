"""What every folder of tests shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.certificates import Certificates
from tests.process.harness import KINDS, Kind, Server

Serve = Callable[..., Server]

# Its 200 ms for an example, and its second for making some, are no fault of the code on a machine
# that is busy.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")

# `make test` is to be done within three minutes on two processors; these are for `make lab`.
LAB = frozenset(
    {
        "test_asgi_frameworks",
        "test_commands",
        "test_completion",
        "test_docs",
        "test_incidents",
        "test_machine",
        "test_manage",
        "test_memory",
        "test_monitor",
        "test_notes",
        "test_page",
        "test_prometheus",
        "test_recycling",
        "test_reload_on_change",
        "test_request_timeouts",
        "test_scaling",
        "test_systemd",
        "test_top",
        "test_upgrade",
    }
)
LAB_FOLDERS = frozenset({"process", "e2e", "deploy"})


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the lab."""
    for item in items:
        if item.path.stem in LAB and item.path.parent.name in LAB_FOLDERS:
            item.add_marker(pytest.mark.lab)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Let the fixtures know how the test ended."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.when == "call":
        item.stash[FAILED] = report.failed


FAILED = pytest.StashKey[bool]()


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> Kind:
    """Each kind of worker in turn."""
    param: Kind = request.param
    return param


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority of the tests, and what it has issued."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serve]:
    """Starts servers: `serve("hello", "-w", "2")`.

    After the test they are stopped if they still run.  Then none of their workers may be alive,
    and their logs may have no warning or error that the test did not expect.  The log of a
    failed test is printed, and its folder kept.
    """
    servers = Servers(tmp_path)
    yield servers.start
    servers.close(failed=request.node.stash.get(FAILED, True))


class Servers:
    """The servers of one test, or of several that share them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[Server] = []

    def start(self, *arguments: str, **options: Any) -> Server:
        """Start one more, in a folder of its own."""
        folder = self.folder / f"server{len(self._started)}"
        folder.mkdir()
        server = Server(*arguments, folder=folder, **options)
        self._started.append(server)
        return server

    def close(self, *, failed: bool = False) -> None:
        """Stop them.  Raises AssertionError if one had a problem; `failed` shows the logs too."""
        problems = []
        # A later one may use what an earlier one has made.
        for server in reversed(self._started):
            server.close_clients()  # a drain would wait for them
            try:
                if server.process.poll() is None:
                    server.stop()
                problems += [f"survived: pid {pid}" for pid in server.survivors()]
                problems += server.unexpected()
            except Exception as exc:
                problems.append(f"cannot stop the server: {exc!r}")
            finally:
                server.clean_up()
        if problems or failed:
            for server in self._started:
                print(f"--- {server.log_path}\n{server.log}")
        assert not problems, "\n".join(problems)
