"""How long to wait before the next worker, after some have died.  Pure.

One counter for the whole fleet: a broken application breaks every worker the same way, and a
back-off per worker would multiply the forks by their number.

Two kinds of death count.  A worker that never became ready (a *failure*) makes the next attempt
wait 1 s, then 1.5 s, and half as long again each time, up to 30 s (einhorn's figures); the
first worker that becomes ready ends that.  A worker that was ready but lived only shortly (a
*quick death*) is replaced at once the first few times, because a single crash must not cost
capacity, and waits like the others when it goes on.
"""

from __future__ import annotations

from dataclasses import dataclass

GROWTH = 1.5
LONGEST = 30.0  # seconds
QUICK = 10.0  # seconds: a worker that was ready for less died quickly
FREE = 3  # quick deaths in a row that are replaced without a wait
IN_A_ROW = LONGEST + QUICK  # seconds: two quick deaths further apart are not a row


@dataclass
class Backoff:
    """Counts deaths that nobody asked for, and says when the next attempt is allowed."""

    failures: int = 0
    quick_deaths: int = 0
    last_quick: float = 0.0
    retry_at: float = 0.0  # monotonic seconds; 0.0 means at once

    def died_unready(self, now: float) -> float:
        """Record a worker that died before it was ready.  Returns the wait in seconds."""
        self.failures += 1
        return self._wait(self.failures - 1, now)

    def died_ready(self, lived: float, now: float) -> float:
        """Record a worker that died `lived` seconds after it became ready.  Returns the wait."""
        if lived >= QUICK or now - self.last_quick > IN_A_ROW:
            self.quick_deaths = 0
        if lived >= QUICK:
            return 0.0
        self.quick_deaths += 1
        self.last_quick = now
        if self.quick_deaths <= FREE:
            return 0.0
        return self._wait(self.quick_deaths - FREE - 1, now)

    def became_ready(self) -> None:
        """A worker booted, so the application is not broken: end the wait for failures."""
        if self.failures:
            self.failures = 0
            self.retry_at = 0.0

    def reset(self) -> None:
        """Forget everything: there is new code."""
        self.failures = self.quick_deaths = 0
        self.retry_at = 0.0

    @property
    def cautious(self) -> bool:
        """Whether to try one worker at a time, because the last ones failed."""
        return self.failures > 0 or self.quick_deaths > FREE

    def _wait(self, exponent: int, now: float) -> float:
        # Past the 30th power the float would overflow long after the limit is reached.
        wait = min(GROWTH ** min(exponent, 30), LONGEST)
        self.retry_at = now + wait
        return wait
