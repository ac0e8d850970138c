"""Every exception of forkmaster, with the exit code it ends the process with.  Floor 0.

The message of each is written for the person who runs the server: what was wrong, where it
came from, what would be right.  None of them is shown with a traceback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class ForkmasterError(Exception):
    """Something a person can mend; ends the process with `exit_code`."""

    exit_code = 1

    def said(self) -> str:
        """What is printed of it."""
        return f"forkmaster: {self}"


class UsageError(ForkmasterError):
    """The command line cannot be understood."""

    exit_code = 2


class BootError(ForkmasterError):
    """The application, or the worker around it, failed while it was starting."""

    exit_code = 3


class AppError(ForkmasterError):
    """The application named does not exist, or is not one."""

    exit_code = 4


class ConfigError(ForkmasterError):
    """One or more settings are wrong; each line of the message is one problem."""

    exit_code = 5

    def __init__(self, message: str, warnings: Iterable[str] = ()) -> None:
        """`warnings` are what else is to be known, as the name that is nearly a setting's."""
        super().__init__(message)
        self.warnings = tuple(warnings)

    def said(self) -> str:
        warnings = [f"forkmaster: warning: {line}" for line in self.warnings]
        return "\n".join([*warnings, *(f"forkmaster: {line}" for line in str(self).splitlines())])


class BindError(ForkmasterError):
    """An address cannot be listened on."""

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno
        """Why, as far as the kernel told; EADDRINUSE may pass when the other server ends."""
