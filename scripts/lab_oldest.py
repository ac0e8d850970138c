"""The tests with the oldest releases of everything that pyproject.toml says is enough.

Makes a virtual environment, .venv-oldest, in which each library of `dependencies` and of the
extra http2 is the one after its `>=`, and runs there the tests of what uses them.  The newest
releases are what `make install` gets, so `make test` is for those.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
VENV = ROOT / ".venv-oldest"
TESTS = (
    "tests/unit",
    "tests/http",
    "tests/process/test_asgi_worker.py",
    "tests/process/test_http2.py",
    "tests/process/test_serving.py",
    "tests/process/test_signals.py",
)


def floors() -> list[str]:
    """One requirement for each library, of its oldest release."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [*project["dependencies"], *project["optional-dependencies"]["http2"]]
    return [each.replace(">=", "==") for each in required]


def main() -> int:
    subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    python = VENV / "bin" / "python"
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(floors()))
        file.flush()
        # The libraries of the tests have been installed in their newest releases.
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "-c", file.name, "--editable", ".[dev]"], check=True, cwd=ROOT)
    print(" ".join(floors()), flush=True)
    tests = sys.argv[1:] or [*TESTS, "-n", "2"]
    return subprocess.run([python, "-m", "pytest", "-q", *tests], check=False, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
