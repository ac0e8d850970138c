"""The configuration of a server, put together from its sources.

    defaults
    < PORT, WEB_CONCURRENCY, FORWARDED_ALLOW_IPS    what platforms set
    < the configuration file
    < FORKMASTER_*
    < FORKMASTER_CMD_ARGS and GUNICORN_CMD_ARGS, then the command line

A later source replaces an earlier one, lists too.  Every value remembers where it came from,
and every problem names that place.  All problems are collected and raised together.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forkmaster.config import django, files, gunicorn, shim
from forkmaster.config.origins import DEFAULT, Given, Origin
from forkmaster.config.sections.http2 import HTTP2
from forkmaster.config.settings import Effect, Setting, settings_of
from forkmaster.config.suggestions import closest, not_a_setting
from forkmaster.config.table import SETTINGS, Config
from forkmaster.config.values import BadValueError, Noted
from forkmaster.errors import ConfigError

# What a platform sets for whatever server runs there, and the setting it means.
_PLATFORM = {
    "PORT": "bind",
    "WEB_CONCURRENCY": "workers",
    "FORWARDED_ALLOW_IPS": "forwarded_allow_ips",
    "SENDFILE": "sendfile",
}
_PREFIX = "FORKMASTER_"


@dataclass(frozen=True)
class Loaded:
    """A configuration, and where each of its values came from."""

    config: Config
    origins: Mapping[str, Origin]
    file: Path | None
    """The configuration file that was read."""
    warnings: list[str]
    """One line each, for the log."""
    given: tuple[Given, ...]
    environ: Mapping[str, str]
    folder: Path
    discover: bool = True

    def again(self) -> Loaded:
        """The same sources, read afresh: for a reload.

        Executes the configuration file, so it may do and raise anything; see `load`.
        """
        return load(self.given, environ=self.environ, folder=self.folder, discover=self.discover)


def load(
    given: Iterable[Given] = (),
    *,
    environ: Mapping[str, str] | None = None,
    folder: Path | None = None,
    discover: bool = True,
) -> Loaded:
    """The configuration from every source.

    `given` is what the command line and the like say, the strongest last.  `environ` is the
    environment, os.environ by default; `folder` is the folder the server is started in.
    Unless `discover` is false, a configuration file that nobody names is looked for there.
    Executes the configuration file, and makes `folder` importable for it.
    Raises ConfigError with one line for each problem.
    """
    given = tuple(given)
    environ = dict(os.environ if environ is None else environ)
    folder = start_folder(environ) if folder is None else folder
    shim.install()
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

    variables, warnings = _from_environment(environ)
    # A reload may find the process in another folder: that of the setting chdir.
    with contextlib.chdir(folder):
        spec = _named_file([*variables, *given])
        if spec is None and discover:
            spec = files.discover(folder)
        contents = files.read(spec, folder) if spec is not None else files.Contents(None)
        warnings += contents.warnings
        warnings += shim.unheard()
        winners = {
            each.name: each
            for each in (*_from_platform(environ), *contents.given, *variables, *given)
        }
        unknown = [each for each in given if each.name not in SETTINGS]
        for each in unknown:
            del winners[each.name]
        _put_threads_in_place(winners)
        values, problems = _parse(winners, warnings)
        problems += [not_a_setting(each.name, each.origin) for each in unknown]
        problems += contents.problems
    if problems:
        raise ConfigError("\n".join(problems), warnings)
    origins = {name: winners[name].origin if name in winners else DEFAULT for name in SETTINGS}
    if not values.get("app"):
        values["app"], origins["app"] = _unnamed_app(values, origins, folder)
    config = Config(**values)
    problems = [
        _problem(name, what, origins[name], remedy)
        for name, what, remedy in config.contradictions()
    ]
    if problems:
        raise ConfigError("\n".join(problems), warnings)
    warnings += _in_place_of_green(config, winners)
    warnings += _idle_settings(config, origins)
    return Loaded(config, origins, contents.path, warnings, given, environ, folder, discover)


def start_folder(environ: Mapping[str, str]) -> Path:
    """The current folder, by the name its user knows it by.

    A release is often a symbolic link; by its name a reload finds the next release.
    """
    current = os.getcwd()
    named = environ.get("PWD", "")
    try:
        if os.path.isabs(named) and os.path.samefile(named, current):
            return Path(named)
    except OSError:
        pass  # PWD is stale; the kernel's name is right
    return Path(current)


def _named_file(given: list[Given]) -> str | None:
    named = [each.value for each in given if each.name == "config" and each.value]
    return str(named[-1]) if named else None


def _from_platform(environ: Mapping[str, str]) -> list[Given]:
    given = []
    for variable, name in _PLATFORM.items():
        value = environ.get(variable, "").strip()
        if value:
            # A platform routes to the container, so its port is open to the outside.
            value = f"0.0.0.0:{value}" if variable == "PORT" else value
            given.append(Given(name, value, Origin("environment", variable)))
    return given


def _from_environment(environ: Mapping[str, str]) -> tuple[list[Given], list[str]]:
    given, warnings = [], []
    for variable, value in environ.items():
        if not variable.startswith(_PREFIX) or not value:
            continue
        setting = SETTINGS.get(variable.removeprefix(_PREFIX).lower())
        if setting is not None and setting.variable == variable:
            items = [part.strip() for part in value.split(",")] if setting.kind.many else value
            given.append(Given(setting.name, items, Origin("environment", variable)))
            continue
        meant = closest(variable.removeprefix(_PREFIX))
        if meant is not None:
            warnings.append(
                f"{variable} is not a setting (environment): did you mean {_PREFIX}{meant.upper()}?"
            )
    return given, warnings


def _parse(winners: Mapping[str, Given], warnings: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The parsed values, and the problems; adds to `warnings`.  Enters the folder chdir."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    # First, because the other paths are relative to it.
    for name in sorted(winners, key=lambda name: name != "chdir"):
        each = winners[name]
        setting = SETTINGS[name]
        try:
            value = setting.kind.parse(each.value)
        except BadValueError as exc:
            if setting.effect is Effect.REFUSED:
                problems.append(_refusal(setting, each.origin))
            else:
                problems.append(_problem(name, exc.what, each.origin, exc.remedy))
            continue
        if isinstance(value, Noted):
            warnings.append(f"{name} ({each.origin}): {value.note}")
            value = value.value
        if value != setting.default:
            if setting.effect is Effect.REFUSED:
                problems.append(_refusal(setting, each.origin))
            elif setting.effect is Effect.NONE:
                warnings.append(f"{name} has no effect ({each.origin}): {setting.instead}")
        values[name] = value
        if name == "chdir":
            os.chdir(value)
    return values, problems


def _put_threads_in_place(winners: dict[str, Given]) -> None:
    """A worker of gunicorn's that we run threads for means more than one, unless somebody says."""
    asked = winners.get("worker_class")
    if asked is not None and "threads" not in winners and gunicorn.green_name(asked.value):
        origin = Origin(asked.origin.source, f"{asked.origin}, in place of {asked.value}")
        winners["threads"] = Given("threads", gunicorn.THREADS_IN_PLACE, origin)


