"""The process itself: its name, its rights, its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from forkmaster.config.places import FOLDER, GROUP, PATH, USER
from forkmaster.config.settings import Effect, setting
from forkmaster.config.values import BOOLEAN, MODE, OPTIONAL_TEXT, TEXT, count, optional

_CONTROL = "the control socket lies in a private folder of its own"


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Process:
    title: ClassVar[str] = "Process"

    user: int | None = setting(
        None,
        USER,
        "-u --user",
        "The user that workers run as.",
        default_text="the user who starts the server",
        restart=True,
    )
    group: int | None = setting(
        None,
        GROUP,
        "-g --group",
        "The group that workers run as.",
        default_text="the first group of user, else that of who starts the server",
        differs="gunicorn leaves the workers of another user in the group of root",
        restart=True,
    )
    initgroups: bool = setting(
        False,
        BOOLEAN,
        "--initgroups",
        "Give workers all groups of their user.",
        restart=True,
    )
    daemon: bool = setting(
        False,
        BOOLEAN,
        "-D --daemon",
        "Run in the background; the command ends when the server is ready, or with its exit code "
        "when it cannot start. Not under systemd, nor in a container.",
        restart=True,
    )
    pidfile: Path | None = setting(
        None, optional(PATH), "-p --pid", "A file for the pid of the master."
    )
    worker_tmp_dir: Path | None = setting(
        None,
        optional(FOLDER),
        "--worker-tmp-dir",
        "The folder for heartbeat files.",
        default_text="/dev/shm",
        restart=True,
    )
    proc_name: str | None = setting(
        None,
        OPTIONAL_TEXT,
        "-n --name",
        "The name of the server in the process list.",
        default_text="the application",
        restart=True,
    )
    default_proc_name: str = setting(
        "forkmaster",
        TEXT,
        "",
        "The name in the process list when nothing better is known.",
        effect=Effect.HARMLESS,
        instead="proc_name wins, then the application",
    )
    incident_dir: Path | None = setting(
        None,
        optional(PATH),
        "--incident-dir",
        "A folder for a JSON record of every abnormal death of a worker.",
        default_text="in the board, until the server ends",
        own=True,
        restart=True,
    )
    incident_limit: int = setting(
        100,
        count(1),
        "--incident-limit",
        "How many such records are kept.",
        own=True,
        restart=True,
    )
    tmp_upload_dir: Path | None = setting(
        None,
        optional(PATH),
        "",
        "A folder for uploads.",
        effect=Effect.HARMLESS,
        instead="gunicorn never read it; set FILE_UPLOAD_TEMP_DIR in Django, or TMPDIR",
    )
    control_socket: str | None = setting(
        None,
        OPTIONAL_TEXT,
        "--control-socket",
        "Where gunicorn's control socket lies.",
        effect=Effect.NONE,
        instead=_CONTROL,
    )
    control_socket_mode: int = setting(
        0o600,
        MODE,
        "--control-socket-mode",
        "The mode of gunicorn's control socket.",
        effect=Effect.NONE,
        instead=f"{_CONTROL}, for its owner only",
    )
    control_socket_disable: bool = setting(
        False,
        BOOLEAN,
        "--no-control-socket",
        "Have no control socket.",
        effect=Effect.NONE,
        instead=f"{_CONTROL}, for its owner only",
    )
