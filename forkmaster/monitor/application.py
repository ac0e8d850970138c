"""The WSGI application that the monitor serves: read-only, and the same answer to everybody.

    /livez         200 while the master does what it promised; for a liveness probe
    /readyz        200 while the server should get requests, else 503 with the reason
    /startupz      200 once it was ready for the first time
    /metrics       for Prometheus
    /status.json   everything that there is to know
    /              the same, drawn

The page loads nothing: script and style are in it, and its policy allows these two by their
hashes, and a connection to where it came from.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from time import monotonic
from typing import Any

from forkmaster.monitor.incidents import Incidents
from forkmaster.monitor.metrics import exposition
from forkmaster.monitor.status import Status, Watcher, unready

HERE = Path(__file__).parent
INCIDENTS = 10  # in /status.json
TEXT = "text/plain; charset=utf-8"

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


class Application:
    """The monitor of one board."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.watcher = Watcher(folder)
        self.incidents = Incidents()
        self.page, self.policy = assembled_page()

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            answer = Answer("405 Method Not Allowed", TEXT, b"read-only\n", {"Allow": "GET, HEAD"})
        else:
            answer = self.answer(environ.get("PATH_INFO", ""), environ.get("HTTP_ACCEPT", ""))
        headers = [
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            *answer.headers.items(),
        ]
        start_response(answer.status, headers)
        return [answer.body]

    def answer(self, path: str, accept: str) -> Answer:
        """The answer to a GET of `path`."""
        if path == "/":
            headers = {"Content-Security-Policy": self.policy, "Referrer-Policy": "no-referrer"}
            return Answer("200 OK", "text/html; charset=utf-8", self.page, headers)
        if path not in ("/status.json", "/metrics", *PROBES):
            return Answer("404 Not Found", TEXT, b"not here\n")
        try:
            status = self.watcher.look(monotonic())
        except FileNotFoundError as exc:
            return Answer("503 Service Unavailable", TEXT, f"{exc}\n".encode())
        if path == "/status.json":
            newest = self.incidents.newest(Path(status.notice.incidents), INCIDENTS)
            found = {**status.as_json(), "incidents": newest}
            return Answer("200 OK", "application/json", json.dumps(found).encode())
        if path == "/metrics":
            content_type, body = exposition(status, accept, self.folder)
            return Answer("200 OK", content_type, body)
        return PROBES[path](status)


class Answer:
    """What to send."""

    def __init__(
        self, status: str, content_type: str, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        self.status = status
        self.content_type = content_type
        self.body = body
        self.headers = headers or {}


def livez(status: Status) -> Answer:
    """Whether the master lives: if not, a restart is the only remedy."""
    late = status.overdue
    return _verdict(f"the master has been silent for {late:.0f} s too long" if late else "")


def readyz(status: Status) -> Answer:
    """Whether requests should be sent here."""
    return _verdict(unready(status))


def startupz(status: Status) -> Answer:
    """Whether the start is over."""
    notice = status.notice
    counted = f"{status.ready} of {notice.wanted} workers are ready"
    return _verdict("" if notice.started_up else f"the server starts: {counted}")


PROBES: dict[str, Callable[[Status], Answer]] = {
    "/livez": livez,
    "/readyz": readyz,
    "/startupz": startupz,
}


def assembled_page() -> tuple[bytes, str]:
    """The page with its script and style in it, and the policy that allows just these."""
    style, script = (HERE / "page.css").read_text(), (HERE / "page.js").read_text()
    page = (HERE / "page.html").read_text()
    page = page.replace("/* page.css */", style).replace("/* page.js */", script)
    policy = {
        "default-src": "'none'",
        "script-src": _hash_of(script),
        "style-src": _hash_of(style),
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return page.encode(), "; ".join(f"{name} {value}" for name, value in policy.items())


def _hash_of(source: str) -> str:
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _verdict(problem: str) -> Answer:
    if problem:
        return Answer("503 Service Unavailable", TEXT, f"{problem}\n".encode())
    return Answer("200 OK", TEXT, b"ok\n")
