"""A connection of the asgi worker without a socket: bytes in, bytes out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from forkmaster.board import layout
from forkmaster.board.slot import Slot
from forkmaster.config.table import Config
from forkmaster.http.head import Limits
from forkmaster.http.response import Tails
from forkmaster.http.scope import ScopeReader
from forkmaster.http.trust import AllowList, Trust
from forkmaster.worker.asgi_exchange import Exchange
from forkmaster.worker.asgi_http import Connection, HTTPConnection
from forkmaster.worker.ledger import Ledger

Application = Callable[..., Awaitable[None]]
RECORDS = layout.HISTORY + 2


class FakeTransport(asyncio.Transport):
    """Keeps what is written, and obeys as a real one does; `unsent` is what the client left."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = self.aborted = self.ended = self.reads_paused = False
        self.unsent = 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed, "written after the close"
        assert not self.ended, "written after the end"
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        assert not self.reads_paused
        self.reads_paused = True

    def resume_reading(self) -> None:
        assert self.reads_paused
        self.reads_paused = False

    def get_write_buffer_size(self) -> int:
        return self.unsent


class FakeOwner:
    """What a worker is for its connections, and nothing beyond."""

    def __init__(self, application: Application, slot: Slot, config: Config) -> None:
        self.application = application
        self.config = config
        self.app_state: dict[str, Any] = {"pool": 1}
        self.words = slot.words
        self.ledger = Ledger(assigned(slot, config))
        self.connections: set[Connection] = set()
        self.exchanges: set[Exchange] = set()
        self.extra_lines: list[bytes] = []
        self.own = 0
        self.tails = Tails(time.time())
        self.date_expires = 2**63
        self.is_draining = self.is_quitting = False
        self.closes = not config.keepalive
        self.limits = Limits(
            line=config.limit_request_line,
            fields=config.limit_request_fields,
            field_size=config.limit_request_field_size,
            head=config.limit_request_head,
        )
        self.closed = self.looks = 0
        self.websockets: list[tuple[Any, bytes]] = []

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def renew_date(self) -> None:
        self.date_expires = 2**63

    def reader_for(self, client: tuple[str, int] | None) -> ScopeReader:
        config = self.config
        proxies = AllowList(config.forwarded_allow_ips)
        return ScopeReader(
            root_path=config.root_path,
            trusted=client is None or client[0] in proxies,
            limits=self.limits,
            trust=Trust(
                config.header_map,
                frozenset(config.forwarder_headers),
                config.secure_scheme_headers,
            ),
            proxies=proxies,
        )

    def connection_closed(self) -> None:
        self.closed += 1

    def look_whether_drained(self) -> None:
        self.looks += 1

    def open_websocket(self, connection: HTTPConnection, scope: Any, rest: bytes) -> bool:
        self.websockets.append((scope, rest))
        return True


def assigned(slot: Slot, config: Config, announce_fd: int = -1) -> Any:
    """The part of an assignment that is of interest here."""
    return SimpleNamespace(
        slot=slot, config=config, serial=7, generation=2, announce_fd=announce_fd
    )


class Talk:
    """One connection, inside a running loop."""

    def __init__(
        self,
        application: Application,
        slot: Slot,
        client: tuple[str, int] | None = ("127.0.0.1", 50000),
        **settings: Any,
    ) -> None:
        self.owner = FakeOwner(application, slot, Config(**settings))
        self.transport = FakeTransport()
        self.connection = HTTPConnection(self.owner, client, ("127.0.0.1", 8000))
        self.connection.connection_made(self.transport)

    @property
    def written(self) -> bytes:
        return self.transport.written

    @property
    def is_over(self) -> bool:
        """Whether the server has closed its side."""
        return self.transport.closed or self.transport.ended

    async def say(self, *pieces: bytes) -> bytes:
        """Feed; return what was written since, when the application has nothing to do."""
        before = len(self.transport.written)
        for piece in pieces:
            self.connection.data_received(piece)
            await settle()
        return self.transport.written[before:]

    async def hang_up(self) -> None:
        """Close the client's side, as a client does that is done or gone."""
        if not self.connection.eof_received():
            self.transport.close()
        await settle()

    async def break_off(self) -> None:
        """The connection is lost."""
        self.transport.close()
        self.connection.connection_lost(ConnectionResetError())
        await settle()


async def settle() -> None:
    """Let every task go on until it waits for something."""
    for _ in range(20):
        await asyncio.sleep(0)


def statuses(written: bytes) -> list[int]:
    """The statuses of the answers, in order."""
    return [int(part[:3]) for part in written.split(b"HTTP/1.1 ")[1:] if part[:3].strip().isdigit()]
