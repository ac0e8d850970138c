"""The rules of test_answers and test_pep3333 once more, over TLS."""

from __future__ import annotations

import pytest

from tests.http import test_answers, test_pep3333
from tests.http.running import KINDS
from tests.http.test_pep3333 import file  # noqa: F401 - a fixture

pytestmark = pytest.mark.lab

# What test_tls.py says of TLS, because it is otherwise there.
ELSEWHERE = {
    "test_the_environ_is_what_the_validator_wants",  # https
    "test_the_proxy_protocol_tells_the_client_for_all_requests",  # it comes before
    "test_the_proxy_protocol_from_others_is_closed",
    "test_a_second_proxy_header_is_no_request",
    "test_draining_answers_once_more_and_ends",  # a late client waits for its handshake
}

for module in (test_answers, test_pep3333):
    for name, value in vars(module).items():
        if name.startswith("test_") and name not in ELSEWHERE:
            globals()[name] = value


@pytest.fixture(params=[f"{kind} over TLS" for kind in KINDS])
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind of worker in turn, encrypted."""
    name: str = request.param
    return name
