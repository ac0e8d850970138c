"""Configuration files: found, read, and turned into values with the lines they stand on.

A Python file is executed by its path and never imported by its name, because it is often
called gunicorn.py and lies where that name would hide the package.  Any name in it is legal;
one that looks like a misspelt setting, and that the file itself does not use, is reported.
In TOML there are no helper variables, so there an unknown name is an error.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import os
import sys
import tomllib
import traceback
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from forkmaster.config.origins import Given, Origin
from forkmaster.config.suggestions import near_miss, not_a_setting
from forkmaster.config.table import SETTINGS
from forkmaster.errors import ConfigError

CONFIG_FILES = ("forkmaster.toml", "forkmaster.conf.py", "gunicorn.conf.py")
"""Looked for in the folder the server is started in, in this order; the first wins."""


@dataclass(frozen=True)
class Contents:
    """What one file says."""

    path: Path | None
    given: list[Given] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Names that are no settings, where there can be no others."""


def discover(folder: Path) -> str | None:
    """The file that is read when none is named, as text for `read`; None if there is none."""
    for name in CONFIG_FILES:
        if (folder / name).is_file():
            return name
    project = folder / "pyproject.toml"
    if project.is_file() and "forkmaster" in _toml(project, project.name).get("tool", {}):
        return project.name
    return None


def read(spec: str, folder: Path) -> Contents:
    """The contents of the file that `spec` names: PATH, file:PATH or python:MODULE.

    A relative path is relative to `folder`, which must be the current one.  Executes a Python
    file.  Raises ConfigError.
    """
    if spec.startswith("python:"):
        return _python_module(spec.removeprefix("python:"))
    name = os.path.expanduser(spec.removeprefix("file:"))
    path = folder / name
    if not path.exists():
        raise ConfigError(f"there is no configuration file {name} in {folder}")
    if path.is_dir():
        raise ConfigError(f"{name} is a folder; name the configuration file in it")
    if path.suffix == ".toml":
        return _toml_file(path, name)
    return _python_file(path, name)


# Python


def _python_file(path: Path, name: str) -> Contents:
    source = _source(path, name)
    module = types.ModuleType("__config__")
    module.__file__ = str(path)
    sys.modules["__config__"] = module  # what the file defines can be pickled and inspected
    with _explained(path, name):
        tree = ast.parse(source, str(path))
        exec(compile(tree, str(path), "exec", dont_inherit=True), vars(module))
    return _from_namespace(vars(module), _Written.of(tree), path, name)


def _python_module(name: str) -> Contents:
    shown = f"python:{name}"
    sys.modules.pop(name, None)  # a reload executes it again
    importlib.invalidate_caches()  # and may find a file that is only just there
    with _explained(None, shown):
        try:
            spec = importlib.util.find_spec(name)
        except ModuleNotFoundError:
            spec = None  # a package above it does not exist
    if spec is None:
        raise ConfigError(f"there is no module {name} to read the configuration from")
    path = Path(spec.origin) if spec.has_location and spec.origin is not None else None
    with _explained(path, shown):
        module = importlib.import_module(name)
    source = _source(path, shown) if path is not None and path.suffix == ".py" else b""
    return _from_namespace(vars(module), _Written.of(ast.parse(source)), path, shown)


