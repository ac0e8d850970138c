"""docs/operations.md knows every warning and error that the code writes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "forkmaster"
LEVELS = ("warning", "error", "critical", "exception")
PLACEHOLDER = re.compile(r"%[-+ 0-9.]*[a-zA-Z]")

# Where sentences are made that others log: whole, or as what is said of a process.
MAKERS = {
    "config/files.py": ("_from_namespace",),
    "config/shim/__init__.py": ("unheard",),
    "config/sources.py": ("_from_environment", "_parse", "_in_place_of_green", "_idle_settings"),
    "master/family.py": ("_report",),
    "master/master.py": ("_perform",),
    "master/memory.py": ("_over_limit", "_under_pressure"),
    "master/startup.py": ("_doubts",),
    "master/escalation.py": ("_overdue", "_judge_request"),
    "system/processes.py": ("__str__",),
    "worker/fork_safety.py": ("_thread_problems", "_socket_problems"),
}
# What is in there, but part of another sentence, or no more than info.
NO_SENTENCES = {
    ", connected at …",
    "; started at …",
    "before it was ready",
    "max_worker_memory: it holds … for itself",
    "1 thread",
    "pid … (…)",
    "request_timeout … s",
    "… threads",
    "started by C code",
    "… and cannot give it up",
    "… of the memory of the control group (…) is used",
    "… started (pid …, generation …): …",  # its level is info or debug
    "…; it holds … for itself",
    "; nobody here asked it to",
}


def documented() -> set[str]:
    page = (ROOT / "docs" / "operations.md").read_text()
    return set(re.findall(r"^\| `(.+?)` \|", page, re.M))


def test_every_warning_and_error_is_on_the_page() -> None:
    lines = documented()

    missing = sorted(f"{where}: {line}" for where, line in written() if line not in lines)

    assert not missing, "add these to docs/operations.md:\n" + "\n".join(missing)


def test_the_page_has_no_line_that_nobody_writes() -> None:
    assert documented() - {line for _, line in written()} == set()


def test_the_places_where_sentences_are_made_are_there() -> None:
    for path, names in MAKERS.items():
        tree = ast.parse((PACKAGE / path).read_text())
        there = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert set(names) <= there, path


def written() -> Iterator[tuple[str, str]]:
    """Where each line is written, and the line with … for what changes."""
    for path in PACKAGE.rglob("*.py"):
        name = str(path.relative_to(PACKAGE))
        tree = ast.parse(path.read_text())
        makers = MAKERS.get(name, ())
        for node in ast.walk(tree):
            found: Iterator[ast.expr] = iter(())
            if isinstance(node, ast.Call):
                found = logged(node)
            elif isinstance(node, ast.FunctionDef) and node.name in makers:
                found = made(node)
            for each in found:
                line = line_of(each)
                if re.search("[a-z]{2}", line) and line not in NO_SENTENCES:
                    yield f"forkmaster/{name}:{each.lineno}", line


def logged(call: ast.Call) -> Iterator[ast.expr]:
    """The format of a call that logs a warning or an error, or may."""
    match call:
        case ast.Call(func=ast.Attribute(value=logger, attr=attr), args=[first, *rest]):
            if not re.search(r"log$|getLogger\(\w+\)$", ast.unparse(logger)):
                return
            if attr in LEVELS:
                yield first
            elif attr == "log" and not re.match(r"logging\.|routine\(", ast.unparse(first)):
                yield rest[0]


def made(function: ast.FunctionDef) -> Iterator[ast.expr]:
    """The texts that a function returns, yields, collects, or gives a name."""
    for node in ast.walk(function):
        match node:
            case ast.Return(value=value) | ast.Yield(value=value) | ast.Assign(value=value):
                yield from texts_in(value)
            case ast.Call(func=ast.Attribute(attr="append" | "_complain"), args=arguments):
                yield from texts_in(arguments[-1])
            case ast.Call(func=ast.Name(id="Dump"), args=arguments):
                yield from texts_in(arguments[-1])
            case ast.Call(func=ast.Attribute(attr="_tell_failed"), args=[what, *_]):
                yield from texts_in(what)
            case ast.AugAssign(value=value):
                yield from texts_in(value)


def texts_in(value: ast.expr | None) -> Iterator[ast.expr]:
    """What of an expression is a sentence; `value` itself, or the parts of a list or a choice."""
    match value:
        case ast.JoinedStr() | ast.Constant(value=str()):
            yield value
        case ast.List(elts=parts):
            for part in parts:
                yield from texts_in(part)
        case ast.ListComp(elt=part):
            yield from texts_in(part)
        case ast.IfExp(body=one, orelse=other):
            yield from texts_in(one)
            yield from texts_in(other)


def line_of(text: ast.expr) -> str:
    """A format, or a text with values in it, as the page has it."""
    match text:
        case ast.Constant(value=str(format_)):
            line = PLACEHOLDER.sub("…", format_).replace("%%", "%")
        case ast.JoinedStr(values=parts):
            line = "".join(str(p.value) if isinstance(p, ast.Constant) else "…" for p in parts)
        case _:
            return ""
    # A traceback follows below, and is no part of the line.
    return re.sub("…+", "…", line).replace("\n…", "…").strip()
