"""A server and its monitor."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

from tests.conftest import Serve
from tests.process.harness import PATIENCE, Server


class Monitored:
    """A server with a monitor on a port of its own."""

    def __init__(self, serve: Serve, *arguments: str, **options: Any) -> None:
        # Bound by the test and passed down, so that nobody else can take the port.
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.server: Server = serve(
            "--monitor-bind",
            f"fd://{self.listener.fileno()}",
            *arguments,
            passes=[self.listener.fileno()],
            **options,
        )
        self.port = self.listener.getsockname()[1]

    def get(self, path: str, method: str = "GET") -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        code, text = self.get("/status.json")
        assert code == 200, text
        found: dict[str, Any] = json.loads(text)
        return found

    def metric(self, name: str) -> float:
        _, text = self.get("/metrics")
        (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
        return float(line.split()[1])
