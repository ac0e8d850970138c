"""Values that must not be shown, wherever configuration is."""

from __future__ import annotations

import re
from collections.abc import Mapping

HIDDEN = "[hidden]"

_SECRET_NAME = re.compile(
    r"secret|token|passw|credential|private|dsn|(^|_)(api_?)?key($|_)|(^|_)pw($|_)|pwd", re.I
)
_URL_PASSWORD = re.compile(r"(?P<before>[a-z][a-z0-9+.-]*://[^/\s:@]*:)[^/\s@]+(?=@)", re.I)
# Paths to secrets, and words that only sound like one.
_OPEN = frozenset({"keyfile", "certfile", "ca_certs"})


def is_secret_name(name: str) -> bool:
    """Whether a variable or setting of this name holds a secret, as far as names tell."""
    return name not in _OPEN and _SECRET_NAME.search(name) is not None


def redacted(name: str, value: object) -> object:
    """`value` of the setting or key `name`, as made by `values.shown`, without its secrets."""
    if isinstance(value, str):
        variable, equals, _ = value.partition("=")
        if name == "raw_env" and equals and is_secret_name(variable):
            return f"{variable}={HIDDEN}"
        if value and is_secret_name(name):
            return HIDDEN
        return _URL_PASSWORD.sub(rf"\g<before>{HIDDEN}", value)
    if isinstance(value, Mapping):
        return {key: redacted(str(key), each) for key, each in value.items()}
    if isinstance(value, list):
        return [redacted(name, each) for each in value]
    return value
