"""Builds and runs the files of conf/docker and conf/kubernetes with podman: `make lab-containers`.

As root on a machine with podman.  The images that the Dockerfiles start from are stand-ins made of
Debian's packages, so no registry of images is asked; they are kept in the user's cache folder.
Everything else is shipped files, word for word: the Dockerfile with the project of the tests, the
compose file with nginx, the Deployment.

podman has storage of its own, and mounts and networks of its own: what it makes, port 1337 among
it, is seen by nobody else and gone afterwards.

Exits with 0 and the reason if the machine cannot do this, with 1 if a check failed.
"""

from __future__ import annotations

import base64
import ctypes
import hashlib
import http.client
import http.cookies
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lab
from lab import PATIENCE, Failed, Unfit, main, must, wait_for

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent  # where podman-compose is
RELEASE = "bookworm"
PACKAGES = "python3,python3-venv,ca-certificates,nginx-light"
PYTHON_IMAGE, NGINX_IMAGE = (
    "docker.io/library/python:3.13-slim",
    "docker.io/library/nginx:1.29-alpine",
)
# What Debian's nginx lacks of the image: a log on standard error, and no site of its own.
NGINX = f"""\
FROM {PYTHON_IMAGE}
RUN rm /etc/nginx/sites-enabled/default && ln -sf /dev/stderr /var/log/nginx/error.log
CMD ["nginx", "-g", "daemon off;"]
"""
# runc and cgroupfs also do where control groups are of the first version, and without systemd.
CONTAINERS_CONF = """\
[containers]
default_ulimits = ["nofile=10000:10000", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
CLONE_NEWNS, CLONE_NEWNET = 0x20000, 0x40000000
# The database goes where a container without a writable root can write.
ENVIRONMENT = {"PROJECT_DATA": "/tmp", "STATIC_ROOT": "/app/staticfiles"}


def require() -> None:
    """Raise Unfit if something is missing."""
    programs = ("podman", "runc", "/usr/lib/podman/netavark", "catatonit", "iptables", "ip")
    lab.require_root(*programs, "debootstrap", str(BIN / "podman-compose"))


class Podman:
    """podman with its storage in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "containers.conf").write_text(CONTAINERS_CONF)
        # A program, because podman-compose starts it by its name.
        program = folder / "bin" / "podman"
        program.parent.mkdir()
        program.write_text(
            f'#!/bin/sh\nexec {shutil.which("podman")} --root "{folder}/storage" '
            f'--runroot "{folder}/run" "$@"\n'
        )
        program.chmod(0o755)
        self.project = folder / "project"
        self.environ = {
            **os.environ,
            "PATH": f"{program.parent}:{BIN}:{os.environ['PATH']}",
            "CONTAINERS_CONF": str(folder / "containers.conf"),
        }

    def run(self, *command: str, cwd: Path | None = None) -> lab.Done:
        """Run a command in the folder of the project; its exit code is the caller's to look at."""
        return lab.run(*command, cwd=cwd or self.project, env=self.environ)

    def __call__(self, *arguments: str) -> str:
        """What podman prints.  Raises Failed if it fails."""
        return lab.output(self.run("podman", *arguments), f"podman {' '.join(arguments)}")

    def inspect(self, container: str, what: str) -> str:
        return self("inspect", "--format", f"{{{{{what}}}}}", container)

    def logs(self, container: str) -> str:
        done = self.run("podman", "logs", container)
        return done.stdout + done.stderr

    @contextmanager
    def container(self, *arguments: str, command: tuple[str, ...] = ()) -> Iterator[str]:
        """A container of the image that serves on port 8080, as the production would run it."""
        options = ("--name=web", "--read-only", "--tmpfs=/tmp", "--cap-drop=all")
        variables = [f"--env={name}={value}" for name, value in ENVIRONMENT.items()]
        publish = "--publish=127.0.0.1:8080:8080"
        self("run", "--detach", *options, publish, *variables, *arguments, "project", *command)
        try:
            yield "web"
        finally:
            self("rm", "--force", "--time=0", "web")

    def last_words(self) -> list[str]:
        names = self("ps", "--all", "--format={{.Names}}").split()
        return [f"{name}: {line}" for name in names for line in self.logs(name).splitlines()[-15:]]

    def mend(self) -> None:
        self.run("podman", "pod", "rm", "--force", "--all")
        self.run("podman", "rm", "--force", "--all", "--volumes")


