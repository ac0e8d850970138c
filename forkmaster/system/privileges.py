"""The user and the groups that a process runs as, and how it becomes them for good."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

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


def is_root_of_the_machine(root: Path = Path("/")) -> bool:
    """Whether this process may do anything to the whole machine: root, and in no container.

    `root` is where the file system is looked at.
    """
    # `container` is what systemd, podman and nspawn set.
    if os.geteuid() != 0 or os.environ.get("container"):  # noqa: SIM112
        return False
    marks = (".dockerenv", "run/.containerenv", "run/systemd/container")
    if any((root / mark).exists() for mark in marks) or "KUBERNETES_SERVICE_HOST" in os.environ:
        return False
    try:
        # A user namespace makes somebody else its root.
        mapping = (root / "proc/self/uid_map").read_text().split()
    except OSError:
        return True
    return mapping[:2] == ["0", "0"]


def drop(user: str | int | None, group: str | int | None, *, initgroups: bool) -> None:
    """Become that user and group for good.  See `identity` and `Identity.assume`."""
    identity(user, group).assume(initgroups=initgroups)


def identity(user: str | int | None, group: str | int | None) -> Identity:
    """The user and group by name or number; None means this process' own.

    Another user without a group has its own first group, not ours: that is root's as a rule.
    Raises ForkmasterError if there is no such user or group.
    """
    uid = os.geteuid() if user is None else user_id(user)
    if group is not None:
        gid = group_id(group)
    elif uid != os.geteuid():
        gid = _first_group(uid)
    else:
        gid = os.getegid()
    return Identity(uid, gid, _user_name(uid))


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


def _first_group(uid: int) -> int:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return os.getegid()


def _user_name(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None
