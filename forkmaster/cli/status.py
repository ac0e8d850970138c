"""The commands that look at a running server: status, health, incidents.

They read the board, and ask nobody: a master or a worker that hangs is shown as what it is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from forkmaster.board.notice import read_notice
from forkmaster.cli import masters
from forkmaster.cli.masters import MasterError
from forkmaster.monitor.incidents import Incidents, Record
from forkmaster.monitor.status import Status, Watcher, WorkerStatus, unready

BETWEEN_LOOKS = 0.5  # seconds: a rate needs two
DEATHS_SHOWN = 5

JSON = click.Option(["--json", "as_json"], is_flag=True, help="As JSON.")
HELP = {"help_option_names": ["-h", "--help"]}


def command() -> click.Command:
    return click.Command(
        "status",
        params=[JSON, *masters.options()],
        callback=show_status,
        help="Show the server and its workers. The exit code is 1 if it is not ready.",
        context_settings=HELP,
    )


def health() -> click.Command:
    return click.Command(
        "health",
        params=masters.options(),
        callback=check_health,
        help=(
            "Exit with 0 if the server is ready for requests, and with 1 if not, for "
            "HEALTHCHECK in a Dockerfile."
        ),
        context_settings=HELP,
    )


def incidents() -> click.Command:
    return click.Command(
        "incidents",
        params=[
            click.Argument(["count"], type=click.IntRange(min=1), default=5, metavar="[COUNT]"),
            JSON,
            *masters.options(),
        ],
        callback=show_incidents,
        help="Show the last hangs and abnormal deaths, with what was served and the stacks.",
        context_settings=HELP,
    )


def show_status(as_json: bool, pid: int | None, root: Path | None) -> int:
    watcher = Watcher(masters.choose(pid, root).path)
    status = _looked(watcher)
    time.sleep(BETWEEN_LOOKS)
    status = _looked(watcher)
    if as_json:
        print(masters.as_json(status.as_json()))
    else:
        print("\n".join(screen(status, time.time())))
    return 1 if unready(status) else 0


def check_health(pid: int | None, root: Path | None) -> int:
    problem = unready(_looked(Watcher(masters.choose(pid, root).path)))
    if problem:
        raise MasterError(problem)
    return 0


def show_incidents(count: int, as_json: bool, pid: int | None, root: Path | None) -> int:
    found = masters.choose(pid, root)
    notice = read_notice(found.path)
    records = Incidents().newest(Path(notice.incidents), count) if notice is not None else []
    if as_json:
        print(masters.as_json(records))
    elif not records:
        print("nothing has happened")
    else:
        print("\n\n".join("\n".join(account(record)) for record in records))
    return 0


def _looked(watcher: Watcher) -> Status:
    try:
        return watcher.look(time.monotonic())
    except FileNotFoundError:
        raise MasterError("the server starts, or has just stopped") from None


# --- The screen of status -----------------------------------------------------------------------


def screen(status: Status, now: float) -> list[str]:
    """The lines of `forkmaster status`; `now` is seconds since 1970."""
    lines = [*head(status, now), "", *table(HEADINGS, [row(each) for each in status.workers])]
    deaths = status.notice.deaths[:DEATHS_SHOWN]
    if deaths:
        lines += ["", "last exits"]
    return lines + [
        f"  {span(now - death.at)} ago  worker {death.serial} (pid {death.pid}): {death.text}"
        for death in deaths
    ]


def head(status: Status, now: float) -> list[str]:
    """The lines about the server as a whole."""
    notice = status.notice
    lines = [
        f"{notice.app}: {notice.state}, {status.ready} of {notice.wanted} workers ready,"
        f" {status.busy} busy",
        f"forkmaster {notice.version}, Python {notice.python}, master {status.pid},"
        f" up {span(status.uptime)}",
    ]
    if notice.file is not None:
        lines.append(f"settings: {notice.file}")
    lines.append(f"generation {notice.generation}{_outcome(status, now)}")
    problem = unready(status)
    if problem:
        lines.append(f"not ready: {problem}")
    for listener in status.listeners:
        queue = "" if listener.waiting is None else f": {listener.waiting} of {listener.limit} wait"
        lines.append(f"listening on {listener.address}{queue}")
    lines.append(_traffic(status))
    lost = status.counters["lines_lost"]
    if lost:
        lines.append(f"{lost} lines of the logs could not be written")
    return lines


HEADINGS = (
    *("worker", "pid", "kind", "state", "age", "requests", "req/s", "p50", "p95"),
    *("memory", "CPU", "in flight", "serving"),
)
TEXT_COLUMNS = frozenset({"kind", "state", "serving"})


def row(worker: WorkerStatus) -> tuple[str, ...]:
    """The cells of one worker."""
    state = f"{worker.state} ({worker.recycle})" if worker.recycle else worker.state
    serving = ""
    if worker.current:
        first = worker.current[0]
        serving = f"{first.method} {first.target} for {duration(first.seconds)}"
    return (
        str(worker.serial),
        str(worker.pid),
        worker.kind,
        state,
        span(worker.age),
        str(worker.requests),
        rate(worker.rate),
        duration(worker.p50),
        duration(worker.p95),
        size(worker.memory),
        "-" if worker.cpu is None else f"{worker.cpu:.0%}",
        str(worker.in_flight),
        serving,
    )


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns: texts to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if heading in TEXT_COLUMNS else cell.rjust(width)
            for cell, width, heading in zip(cells, widths, headings, strict=True)
        ).rstrip()
        for cells in (headings, *rows)
    ]


def _outcome(status: Status, now: float) -> str:
    outcome = status.notice.outcome
    if outcome is None:
        return ""
    words = {"committed": "went through", "rolled_back": "was rolled back"}
    how = words.get(outcome.result, f"was {outcome.result}")
    reason = f": {outcome.reason.splitlines()[0]}" if outcome.reason else ""
    return f"; the last reload {how} {span(now - outcome.at)} ago{reason}"


def _traffic(status: Status) -> str:
    failed = status.counters["status_5xx"]
    return (
        f"{status.requests} requests, {rate(status.rate)} per second, {failed} failed (5xx);"
        f" p50 {duration(status.quantile(0.5))}, p95 {duration(status.quantile(0.95))},"
        f" p99 {duration(status.quantile(0.99))}"
    )


# --- Words for numbers --------------------------------------------------------------------------


def span(seconds: float) -> str:
    """An age, in its two largest units."""
    whole = max(0, math.floor(seconds))
    for size, unit, smaller, name in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}{f' {rest} {name}' if rest else ''}"
    return f"{whole} s"


def duration(seconds: float | None) -> str:
    """How long a request took."""
    if seconds is None:
        return "-"
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 1:
        return f"{seconds * 1e3:.{1 if seconds < 0.01 else 0}f} ms"
    return f"{seconds:.1f} s"


def rate(value: float | None) -> str:
    """So many per second."""
    return "-" if value is None else f"{value:.{1 if value < 10 else 0}f}"


def size(octets: int | None) -> str:
    """Bytes of memory."""
    return "-" if octets is None else f"{octets / (1 << 20):.1f} MiB"


# --- Incidents ----------------------------------------------------------------------------------


def account(record: Record) -> list[str]:
    """One incident in full."""
    lines = [f"{_text(record, 'time')}  {_text(record, 'summary')}"]
    lines += [f"  {line}" for line in _own(record)]
    recent = record.get("recent") or []
    if recent:
        lines.append("  before that:")
        lines += [
            f"    {_text(each, 'request')} {each.get('status')} in {each.get('seconds')} s"
            for each in recent
        ]
    return lines


def _own(record: Record) -> list[str]:
    from forkmaster.master.incidents import own_frames

    return own_frames("\n".join(record.get("stacks") or ())).splitlines()


def _text(record: dict[str, Any], name: str) -> str:
    return str(record.get(name, ""))
