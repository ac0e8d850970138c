"""The lifespan of an ASGI application: it is told that the server starts, and that it stops.

https://asgi.readthedocs.io/en/latest/specs/lifespan.html.  Not uvicorn's: that one logs a failed
startup and exits, and of an application that raises it keeps nothing to tell why.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from forkmaster.errors import BootError
from forkmaster.worker.application import traceback_of

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger("forkmaster.error")


class Lifespan:
    """One application's lifespan.  `state` is what it wants to find in every request's scope."""

    def __init__(self, application: Callable[..., Any], mode: str) -> None:
        """`mode` is "on", "off", or "auto": an application that knows no lifespan has none."""
        self.state: dict[str, Any] = {}
        self._application = application
        self._mode = mode
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._answers: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._was_told = False
        self._failure: BaseException | None = None

    async def startup(self) -> None:
        """Returns when the application has started.  Raises BootError if it fails to."""
        if self._mode == "off":
            return
        self._task = asyncio.create_task(self._run())
        answer = await self._tell("lifespan.startup")
        if answer is None:
            self._task = None
            self._judge_silence()
        elif answer["type"] == "lifespan.startup.failed":
            reason = answer.get("message") or "it gave no reason"
            raise BootError(f"the application failed in its lifespan startup\n{reason}".rstrip())

    async def shutdown(self, timeout: float | None) -> None:
        """Returns when the application has stopped, or after `timeout` seconds."""
        if self._task is None:
            return
        try:
            async with asyncio.timeout(timeout):
                answer = await self._tell("lifespan.shutdown")
        except TimeoutError:
            log.warning("the lifespan shutdown took longer than %g s; not waited for", timeout)
            return
        if answer is not None and answer["type"] == "lifespan.shutdown.failed":
            log.error("the application failed in its lifespan shutdown\n%s", answer.get("message"))
        elif answer is None and self._failure is not None:
            log.error("the application raised in its lifespan\n%s", traceback_of(self._failure))

    def _judge_silence(self) -> None:
        """The application ended without an answer: it has no lifespan, or it failed."""
        failure = self._failure
        if self._mode == "on":
            text = f"\n{traceback_of(failure)}" if failure else ""
            raise BootError(f"the application did not start its lifespan{text}")
        if failure is not None and self._was_told:
            # The specification wants it served all the same; one that knows no lifespan seldom
            # waits for an event before it raises.
            text = traceback_of(failure)
            log.warning("the application raised in its lifespan; serving it without\n%s", text)

    async def _tell(self, event: str) -> dict[str, Any] | None:
        """What the application answers to `event`; None if it ended instead."""
        assert self._task is not None
        self._events.put_nowait({"type": event})
        answer = asyncio.create_task(self._answers.get())
        try:
            await asyncio.wait((answer, self._task), return_when=asyncio.FIRST_COMPLETED)
            return answer.result() if answer.done() else None
        finally:
            answer.cancel()

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._application(scope, self._receive, self._send)
        except asyncio.CancelledError:
            raise
        except BaseException as exc:  # a SystemExit would end the loop
            self._failure = exc

    async def _receive(self) -> dict[str, Any]:
        event = await self._events.get()
        self._was_told = True
        return event

    async def _send(self, message: dict[str, Any]) -> None:
        if not message["type"].startswith("lifespan."):
            raise RuntimeError(f"{message['type']} is no answer to a lifespan event")
        self._answers.put_nowait(message)
