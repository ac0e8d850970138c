"""Compares forkmaster with the other servers, side by side in one run.

    python scripts/benchmark.py                 every comparison, 5 rounds
    python scripts/benchmark.py hello tail      only these
    python scripts/benchmark.py --rounds 3 --write

Every server runs alone on the first processor of this machine, the load on the second.  A round
starts each server once, so a change in the machine's speed meets all of them; the figure of a
server is the median of its rounds, and what is compared is the ratio.  Throughput is counted by
the clock, which wants a machine with nothing else to do, and beside it for each second of
processor time that the server took, which a busy one disturbs less.  Nothing here decides whether
a test passes.  `--write` puts the tables into docs/benchmarks.md.

The other servers come from PyPI into a virtual environment of their own (.venv-bench); one that
cannot be built here is left out with a line that says so.  The load is Debian's wrk.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from bench import measures, servers
from bench.report import Table, markdown

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

COMPARISONS: dict[str, Callable[[int], Table]] = {
    "hello": measures.hello,
    "browser": measures.browser,
    "close": measures.close,
    "threads": measures.threads,
    "django": measures.django,
    "download": measures.download,
    "upload": measures.upload,
    "asgi": measures.asgi,
    "asgi-close": measures.asgi_close,
    "tail": measures.tail,
    "idle-connections": measures.idle_connections,
    "websockets": measures.websockets,
    "idle": measures.idle,
    "start": measures.start,
    "memory": measures.memory,
    "respawn": measures.respawn,
    "access-log": measures.access_log,
    "board": measures.board,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(COMPARISONS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(COMPARISONS)
    if unknown:
        parser.error(f"no such comparison: {', '.join(sorted(unknown))}")
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: apt-get install wrk")
    missing = servers.prepare()
    tables = []
    for name in arguments.names or COMPARISONS:
        print(f"--- {name}", file=sys.stderr, flush=True)
        table = COMPARISONS[name](arguments.rounds)
        tables.append(table)
        print(markdown(table), flush=True)
    for reason in missing:
        print(f"left out: {reason}")
    if arguments.write:
        write(tables, missing)


def write(tables: list[Table], missing: list[str]) -> None:
    """Replace what was measured in the page; tables that were not measured now stay."""
    text = PAGE.read_text()
    head, _, rest = text.partition(BEGIN)
    before, _, tail = rest.partition(END)
    shown = {part.partition("\n")[0]: part for part in re.split(r"^### ", before, flags=re.M)[1:]}
    for table in tables:
        shown[table.title] = markdown(table).removeprefix("### ") + "\n"
    left_out = "".join(f"Left out: {reason}.\n" for reason in missing)
    measured = "".join(f"### {part}" for part in shown.values())
    PAGE.write_text(f"{head}{BEGIN}\n{about()}\n{left_out}\n{measured}{END}{tail}")


def about() -> str:
    """When and with what it was measured."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    versions = subprocess.run(
        [servers.BENCH / "bin" / "pip", "list", "--format=freeze"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    wanted = re.findall(r"^(?:granian|gunicorn|uvicorn|bjoern|uWSGI)==.*$", versions, re.M)
    return (
        f"Measured on {datetime.date.today()} with Python {platform.python_version()},"
        f" Linux {platform.release().split('-')[0]}, {cpu[1] if cpu else 'an unknown processor'};"
        f" {', '.join(each.replace('==', ' ') for each in wanted)}.\n"
    )


if __name__ == "__main__":
    main()
