"""The WSGI application of the Django project in a folder, found without importing the project.

manage.py names the settings module, and the settings name the application; both are read as
text, because the process that reads them must not import what it will fork workers to import.
"""

from __future__ import annotations

import ast
from pathlib import Path


def find_application(folder: Path) -> str | None:
    """The application as MODULE:ATTRIBUTE; None if the folder holds no Django project."""
    settings = settings_module(folder / "manage.py")
    if settings is None:
        return None
    path = folder.joinpath(*settings.split("."))
    candidates = [path.with_suffix(".py"), path / "__init__.py"]
    # Split settings import the common ones from a module beside them.
    candidates += sorted(path.parent.glob("*.py"))
    for candidate in candidates:
        dotted = _wsgi_application(candidate)
        if dotted is not None:
            module, _, attribute = dotted.rpartition(".")
            return f"{module}:{attribute}" if module else None
    package = settings.partition(".")[0]
    return f"{package}.wsgi:application" if (folder / package / "wsgi.py").is_file() else None


def settings_module(manage: Path) -> str | None:
    """What manage.py makes the default of DJANGO_SETTINGS_MODULE."""
    for node in ast.walk(_parsed(manage)):
        match node:
            case ast.Call(args=[ast.Constant("DJANGO_SETTINGS_MODULE"), ast.Constant(str(module))]):
                return module
    return None


def _wsgi_application(settings: Path) -> str | None:
    for node in _parsed(settings).body:
        match node:
            case ast.Assign(targets=[ast.Name("WSGI_APPLICATION")], value=ast.Constant(str(path))):
                return path
    return None


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ast.Module([], [])  # what cannot be read names nothing; Django will say why
