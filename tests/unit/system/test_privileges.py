"""Users and groups, looked up and assumed."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest

from forkmaster.errors import ForkmasterError
from forkmaster.system import privileges
from forkmaster.system.privileges import (
    Identity,
    group_id,
    identity,
    is_root_of_the_machine,
    user_id,
)

from .children import in_child

UNKNOWN = 54321  # a number without an account
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def test_users_and_groups_have_names_or_numbers() -> None:
    me, us = pwd.getpwuid(os.geteuid()), grp.getgrgid(os.getegid())

    assert user_id(me.pw_name) == user_id(me.pw_uid) == user_id(str(me.pw_uid)) == me.pw_uid
    assert group_id(us.gr_name) == group_id(us.gr_gid) == group_id(str(us.gr_gid)) == us.gr_gid
    assert user_id(UNKNOWN) == group_id(UNKNOWN) == UNKNOWN


def test_unknown_names_are_errors() -> None:
    with pytest.raises(ForkmasterError, match='there is no user "nobody-at-all"'):
        user_id("nobody-at-all")
    with pytest.raises(ForkmasterError, match='there is no group "nothing-at-all"'):
        group_id("nothing-at-all")


def test_nothing_asked_for_is_what_we_are() -> None:
    found = identity(None, None)

    assert found == Identity(os.geteuid(), os.getegid(), pwd.getpwuid(os.geteuid()).pw_name)
    assert found.is_current()
    privileges.drop(None, None, initgroups=False)
    assert identity(UNKNOWN, UNKNOWN).name is None


@needs_root
def test_another_user_has_its_own_first_group() -> None:
    nobody = pwd.getpwnam("nobody")

    assert identity("nobody", None).gid == nobody.pw_gid
    assert identity(UNKNOWN, None).gid == os.getegid()
    assert identity(0, None).gid == os.getegid()


@needs_root
@pytest.mark.parametrize("mark", ["", ".dockerenv", "run/.containerenv", "run/systemd/container"])
def test_root_is_root_of_the_machine_outside_a_container(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    monkeypatch.delenv("container", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    mapping = tmp_path / "proc/self/uid_map"
    mapping.parent.mkdir(parents=True)
    mapping.write_text("         0          0 4294967295\n")
    if mark:
        (tmp_path / mark).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / mark).touch()

    assert is_root_of_the_machine(tmp_path) == (mark == "")


@needs_root
def test_root_of_a_user_namespace_or_a_named_container_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("container", raising=False)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    mapping = tmp_path / "proc/self/uid_map"
    mapping.parent.mkdir(parents=True)

    mapping.write_text("         0     100000      65536\n")
    in_namespace = is_root_of_the_machine(tmp_path)
    mapping.unlink()
    without_proc = is_root_of_the_machine(tmp_path)
    monkeypatch.setenv("container", "podman")
    named = is_root_of_the_machine(tmp_path)

    assert (in_namespace, without_proc, named) == (False, True, False)


def test_who_is_not_root_is_not() -> None:
    assert in_child(lambda: not is_root_of_the_machine() or 1 / 0, as_nobody=True) == 0


@needs_root
def test_root_gives_up_everything_for_good() -> None:
    def child() -> None:
        os.setgroups([0, 1, 2])
        privileges.drop(UNKNOWN, UNKNOWN + 1, initgroups=False)

        assert os.getresuid() == (UNKNOWN,) * 3
        assert os.getresgid() == (UNKNOWN + 1,) * 3
        assert os.getgroups() == [UNKNOWN + 1]
        with pytest.raises(PermissionError):
            os.setuid(0)

    assert in_child(child) == 0


@needs_root
def test_a_user_can_have_all_its_groups() -> None:
    nobody = pwd.getpwnam("nobody")
    groups = set(os.getgrouplist("nobody", nobody.pw_gid))

    def child() -> None:
        privileges.drop("nobody", nobody.pw_gid, initgroups=True)

        assert set(os.getgroups()) == groups

    assert in_child(child) == 0


@needs_root
def test_a_number_without_an_account_has_no_other_groups() -> None:
    def child() -> None:
        privileges.drop(UNKNOWN, UNKNOWN, initgroups=True)

        assert os.getgroups() == [UNKNOWN]

    assert in_child(child) == 0


@needs_root
def test_who_is_not_root_cannot_become_another() -> None:
    def child() -> None:
        privileges.drop(UNKNOWN, UNKNOWN, initgroups=False)
        with pytest.raises(ForkmasterError, match="cannot become root: Operation not permitted"):
            privileges.drop("root", None, initgroups=False)
        with pytest.raises(ForkmasterError, match="cannot become user 54322"):
            privileges.drop(UNKNOWN + 1, None, initgroups=False)

    assert in_child(child) == 0