# --- What is built ----------------------------------------------------------------------------


@contextmanager
def machine() -> Iterator[Podman]:
    """podman with the images built, in namespaces of our own."""
    require()
    base = _base()
    # Its mounts end with the namespace.
    _unshare(CLONE_NEWNS)
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    folder = Path(tempfile.mkdtemp(prefix="forkmaster-lab-"))
    podman = Podman(folder)
    try:
        _write_project(podman)
        _build(podman, base)
        _separate_network()
        yield podman
    finally:
        podman.mend()
        # Whether there is one depends on the driver of the storage.
        lab.run("umount", "--recursive", folder / "storage" / "overlay")
        shutil.rmtree(folder)


def _base() -> Path:
    """An archive of a small Debian with Python and nginx; made once, which takes a minute."""
    recipe = hashlib.sha256(f"{RELEASE} {PACKAGES}".encode()).hexdigest()[:8]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forkmaster-lab"
    archive = cache / f"base-{recipe}.tar"
    if archive.exists():
        return archive
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        root = Path(scratch) / "root"
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, str(root)]
        print(f"making {archive} …", flush=True)
        made = lab.run(*command, timeout=1200)
        if made.returncode:
            raise Unfit(f"debootstrap failed: {made.stdout[-500:]}{made.stderr[-500:]}")
        (root / "usr/bin/python").symlink_to("python3")
        # What this machine trusts and where its pip looks, the image must too.
        for path in ("etc/ssl/certs/ca-certificates.crt", "etc/pip.conf"):
            if Path("/", path).exists():
                shutil.copy(Path("/", path), root / path)
        partial = Path(scratch) / "base.tar"
        subprocess.run(["tar", "-C", root, "-cf", partial, "."], check=True)
        partial.rename(archive)
    return archive


def _write_project(podman: Podman) -> None:
    """The project of the tests with the files of conf/ where the documentation has them."""
    shutil.copytree(
        ROOT / "tests" / "django_project",
        podman.project,
        ignore=shutil.ignore_patterns("__pycache__", "db.sqlite3", "staticfiles", "media"),
    )
    for name in ("docker", "kubernetes"):
        shutil.copytree(ROOT / "conf" / name, podman.project / "conf" / name)
    # compose reads it, and no image may have it.
    lines = [f"{name}={value}\n" for name, value in ENVIRONMENT.items()]
    (podman.project / ".env").write_text("".join(lines))
    wheels = podman.folder / "wheels"
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps")
    done = lab.run(*pip, f"--wheel-dir={wheels}", ROOT)
    if done.returncode:
        raise Unfit(f"pip cannot build forkmaster: {done.stderr}")
    (wheel,) = wheels.glob("*.whl")
    requirements = f"forkmaster @ file:///wheels/{wheel.name}\ndjango\nchannels\n"
    (podman.project / "requirements.txt").write_text(requirements)


def _build(podman: Podman, base: Path) -> None:
    try:
        podman("import", str(base), PYTHON_IMAGE)
        (podman.folder / "Dockerfile.nginx").write_text(NGINX)
        podman("build", f"--file={podman.folder}/Dockerfile.nginx", f"--tag={NGINX_IMAGE}", ".")
        compose(podman, f"--podman-build-args={' '.join(_build_options(podman))}", "build")
    except Failed as exc:
        raise Unfit(f"cannot make the images: {exc}") from None


def _build_options(podman: Podman) -> list[str]:
    # --format: images of OCI have no HEALTHCHECK.
    return ["--network=host", "--format=docker", f"--volume={podman.folder}/wheels:/wheels:ro"]


def _separate_network() -> None:
    """Go on in a network with nobody else in it, and with all controllers that podman wants."""
    _unshare(CLONE_NEWNET)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    groups = Path("/sys/fs/cgroup")
    if not (groups / "cgroup.controllers").exists():
        # The first version.  runc looks for these two, and can do without what they do.
        subprocess.run(["mount", "-o", "remount,rw", groups], check=False, capture_output=True)
        for name in ("net_cls", "net_prio"):
            (groups / name).mkdir(exist_ok=True)
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", groups / name], check=True)


