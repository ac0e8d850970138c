"""Which interface an application speaks, as far as the text of its module tells.  In the master.

The master never imports the application, so what it is shows only in the worker that loads it.
But most are written in one of a few ways that leave no doubt, and for those a worker_class that
contradicts is refused before anything is bound or forked, and the first lines of the log name the
kind of worker.  A factory is read for what it returns, and `from … import` is followed.  Whatever
is not plain here is left to the worker, which asks the object itself.
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


# How many steps may lead to an application: `from … import`, or the call of a factory.
_MOST_STEPS = 5


def as_written(app: str, folders: Iterable[Path]) -> Interface | None:
    """The interface of `app`, whose module is looked for in `folders`; None if in any doubt."""
    module, _, expression = app.partition(":")
    try:
        wanted = ast.parse(expression or DEFAULT_ATTRIBUTE, mode="eval").body
    except SyntaxError:
        return None
    return _follow(module, wanted, tuple(folders), _MOST_STEPS)


def _follow(
    module: str, wanted: ast.expr, folders: tuple[Path, ...], steps: int
) -> Interface | None:
    path = _source(module, folders)
    if path is None or not steps:
        return None
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None  # the worker will say why
    match wanted:
        case ast.Name(name):
            found, made = _of_name(tree, name), _made_by(tree.body, tree, name)
            if found is None and made is not None:
                return _follow(module, made, folders, steps - 1)
        case ast.Call(ast.Name(name)):
            found = _of_factory(tree, name)
        case _:
            return None
    origin = _passed_on(tree, name)
    if found is not None or origin is None:
        return found
    origin_module = _absolute(origin, module, is_package=path.name == "__init__.py")
    return _follow(origin_module, wanted, folders, steps - 1)


def _source(module: str, folders: Iterable[Path]) -> Path | None:
    for folder in folders:
        path = folder.joinpath(*module.split("."))
        for candidate in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if candidate.is_file():
                return candidate
    return None


def _passed_on(tree: ast.Module, name: str) -> ast.ImportFrom | None:
    """The statement that brings `name` into the module under this very name, if one does."""
    if _times_touched(tree, name) != 1:
        return None
    for node in tree.body:
        match node:
            case ast.ImportFrom(names=names) if any(
                alias.name == name and alias.asname is None for alias in names
            ):
                return node
    return None


def _absolute(origin: ast.ImportFrom, module: str, *, is_package: bool) -> str:
    """The module that `origin`, a statement of `module`, imports from."""
    if not origin.level:
        return origin.module or ""
    parts = module.split(".")
    above = parts[: len(parts) - origin.level + is_package]
    return ".".join([*above, *([origin.module] if origin.module else [])])


def _of_name(tree: ast.Module, name: str) -> Interface | None:
    # Also a second value, an attribute that is set, and `del` are a store or a deletion of it.
    if _times_touched(tree, name) != 1:
        return None
    for node in tree.body:
        match node:
            case ast.AsyncFunctionDef(decorator_list=[]) if node.name == name:
                return "asgi" if _positional(node) == 3 else None
            case ast.FunctionDef(decorator_list=[]) if node.name == name:
                return "wsgi" if _positional(node) == 2 else None
    made = _made_by(tree.body, tree, name)
    return None if made is None else _of_call(tree, made)


def _made_by(body: list[ast.stmt], scope: ast.AST, name: str) -> ast.Call | None:
    """The call in `body` that gives `name` its only value in `scope`."""
    if _times_touched(scope, name) != 1:
        return None
    for node in body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id)], value=ast.Call() as made)
                | ast.AnnAssign(target=ast.Name(id), value=ast.Call() as made)
            ) if id == name:
                return made
    return None


def _of_factory(tree: ast.Module, name: str) -> Interface | None:
    """What the function `name` returns, if it is one application wherever it returns."""
    if _times_touched(tree, name) != 1:
        return None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name and not node.decorator_list:
            inside = list(ast.walk(node))
            if any(isinstance(each, ast.Yield | ast.YieldFrom | ast.Lambda) for each in inside):
                return None
            if sum(isinstance(each, ast.FunctionDef | ast.ClassDef) for each in inside) > 1:
                return None  # whose returns these are would be a study of its own
            returned = {
                _of_returned(tree, node, each.value)
                for each in inside
                if isinstance(each, ast.Return)
            }
            return returned.pop() if len(returned) == 1 else None
    return None


def _of_returned(
    tree: ast.Module, function: ast.FunctionDef, value: ast.expr | None
) -> Interface | None:
    made = value
    if isinstance(value, ast.Name):
        made = _made_by(function.body, function, value.id)
    return _of_call(tree, made) if isinstance(made, ast.Call) else None


def _of_call(tree: ast.Module, made: ast.Call) -> Interface | None:
    """What a call makes: `FastAPI()` or `fastapi.FastAPI()`."""
    match made.func:
        case ast.Name(maker):
            return _MAKERS.get((_imported_from(tree, maker), maker))
        case ast.Attribute(ast.Name(module), maker) if _is_imported(tree, module):
            return _MAKERS.get((module, maker))
    return None


def _times_touched(tree: ast.AST, name: str) -> int:
    return sum(_touches(node, name) for node in ast.walk(tree))


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
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0
        for alias in node.names
        if alias.name == name and alias.asname is None
    }
    once = len(modules) == 1 and _times_touched(tree, name) == 1
    return modules.pop() if once else ""


def _is_imported(tree: ast.Module, module: str) -> bool:
    """Whether the name `module` is that module, and nothing else."""
    imported = any(
        alias.name == module and alias.asname is None
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    )
    return imported and _times_touched(tree, module) == 1
