"""A container with a real systemd, and the project of the tests in it: for lab_systemd.py.

The machine's own file system, under an overlay that is thrown away, is booted by systemd-nspawn
without a network.  The project is put in it as docs/deploy.md says, in /srv/project with a virtual
environment of its own; the services of the machine are left out.

Between the two may lie the systemd of another release of Debian.  Its packages are only unpacked,
with the libraries that they want: the machine's programs, and its Python, run with those as well.

Requests come from this side, through the container's socket in /proc/PID/root.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import lab
from lab import PATIENCE, Failed, Unfit, wait_for

ROOT = Path(__file__).parent.parent
# The interpreter of the machine: the user of the service cannot read one in somebody's home.
PYTHON = "/usr/bin/python3"
# What `forkmaster init systemd` calls the units of a project in /srv/project.
UNIT, SOCKET = "project.service", "project.socket"
# Since 256 systemd boots on control groups of the first version only if it is told to.
FORCE_LEGACY = "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1"


def require() -> None:
    """Raise Unfit if something is missing."""
    programs = ("systemd-nspawn", "nsenter", "mount", "useradd", PYTHON)
    lab.require_root(*programs, hint=" (Debian: systemd-container)")
    version = "import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))"
    if lab.run(PYTHON, "-c", version).returncode:
        raise Unfit(f"{PYTHON} is older than 3.11, or cannot make virtual environments")


def systemd_version() -> int:
    """Of this machine; 0 if it has none."""
    if shutil.which("systemctl") is None:
        return 0
    found = re.match(r"systemd (\d+)", lab.run("systemctl", "--version").stdout)
    return int(found[1]) if found else 0


def unpack_systemd(release: str, target: Path, scratch: Path) -> None:
    """Put the systemd of a release of Debian into `target`, with the libraries that it wants.

    Raises Unfit where it cannot be had.  The apt of this machine fetches it, from the mirror that
    it uses; with lists and a cache of its own in `scratch`, and as if nothing were installed.
    """
    sources = ("indextargets", "--format", "$(REPO_URI)", "Origin: Debian", "Label: Debian")
    mirrors = lab.run("apt-get", *sources).stdout.split() if shutil.which("apt-get") else []
    if not mirrors:
        raise Unfit("this machine's apt knows no mirror of Debian")
    for name in ("state/lists/partial", "cache/archives/partial"):
        (scratch / name).mkdir(parents=True)
    (scratch / "status").touch()
    (scratch / "sources.list").write_text(f"deb {mirrors[0]} {release} main\n")
    options = {
        "Dir::State": scratch / "state",
        "Dir::State::status": scratch / "status",
        "Dir::Cache": scratch / "cache",
        "Dir::Etc::sourcelist": scratch / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "APT::Sandbox::User": "root",  # another user cannot write here
        "APT::Update::Error-Mode": "any",
        "Acquire::Languages": "none",
        "Acquire::http::Timeout": "20",
    }
    apt = ["apt-get", *(f"--option={name}={value}" for name, value in options.items())]
    install = ("install", "--download-only", "--yes", "--no-install-recommends", "systemd")
    for command in (("update",), install):
        done = lab.run(*apt, *command)
        if done.returncode:
            raise Unfit(f"the systemd of Debian {release} cannot be had: {done.stderr.strip()}")
    for package in sorted((scratch / "cache/archives").glob("*.deb")):
        subprocess.run(["dpkg-deb", "--extract", package, target], check=True)


class Machine:
    """The booted container."""

    def __init__(self, root: Path, leader: int) -> None:
        self.root = root
        self.leader = leader

    def run(self, *command: str) -> lab.Done:
        """Run a command in it; its exit code is the caller's to look at."""
        return lab.run("nsenter", "--target", str(self.leader), "--all", *command)

    def restart(self) -> None:
        """Restart the service, however often it was started in the last seconds."""
        # Which forgets the count of starts, too: systemctl(1).
        self.systemctl("reset-failed", UNIT)
        self.systemctl("restart", UNIT)

    def systemctl(self, *arguments: str) -> str:
        """What systemctl prints.  Raises Failed if it fails."""
        done = self.run("systemctl", *arguments)
        return lab.output(done, f"systemctl {' '.join(arguments)}")

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
def machine(release: str = "") -> Iterator[Machine]:
    """Boot it, and take it down whatever happens.

    With the systemd of a release of Debian, if one is named.
    """
    require()
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="forkmaster-lab-"))
        stack.callback(folder.rmdir)
        _mount(stack, "-t", "tmpfs", "tmpfs", folder)
        root, upper, work, unpacked = (folder / n for n in ("root", "upper", "work", "unpacked"))
        for each in (root, upper, work, unpacked):
            each.mkdir()
        lower = "/"
        if release:
            unpack_systemd(release, unpacked, folder / "apt")
            lower = f"{unpacked}:/"
        layers = f"lowerdir={lower},upperdir={upper},workdir={work}"
        _mount(stack, "-t", "overlay", "overlay", "-o", layers, root)
        _install(root)
        yield stack.enter_context(_booted(root, folder / "console"))


def _mount(stack: ExitStack, *arguments: str | Path) -> None:
    done = lab.run("mount", *arguments)
    if done.returncode:
        raise Unfit(f"cannot mount: {done.stderr.strip()}")
    stack.callback(subprocess.run, ["umount", "--lazy", arguments[-1]], check=True)


@contextmanager
def _booted(root: Path, console: Path) -> Iterator[Machine]:
    command = "systemd-nspawn --quiet --boot --private-network --register=no --keep-unit"
    nspawn = subprocess.Popen(
        [*command.split(), "--machine=forkmaster-lab", "--directory", root, FORCE_LEGACY],
        stdin=subprocess.DEVNULL,
        stdout=console.open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        try:
            booted = Machine(root, _leader(nspawn))
            wait_for(
                lambda: booted.run("systemctl", "is-active", "sockets.target").returncode == 0,
                "systemd has booted",
            )
        except Failed as exc:
            raise Unfit(f"{exc}\n{console.read_text(errors='replace')}") from None
        yield booted
        booted.run("systemctl", "poweroff")
        nspawn.wait(PATIENCE)
    finally:
        if nspawn.poll() is None:
            nspawn.terminate()
            nspawn.wait(PATIENCE)


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
    packages = (ROOT, "django", "channels")
    pip = lab.run(venv / "bin/python", "-m", "pip", "install", "--quiet", *packages)
    if pip.returncode:
        raise Unfit(f"pip cannot install forkmaster:\n{pip.stderr}")
    # The environment is made here and used there, where its path is shorter.
    program = venv / "bin" / "forkmaster"
    program.write_text(program.read_text().replace(str(venv), "/srv/project/.venv"))
