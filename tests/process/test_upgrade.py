"""The master becomes a new program, with the same pid, children and listeners."""

from __future__ import annotations

import signal
import site
import stat
import sys
import textwrap
import venv
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.process.harness import ROOT, Kind, Load, Server, wait_for


def program(folder: Path, *, prelude: str = "", python: Path = Path(sys.executable)) -> Path:
    """A console script as pip writes it, which runs `prelude` first."""
    script = folder / "forkmaster"
    fresh = folder / "forkmaster.new"
    fresh.write_text(
        f"#!{python}\n"
        + textwrap.dedent(prelude)
        + "import sys\nfrom forkmaster.cli.entry import main\nsys.exit(main())\n"
    )
    fresh.chmod(fresh.stat().st_mode | stat.S_IXUSR)
    fresh.rename(script)
    return script


def upgrade(server: Server) -> None:
    """Ask for an upgrade, and wait until the new program serves alone."""
    done = len(server.lines("reload done"))
    server.send_signal(signal.SIGUSR2)
    server.wait_for_line("reload done", done + 1)


def test_an_upgrade_keeps_the_pid_and_loses_nothing(serve: Serve, kind: Kind) -> None:
    server = serve(*kind.arguments, "-w", "2", kind.app)
    server.wait_until_ready(2)
    before = server.workers()

    with Load(server) as load:
        load.wait_for_answers(20)
        upgrade(server)
        load.wait_for_answers(20)

    assert load.lost == []
    assert server.process.poll() is None
    wait_for(lambda: not set(server.workers()) & set(before), what="old workers gone")
    assert server.stop() == 0


def test_an_upgrade_with_preload_keeps_the_old_zygote_for_a_rollback(serve: Serve) -> None:
    server = serve("-w", "2", "--preload", "preloaded")
    server.wait_until_ready(2)

    with Load(server, "/") as load:
        load.wait_for_answers(20)
        upgrade(server)
        load.wait_for_answers(20)

    assert load.lost == []
    assert server.stop() == 0


@pytest.mark.lab
def test_upgrades_can_follow_each_other(serve: Serve) -> None:
    server = serve("-w", "1", "hello")
    server.wait_until_ready(1)

    for _ in range(3):
        upgrade(server)

    assert server.get("/").status == 200
    assert len(server.lines("upgraded from forkmaster")) == 3


def test_an_old_worker_that_dies_after_the_exec_is_reaped(serve: Serve, tmp_path: Path) -> None:
    server = serve("-w", "1", "slow")
    server.wait_until_ready(1)

    upgrade(server)
    old = server.lines(r"worker 1 exited with status 0")
    wait_for(lambda: old or server.lines(r"worker 1 exited with status 0"), what="reaped")

    assert len(server.wait_for_workers(1)) == 1


def test_a_program_that_cannot_start_changes_nothing(serve: Serve, tmp_path: Path) -> None:
    script = program(tmp_path)
    server = serve("-w", "2", "hello", program=script)
    server.wait_until_ready(2)
    before = server.workers()
    server.expect("upgrade refused.*", "the new release is broken", "Traceback")
    program(tmp_path, prelude="raise RuntimeError('the new release is broken')\n")

    server.send_signal(signal.SIGUSR2)
    server.wait_for_line("upgrade refused")

    assert server.workers() == before
    assert server.get("/").status == 200


def test_a_program_that_fails_only_after_the_exec_goes_back(serve: Serve, tmp_path: Path) -> None:
    script = program(tmp_path)
    server = serve("-w", "2", "hello", program=script)
    server.wait_until_ready(2)
    program(
        tmp_path,
        prelude="""
            import os
            from forkmaster.master import master
            if "_FORKMASTER_STATE_FD" in os.environ and "_FORKMASTER_WENT_BACK" not in os.environ:
                def adopt(*_):
                    raise RuntimeError("cannot adopt")
                master.Master.adopt = adopt
        """,
    )

    with Load(server, "/") as load:
        load.wait_for_answers(20)
        upgrade(server)
        load.wait_for_answers(20)

    assert load.lost == []
    assert server.process.poll() is None


@pytest.mark.lab
def test_an_upgrade_finds_the_release_that_a_link_names_now(serve: Serve, tmp_path: Path) -> None:
    for release in ("one", "two"):
        (tmp_path / release).mkdir()
        (tmp_path / release / "site_app.py").write_text(
            f"""
def application(environ, start_response):
    start_response("200 OK", [])
    return [b"{release}"]
"""
        )
    current = tmp_path / "current"
    current.symlink_to("one")
    server = serve("-w", "2", "site_app", cwd=current, env={"PWD": str(current)})
    server.wait_until_ready(2)
    assert server.get("/").body == b"one"
    fresh = tmp_path / "fresh"
    fresh.symlink_to("two")
    fresh.rename(current)

    upgrade(server)

    assert server.get("/").body == b"two"


def environment(folder: Path) -> None:
    """A virtual environment, with the application and a console script, as a release has them."""
    venv.create(folder, symlinks=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    # What is installed, and this tree, which an editable installation names in a file there.
    paths = [*site.getsitepackages(), str(ROOT)]
    (site_packages / "others.pth").write_text("\n".join(paths))
    program(folder / "bin", python=folder / "bin" / "python")
    (folder / "site_app.py").write_text(
        """
import sys

def application(environ, start_response):
    start_response("200 OK", [])
    return [sys.prefix.encode()]
"""
    )


@pytest.mark.lab
def test_an_upgrade_may_lead_into_another_virtual_environment(serve: Serve, tmp_path: Path) -> None:
    for release in ("one", "two"):
        environment(tmp_path / release)
    current = tmp_path / "current"
    current.symlink_to("one")
    script = current / "bin" / "forkmaster"
    server = serve("site_app", cwd=current, env={"PWD": str(current)}, program=script)
    assert server.get("/").body == bytes(tmp_path / "one")
    fresh = tmp_path / "fresh"
    fresh.symlink_to("two")
    fresh.rename(current)

    with Load(server, "/", clients=2) as load:
        load.wait_for_answers(20)
        upgrade(server)
        load.wait_for_answers(20)

    assert load.lost == []
    assert server.get("/").body == bytes(tmp_path / "two")
    assert server.process.poll() is None


@pytest.mark.lab
def test_an_upgrade_during_a_reload_is_refused(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "slow_to_boot.py").write_text(
        """
import time, os
if os.path.exists("slow"):
    time.sleep(2)  # the time in which the second signal comes
def application(environ, start_response):
    start_response("200 OK", [])
    return [b""]
"""
    )
    server = serve("slow_to_boot", cwd=tmp_path)
    server.wait_until_ready(1)
    server.expect("upgrade refused: a reload or an upgrade is under way")
    (tmp_path / "slow").touch()

    server.send_signal(signal.SIGHUP)
    server.wait_for_line("generation 1.: first of its generation")
    server.send_signal(signal.SIGUSR2)

    server.wait_for_line("upgrade refused")
    server.wait_for_line("reload done")


def test_nothing_of_an_upgrade_shows_in_the_environment_of_workers(
    serve: Serve, tmp_path: Path
) -> None:
    (tmp_path / "names.py").write_text(
        """
import os
def application(environ, start_response):
    start_response("200 OK", [])
    return [" ".join(os.environ).encode()]
"""
    )
    server = serve("names", cwd=tmp_path)
    server.wait_until_ready(1)

    upgrade(server)

    assert b"_FORKMASTER" not in server.get("/").body
