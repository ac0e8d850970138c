"""What the tests of running workers share."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from tests.http.running import KINDS


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of worker in turn."""
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def quiet_log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """No test may leave a warning or an error in the log that it did not clear."""
    caplog.set_level(logging.INFO, "forkmaster.error")
    yield caplog
    left = [
        record.getMessage()
        for record in caplog.get_records("call")
        if record.levelno >= logging.WARNING and record in caplog.records
    ]
    assert not left
