"""A real nginx in front of a server, with the site that conf/nginx ships.

The test binds nginx's listeners and passes them down in the variable NGINX, as nginx does itself
when it is upgraded, so there is no port race.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

from tests.process.harness import ROOT, is_gone, wait_for

CONF = ROOT / "conf" / "nginx"

# Debian keeps it where an ordinary user does not look.
PROGRAM = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

# What a distribution has in its nginx.conf, in the foreground and below one folder.
MAIN = """\
{user}
daemon off;
worker_processes 1;
pid {prefix}/nginx.pid;
error_log {prefix}/error.log info;
events {{ worker_connections 512; }}
http {{
    access_log {prefix}/access.log;
    client_body_temp_path {prefix}/body;
    proxy_temp_path {prefix}/proxy;
    fastcgi_temp_path {prefix}/fastcgi;
    uwsgi_temp_path {prefix}/uwsgi;
    scgi_temp_path {prefix}/scgi;
    include {mime};
    include {prefix}/site.conf;
}}
"""
MIME = "types { text/html html; text/css css; application/javascript js; }\n"
# As in Debian, whose nginx.conf has the file beside it.
PROXY_PARAMS = """\
proxy_set_header Host $host;
proxy_set_header X-Real-IP $remote_addr;
proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
proxy_set_header X-Forwarded-Proto $scheme;
"""


class Nginx:
    """One nginx, with the site `name` of conf/nginx moved below `prefix`.

    `data` is the folder of the project's static files and uploads, `upstream` the address of
    forkmaster.  A `text` is another site, with {port}, {upstream} and {data} to be filled in.
    """

    def __init__(self, prefix: Path, name: str, data: Path, upstream: str, text: str = "") -> None:
        assert PROGRAM is not None
        prefix.mkdir()
        self.prefix = prefix
        self.plain = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.secure = socket.create_server(("127.0.0.1", 0), backlog=128)
        if name == "project-tls.conf":
            make_certificate(prefix)
        if text:
            site = text.format(port=self.port, upstream=upstream, data=data)
        else:
            site = shipped_site(prefix, name, data, upstream, self.port, self.secure_port)
        self.main = write(prefix, site)
        descriptors = [self.plain.fileno()]
        if name == "project-tls.conf":
            descriptors.append(self.secure.fileno())
        # nginx itself must not find its own variables among those of whoever runs the tests.
        environ = {**os.environ, "NGINX": "".join(f"{fd};" for fd in descriptors)}
        self.process = subprocess.Popen(
            [PROGRAM, "-p", prefix, "-c", self.main, "-e", prefix / "error.log"],
            pass_fds=descriptors,
            env=environ,
        )
        wait_for(
            lambda: (prefix / "nginx.pid").exists() or self.process.poll() is not None,
            what="nginx runs",
        )
        assert self.process.poll() is None, self.errors

    @property
    def port(self) -> int:
        """Where it speaks HTTP."""
        return int(self.plain.getsockname()[1])

    @property
    def secure_port(self) -> int:
        """Where it speaks HTTPS, if its site does."""
        return int(self.secure.getsockname()[1])

    @property
    def url(self) -> str:
        """Where it serves, without a slash at the end."""
        return f"http://localhost:{self.port}"

    @property
    def errors(self) -> str:
        """Its error log."""
        path = self.prefix / "error.log"
        return path.read_text() if path.exists() else ""

    def problems(self) -> list[str]:
        """What it logged as warnings and worse.

        No problem: that a body or an answer goes through a file; that a websocket, closed on both
        sides already, is reset before its last bytes are read.
        """
        lines = re.findall(r"^.*\[(?:warn|error|crit|alert|emerg)\].*$", self.errors, re.M)
        harmless = ("is buffered to a temporary file", "while proxying upgraded connection")
        return [line for line in lines if not any(each in line for each in harmless)]

    def stop(self) -> None:
        """End it, and wait until it has."""
        self.process.terminate()
        self.process.wait(10)
        assert is_gone(self.process.pid)
        self.plain.close()
        self.secure.close()


def shipped_site(prefix: Path, name: str, data: Path, upstream: str, port: int, secure: int) -> str:
    """The site `name` with its paths and ports replaced.

    Asserts that each thing to be replaced was there: it is then the one that is shipped.
    """
    site = (CONF / name).read_text()
    changes = {
        "listen 80": f"listen 127.0.0.1:{port}",
        "server unix:/run/forkmaster.sock": f"server {upstream}",
        "/srv/project/": f"{data}/",
        "include snippets/": f"include {CONF}/",
    }
    if name == "project-tls.conf":
        changes |= {
            "listen 443": f"listen 127.0.0.1:{secure}",
            "/etc/ssl/project/": f"{prefix}/",
            # Ports of the tests, not the ones that a URL may leave out.
            "https://$host$": f"https://$host:{secure}$",
        }
    for old, new in changes.items():
        assert old in site, f"{old} is not in {name}"
        site = site.replace(old, new)
    return site


def write(prefix: Path, site: str) -> Path:
    """Write nginx.conf and what it includes; returns it."""
    (prefix / "site.conf").write_text(site)
    (prefix / "mime.types").write_text(MIME)
    (prefix / "proxy_params").write_text(PROXY_PARAMS)
    main = prefix / "nginx.conf"
    # As root nginx would serve as nobody, who must not see the folders of the tests.
    user = "user root;" if os.geteuid() == 0 else ""
    main.write_text(MAIN.format(prefix=prefix, user=user, mime=prefix / "mime.types"))
    return main


def make_certificate(folder: Path) -> None:
    """Write a certificate for localhost, and its key, where the site looks for them."""
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        [*command.split(), "-keyout", "privkey.pem", "-out", "fullchain.pem"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
