"""What a setting is: everything that is known about one, apart from its value.

A setting is declared once, as a field of one of the classes in `sections/`:

    timeout: float = setting(30.0, SECONDS, "-t --timeout", "Kill a worker that …")

From that one declaration follow the command line, the environment names, the validation of
files, the reference page and the JSON schema.  All of them are loops over `settings_of`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from forkmaster.config.values import Kind


class Effect(Enum):
    """What forkmaster makes of a setting.  The marker that flips when one is implemented."""

    WORKS = "works"
    NONE = "has no effect"
    """Accepted, with one warning that says so and what to use instead."""
    HARMLESS = "has no effect, and needs none"
    """Accepted silently: what it asks for is so anyway, or was never more than advice."""
    REFUSED = "refused"
    """To ignore it would be unsafe, so any value but the default stops the start."""


@dataclass(frozen=True)
class Setting:
    """One setting.  Made by `settings_of` from a field and its metadata."""

    name: str
    kind: Kind
    flags: tuple[str, ...]
    """As gunicorn spells them; see `all_flags` for what the command line accepts."""
    help: str
    section: str
    default: object
    default_text: str
    """Says how the default is found where the value alone would mislead, else ""."""
    effect: Effect
    instead: str
    """What to use instead, or why; for every effect but WORKS."""
    own: bool
    """Forkmaster's own; gunicorn has no setting of this name."""
    differs: str
    """The difference from gunicorn's setting of the same name, if there is one."""
    since: str
    restart: bool
    """A reload cannot change it."""
    everyday: bool
    """Among the few that the short help shows."""
    in_python: bool
    """False for what a Python file must not set, because its name is an ordinary variable's."""

    @property
    def dashed(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def all_flags(self) -> tuple[str, ...]:
        """Its flags, and the one that its name suggests."""
        if not self.flags or self.dashed in self.flags or self.turns_off:
            return self.flags
        return (*self.flags, self.dashed)

    @property
    def turns_off(self) -> bool:
        """Whether its flag is a negation and the setting true where it is given."""
        return bool(self.flags) and all(flag.startswith("--no-") for flag in self.flags)

    @property
    def variable(self) -> str:
        """The name of the environment variable that sets it."""
        return "FORKMASTER_" + self.name.upper()


def setting(
    default: Any,
    kind: Kind,
    flags: str,
    help: str,  # the word every option has it under
    *,
    default_text: str = "",
    effect: Effect = Effect.WORKS,
    instead: str = "",
    own: bool = False,
    differs: str = "",
    since: str = "0.1",
    restart: bool = False,
    everyday: bool = False,
    in_python: bool = True,
) -> Any:
    """The declaration of a setting, as the default of a dataclass field.

    `flags` are separated by spaces; "" for a setting that only a file can give.
    A mapping as default is wrapped in a factory, because dataclasses refuse it.
    """
    about: dict[str, object] = {
        "kind": kind,
        "flags": tuple(flags.split()),
        "help": help,
        "default_text": default_text,
        "effect": effect,
        "instead": instead,
        "own": own,
        "differs": differs,
        "since": since,
        "restart": restart,
        "everyday": everyday,
        "in_python": in_python,
    }
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata={"about": about})
    return field(default=default, metadata={"about": about})


def settings_of(sections: tuple[type, ...]) -> Mapping[str, Setting]:
    """Every setting declared in `sections`, by name, in the order of their declaration."""
    found: dict[str, Setting] = {}
    for section in sections:
        for each in dataclasses.fields(section):
            factory: Callable[[], object] | Any = each.default_factory
            default = each.default if factory is dataclasses.MISSING else factory()
            found[each.name] = Setting(
                name=each.name,
                section=section.title,  # type: ignore[attr-defined]
                default=default,
                **each.metadata["about"],
            )
    return found
