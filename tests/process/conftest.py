"""What the tests with real servers share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import Serve
from tests.process.watching import Monitored


@pytest.fixture
def monitored(serve: Serve) -> Iterator[Callable[..., Monitored]]:
    """Starts servers with monitors: `monitored("-w", "2", "wsgi_echo")`."""
    sites = []

    def start(*arguments: str, **options: Any) -> Monitored:
        sites.append(Monitored(serve, *arguments, **options))
        return sites[-1]

    yield start
    for site in sites:
        site.listener.close()
