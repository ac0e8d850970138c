"""The user and the groups that a process runs as, and how it becomes them for good."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass

from forkmaster.errors import ForkmasterError


@dataclass(frozen=True)
class Identity:
    """A user and a group, looked up once, while names can still be looked up."""

    uid: int
    gid: int
    name: str | None
    """Of the user; None for a number that no account has."""

    def is_current(self) -> bool:
        """Whether this process runs as that already."""
        return (os.geteuid(), os.getegid()) == (self.uid, self.gid)

    def assume(self, *, initgroups: bool) -> None:
        """Become that user and group, for good; with `initgroups` all the groups of the user.

        Called in a child, after the fork.  Raises ForkmasterError, and then the process must end:
        it may be half changed.
        """
        if self.is_current() and not initgroups:
            return
        try:
            # Root's other groups would stay otherwise, "disk" and "shadow" among them.
            if os.geteuid() == 0:
                if initgroups and self.name is not None:
                    os.initgroups(self.name, self.gid)
                else:
                    os.setgroups([self.gid])
            # The user last: without root's rights none of the others could be changed.
            os.setgid(self.gid)
            os.setuid(self.uid)
        except OSError as exc:
            whom = self.name or f"user {self.uid}"
            raise ForkmasterError(f"cannot become {whom}: {exc.strerror}") from exc


def drop(user: str | int | None, group: str | int | None, *, initgroups: bool) -> None:
    """Become that user and group for good.  See `identity` and `Identity.assume`."""
    identity(user, group).assume(initgroups=initgroups)


def identity(user: str | int | None, group: str | int | None) -> Identity:
    """The user and group by name or number; None means this process' own.

    Raises ForkmasterError if there is no such user or group.
    """
    return Identity(
        uid := os.geteuid() if user is None else user_id(user),
        os.getegid() if group is None else group_id(group),
        _user_name(uid),
    )


def user_id(user: str | int) -> int:
    """The uid of a user given by name or number; a number need not have an account."""
    number = _number(user)
    if number is not None:
        return number
    try:
        return pwd.getpwnam(str(user)).pw_uid
    except KeyError:
        raise ForkmasterError(f'there is no user "{user}"') from None


def group_id(group: str | int) -> int:
    """The gid of a group given by name or number; a number need not have a name."""
    number = _number(group)
    if number is not None:
        return number
    try:
        return grp.getgrnam(str(group)).gr_gid
    except KeyError:
        raise ForkmasterError(f'there is no group "{group}"') from None


def _number(text: str | int) -> int | None:
    if isinstance(text, int):
        return text
    return int(text) if text.isascii() and text.isdigit() else None


def _user_name(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None
