"""Where connections come in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from forkmaster.addresses import Address, TCPAddress
from forkmaster.config.places import ADDRESSES, ADDRESSES_IF_ANY, GROUP, USER
from forkmaster.config.settings import Effect, setting
from forkmaster.config.values import BOOLEAN, MODE, choice, count, optional


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Listeners:
    title: ClassVar[str] = "Listeners"

    bind: tuple[Address, ...] = setting(
        (TCPAddress("127.0.0.1", 8000),),
        ADDRESSES,
        "-b --bind",
        "An address to listen on: HOST:PORT, :PORT, [IPV6]:PORT, unix:PATH or fd://NUMBER. "
        "May be repeated.",
        default_text="127.0.0.1:8000, or 0.0.0.0:$PORT where PORT is set",
        everyday=True,
    )
    monitor_bind: tuple[Address, ...] = setting(
        (),
        ADDRESSES_IF_ANY,
        "--monitor-bind",
        "An address for probes, metrics and the status page, in the forms of bind. Whoever can "
        "reach it can read it. May be repeated.",
        default_text="none",
        own=True,
    )
    backlog: int = setting(
        2048,
        count(1),
        "--backlog",
        "How many connections may wait for a worker. The kernel caps it at net.core.somaxconn.",
    )
    reuse_port: bool = setting(
        False,
        BOOLEAN,
        "--reuse-port",
        "Let other servers bind the same port (SO_REUSEPORT).",
        differs="the workers share one socket, so that none that ends resets what waits for it",
        restart=True,
    )
    umask: int | None = setting(
        None,
        optional(MODE),
        "-m --umask",
        "The file mode bits that a unix socket is created without, in octal.",
        default_text="the umask of the process",
        differs="gunicorn's default is 0, which lets everybody connect",
    )
    socket_mode: int | None = setting(
        None,
        optional(MODE),
        "--socket-mode",
        "The mode of a unix socket, in octal, as 0660; wins over umask.",
        default_text="what umask leaves",
        own=True,
    )
    socket_user: int | None = setting(
        None,
        USER,
        "--socket-user",
        "The owner of a unix socket.",
        default_text="user",
        own=True,
    )
    socket_group: int | None = setting(
        None,
        GROUP,
        "--socket-group",
        "The group of a unix socket.",
        default_text="group",
        own=True,
    )
    protocol: str = setting(
        "http",
        choice("http", "uwsgi"),
        "--protocol",
        "The protocol that clients speak.",
        effect=Effect.REFUSED,
        instead="forkmaster speaks HTTP only: in nginx write proxy_pass in place of uwsgi_pass",
    )
