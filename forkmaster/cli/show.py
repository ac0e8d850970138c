"""`forkmaster config`: every setting, its effective value, and where that came from."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from forkmaster.cli.options import Command, given_by_everything
from forkmaster.config.secrets import redacted
from forkmaster.config.sources import Loaded, load
from forkmaster.config.table import SETTINGS


def command() -> click.Command:
    return Command(
        "config",
        usage="config [OPTIONS] [APP]",
        help="Show every setting, its effective value, and where that came from.",
        callback=run,
        params=[
            click.Option(["--json", "as_json"], is_flag=True, help="As JSON."),
            click.Option(["--toml", "as_toml"], is_flag=True, help="As a forkmaster.toml."),
        ],
    )


def run(as_json: bool, as_toml: bool, **parameters: Any) -> int:
    loaded = load(given_by_everything(parameters))
    if as_json:
        print(json.dumps(_as_json(loaded), indent=2))
    elif as_toml:
        print_toml(loaded)
    else:
        for warning in loaded.warnings:
            print(f"forkmaster: warning: {warning}", file=sys.stderr)
        print_settings(loaded)
    return 0


def print_settings(loaded: Loaded) -> None:
    """One line for each setting: name, value, origin."""
    rows = [(name, _text(_value(loaded, name)), str(loaded.origins[name])) for name in SETTINGS]
    widest = max(len(name) for name in SETTINGS)
    # 40: most values; the origin of a longer one just stands further right.
    for name, value, origin in rows:
        print(f"{name:<{widest}} = {value:<40}  # {origin}")


def print_toml(loaded: Loaded) -> None:
    """What differs from the defaults, as a forkmaster.toml."""
    for name in SETTINGS:
        origin = loaded.origins[name]
        plain = _plain(loaded, name)
        if origin.source == "default" or name == "config" or plain is None:
            continue
        if _lies_in_the_file(getattr(loaded.config, name)):
            print(f"# {name}: TOML cannot hold code; name it as package.module.name  # {origin}")
            continue
        value = redacted(name, plain)
        hidden = "" if value == plain else "; what is hidden must be written in"
        print(f"{name} = {toml_value(value)}  # {origin}{hidden}")


def _lies_in_the_file(value: object) -> bool:
    """Whether it is a function or a class that has no name outside its configuration file."""
    origin = getattr(value, "__wrapped__", value)
    module, name = getattr(origin, "__module__", ""), getattr(origin, "__qualname__", "")
    return callable(value) and (module == "__config__" or "<" in name)


def _value(loaded: Loaded, name: str) -> object:
    return redacted(name, _plain(loaded, name))


def _plain(loaded: Loaded, name: str) -> object:
    return SETTINGS[name].kind.show(getattr(loaded.config, name))


def _as_json(loaded: Loaded) -> dict[str, object]:
    return {
        name: {"value": _value(loaded, name), "origin": str(loaded.origins[name])}
        for name in SETTINGS
    }


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def toml_value(value: object) -> str:
    """`value` in TOML, which is JSON but for its tables; in one line."""
    if isinstance(value, dict):
        # TOML has no null; what is not there is the same to who reads a table.
        pairs = [
            f"{json.dumps(key)} = {toml_value(each)}"
            for key, each in value.items()
            if each is not None
        ]
        return f"{{ {', '.join(pairs)} }}" if pairs else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml_value, value))}]"
    return json.dumps(value, ensure_ascii=False)
