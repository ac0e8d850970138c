"""What a reload cannot change: it keeps its value until the server is started anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from forkmaster.config.secrets import redacted
from forkmaster.config.table import SETTINGS
from forkmaster.config.values import quoted

if TYPE_CHECKING:
    from forkmaster.config.sources import Loaded

LASTING = tuple(setting for setting in SETTINGS.values() if setting.restart)


def lasting(before: Loaded, now: Loaded) -> Loaded:
    """`now`, with the values of `before` where only a restart would change them.

    Its warnings name each one that was changed.
    """
    kept = {each.name: getattr(before.config, each.name) for each in LASTING}
    config = replace(now.config, **kept)
    if config == now.config:
        return now
    return replace(now, config=config, warnings=[*now.warnings, *_changed(before, now)])


def _changed(before: Loaded, now: Loaded) -> Iterator[str]:
    for each in LASTING:
        values = [getattr(loaded.config, each.name) for loaded in (before, now)]
        if values[0] != values[1]:
            was, wanted = (quoted(redacted(each.name, each.kind.show(value))) for value in values)
            yield (
                f"{each.name} is {wanted} now ({now.origins[each.name]}), which needs a restart;"
                f" it stays {was}"
            )
