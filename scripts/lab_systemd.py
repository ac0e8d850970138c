"""Runs the units for systemd under a real systemd: `make lab-systemd`.

As root on a machine with systemd-nspawn, which boots it in a container (nspawn.py).  The units are
those that `forkmaster init systemd` writes.  Each check below drives systemctl as an administrator
would.  Where the machine's systemd is older than Type=notify-reload, all is done once more with
that of a newer Debian.

Exits with 0 and the reason if the machine cannot do this, with 1 if a check failed.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from lab import main, must, wait_for
from nspawn import ROOT, SOCKET, UNIT, Machine, machine, systemd_version

CONFIG, WSGI = "/srv/project/gunicorn.conf.py", "/srv/project/project/wsgi.py"
BROKEN = "import a_module_that_is_not_there\n"
SLOW = """
import os, time
while not os.path.exists("/srv/project/media/may-load"):
    time.sleep(0.05)
def application(environ, start_response):
    start_response("203 New", [])
    return []
"""
# The first version that knows Type=notify-reload, and a Debian that has it.
NOTIFY_RELOAD, NEWER = 253, "trixie"

# The checks, in this order; each leaves the service running unless it says otherwise.


def units_of_init(lab: Machine) -> str:
    """`forkmaster init systemd` writes units that systemd takes."""
    script = """
        cd /srv/project
        .venv/bin/forkmaster init systemd
        cp deploy/project.service deploy/project.socket /etc/systemd/system/
        systemctl daemon-reload
        systemctl enable --now project.socket
    """
    done = lab.run("sh", "-ec", script)
    must(done.returncode == 0, done.stdout + done.stderr)
    must(f"-c {CONFIG} " in lab.show("ExecStart"), f"ExecStart is {lab.show('ExecStart')}")
    return f"{UNIT}, {SOCKET}"


def socket_activation(lab: Machine) -> str:
    """The first connection starts the service."""
    must(lab.show("ActiveState") == "inactive", "the service runs before anybody asked")
    about = lab.path("/run/project.sock").stat()
    must(about.st_mode & 0o777 == 0o660, f"the socket has mode {about.st_mode & 0o777:o}")
    start = time.monotonic()
    status = lab.get()
    must(status == 200, f"the first request was answered {status}")
    took = time.monotonic() - start
    # The first worker answers while systemd still waits for the second.
    wait_for(lambda: lab.show("ActiveState") == "active", "the service is active")
    return f"first answer after {took:.2f} s"


def notify(lab: Machine) -> str:
    """systemd knows that the service is ready, and how it is."""
    must(lab.show("Type") == "notify", "the unit is not of Type=notify")
    must(lab.show("SubState") == "running", "the service is not running")
    wait_for(lambda: "2 of 2 workers ready" in lab.show("StatusText"), "a true status")
    return lab.show("StatusText")


def reload_that_succeeds(lab: Machine) -> str:
    """systemctl reload returns when the new generation serves."""
    pid, before = lab.show("MainPID"), lab.workers()
    with lab.changed(CONFIG, "workers = 3\n"):
        start = time.monotonic()
        lab.systemctl("reload", UNIT)
        took = time.monotonic() - start
        wait_for(
            lambda: "3 of 3 workers ready, generation 1" in lab.show("StatusText"), "3 workers"
        )
    must(lab.show("MainPID") == pid, "the master has changed")
    wait_for(lambda: not set(before) & set(lab.workers()), "the old workers are gone")
    lab.systemctl("reload", UNIT)
    return f"from 2 workers to 3 in {took:.2f} s"


def reload_of_a_broken_deploy(lab: Machine) -> str:
    """systemctl reload fails with the reason in the journal, and the old workers serve on."""
    before = lab.workers()
    with lab.changed(WSGI, BROKEN):
        done = lab.run("systemctl", "reload", UNIT)
        must(done.returncode != 0, "systemctl reload succeeded")
        must(lab.workers() == before, "the workers have changed")
        must(lab.get() == 200, "it serves no more")
    must(lab.show("ActiveState") == "active", "the service is not active")
    messages = [str(each["MESSAGE"]) for each in lab.journal("--priority", "err")]
    must(any("a_module_that_is_not_there" in each for each in messages), "the journal does not say")
    return f"exit code {done.returncode}, {len(before)} old workers serve on"


def journal_priorities(lab: Machine) -> str:
    """journalctl -p tells errors from the rest."""
    records = lab.journal()
    by_priority = dict.fromkeys("34567", 0)
    for record in records:
        if record.get("_SYSTEMD_UNIT") != UNIT:
            continue
        by_priority[record["PRIORITY"]] = by_priority.get(record["PRIORITY"], 0) + 1
        message = str(record["MESSAGE"])
        must(not message.startswith("<"), f"a prefix is in the text: {message}")
        if "[INFO]" in message:
            must(record["PRIORITY"] == "6", f"not of priority 6: {message}")
    must(by_priority["3"] and by_priority["6"], f"there are not both: {by_priority}")
    return ", ".join(f"{count} of priority {each}" for each, count in by_priority.items() if count)


def upgrade(lab: Machine) -> str:
    """USR2 executes the program anew with the same pid, and systemd does not mind."""
    pid, before = lab.show("MainPID"), lab.workers()
    lab.systemctl("kill", "--kill-whom=main", "--signal=USR2", UNIT)
    wait_for(
        lambda: len(lab.workers()) == 2 and not set(before) & set(lab.workers()), "new workers"
    )
    must(lab.show("MainPID") == pid, "the pid has changed")
    must(lab.show("NRestarts") == "0", "systemd has restarted it")
    must(lab.get() == 200, "it serves no more")
    return f"pid {pid} before and after"


def restart_under_traffic(lab: Machine) -> str:
    """No request is lost while the service restarts: they wait in the socket."""
    answers: list[float] = []
    lost: list[str] = []
    stopping = threading.Event()

    def client() -> None:
        while not stopping.is_set():
            start = time.monotonic()
            try:
                status = lab.get()
                if status != 200:
                    lost.append(f"status {status}")
            except (OSError, http.client.HTTPException) as exc:
                lost.append(repr(exc))
            answers.append(time.monotonic() - start)

    clients = [threading.Thread(target=client) for _ in range(2)]
    for thread in clients:
        thread.start()
    try:
        wait_for(lambda: len(answers) > 30, "requests before")
        pid = lab.show("MainPID")
        lab.restart()
        count = len(answers)
        wait_for(lambda: len(answers) > count + 30, "requests after")
    finally:
        stopping.set()
        for thread in clients:
            thread.join()
    must(lab.show("MainPID") != pid, "the master is the same")
    must(not lost, f"{len(lost)} of {len(answers)} lost: {lost[:3]}")
    return f"{len(answers)} requests, 0 lost, the longest {max(answers):.2f} s"


def stop_finishes_a_slow_request(lab: Machine) -> str:
    """A stop lets a request finish, and the next connection starts the service again."""
    with lab.answering("/stream?lines=20&delay=0.1") as answer:
        start = time.monotonic()
        lab.systemctl("stop", UNIT)
        took = time.monotonic() - start
        body = answer.read()
    must(body.endswith(b"line 19\n"), "the response was cut")
    must(lab.show("Result") == "success", f"the result is {lab.show('Result')}")
    must(took < 45, f"it took {took:.1f} s")
    must(lab.get() == 200, "the socket does not start it again")
    return f"stopped in {took:.2f} s with a request of 2 s in flight"


def watchdog(lab: Machine) -> str:
    """A master that does nothing any more is aborted and started again; the socket stays."""
    lab.override("WatchdogSec=3")
    lab.restart()
    pid = lab.show("MainPID")
    inode = lab.path("/run/project.sock").stat().st_ino
    lab.systemctl("kill", "--kill-whom=main", "--signal=STOP", UNIT)
    start = time.monotonic()
    wait_for(
        lambda: lab.show("MainPID") not in ("0", pid) and lab.show("ActiveState") == "active",
        "systemd starts it again",
    )
    must(lab.show("NRestarts") == "1", f"{lab.show('NRestarts')} restarts")
    took = time.monotonic() - start
    must(lab.path("/run/project.sock").stat().st_ino == inode, "the socket is another")
    must(lab.get() == 200, "it does not serve")
    wait_for(lambda: len(lab.workers()) == 2, "no worker of the old master is left")
    lab.override("")
    lab.restart()
    return f"serves again after {took:.1f} s with WatchdogSec=3 and RestartSec=3"


def a_killed_worker(lab: Machine) -> str:
    """A worker that is killed outright is replaced, and the service goes on."""
    pid, (victim, _) = lab.show("MainPID"), lab.workers()
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: len(lab.workers()) == 2 and victim not in lab.workers(), "a new worker")
    must(lab.show("MainPID") == pid, "the master is another")
    return "replaced"


def dynamic_user(lab: Machine) -> str:
    """The service runs as a user that exists only while it does."""
    lab.override("User=\nGroup=\nDynamicUser=yes\nSupplementaryGroups=app")
    lab.restart()
    must(lab.get() == 200, "it does not serve")
    uid = Path(f"/proc/{lab.workers()[0]}").stat().st_uid
    must(uid >= 61184, f"the workers run as uid {uid}")  # the range of dynamic users
    lab.systemctl("reload", UNIT)
    lab.override("")
    lab.restart()
    return f"uid {uid}; reload works too"


def hardening(lab: Machine) -> str:
    """systemd finds the running service well locked up."""
    done = lab.run("systemd-analyze", "security", "--no-pager", "--threshold=15", UNIT)
    last = done.stdout.strip().splitlines()[-1] if done.stdout else done.stderr
    must(done.returncode == 0, last)
    return last.strip("→ ")


def template_unit(lab: Machine) -> str:
    """forkmaster@shop serves the project in /srv/shop as the user shop."""
    for unit in ("forkmaster@.service", "forkmaster@.socket"):
        shutil.copy(ROOT / "conf" / "systemd" / unit, lab.root / "etc/systemd/system")
    script = """
        useradd --system --user-group shop
        cp -r /srv/project /srv/shop
        mv /srv/shop/gunicorn.conf.py /srv/shop/gunicorn.py
        chown -R shop:shop /srv/shop/media
        echo PROJECT_DATA=/srv/shop/media > /etc/forkmaster/shop.env
        systemctl daemon-reload
        systemctl start forkmaster@shop.socket
    """
    done = lab.run("sh", "-ec", script)
    must(done.returncode == 0, done.stderr)
    must(lab.get("/", through="/run/forkmaster-shop.sock") == 200, "it does not serve")
    wait_for(lambda: lab.show("ActiveState", "forkmaster@shop.service") == "active", "it is active")
    user = lab.run("ps", "-o", "user=", lab.show("MainPID", "forkmaster@shop.service"))
    must(user.stdout.strip() == "shop", f"it runs as {user.stdout.strip()}")
    lab.systemctl("reload", "forkmaster@shop.service")
    lab.systemctl("stop", "forkmaster@shop.socket", "forkmaster@shop.service")
    return "serves /srv/shop as shop beside the other; reload works too"


def by_hand(lab: Machine) -> str:
    """What docs/deploy.md runs by hand has the variables and the user of the service."""
    guide = (ROOT / "docs/deploy.md").read_text()
    (function,) = re.findall(r"^run\(\) .*$", guide, re.MULTILINE)
    check = f"run --uid=app .venv/bin/forkmaster check -c {CONFIG} project.wsgi"
    shell = f'sudo() {{ "$@"; }}; {function}; cd /srv/project; {check}; run --uid=app env'
    done = lab.run("sh", "-ec", shell)
    must(done.returncode == 0, done.stdout + done.stderr)
    for line in ("PROJECT_DATA=/srv/project/media", "USER=app"):
        must(line in done.stdout.splitlines(), f"{line} is not in {done.stdout}")
    return done.stdout.splitlines()[0]


def a_wrong_configuration(lab: Machine) -> str:
    """A service that cannot start for its configuration says so, and is not started again."""
    with lab.changed(CONFIG, 'workers = "many"\n'):
        lab.systemctl("stop", SOCKET, UNIT)
        done = lab.run("systemctl", "start", UNIT)
        must(done.returncode != 0, "it started")
        wait_for(lambda: lab.show("ActiveState") == "failed", "systemd gives up")
        status, restarts = lab.show("ExecMainStatus"), lab.show("NRestarts")
        must(status == "5", f"the exit code is {status}")
        must(restarts == "0", f"{restarts} restarts")
    messages = [str(each["MESSAGE"]) for each in lab.journal()]
    must(any("workers" in each and "many" in each for each in messages), "the journal does not say")
    lab.systemctl("reset-failed")
    lab.systemctl("start", SOCKET)
    return "exit code 5, 0 restarts"


def notify_reload(lab: Machine) -> str:
    """With the drop-in systemctl reload waits for READY=1 too, and fails with a broken deploy."""
    folder = lab.root / "etc/systemd/system" / f"{UNIT}.d"
    folder.mkdir(exist_ok=True)
    shutil.copy(ROOT / "conf/systemd/forkmaster.service.d/notify-reload.conf", folder)
    lab.systemctl("daemon-reload")
    lab.restart()
    must(lab.show("Type") == "notify-reload", f"the type is {lab.show('Type')}")
    with slow_deploy(lab) as finish:
        finish("reload")
        with lab.changed(WSGI, BROKEN):
            done = lab.run("systemctl", "reload", UNIT)
            must(done.returncode != 0, "systemctl reload of a broken deploy succeeded")
            must(lab.show("ActiveState") == "active", "the service is not active")
            must(lab.get() == 203, "the code from before does not serve on")
    lab.systemctl("reload", UNIT)
    must(lab.get() == 200, "the code that is right again does not serve")
    (folder / "notify-reload.conf").unlink()
    lab.systemctl("daemon-reload")
    lab.restart()
    return f"waited for the new code; exit code {done.returncode} with a broken one"


def notify_reload_by_signal(lab: Machine) -> str:
    """HUP alone reloads, too: systemd takes RELOADING=1 with its time, and waits for READY=1."""
    lab.override("Type=notify-reload\nExecReload=")
    lab.restart()
    with slow_deploy(lab) as finish:
        # It gets there only by a RELOADING=1 whose MONOTONIC_USEC is later than the signal.
        finish("reload-notify")
        with lab.changed(WSGI, BROKEN):
            lab.systemctl("reload", UNIT)
            must("rolled back" in lab.show("StatusText"), f"it says {lab.show('StatusText')}")
            must(lab.get() == 203, "the code from before does not serve on")
    lab.override("")
    lab.restart()
    return "waited for the new code; a broken one is in the status and in the journal only"


@contextmanager
def slow_deploy(lab: Machine) -> Iterator[Callable[[str], None]]:
    """New code, which answers 203 and loads only when it may.

    Yields what reloads to it: systemctl must wait for as long as the unit is in the state named.
    """
    may_load = lab.root / "srv/project/media/may-load"

    def finish(state: str) -> None:
        with ThreadPoolExecutor(1) as systemctl:
            reload = systemctl.submit(lab.run, "systemctl", "reload", UNIT)
            try:
                wait_for(lambda: reload.done() or lab.show("SubState") == state, f"state {state}")
                must(lab.get() == 200, "the code from before does not serve on")
                must(not reload.done(), "systemctl reload did not wait")
            finally:
                may_load.touch()
        done = reload.result()
        must(lab.get() == 203, "the new code does not serve when systemctl reload has returned")
        must(done.returncode == 0, done.stderr.strip())

    with lab.changed(WSGI, SLOW):
        yield finish
    may_load.unlink()


CHECKS = (
    units_of_init,
    socket_activation,
    notify,
    reload_that_succeeds,
    reload_of_a_broken_deploy,
    journal_priorities,
    upgrade,
    a_killed_worker,
    restart_under_traffic,
    stop_finishes_a_slow_request,
    hardening,
    dynamic_user,
    watchdog,
    template_unit,
    by_hand,
    a_wrong_configuration,
)

OF_NOTIFY_RELOAD = (notify_reload, notify_reload_by_signal)


def run() -> int:
    """The exit code."""
    if systemd_version() >= NOTIFY_RELOAD:
        return main(machine, (*CHECKS, *OF_NOTIFY_RELOAD))
    failed = main(machine, CHECKS)
    print(f"\nAnd with the systemd of Debian {NEWER}:", flush=True)
    return failed | main(partial(machine, NEWER), (*CHECKS, *OF_NOTIFY_RELOAD))


if __name__ == "__main__":
    sys.exit(run())
