"""The records of incidents, read back.  docs/incidents.md has their fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class Incidents:
    """The newest records of one folder; each is read once."""

    def __init__(self) -> None:
        self._read: dict[str, Record] = {}

    def newest(self, folder: Path, count: int) -> list[Record]:
        """The last `count` records, the newest first; none if they are not ours to read."""
        try:
            # Their names begin with the time, down to the millisecond.
            paths = sorted(folder.glob("incident-*.json"), reverse=True)[:count]
        except OSError:
            return []
        self._read = {
            path.name: record
            for path in paths
            if (record := self._read.get(path.name) or _record_in(path)) is not None
        }
        return list(self._read.values())


def _record_in(path: Path) -> Record | None:
    try:
        record: Record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None  # dropped just now as one of the oldest, or somebody else's file
    return record
