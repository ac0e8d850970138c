"""Which interface an application speaks, as far as the text of its module tells.  In the master.

The master never imports the application, so what it is shows only in the worker that loads it.
But most are written in one of a few ways that leave no doubt, and for those a worker_class that
contradicts is refused before anything is bound or forked, and the first lines of the log name the
kind of worker.  Whatever is not plain here is left to the worker, which asks the object itself.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from forkmaster.worker.application import DEFAULT_ATTRIBUTE

Interface = Literal["wsgi", "asgi"]

# What makes an application when it is called, by where it is imported from.
_MAKERS: Mapping[tuple[str, str], Interface] = {
    ("django.core.asgi", "get_asgi_application"): "asgi",
    ("django.core.wsgi", "get_wsgi_application"): "wsgi",
    ("channels.routing", "ProtocolTypeRouter"): "asgi",
    ("fastapi", "FastAPI"): "asgi",
    ("starlette.applications", "Starlette"): "asgi",
    ("flask", "Flask"): "wsgi",
}


def as_written(app: str, folders: Iterable[Path]) -> Interface | None:
    """The interface of `app`, whose module is looked for in `folders`; None if in any doubt."""
    module, _, name = app.partition(":")
    path = _source(module, folders)
    if path is None:
        return None
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None  # the worker will say why
    return _interface(tree, name or DEFAULT_ATTRIBUTE)


def _source(module: str, folders: Iterable[Path]) -> Path | None:
    for folder in folders:
        path = folder.joinpath(*module.split("."))
        for candidate in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if candidate.is_file():
                return candidate
    return None


def _interface(tree: ast.Module, name: str) -> Interface | None:
    # Also a second value, an attribute that is set, and `del` are a store or a deletion of it.
    touched = sum(_touches(node, name) for node in ast.walk(tree))
    if touched != 1:
        return None
    for node in tree.body:
        match node:
            case ast.AsyncFunctionDef(decorator_list=[]) if node.name == name:
                return "asgi" if _positional(node) == 3 else None
            case ast.FunctionDef(decorator_list=[]) if node.name == name:
                return "wsgi" if _positional(node) == 2 else None
            case ast.Assign(targets=[ast.Name(id)], value=ast.Call(ast.Name(maker))) if id == name:
                return _MAKERS.get((_imported_from(tree, maker), maker))
    return None


def _touches(node: ast.AST, name: str) -> bool:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return node.name == name
        case ast.Name(ctx=ast.Store() | ast.Del()):
            return node.id == name
        case ast.Attribute(value=ast.Name(id), ctx=ast.Store() | ast.Del()):
            return id == name
        case ast.alias():
            return (node.asname or node.name) in (name, "*")
        case ast.Global():
            return name in node.names
    return False


def _positional(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int | None:
    """How many arguments it takes, all of them by position; None if that is not all."""
    found = function.args
    if found.vararg or found.kwarg or found.kwonlyargs or found.defaults:
        return None
    return len(found.posonlyargs) + len(found.args)


def _imported_from(tree: ast.Module, name: str) -> str:
    """The module that `name` is imported from, if it is there once and under this name."""
    modules = {
        node.module
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0
        for alias in node.names
        if alias.name == name and alias.asname is None
    }
    touched = sum(_touches(node, name) for node in ast.walk(tree))
    return modules.pop() if len(modules) == 1 and touched == 1 else ""
