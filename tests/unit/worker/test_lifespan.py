"""What becomes of each way an application can treat its lifespan."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from forkmaster.errors import BootError
from forkmaster.worker.lifespan import Lifespan


def live(application: Any, mode: str = "auto", timeout: float | None = None) -> Lifespan:
    """Start and stop the application on a loop of its own."""

    async def run() -> Lifespan:
        lifespan = Lifespan(application, mode)
        await lifespan.startup()
        await lifespan.shutdown(timeout)
        return lifespan

    return asyncio.run(run())


def answering(**answers: Any) -> Any:
    """An application that gives these answers to startup and shutdown."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while True:
            event = (await receive())["type"].removeprefix("lifespan.")
            scope["state"][event] = True
            await send({"type": f"lifespan.{event}.{answers.get(event, 'complete')}", **MESSAGE})

    return application


MESSAGE = {"message": "Traceback: no database"}


async def unaware(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"


async def raises_when_told(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    raise ConnectionError("no database")


async def exits_when_told(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    raise SystemExit(3)


async def speaks_http(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start"})


def test_the_application_is_told_of_start_and_stop_and_keeps_its_state() -> None:
    lifespan = live(answering())

    assert lifespan.state == {"startup": True, "shutdown": True}


def test_off_tells_it_nothing() -> None:
    assert live(answering(), mode="off").state == {}


def test_a_failed_startup_is_a_boot_failure_with_its_message() -> None:
    with pytest.raises(BootError, match="lifespan startup\nTraceback: no database"):
        live(answering(startup="failed"))


@pytest.mark.parametrize("application", [unaware, speaks_http])
def test_an_application_without_lifespan_is_served(
    application: Any, caplog: pytest.LogCaptureFixture
) -> None:
    live(application)

    assert not caplog.records


@pytest.mark.parametrize("application", [raises_when_told, exits_when_told])
def test_one_that_raises_when_told_is_served_with_a_warning(
    application: Any, caplog: pytest.LogCaptureFixture
) -> None:
    live(application)

    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "in its lifespan; serving it without\nTraceback" in record.getMessage()
    assert "worker/lifespan.py" not in record.getMessage()


@pytest.mark.parametrize("application", [unaware, raises_when_told])
def test_on_insists_on_a_lifespan(application: Any) -> None:
    with pytest.raises(BootError, match="did not start its lifespan"):
        live(application, mode="on")


def test_a_failed_shutdown_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    live(answering(shutdown="failed"))

    assert "failed in its lifespan shutdown\nTraceback: no database" in caplog.text


def test_one_that_raises_at_shutdown_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        raise RuntimeError("cannot stop")

    live(application)

    assert "RuntimeError: cannot stop" in caplog.text


def test_a_shutdown_that_takes_too_long_is_not_waited_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await asyncio.Event().wait()

    live(application, timeout=0.01)

    assert "the lifespan shutdown took longer than 0.01 s" in caplog.text
