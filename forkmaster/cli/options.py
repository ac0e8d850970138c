"""The options of the command line, made from the table of settings, and their help.

The values stay text here: they are parsed where those of every other source are, so that all
mistakes of all sources are reported together, in one form.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from forkmaster.cli.commands import DEFAULT
from forkmaster.config.origins import Given, Origin
from forkmaster.config.settings import Effect, Setting
from forkmaster.config.table import SETTINGS
from forkmaster.config.values import either, quoted
from forkmaster.errors import UsageError

CMD_ARGS = ("GUNICORN_CMD_ARGS", "FORKMASTER_CMD_ARGS")
"""Variables that hold a command line; a later one is stronger."""

# What a shell completes for a metavar, in click's words.
_PATHS = {"PATH": "file", "FILE": "file", "FOLDER": "dir"}

# uvicorn's words for what --bind says.
_BIND_WORDS = ("host", "port", "uds", "fd")


class SettingOption(click.Option):
    """The option of one setting."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        kind = setting.kind
        # To give click a flag_value at all, None too, makes the value of the flag optional.
        alone = True if setting.turns_off else kind.bare
        optional: dict[str, Any] = {} if alone is None else {"flag_value": alone}
        super().__init__(
            [setting.name, *_declarations(setting)],
            help=_help(setting),
            type=click.BOOL if kind.switch else click.STRING,
            is_flag=kind.switch,
            multiple=kind.many,
            default=None,
            metavar=None if kind.switch else kind.metavar,
            **optional,
        )

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The words that the setting takes, or whatever the shell finds where it takes a path."""
        metavar = self.setting.kind.metavar
        if metavar in _PATHS:
            return [CompletionItem(incomplete, type=_PATHS[metavar])]
        # In capitals is what stands for something else.
        words = [word for word in metavar.split("|") if word.islower()]
        return [CompletionItem(word) for word in words if word.startswith(incomplete)]

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        setting = self.setting
        positive = [flag for flag in setting.flags if not flag.startswith("--no-")]
        flags = ", ".join(positive or setting.flags)
        return f"{flags} {setting.kind.metavar}".rstrip(), self.help or ""


class AppArgument(click.Argument):
    """The application, which a shell completes from the modules in the current folder."""

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Every module with a name that an application is known by, and its package for others."""
        found = {path.stem for path in Path().glob("*.py")}
        found |= {f"{path.parent.name}.{path.stem}" for path in Path().glob("*/[aw]sgi.py")}
        return [CompletionItem(name) for name in sorted(found) if name.startswith(incomplete)]


class Command(click.Command):
    """A command that takes every setting as an option, and explains them by section."""

    def __init__(self, name: str, *, usage: str, **kwargs: Any) -> None:
        self.usage_line = usage
        options: list[click.Parameter] = [SettingOption(each) for each in _with_flags()]
        options += [
            click.Option(["--host"], metavar="HOST", help="The host of --bind HOST:PORT."),
            click.Option(["--port"], metavar="PORT", help="The port of --bind HOST:PORT."),
            click.Option(["--uds"], metavar="PATH", help="The same as --bind unix:PATH."),
            click.Option(["--fd"], metavar="NUMBER", help="The same as --bind fd://NUMBER."),
        ]
        self.own: list[click.Parameter] = kwargs.pop("params", [])
        """The options of this command, beside those that stand for settings."""
        super().__init__(
            name,
            params=[AppArgument(["app"], required=False), *self.own, *options, _help_all()],
            # 100: the longest name of a variable still fits beside the flags.
            context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
            **kwargs,
        )

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage("forkmaster", self.usage_line)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_options(self, ctx, formatter, everything=ctx.meta.get("help_all", False))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if not ctx.meta.get("help_all"):
            formatter.write_paragraph()
            command = ctx.command_path.removesuffix(f" {DEFAULT}")
            formatter.write_text(f"{command} --help-all shows every option.")


def given_by(parameters: Mapping[str, Any], *, within: str = "") -> Iterator[Given]:
    """The values that a parsed command line gives.

    `within` is the environment variable that held it, if one did.
    """
    prefix = f"{within} " if within else ""
    source = "environment" if within else "command line"
    for name, value in parameters.items():
        if name in SETTINGS and value is not None and value != ():
            flag = (
                "the command line" if name == "app" else f"{prefix}{_flag(SETTINGS[name], value)}"
            )
            yield Given(name, value, Origin(source, flag))  # type: ignore[arg-type]
    yield from _bind_words(parameters, prefix, source)


def given_by_variables(environ: Mapping[str, str]) -> Iterator[Given]:
    """The values in FORKMASTER_CMD_ARGS and GUNICORN_CMD_ARGS."""
    for variable in CMD_ARGS:
        text = environ.get(variable, "")
        if not text:
            continue
        try:
            with Command(variable, usage="").make_context(variable, shlex.split(text)) as ctx:
                # An application in there is ignored, as in gunicorn.
                named = {name: value for name, value in ctx.params.items() if name != "app"}
        except ValueError as exc:
            raise UsageError(f"{variable} cannot be read: {str(exc).lower()}") from None
        except click.UsageError as exc:
            raise UsageError(f"{variable}: {explained(exc)}") from None
        yield from given_by(named, within=variable)


