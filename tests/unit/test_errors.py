"""Every message that ends a command or a start is seen by some test."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import forkmaster
from forkmaster import errors
from forkmaster.errors import AppError, ConfigError, ForkmasterError

PACKAGE = Path(forkmaster.__file__).parent
TESTS = Path(__file__).parents[1]

# What a person reads.  The mistakes of clients are Refused, and tests/http has those.
FOR_PEOPLE = {
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, Exception)
} | {"BadValueError"}
# Shorter ones could stand in a test by chance.
LONG_ENOUGH = 12

# Those that no test can provoke, with the reason.
UNSEEN = {
    "cannot go into the background:": "a fork fails only where the user may have no more processes",
}


def literals(tree: ast.AST) -> Iterator[str]:
    """The texts in `tree`, of formatted ones the parts between the braces."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def messages() -> dict[str, list[str]]:
    """The texts of each message, by the place where it is raised."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(name) | ast.Attribute(attr=name), args=args) if (
                    name in FOR_PEOPLE
                ):
                    for number, argument in enumerate(args):
                        texts = [text.strip() for text in literals(argument)]
                        texts = [text for text in texts if len(text) >= LONG_ENOUGH]
                        if texts:
                            place = f"{path.relative_to(PACKAGE)}, line {node.lineno}, {number}"
                            found[place] = texts
    return found


MESSAGES = messages()
SEEN = {
    # As a pattern has them.
    text.replace("\\", "").strip("^$ ")
    for path in TESTS.rglob("test_*.py")
    if path != Path(__file__)
    for text in literals(ast.parse(path.read_text()))
}


def is_seen(text: str) -> bool:
    """Whether a test has this text whole, or a good part of it."""
    return any(text in seen or (len(seen) >= LONG_ENOUGH and seen in text) for seen in SEEN)


@pytest.mark.parametrize("place", MESSAGES)
def test_a_message_is_seen_by_a_test(place: str) -> None:
    texts = MESSAGES[place]

    assert any(text in UNSEEN or is_seen(text) for text in texts), texts


def test_of_a_configuration_every_line_is_a_problem() -> None:
    assert ConfigError("a\nb").said() == "forkmaster: a\nforkmaster: b"
    assert AppError("a\n  b").said() == "forkmaster: a\n  b"


def test_every_kind_of_failure_has_an_exit_code_of_its_own() -> None:
    kinds = ForkmasterError.__subclasses__()
    codes = {kind.__name__: kind.exit_code for kind in kinds if kind.__module__ == errors.__name__}

    assert codes == {
        "UsageError": 2, "BootError": 3, "AppError": 4, "ConfigError": 5, "BindError": 1,
    }  # fmt: skip
