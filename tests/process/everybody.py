"""An interpreter for servers that do not run as whoever runs the tests."""

from __future__ import annotations

import os
import pwd
import site
import subprocess
import sys

from tests.process.harness import ROOT

NOBODY = pwd.getpwnam("nobody")
SYSTEM = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"


def python_for_everybody() -> tuple[str, dict[str, str]] | None:
    """An interpreter that `nobody` can run, with our packages; None if there is none."""
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), *site.getsitepackages()])}
    check = "import forkmaster, uvicorn, psutil, tests.process.harness"
    for python in (sys.executable, SYSTEM):
        try:
            found = subprocess.run(
                [python, "-c", check],
                user=NOBODY.pw_uid,
                group=NOBODY.pw_gid,
                extra_groups=[],
                cwd="/",
                env=paths,
                capture_output=True,
                check=False,
            )
        except OSError:
            continue
        if found.returncode == 0:
            return python, paths
    return None


PYTHON = python_for_everybody() if os.geteuid() == 0 else None