def _source(path: Path, name: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise ConfigError(f"cannot read {name}: {exc.strerror}") from None


@contextlib.contextmanager
def _explained(path: Path | None, name: str) -> Any:
    """Turns whatever the file raises into a ConfigError that names the line."""
    try:
        yield
    except SyntaxError as exc:
        where = name if path is not None and exc.filename == str(path) else exc.filename or name
        text = (exc.text or "").strip()
        raise ConfigError(f"{where}, line {exc.lineno}: {exc.msg}: {text}") from exc
    except (Exception, SystemExit) as exc:  # the file is somebody's program; anything can happen
        frames = traceback.extract_tb(exc.__traceback__)
        mine = [frame for frame in frames if path is not None and frame.filename == str(path)]
        what = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
        if isinstance(exc, SystemExit):
            what = f"it calls sys.exit({exc.code if exc.code is not None else ''})"
        if not mine:
            raise ConfigError(f"cannot load {name}: {what}") from exc
        line = mine[-1]
        # What the file imports from elsewhere in the project; the library's frames tell nothing.
        deeper = [frame for frame in frames if frame.filename.startswith(f"{Path.cwd()}{os.sep}")]
        where = ""
        if deeper and deeper[-1].filename != line.filename:
            where = f", raised in {deeper[-1].filename}, line {deeper[-1].lineno}"
        raise ConfigError(f"{name}, line {line.lineno}: {what}{where}: {line.line}") from exc


@dataclass(frozen=True)
class _Written:
    """What the text of a Python file says about the names in it."""

    lines: dict[str, list[int]]
    """Where the file itself gives each name a value."""
    used: set[str]
    """The names it reads."""

    @classmethod
    def of(cls, tree: ast.Module) -> _Written:
        written = cls({}, set())
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                written.used.add(node.id)
        written._statements(tree.body)
        return written

    def _statements(self, body: list[ast.stmt]) -> None:
        """Collects the assignments of the module itself, in `if` and the like too."""
        for node in body:
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    self._add(node.name, node)
                case ast.Assign():
                    for target in node.targets:
                        self._target(target)
                case ast.AnnAssign() | ast.AugAssign():
                    self._target(node.target)
                case ast.Import() | ast.ImportFrom():
                    for name in node.names:
                        self.used.add(name.asname or name.name.partition(".")[0])
                case _:
                    for block in ("body", "orelse", "finalbody"):
                        self._statements(getattr(node, block, []))
                    for handler in getattr(node, "handlers", []):
                        self._statements(handler.body)

    def _target(self, target: ast.expr) -> None:
        for node in ast.walk(target):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                self._add(node.id, node)

    def _add(self, name: str, node: ast.stmt | ast.expr) -> None:
        self.lines.setdefault(name, []).append(node.lineno)

    def place(self, name: str, file: str) -> str:
        lines = self.lines.get(name, [])
        if not lines:
            return file
        if len(lines) == 1:
            return f"{file}, line {lines[0]}"
        # Which of several branches ran cannot be seen from outside.
        return f"{file}, lines {' and '.join(map(str, lines))}"


def _from_namespace(
    namespace: dict[str, Any], written: _Written, path: Path | None, file: str
) -> Contents:
    contents = Contents(path)
    for name, value in namespace.items():
        place = written.place(name, file)
        setting = SETTINGS.get(name)
        if setting is not None and setting.in_python:
            # `import user` gives a module the name of a setting; nobody means it.
            if not isinstance(value, types.ModuleType):
                contents.given.append(Given(name, value, Origin("file", place)))
        elif name in written.lines and name not in written.used and setting is None:
            meant = near_miss(name, value)
            if meant is not None:
                contents.warnings.append(f"{name} is not a setting ({place}): {meant}")
    return contents


# TOML


def _toml(path: Path, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(_source(path, name).decode())
    except UnicodeDecodeError:
        raise ConfigError(f"{name} is not UTF-8, as TOML must be") from None
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{name} is not valid TOML: {exc}") from None


def _toml_file(path: Path, name: str) -> Contents:
    table = _toml(path, name)
    header = None
    if path.name == "pyproject.toml":
        table = table.get("tool", {}).get("forkmaster", {})
        header = "[tool.forkmaster]"
    contents = Contents(path)
    lines = _toml_lines(path, header)
    for key, value in table.items():
        place = f"{name}, line {lines[key]}" if key in lines else name
        if key in SETTINGS and key != "config":
            contents.given.append(Given(key, value, Origin("file", place)))
        else:
            contents.problems.append(not_a_setting(key, Origin("file", place)))
    return contents


def _toml_lines(path: Path, header: str | None) -> dict[str, int]:
    """The line of every key of the table under `header`, of the file itself if None.

    tomllib does not tell.  A key inside a text of several lines may be taken for one; a line
    in a message is then wrong, and nothing else.
    """
    lines: dict[str, int] = {}
    inside = header is None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        bare = line.strip()
        if bare.startswith("["):
            inside = bare.replace(" ", "") == header
            prefix = (header or "[")[:-1] + "." if header else "["
            if bare.startswith(prefix):
                key = bare[len(prefix) :].strip("[] ").partition(".")[0]
                lines.setdefault(key.strip("\"' "), number)
        elif inside and "=" in bare:
            lines.setdefault(bare.partition("=")[0].partition(".")[0].strip("\"' "), number)
    return lines
