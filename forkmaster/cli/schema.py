"""`forkmaster schema`: the JSON Schema of forkmaster.toml, for editors and checkers."""

from __future__ import annotations

import json

import click

from forkmaster.config.settings import Setting
from forkmaster.config.table import SETTINGS


def command() -> click.Command:
    return click.Command(
        "schema",
        help="Print the JSON Schema of forkmaster.toml, and of [tool.forkmaster].",
        callback=run,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def run() -> int:
    print(json.dumps(schema(), indent=2))
    return 0


def schema() -> dict[str, object]:
    """The schema, in the draft of 2020-12."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "forkmaster.toml",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            name: _property(setting) for name, setting in SETTINGS.items() if name != "config"
        },
    }


def _property(setting: Setting) -> dict[str, object]:
    about: dict[str, object] = {"description": setting.help, **setting.kind.schema}
    default = setting.kind.show(setting.default)
    if default is not None:
        about["default"] = default
    if setting.instead:
        about["description"] = (
            f"{setting.help} {setting.effect.value.capitalize()}: {setting.instead}."
        )
        about["deprecated"] = True
    return about
