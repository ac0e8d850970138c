"""Which worker to replace for the memory it holds.  Pure.

Two reasons.  A worker has more private memory than `max_worker_memory`; it is replaced as for any
limit.  Or the control group is nearly full: then the kernel will soon kill somebody, most likely a
worker in the middle of its requests, so the one that has grown most is recycled first.  Replacing
one that has not grown would gain nothing and be repeated for ever, so that is only said, once.

Private memory, not resident: what a worker shares with its siblings since the fork counts for all
of them and is freed by the end of none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

MEBIBYTE = 1 << 20
LOOK = 5.0  # seconds between two looks
LOOK_UNDER_PRESSURE = 1.0
IN_A_ROW = 2  # looks that must agree: a single one may meet a passing peak
FIRST_LOOK = 1.0  # seconds after a worker became ready: what it holds then, its application needs
TOO_LARGE = 600.0  # seconds that a worker is kept whose application alone exceeds the limit
PRESSURE = 0.9  # of the limit of the control group
RELIEF = 0.8
WORTH_IT = 0.02  # of that limit: less gained is not worth a replacement
REST = 30.0  # seconds after a replacement: it takes time to free what the old one held


@dataclass(frozen=True)
class Holding:
    """What one ready worker holds."""

    private: int
    ready_for: float
    """Seconds."""


@dataclass(frozen=True)
class Group:
    """The control group, in bytes; what the kernel can drop at will is not in use."""

    limit: int
    used: int


@dataclass(frozen=True)
class Replace:
    """Recycle this worker."""

    serial: int
    reason: str
    makes_room: bool = False
    """There is no room for both: its replacement must wait until it has ended."""


@dataclass(frozen=True)
class Notice:
    """Nothing can be done but to say so."""

    text: str


@dataclass
class MemoryJudge:
    """Remembers what the last looks said."""

    _over: dict[int, int] = field(default_factory=dict)  # looks in a row over max_worker_memory
    _first: dict[int, int] = field(default_factory=dict)  # what each held at its first look
    _pressed: int = 0  # looks in a row under pressure
    _rest_until: float = 0.0
    _complained: set[str] = field(default_factory=set)

    def next_look(self, now: float) -> float:
        """When to look again, monotonic seconds."""
        return now + (LOOK_UNDER_PRESSURE if self._pressed else LOOK)

    def knows(self, serial: int) -> bool:
        """Whether it has looked at that worker before."""
        return serial in self._first

    def judge(
        self, holdings: Mapping[int, Holding], limit: int, group: Group | None, now: float
    ) -> list[Replace | Notice]:
        """What to do.  `limit` is max_worker_memory, 0 without; holdings by serial."""
        self._learn(holdings)
        found: list[Replace | Notice] = []
        if limit:
            found += self._over_limit(holdings, limit)
        if group is not None:
            found += self._under_pressure(holdings, group, now)
        return found

    def room_for(self, group: Group | None) -> int | None:
        """How many more workers fit before there is pressure; None if nobody can tell."""
        fresh = self._fresh
        if group is None or not fresh:
            return None
        return max(0, int(PRESSURE * group.limit - group.used) // fresh)

    @property
    def _fresh(self) -> int:
        """What a worker holds that has just become ready; 0 before the first look."""
        return min(self._first.values(), default=0)

    def _learn(self, holdings: Mapping[int, Holding]) -> None:
        self._first = {
            serial: self._first.get(serial, holding.private) for serial, holding in holdings.items()
        } or self._first

    def _over_limit(self, holdings: Mapping[int, Holding], limit: int) -> list[Replace | Notice]:
        self._over = {
            serial: self._over.get(serial, 0) + 1
            for serial, holding in holdings.items()
            if holding.private > limit
        }
        found: list[Replace | Notice] = []
        for serial, looks in self._over.items():
            if looks < IN_A_ROW:
                continue
            first, holding = self._first[serial], holdings[serial]
            if first > limit and holding.ready_for < TOO_LARGE:
                # Its replacement would be over the limit too, and so on, every few seconds.
                found += self._complain(
                    "limit",
                    f"max_worker_memory is {_mebibytes(limit)}, but a worker that has just started"
                    f" holds {_mebibytes(first)}; it is kept for {TOO_LARGE / 60:.0f} minutes",
                )
                continue
            held = _mebibytes(holding.private)
            found.append(Replace(serial, f"max_worker_memory: it holds {held} for itself"))
        return found

    def _under_pressure(
        self, holdings: Mapping[int, Holding], group: Group, now: float
    ) -> list[Replace | Notice]:
        share = group.used / group.limit
        if share < (RELIEF if self._pressed else PRESSURE):
            self._pressed = 0
            self._complained.discard("pressure")
            return []
        self._pressed += 1
        if self._pressed < IN_A_ROW or now < self._rest_until or not holdings or share < PRESSURE:
            return []
        serial = max(holdings, key=lambda each: holdings[each].private)
        held = holdings[serial].private
        full = f"{share:.0%} of the memory of the control group ({_mebibytes(group.limit)}) is used"
        if held - self._fresh < WORTH_IT * group.limit:
            return self._complain(
                "pressure", f"{full}, and no worker has grown; there are too many, or too large"
            )
        self._rest_until = now + REST
        makes_room = group.limit - group.used < self._fresh
        return [Replace(serial, f"{full}; it holds {_mebibytes(held)} for itself", makes_room)]

    def _complain(self, what: str, text: str) -> list[Replace | Notice]:
        if what in self._complained:
            return []
        self._complained.add(what)
        return [Notice(text)]


def _mebibytes(size: int) -> str:
    return f"{size / MEBIBYTE:.0f} MiB"
