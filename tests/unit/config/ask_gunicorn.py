"""Prints what the installed gunicorn makes of every configuration file in a folder, as JSON.

Run in a process of its own: in that of the tests `gunicorn` may be the stand-in.
"""

from __future__ import annotations

import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import gunicorn.config
from gunicorn.app.wsgiapp import WSGIApplication

# Only names are compared; the rest of a function or class is its own business.
SKIPPED = {"print_config", "check_config", "wsgi_app"}


class Loader(WSGIApplication):  # type: ignore[misc]
    def load_config(self) -> None:
        self.cfg.set("default_proc_name", "x")
        self.load_config_from_file("conf.py")


def plain(value: object, folder: str) -> Any:
    if isinstance(value, str):
        return value.replace(folder, "FOLDER")
    if isinstance(value, bool | int | float | None):
        return int(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if isinstance(value, dict):
        return {key: plain(each, folder) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each, folder) for each in value]
    return f"{value.__module__}.{value.__qualname__}"  # type: ignore[attr-defined]


def effective(folder: Path) -> dict[str, Any]:
    os.chdir(folder)
    os.environ["PWD"] = str(folder)
    said = io.StringIO()
    try:
        # A file may print; what we print is JSON.
        with redirect_stderr(said), redirect_stdout(said):
            config = Loader().cfg
    except SystemExit:
        return {"error": said.getvalue()}
    answer = {}
    for name, setting in config.settings.items():
        value = config.address if name == "bind" else setting.get()
        if name in SKIPPED or (callable(value) and setting.default is value):
            continue
        if name == "pythonpath" and value:
            value = [os.path.abspath(each) for each in value.split(",")]
        if name == "worker_class" and isinstance(value, type):
            continue
        answer[name] = plain(value, str(folder))
    del answer["default_proc_name"]
    return answer


def main() -> None:
    root = Path(sys.argv[1])
    sys.argv = ["gunicorn"]
    answers: dict[str, Any] = {folder.name: effective(folder) for folder in sorted(root.iterdir())}
    known = gunicorn.config.KNOWN_SETTINGS
    answers["all"] = {
        "names": [setting.name for setting in known],
        "flags": {setting.name: setting.cli for setting in known if setting.cli},
        "switches": [setting.name for setting in known if setting.action == "store_true"],
    }
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