def _in_place_of_green(config: Config, winners: Mapping[str, Given]) -> list[str]:
    asked = winners.get("worker_class")
    name = gunicorn.green_name(asked.value) if asked is not None else None
    if asked is None or name is None:
        return []
    threads = "1 thread" if config.threads == 1 else f"{config.threads} threads"
    return [
        f"worker_class ({asked.origin}): forkmaster has no {name} worker and runs {threads} in its"
        f" place; the setting threads says how many"
    ]


def _problem(name: str, what: str, origin: Origin, remedy: str) -> str:
    return f"{name}: {what} ({origin})" + (f"; {remedy}" if remedy else "")


def _refusal(setting: Setting, origin: Origin) -> str:
    return _problem(setting.name, "it cannot be ignored safely", origin, setting.instead)


def _unnamed_app(
    values: Mapping[str, Any], origins: Mapping[str, Origin], folder: Path
) -> tuple[str, Origin]:
    """The application when nobody said `app`: of a gunicorn file, or of a Django project."""
    if values.get("wsgi_app"):
        return values["wsgi_app"], origins["wsgi_app"]
    found = django.find_application(values.get("chdir") or folder)
    return (found, Origin("file", "manage.py")) if found is not None else ("", DEFAULT)


def _idle_settings(config: Config, origins: Mapping[str, Origin]) -> list[str]:
    """Warnings about settings that the kind of worker makes no use of."""
    warnings = []
    if config.kind == "asgi" and config.threads > 1:
        warnings.append(
            f"threads has no effect ({origins['threads']}): "
            "an asgi worker runs any number of requests at once"
        )
    if not config.speaks_http2:
        warnings += [
            f"{name} has no effect ({origins[name]}): "
            'HTTP/1.1 is spoken; worker_class = "hypercorn" speaks HTTP/2 too, or let nginx do it'
            for name in settings_of((HTTP2,))
            if getattr(config, name) != SETTINGS[name].default
        ]
    return warnings