def _unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags):
        raise Unfit(f"cannot make namespaces: {os.strerror(ctypes.get_errno())}")


def compose(podman: Podman, *arguments: str) -> str:
    """What podman-compose prints about the compose file of conf/.  Raises Failed if it fails."""
    file = ("--file", "conf/docker/compose.yaml")
    done = podman.run("podman-compose", "--project-name=lab", *file, *arguments)
    output = done.stdout + done.stderr
    must(done.returncode == 0, f"podman-compose {' '.join(arguments)}: {output[-2000:]}")
    return output


# --- A client ---------------------------------------------------------------------------------


def get(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, bytes]:
    """The status and the body of an answer; status 0 means that nobody listens yet."""
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
    try:
        connection.request("GET", path, headers={"Host": f"localhost:{port}"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except OSError:
        return 0, b""
    finally:
        connection.close()


def serving(podman: Podman, container: str = "web", port: int = 8080) -> None:
    """Wait until it answers."""
    wait_for(
        lambda: (
            get(port, "/whoami")[0] == 200 or podman.inspect(container, ".State.Status") == "exited"
        ),
        f"{container} answers",
    )
    must(podman.inspect(container, ".State.Status") == "running", f"{container} has ended")


def migrate(podman: Podman, container: str) -> None:
    """Make the database, as a deployment does it once."""
    admin = ("--username=admin", "--email=admin@example.com")
    python = ("python", "manage.py")
    podman("exec", container, *python, "migrate", "--verbosity=0")
    password = "--env=DJANGO_SUPERUSER_PASSWORD=admin"
    podman("exec", password, container, *python, "createsuperuser", "--noinput", *admin)


def log_in(port: int) -> int:
    """The status of a login to the admin by its form, sent with the Origin that a browser sends."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    origin = f"http://localhost:{port}"
    connection.request("GET", "/admin/login/", headers={"Host": f"localhost:{port}"})
    page = connection.getresponse()
    text = page.read().decode()
    must(page.status == 200, f"the form is answered {page.status}")
    cookie = http.cookies.SimpleCookie(page.headers["Set-Cookie"])["csrftoken"].value
    token = text.split('name="csrfmiddlewaretoken" value="')[1].split('"')[0]
    form = {"username": "admin", "password": "admin", "csrfmiddlewaretoken": token}
    headers = {
        "Host": f"localhost:{port}",
        "Origin": origin,
        "Cookie": f"csrftoken={cookie}",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    connection.request("POST", "/admin/login/", urllib.parse.urlencode(form), headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


# --- The checks -------------------------------------------------------------------------------


def the_image(podman: Podman) -> str:
    """The image is small, knows how it is to be run, and has no secrets."""
    podman("tag", "lab_app", "project")
    must(podman.inspect("project", ".Config.User") == "10001:10001", "its user is another")
    must(podman.inspect("project", ".Config.StopSignal") == "SIGTERM", "its signal is another")
    files = podman("run", "--rm", "--entrypoint=ls", "project", "-A", "/app").split()
    must("staticfiles" in files, "the static files are not collected")
    base, image = (int(podman.inspect(name, ".Size")) for name in (PYTHON_IMAGE, "project"))
    return f"{(image - base) / 2**20:.0f} MiB above its base"


def files_of_init(podman: Podman) -> str:
    """What `forkmaster init docker` writes builds as it is, and keeps .env and .git out."""
    folder = podman.folder / "shop"
    shutil.copytree(podman.project, folder, ignore=shutil.ignore_patterns("conf"))
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").touch()
    (folder / "project" / ".env").touch()
    (folder / "project" / "__pycache__").mkdir()
    (folder / "project" / "__pycache__" / "old.pyc").touch()
    done = podman.run(str(BIN / "forkmaster"), "init", "docker", cwd=folder)
    must(done.returncode == 0, done.stdout + done.stderr)
    podman("build", *_build_options(podman), "--tag=shop", str(folder))
    found = podman("run", "--rm", "--entrypoint=find", "shop", "/app", "-printf", "%f\\n")
    names = set(found.splitlines())
    must({"manage.py", "staticfiles"} <= names, f"in the image are {sorted(names)}")
    ignored = names & {".env", ".git", "old.pyc"}
    must(not ignored, f"in the image is what .dockerignore names: {ignored}")
    return done.stdout.strip().replace("\n", ", ")


def read_only_as_10001(podman: Podman) -> str:
    """It serves as 10001 with a read-only root, without capabilities, and complains of nothing."""
    with podman.container() as web:
        serving(podman)
        migrate(podman, web)
        status, page = get(8080, "/")
        must(status == 200 and b"the first note" in page, f"the page is answered {status}")
        must(log_in(8080) == 302, "nobody can log in")
        uid = podman("exec", web, "id", "-u")
        must(uid == "10001", f"it runs as {uid}")
        logs = podman.logs(web)
    complaints = [line for line in logs.splitlines() if re.search(r"WARN|ERROR|CRIT", line)]
    must(not complaints, f"it complains: {complaints}")
    return "a page, a login, and no warning in the log"


def pid_1_reaps(podman: Podman) -> str:
    """As PID 1 forkmaster buries what other processes leave behind."""
    with podman.container() as web:
        serving(podman)
        title = podman("exec", web, "cat", "/proc/1/cmdline")
        must(title.startswith("forkmaster"), f"PID 1 is {title}")
        # Their parent is gone when the command has ended, so they are children of PID 1.
        start = "for each in 1 2 3 4 5; do sleep 600 >/dev/null 2>&1 & echo $!; done"
        orphans = podman("exec", web, "sh", "-c", start).split()
        stats = ("exec", web, "sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null | grep '(sleep)' || :")
        parents = [line.split()[3] for line in podman(*stats).splitlines()]
        must(parents == ["1"] * 5, f"the parents of the orphans are {parents}")
        podman("exec", web, "sh", "-c", f"kill {' '.join(orphans)}")
        wait_for(lambda: not podman(*stats), "the orphans are buried")
        must(get(8080, "/whoami")[0] == 200, "it serves no more")
    return "5 orphans, 0 zombies"


def half_a_processor(podman: Podman) -> str:
    """--workers auto, the image's own, follows the quota of the container."""
    with podman.container("--cpus=0.5") as web:
        serving(podman)
        wait_for(lambda: "ready in" in podman.logs(web), "it is ready")
        status = json.loads(podman("exec", web, "forkmaster", "status", "--json"))
        line = next(line for line in podman.logs(web).splitlines() if "workers = auto" in line)
    workers = len(status["workers"])
    must(workers == 1, f"{workers} workers")
    return line.rpartition("] ")[2]


def health(podman: Podman) -> str:
    """HEALTHCHECK says healthy, and does not when the server hangs."""
    with podman.container() as web:
        serving(podman)
        wait_for(lambda: podman.run("podman", "healthcheck", "run", web).returncode == 0, "healthy")
        master = int(podman.inspect(web, ".State.Pid"))
        os.kill(master, signal.SIGSTOP)
        try:
            wait_for(
                lambda: podman.run("podman", "healthcheck", "run", web).returncode == 1,
                "unhealthy with a master that is stopped",
            )
        finally:
            os.kill(master, signal.SIGCONT)
        wait_for(
            lambda: podman.run("podman", "healthcheck", "run", web).returncode == 0,
            "healthy again",
        )
    return "healthy; unhealthy while the master is stopped; healthy again"


def a_bind_nobody_can_reach(podman: Podman) -> str:
    """Inside a container an address of the loopback is warned of."""
    command = ("--bind", "127.0.0.1:8080", "project.wsgi")
    with podman.container(command=command) as web:
        wait_for(lambda: "ready in" in podman.logs(web), "it is ready")
        must(get(8080, "/whoami")[0] == 0, "it can be reached")
        lines = [line for line in podman.logs(web).splitlines() if "[WARNING]" in line]
    must(len(lines) == 1 and "0.0.0.0:8080" in lines[0], f"the warnings are {lines}")
    return lines[0].rpartition("] ")[2]


def stop_finishes_a_slow_request(podman: Podman) -> str:
    """`podman stop` lets a request finish, and the exit code is 0."""
    with podman.container() as web:
        serving(podman)
        connection = http.client.HTTPConnection("127.0.0.1", 8080, timeout=PATIENCE)
        connection.request("GET", "/stream?lines=20&delay=0.1", headers={"Connection": "close"})
        answer = connection.getresponse()
        start = time.monotonic()
        podman("stop", "--time=40", web)
        took = time.monotonic() - start
        body = answer.read()
        connection.close()
        must(body.endswith(b"line 19\n"), "the response was cut")
        code = podman.inspect(web, ".State.ExitCode")
    must(code == "0", f"the exit code is {code}")
    must(took < 35, f"it took {took:.1f} s")
    return f"stopped in {took:.1f} s with a request of 2 s in flight, exit code 0"


def compose_with_nginx(podman: Podman) -> str:
    """The compose file: a login on port 1337, static files from nginx, then down in good order."""
    compose(podman, "up", "--detach")
    try:
        app = podman("ps", "--filter=name=app", "--format={{.Names}}")
        serving(podman, app, 1337)
        migrate(podman, app)
        status, page = get(1337, "/")
        must(status == 200 and b"the first note" in page, f"the page is answered {status}")
        must(log_in(1337) == 302, "the login on port 1337 fails")
        style = page.decode().split('<link rel="stylesheet" href="')[1].split('"')[0]
        status, body = get(1337, style)
        must(status == 200 and b"font:" in body, f"{style} is answered {status}")
        must(style not in podman.logs(app), "nginx asks forkmaster for static files")
        compose(podman, "stop")
        code = podman.inspect(app, ".State.ExitCode")
        must(code == "0", f"the exit code of {app} is {code}")
    finally:
        compose(podman, "down", "--volumes")
    return "a page, a login, static files; stopped with exit code 0"


def a_pod(podman: Podman) -> str:
    """The Deployment for Kubernetes, as a pod: its probes, its user, its secrets, its end."""
    manifest = podman.folder / "deployment.yaml"
    text = (podman.project / "conf/kubernetes/deployment.yaml").read_text()
    # Two on one machine would want the same ports.
    must("replicas: 2" in text, "there is no `replicas: 2` in the manifest")
    manifest.write_text(text.replace("replicas: 2", "replicas: 1"))
    secret = {
        name: base64.b64encode(value.encode()).decode() for name, value in ENVIRONMENT.items()
    }
    (podman.folder / "secret").write_text(json.dumps(secret))
    podman("secret", "create", "polls-env", str(podman.folder / "secret"))
    podman("tag", "project", "docker.io/example/polls:1.0")
    podman("play", "kube", str(manifest))
    web = "polls-pod-0-web"
    for probe in ("startupz", "readyz", "livez"):
        wait_for(lambda probe=probe: get(9100, f"/{probe}")[0] == 200, f"/{probe} answers 200")
    must(get(8080, "/whoami")[0] == 200, "it does not serve")
    must(podman.inspect(web, ".HostConfig.ReadonlyRootfs") == "true", "its root can be written to")
    uid = podman("exec", web, "id", "-u")
    must(uid == "10001", f"it runs as {uid}")
    start = time.monotonic()
    with subprocess.Popen(["podman", "stop", web], env=podman.environ, stdout=subprocess.DEVNULL):
        wait_for(lambda: get(9100, "/readyz")[0] == 503, "/readyz answers 503 when it is to stop")
        must(get(8080, "/whoami")[0] == 200, "it refuses clients before the load balancer knows")
    took = time.monotonic() - start
    code = podman.inspect(web, ".State.ExitCode")
    must(code == "0", f"the exit code is {code}")
    must(took < 45, f"it took {took:.1f} s")
    podman.mend()  # which complains where the control groups are of the first version
    return f"ready, served on while not ready, gone after {took:.1f} s"


CHECKS = (
    the_image,
    files_of_init,
    read_only_as_10001,
    pid_1_reaps,
    half_a_processor,
    health,
    a_bind_nobody_can_reach,
    stop_finishes_a_slow_request,
    compose_with_nginx,
    a_pod,
)


if __name__ == "__main__":
    sys.exit(main(machine, CHECKS))
