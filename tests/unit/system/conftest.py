"""What the tests of several modules of this folder need."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that everybody may write to and whose path everybody may walk."""
    folder = Path(tempfile.mkdtemp(prefix="forkmaster-test-"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)
