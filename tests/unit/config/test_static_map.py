"""How static_map is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from forkmaster.config.places import STATIC_MAP
from forkmaster.config.values import BadValueError


@pytest.mark.parametrize(
    "value",
    [
        {"/static/": "/srv/files"},
        {"/static": Path("/srv/files")},
        "/static/=/srv/files",
        ["/static=/srv/files"],
    ],
)
def test_a_path_and_its_folder(value: object) -> None:
    assert STATIC_MAP.parse(value) == {"/static/": Path("/srv/files")}


def test_a_folder_is_relative_to_the_current_one() -> None:
    assert STATIC_MAP.parse("/=public") == {"/": Path.cwd() / "public"}


@pytest.mark.parametrize("value", ["auto", ["auto"]])
def test_auto(value: object) -> None:
    assert STATIC_MAP.parse(value) == "auto"


def test_nothing() -> None:
    assert STATIC_MAP.parse({}) == {}
    assert STATIC_MAP.parse("") == {}


@pytest.mark.parametrize("value", ["static", "static/=x", "/static/", {"static": "x"}])
def test_anything_else_is_refused_with_an_example(value: object) -> None:
    with pytest.raises(BadValueError, match="not a path of a URL") as caught:
        STATIC_MAP.parse(value)

    assert "/static/=staticfiles" in caught.value.remedy


def test_it_is_shown_as_it_is_written() -> None:
    assert STATIC_MAP.show({"/static/": Path("/srv/files")}) == {"/static/": "/srv/files"}
    assert STATIC_MAP.show("auto") == "auto"
