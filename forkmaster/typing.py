"""Types for configuration files: what hooks are given, and the settings as a dictionary.

from forkmaster.typing import Request, Server, Worker

def post_fork(server: Server, worker: Worker) -> None:
    server.log.info("worker %s is %s", worker.age, worker.pid)
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from forkmaster.settings_dict import SettingsDict

__all__ = ["Log", "Request", "Response", "Server", "SettingsDict", "Worker"]


class Log(Protocol):
    """The error log, and both loggers below it."""

    error_log: logging.Logger
    access_log: logging.Logger

    def debug(self, msg: object, *args: object, **kwargs: Any) -> None: ...
    def info(self, msg: object, *args: object, **kwargs: Any) -> None: ...
    def warning(self, msg: object, *args: object, **kwargs: Any) -> None: ...
    def error(self, msg: object, *args: object, **kwargs: Any) -> None: ...
    def critical(self, msg: object, *args: object, **kwargs: Any) -> None: ...
    def exception(self, msg: object, *args: object, **kwargs: Any) -> None: ...


class Server(Protocol):
    """The master, in a hook."""

    cfg: Any
    log: Log
    pid: int
    num_workers: int
    LISTENERS: list[socket.socket]

    @property
    def WORKERS(self) -> Mapping[int, Worker]: ...  # noqa: N802  gunicorn's name
    @property
    def app(self) -> str: ...
    @property
    def address(self) -> Sequence[str]: ...
    @property
    def timeout(self) -> float: ...
    @property
    def proc_name(self) -> str: ...


class Worker(Protocol):
    """A worker, in a hook: before its fork a plan, after it this process."""

    cfg: Any
    log: Log
    age: int
    """Its serial: 1 for the first one ever."""
    pid: int | str
    ppid: int
    alive: bool
    booted: bool
    aborted: bool
    timeout: float
    max_requests: int
    sockets: list[socket.socket]

    @property
    def nr(self) -> int: ...
    def notify(self) -> None: ...


class Request(Protocol):
    """A request, in `pre_request` and `post_request`.

    What pre_request changes of method, path, query, scheme and headers the application sees.
    """

    method: str
    uri: str
    path: str
    query: str
    fragment: str
    version: tuple[int, int]
    scheme: str
    headers: list[tuple[str, str]]
    """Names in capitals."""
    trailers: list[tuple[str, str]]
    body: Any
    peer_addr: Any
    remote_addr: Any


class Response(Protocol):
    """An answer, in `post_request`."""

    status: str
    status_code: int
    headers: list[tuple[str, str]]
    headers_sent: bool
    sent: int
    response_length: int | None
