"""How a warm-up request is written."""

from __future__ import annotations

import pytest

from forkmaster.config.values import WARMUP, BadValueError
from forkmaster.config.warmup import WarmupRequest, parse_warmup


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("/", WarmupRequest("GET", "http", "localhost", "/", "", None)),
        ("/a?b=c", WarmupRequest("GET", "http", "localhost", "/a", "b=c", None)),
        ("HEAD /health 204", WarmupRequest("HEAD", "http", "localhost", "/health", "", 204)),
        ("https://shop.example/", WarmupRequest("GET", "https", "shop.example", "/", "", None)),
        (
            "POST http://shop.example:81/x 201",
            WarmupRequest("POST", "http", "shop.example:81", "/x", "", 201),
        ),
    ],
)
def test_a_request_is_a_method_a_target_and_a_status(text: str, request_: WarmupRequest) -> None:
    assert parse_warmup(text) == request_


@pytest.mark.parametrize("text", ["", "health", "get /", "GET", "/ 99", "/ 600", "/ ok", "/a b c"])
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(BadValueError, match="not a request"):
        WARMUP.parse([text])


def test_any_status_below_400_is_accepted_unless_one_is_named() -> None:
    assert parse_warmup("/").accepts(302)
    assert not parse_warmup("/").accepts(404)
    assert parse_warmup("/ 404").accepts(404)
    assert not parse_warmup("/ 404").accepts(200)
