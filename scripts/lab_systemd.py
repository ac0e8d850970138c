"""Runs the units for systemd under a real systemd: `make lab-systemd`.

As root on a machine with systemd-nspawn: the machine's own file system, under an overlay that is
thrown away, is booted as a container without a network.  The project of the tests is put in it as
docs/deploy.md says, in /srv/project with a virtual environment of its own; its units are those that
`forkmaster init systemd` writes.  Each check below drives systemctl as an administrator would.

Requests come from this side, through the container's socket in /proc/PID/root.

Exits with 0 and the reason if the machine cannot do this, with 1 if a check failed.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab import PATIENCE, Failed, Unfit, main, must, wait_for

ROOT = Path(__file__).parent.parent
# The interpreter of the machine: the user of the service cannot read one in somebody's home.
PYTHON = "/usr/bin/python3"
# What `forkmaster init systemd` calls the units of a project in /srv/project.
UNIT, SOCKET = "project.service", "project.socket"
CONFIG = "/srv/project/gunicorn.conf.py"


# --- The machine ------------------------------------------------------------------------------


def require() -> None:
    """Raise Unfit if something is missing."""
    if os.geteuid() != 0:
        raise Unfit("it needs root")
    for program in ("systemd-nspawn", "nsenter", "mount", "useradd", PYTHON):
        if shutil.which(program) is None:
            raise Unfit(f"{program} is not installed (Debian: systemd-container)")
    version = "import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))"
    if subprocess.run([PYTHON, "-c", version], check=False, capture_output=True).returncode:
        raise Unfit(f"{PYTHON} is older than 3.11, or cannot make virtual environments")


class Machine:
    """The booted container."""

    def __init__(self, root: Path, leader: int) -> None:
        self.root = root
        self.leader = leader

    def run(self, *command: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command in it; its exit code is the caller's to look at."""
        return subprocess.run(
            ["nsenter", "--target", str(self.leader), "--all", *command],
            capture_output=True,
            check=False,
            text=True,
            timeout=timeout,
        )

    def systemctl(self, *arguments: str) -> str:
        """What systemctl prints.  Raises Failed if it fails."""
        done = self.run("systemctl", *arguments)
        must(done.returncode == 0, f"systemctl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout.strip()

    def show(self, name: str, unit: str = UNIT) -> str:
        """A property of the service."""
        return self.systemctl("show", unit, "--property", name, "--value")

    def journal(self, *arguments: str) -> list[dict[str, str]]:
        """The records of the service, oldest first."""
        done = self.run("journalctl", "--unit", UNIT, "--output", "json", *arguments)
        return [json.loads(line) for line in done.stdout.splitlines()]

    def path(self, inside: str) -> Path:
        """The path on this side of a path in it; its /run is a mount of its own."""
        return Path(f"/proc/{self.leader}/root{inside}")

    @contextmanager
    def answering(
        self, path: str, through: str = "/run/project.sock"
    ) -> Iterator[http.client.HTTPResponse]:
        """An answer through the socket of the unit, of which the head has been read."""
        with socket.socket(socket.AF_UNIX) as raw:
            raw.settimeout(PATIENCE)
            raw.connect(str(self.path(through)))
            connection = http.client.HTTPConnection("localhost")
            connection.sock = raw
            connection.request("GET", path, headers={"Connection": "close"})
            yield connection.getresponse()

    def get(self, path: str = "/whoami", through: str = "/run/project.sock") -> int:
        """The status of an answer that was read to its end."""
        with self.answering(path, through) as answer:
            answer.read()
            return answer.status

    def workers(self) -> list[int]:
        """The pids of the workers, as this side counts them."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                title = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                namespace = os.readlink(folder / "ns" / "pid")
            except OSError:
                continue  # it has ended meanwhile, or was never there to be read
            if title.startswith(b"forkmaster: worker") and namespace == os.readlink(
                f"/proc/{self.leader}/ns/pid"
            ):
                found.append(int(folder.name))
        return sorted(found)

    def override(self, text: str) -> None:
        """Put a drop-in over the service; "" takes it away."""
        folder = self.root / "etc/systemd/system" / f"{UNIT}.d"
        folder.mkdir(exist_ok=True)
        (folder / "lab.conf").write_text(f"[Service]\n{text}\n")
        self.systemctl("daemon-reload")

    @contextmanager
    def changed(self, inside: str, text: str) -> Iterator[None]:
        """A file of the project with other contents, for a while."""
        path = self.root / inside.lstrip("/")
        before = path.read_text()
        path.write_text(text)
        try:
            yield
        finally:
            path.write_text(before)

    def last_words(self) -> list[str]:
        return [str(each["MESSAGE"]) for each in self.journal("--lines=15")]

    def mend(self) -> None:
        self.override("")
        self.run("systemctl", "restart", UNIT)


@contextmanager
def machine() -> Iterator[Machine]:
    """Boot it, and take it down whatever happens."""
    require()
    lab = Path(tempfile.mkdtemp(prefix="forkmaster-lab-"))
    mounted: list[Path] = []
    nspawn = None
    try:
        _mount(["-t", "tmpfs", "tmpfs"], lab, mounted)
        root, upper, work = lab / "root", lab / "upper", lab / "work"
        for folder in (root, upper, work):
            folder.mkdir()
        layers = f"lowerdir=/,upperdir={upper},workdir={work}"
        _mount(["-t", "overlay", "overlay", "-o", layers], root, mounted)
        _install(root)
        nspawn_command = "systemd-nspawn --quiet --boot --private-network --register=no --keep-unit"
        nspawn = subprocess.Popen(
            [*nspawn_command.split(), "--machine=forkmaster-lab", "--directory", root],
            stdin=subprocess.DEVNULL,
            stdout=(lab / "console").open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        booted = Machine(root, _leader(nspawn))
        try:
            wait_for(
                lambda: booted.run("systemctl", "is-active", "sockets.target").returncode == 0,
                "systemd has booted",
            )
        except Failed as exc:
            raise Unfit(f"{exc}\n{(lab / 'console').read_text(errors='replace')}") from None
        yield booted
        booted.run("systemctl", "poweroff")
        nspawn.wait(PATIENCE)
    finally:
        if nspawn is not None and nspawn.poll() is None:
            nspawn.terminate()
            nspawn.wait(PATIENCE)
        for path in reversed(mounted):
            subprocess.run(["umount", "--lazy", path], check=True)
        lab.rmdir()


def _mount(arguments: list[str], target: Path, mounted: list[Path]) -> None:
    done = subprocess.run(
        ["mount", *arguments, target], check=False, capture_output=True, text=True
    )
    if done.returncode:
        raise Unfit(f"cannot mount: {done.stderr.strip()}")
    mounted.append(target)


def _leader(nspawn: subprocess.Popen[bytes]) -> int:
    """The pid of the container's systemd, as this side counts."""
    children = Path(f"/proc/{nspawn.pid}/task/{nspawn.pid}/children")

    def leader() -> int | None:
        # The first child of nspawn only prepares the container, and makes way for systemd.
        pids = map(int, children.read_text().split())
        return next((pid for pid in pids if _name_of(pid) == "systemd"), None)

    wait_for(lambda: leader() or nspawn.poll() is not None, "nspawn runs")
    found = leader()
    if found is None:
        raise Unfit("systemd-nspawn cannot boot a container here")
    return found


def _name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""  # it has gone meanwhile


def _install(root: Path) -> None:
    """Put the project and the units where the units say, and keep the machine's own quiet."""
    units = root / "etc/systemd/system"
    # Its own, and not none: without one systemd takes this for a first boot, and enables all.
    (root / "etc/machine-id").write_text(f"{secrets.token_hex(16)}\n")
    for folder in units.glob("*.wants"):
        shutil.rmtree(folder)  # the services of the machine are none of ours
    # Without it the boot waits for a network that never comes.
    (units / "systemd-networkd-wait-online.service").symlink_to("/dev/null")

    subprocess.run(
        ["useradd", "--root", root, "--system", "--user-group", "app"],
        check=True,
        capture_output=True,
    )
    project = root / "srv/project"
    shutil.copytree(ROOT / "tests" / "django_project", project)
    (project / "gunicorn.conf.py").write_text("workers = 2\n")
    _install_python(project / ".venv")
    media = project / "media"
    media.mkdir()
    uid = int(next(
        line.split(":")[2]
        for line in (root / "etc/passwd").read_text().splitlines()
        if line.startswith("app:")
    ))  # fmt: skip
    (root / "etc/forkmaster").mkdir()
    # The demo keeps its database with the uploads, in the one folder that it may write to.
    (root / "etc/forkmaster/project.env").write_text("PROJECT_DATA=/srv/project/media\n")
    subprocess.run(
        [project / ".venv/bin/python", project / "manage.py", "prepare"],
        env={**os.environ, "PROJECT_DATA": str(media)},
        check=True,
    )
    for path in (media, *media.rglob("*")):
        os.chown(path, uid, uid)


def _install_python(venv: Path) -> None:
    subprocess.run([PYTHON, "-m", "venv", venv], check=True)
    pip = subprocess.run(
        [venv / "bin/python", "-m", "pip", "install", "--quiet", ROOT, "django", "channels"],
        check=False,
        capture_output=True,
        text=True,
    )
    if pip.returncode:
        raise Unfit(f"pip cannot install forkmaster:\n{pip.stderr}")
    # The environment is made here and used there, where its path is shorter.
    program = venv / "bin" / "forkmaster"
    program.write_text(program.read_text().replace(str(venv), "/srv/project/.venv"))


# --- The checks -------------------------------------------------------------------------------
# In this order; each leaves the service running unless it says otherwise.


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
    with lab.changed("/srv/project/project/wsgi.py", "import a_module_that_is_not_there\n"):
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
        lab.systemctl("restart", UNIT)
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
    lab.systemctl("restart", UNIT)
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
    lab.systemctl("restart", UNIT)
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
    lab.systemctl("restart", UNIT)
    must(lab.get() == 200, "it does not serve")
    uid = Path(f"/proc/{lab.workers()[0]}").stat().st_uid
    must(uid >= 61184, f"the workers run as uid {uid}")  # the range of dynamic users
    lab.systemctl("reload", UNIT)
    lab.override("")
    lab.systemctl("restart", UNIT)
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
    a_wrong_configuration,
)


if __name__ == "__main__":
    sys.exit(main(machine, CHECKS))
