"""The table of settings is complete, consistent, and the same as the fields of Config."""

from __future__ import annotations

import dataclasses
import re

import pytest

from forkmaster.config.gunicorn import WORKER_CLASS, in_words
from forkmaster.config.settings import Effect
from forkmaster.config.table import SECTIONS, SETTINGS, Config
from forkmaster.config.values import quoted


def test_all_defaults_make_a_config() -> None:
    config = Config()

    assert config.workers == 1
    assert config.kind is None


def test_the_fields_of_config_are_the_settings() -> None:
    assert {field.name for field in dataclasses.fields(Config)} == set(SETTINGS)


def test_no_setting_is_declared_in_two_sections() -> None:
    names = [field.name for section in SECTIONS for field in dataclasses.fields(section)]

    assert len(names) == len(set(names))


def test_no_flag_belongs_to_two_settings() -> None:
    flags = [flag for setting in SETTINGS.values() for flag in setting.all_flags]

    assert len(flags) == len(set(flags))


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().workers = 3  # type: ignore[misc]


def test_two_configs_share_no_dictionary() -> None:
    Config().secure_scheme_headers["X"] = "y"

    assert "X" not in Config().secure_scheme_headers


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_explained(name: str) -> None:
    setting = SETTINGS[name]

    assert setting.help.endswith(".")
    assert not setting.instead.endswith(".")
    assert setting.instead == setting.instead.strip()
    assert (setting.effect is Effect.WORKS) == (setting.instead == "")
    assert not (setting.own and setting.differs)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_leaves_the_methods_to_config(section: type) -> None:
    assert not {"__init__", "__repr__", "__eq__", "__hash__"} & {
        name for name, value in vars(section).items() if callable(value)
    }


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_is_named_as_a_python_variable_and_flagged_with_dashes(name: str) -> None:
    setting = SETTINGS[name]

    assert re.fullmatch(r"[a-z0-9_]+", name)
    assert all(re.fullmatch(r"-[a-zA-Z]|--[a-z0-9_-]+", flag) for flag in setting.all_flags)
    assert not setting.flags or setting.turns_off or setting.dashed in setting.all_flags


@pytest.mark.parametrize(
    ("worker_class", "threads", "kind"),
    [
        (None, 1, None),
        (None, 4, None),
        ("sync", 1, "sync"),
        ("sync", 2, "threaded"),
        ("threaded", 1, "threaded"),
        ("asgi", 1, "asgi"),
        ("asgi", 4, "asgi"),
        ("my.own.UvicornWorker", 1, None),
    ],
)
def test_the_kind_follows_from_class_and_threads(
    worker_class: str | None, threads: int, kind: str | None
) -> None:
    assert Config(worker_class=worker_class, threads=threads).kind == kind


class Mine:
    forkmaster_kind = "asgi"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("sync", "sync"),
        ("Sync", "Sync (sync)"),
        (" uvicorn.workers.UvicornWorker ", "uvicorn.workers.UvicornWorker (asgi)"),
        ("hypercorn", "hypercorn (asgi)"),
        ("gevent", "gevent (threaded)"),
        (Mine, f"{__name__}.Mine (asgi)"),
    ],
)
def test_a_worker_class_is_repeated_as_it_was_asked_for(asked: str | type, words: str) -> None:
    parsed = WORKER_CLASS.parse(asked)

    assert in_words(parsed) == words


def test_a_default_is_short_enough_for_a_message() -> None:
    assert all(quoted(setting.default) for setting in SETTINGS.values())