def given_by_everything(parameters: Mapping[str, Any]) -> list[Given]:
    """The values of the variables and of the command line, the strongest last."""
    return [*given_by_variables(os.environ), *given_by(parameters)]


def explained(exc: click.ClickException, command: str = "forkmaster") -> str:
    """What click has against the command line of `command`, in the form of our errors."""
    match exc:
        case click.NoSuchOption():
            close = sorted(exc.possibilities or ())
            remedy = f"did you mean {either(close)}?" if close else f"see {command} --help"
            return f"there is no option {exc.option_name}; {remedy}"
        case click.BadParameter(param=click.Parameter(type=click.Choice(choices=words)) as param):
            given = re.match("'(.*)' is not", exc.message or "")
            what = f"{quoted(given[1])} is not one of its words" if given else "a word is missing"
            return f"{_place(param, command)}: {what}; write {either(map(str, words))}"
        case click.BadParameter(param=click.Parameter(type=click.IntRange(min=least)) as param) if (
            given := re.match("'?(.*?)'? is not", exc.message or "")
        ):
            what = f"{quoted(given[1])} is not a number that it takes"
            return f"{_place(param, command)}: {what}; write {least} or more"
    message = exc.format_message().rstrip(".")
    if re.search(r"extra arguments? \( ", message):
        return "an argument is a blank; is there a space after the backslash at the end of a line?"
    return f"{message[0].lower()}{message[1:]}; see {command} --help"


def _place(param: click.Parameter, command: str) -> str:
    """Where on the command line something is wrong: an option, or a command's own word."""
    option = isinstance(param, click.Option)
    return max(param.opts, key=len) if option else command.removeprefix("forkmaster ")


def _bind_words(parameters: Mapping[str, Any], prefix: str, source: str) -> Iterator[Given]:
    said = [word for word in _BIND_WORDS if parameters.get(word) is not None]
    if not said:
        return
    place = prefix + " and ".join(f"--{word}" for word in said)
    if parameters.get("bind"):
        raise UsageError(f"--bind and {place} say the same twice; use one")
    addresses = []
    if "host" in said or "port" in said:
        host = parameters.get("host") or "127.0.0.1"
        port = parameters.get("port") or "8000"
        addresses.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    if "uds" in said:
        addresses.append(f"unix:{parameters['uds']}")
    if "fd" in said:
        addresses.append(f"fd://{parameters['fd']}")
    yield Given("bind", addresses, Origin(source, place))  # type: ignore[arg-type]


def _with_flags() -> Iterable[Setting]:
    return (setting for setting in SETTINGS.values() if setting.flags)


def _flag(setting: Setting, value: object) -> str:
    """The flag that messages call a setting by when it has this value."""
    flag = next(flag for flag in setting.flags if flag.startswith("--"))
    return flag.replace("--", "--no-", 1) if value is False else flag


def _declarations(setting: Setting) -> list[str]:
    flags = list(setting.all_flags)
    if not setting.kind.switch or setting.turns_off:
        return flags
    long = [flag for flag in flags if flag.startswith("--") and not flag.startswith("--no-")]
    pairs = [f"{flag}/--no-{flag.removeprefix('--')}" for flag in long]
    return [flag for flag in flags if not flag.startswith("--")] + pairs


# Help


def _help(setting: Setting) -> str:
    about = [setting.help]
    if setting.effect is not Effect.WORKS:
        about.append(f"Without effect here: {setting.instead}.")
    default = setting.default_text or _default(setting)
    return f"{' '.join(about)}  [default: {default}; env: {setting.variable}]"


def _default(setting: Setting) -> str:
    value = setting.kind.show(setting.default)
    if setting.kind.switch:
        return "on" if value is True else "off"
    if value in (None, "", [], {}):
        return "none"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _help_all() -> click.Option:
    def callback(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value:
            ctx.meta["help_all"] = True
            click.echo(ctx.get_help())
            ctx.exit()

    return click.Option(
        ["--help-all"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=callback,
        help="Show every option and exit.",
    )


def write_options(
    command: Command, ctx: click.Context, formatter: click.HelpFormatter, *, everything: bool
) -> None:
    """The options by section, those of the command itself first: the everyday ones, or all."""
    sections: dict[str, list[tuple[str, str]]] = {"Options": []}
    others: list[tuple[str, str]] = []
    for param in command.get_params(ctx):
        record = param.get_help_record(ctx)
        if record is None or isinstance(param, click.Argument):
            continue
        if param in command.own and not param.is_eager:
            sections["Options"].append(record)
        elif not isinstance(param, SettingOption):
            others.append(record)
        elif everything or param.setting.everyday:
            sections.setdefault(param.setting.section, []).append(record)
    sections["Other"] = others
    for title, records in sections.items():
        write_section(formatter, title, records)


def write_section(
    formatter: click.HelpFormatter, title: str, records: list[tuple[str, str]]
) -> None:
    """A section of a help page, unless it is empty."""
    if records:
        with formatter.section(click.style(title, bold=True)):
            formatter.write_dl(records, col_max=30)
