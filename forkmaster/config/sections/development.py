"""For the desk, and for looking before leaping."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from forkmaster.config.places import WATCHED
from forkmaster.config.settings import Effect, setting
from forkmaster.config.values import BOOLEAN, OPTIONAL_TEXT, choice


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Development:
    title: ClassVar[str] = "Development"

    config: str | None = setting(
        None,
        replace(OPTIONAL_TEXT, metavar="FILE"),
        "-c --config",
        "The configuration file: PATH, file:PATH or python:MODULE.",
        default_text="forkmaster.toml, forkmaster.conf.py, gunicorn.conf.py or pyproject.toml, "
        "whichever is found first in the current folder",
        differs="a TOML file may be named, too, and gunicorn.conf.py is not the first looked for",
        everyday=True,
        # The file cannot name itself, and "from logging import config" is common in one.
        in_python=False,
    )
    check_config: bool = setting(
        False,
        BOOLEAN,
        "--check-config",
        "Check the configuration, load the application, and exit.",
    )
    print_config: bool = setting(
        False,
        BOOLEAN,
        "--print-config",
        "Print every setting with where it came from, check, and exit.",
    )
    reload: bool = setting(
        False,
        BOOLEAN,
        "--reload",
        "Reload when the code changes. For development.",
        differs="watches every *.py under the folder and under pythonpath, imported or not",
        everyday=True,
    )
    reload_engine: str = setting(
        "auto",
        choice("auto", "poll", "inotify"),
        "--reload-engine",
        "How changes are found: inotify needs the package watchfiles, and polling does not.",
        default_text="inotify if watchfiles is installed, else poll",
    )
    reload_extra_files: tuple[str, ...] = setting(
        (),
        WATCHED,
        "--reload-extra-file",
        "A file, a folder, or a pattern of files, to watch besides the code. May be repeated.",
    )
    spew: bool = setting(
        False,
        BOOLEAN,
        "--spew",
        "Print every line that Python runs.",
        effect=Effect.NONE,
        instead="run the application under python -m trace --trace",
    )
