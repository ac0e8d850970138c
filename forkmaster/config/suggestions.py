"""What somebody probably meant by a name that is no setting."""

from __future__ import annotations

import types
from functools import cache

from forkmaster.config.origins import Origin
from forkmaster.config.table import SETTINGS

# 0.75: finds worker, threds and time_out, and lets command and cores pass.
_CUTOFF = 0.75

# Names that gunicorn once had or that people write in the belief that it has them.
_KNOWN = {
    "config": "one file is read, and it cannot name another",
    "debug": 'gunicorn removed it long ago; write loglevel = "debug"',
    "django_settings": 'write raw_env = ["DJANGO_SETTINGS_MODULE=…"]',
    "x_forwarded_for_header": "the access log takes the client from forwarded_allow_ips",
    "tolerate_dangerous_framing": "such requests are always refused",
    "worker_memory_limit": "did you mean max_worker_memory?",
    "max_memory": "did you mean max_worker_memory?",
    "max_lifetime": "did you mean max_worker_lifetime?",
}


@cache
def _spellings() -> dict[str, str]:
    """Every spelling of a setting that is not its name, as its flag without dashes."""
    spellings: dict[str, str] = {}
    for setting in SETTINGS.values():
        for flag in setting.flags:
            word = flag.lstrip("-").replace("-", "_")
            if len(word) > 1 and not setting.turns_off:
                spellings.setdefault(word, setting.name)
    return {word: name for word, name in spellings.items() if word not in SETTINGS}


def closest(name: str) -> str | None:
    """The setting that `name` is a misspelling of, if there is one."""
    # Imported late: it is needed for mistakes only.
    import difflib

    plain = name.lower().replace("-", "_")
    if plain in SETTINGS:
        return plain
    spellings = _spellings()
    if plain in spellings:
        return spellings[plain]
    matches = difflib.get_close_matches(plain, [*SETTINGS, *spellings], n=1, cutoff=_CUTOFF)
    return spellings.get(matches[0], matches[0]) if matches else None


def advice(name: str) -> str | None:
    """What to tell somebody who wrote `name` for a setting; None if nothing comes near."""
    known = _KNOWN.get(name.lower())
    if known is not None:
        return known
    setting = closest(name)
    return f"did you mean {setting}?" if setting not in (None, name) else None


def not_a_setting(name: str, origin: Origin) -> str:
    """What is said of a name that can only be a setting, and is none."""
    remedy = advice(name) or "forkmaster config lists them all"
    return f"{name}: is not a setting ({origin}); {remedy}"


def near_miss(name: str, value: object) -> str | None:
    """The advice about a variable of a Python file, unless its value shows it is no setting."""
    if name.startswith("_"):
        return None
    known = _KNOWN.get(name.lower())
    if known is not None:
        return known
    setting = closest(name)
    if setting is None or not _could_be(setting, value):
        return None
    return f"did you mean {setting}?"


def _could_be(setting: str, value: object) -> bool:
    wants_function = SETTINGS[setting].section == "Hooks"
    if isinstance(value, types.FunctionType):
        return wants_function
    simple = isinstance(value, bool | int | float | str | list | tuple | dict)
    return simple and not wants_function
