"""What is let go of before workers are forked."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from forkmaster.worker.preload import let_go


class Pool:
    """As redis has one."""

    connected = True

    def disconnect(self) -> None:
        self.connected = False


class Lazy:
    """Stands in for an object that there is only during a request, and says so."""

    @property
    def __class__(self) -> type:
        raise RuntimeError("outside of a request")


def test_connection_pools_are_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    library = ModuleType("redis")
    library.ConnectionPool = Pool  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "redis", library)
    pool, lazy = Pool(), Lazy()

    let_go()

    assert not pool.connected
    del lazy


def test_a_module_that_only_has_the_name_of_a_library_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "redis", ModuleType("redis"))

    let_go()


def test_django_that_nobody_has_configured_holds_nothing() -> None:
    import django.db  # noqa: F401 - as a library may

    let_go()
