"""The pictures of docs/, which the tests take: FORKMASTER_PICTURES=1 pytest tests/e2e."""

from __future__ import annotations

import os

from tests.process.harness import ROOT

RENEWED = bool(os.environ.get("FORKMASTER_PICTURES"))


def keep(picture: bytes, name: str) -> None:
    """Put a picture where the documentation shows it, if they are to be renewed."""
    if RENEWED:
        (ROOT / "docs" / "pictures" / name).write_bytes(picture)
