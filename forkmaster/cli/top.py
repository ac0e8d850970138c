"""`forkmaster top`: the workers of a running server, live, with keys to act on them.

`Screen` is pure: keys and statuses in, lines and orders out.  Around it are a terminal and a
clock.  rich, if it is installed (`pip install forkmaster[top]`), colours the lines; what they say
is the same without it.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

import click

from forkmaster.board.reader import BoardFolder
from forkmaster.cli import masters
from forkmaster.cli.masters import MasterError
from forkmaster.cli.status import HEADINGS, HELP, head, row, table
from forkmaster.master import protocol
from forkmaster.monitor.status import Status, Watcher, WorkerStatus

SORTS: dict[str, Callable[[WorkerStatus], float]] = {
    "worker": lambda worker: worker.serial,
    "req/s": lambda worker: -(worker.rate or 0.0),
    "CPU": lambda worker: -(worker.cpu or 0.0),
    "memory": lambda worker: -(worker.memory or 0),
    "p95": lambda worker: -(worker.p95 or 0.0),
    "serving": lambda worker: -max((each.seconds for each in worker.current), default=0.0),
}
KEYS = "q quit  s sort  up/down choose  r recycle  t stacks  + - scale  p pause"
ARROWS = {"\x1b[A": "up", "\x1b[B": "down", "k": "up", "j": "down"}

ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
HOME, CLEAR_LINE, CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"


def command() -> click.Command:
    return click.Command(
        "top",
        params=[
            click.Option(["--once"], is_flag=True, help="Show one screen and exit."),
            click.Option(
                ["--sort"], type=click.Choice(list(SORTS)), default="worker", help="By what."
            ),
            click.Option(
                ["--interval"],
                type=click.FloatRange(0.2),
                default=1.0,
                metavar="SECONDS",
                help="Between two looks.",
            ),
            *masters.options(),
        ],
        callback=run,
        help="Watch the workers live; keys recycle, scale and show stacks.",
        context_settings=HELP,
    )


def run(once: bool, sort: str, interval: float, pid: int | None, root: Path | None) -> int:
    found = masters.choose(pid, root)
    view = Screen(sort)
    watcher = Watcher(found.path)
    view.see(_look(watcher))
    if once or not (sys.stdin.isatty() and sys.stdout.isatty()):
        time.sleep(min(interval, 0.5))
        view.see(_look(watcher))
        print("\n".join(view.lines(time.time(), shutil.get_terminal_size().columns, None)))
        return 0
    with _terminal():
        _live(view, watcher, found, interval)
    return 0


@dataclass
class Screen:
    """What is shown, and what is chosen."""

    sort: str
    status: Status | None = None
    chosen: int | None = None
    """The serial of the worker that keys act on."""
    paused: bool = False
    message: str = ""
    stacks: list[str] = field(default_factory=list)
    """Shown in place of the workers until the next key."""

    def see(self, status: Status) -> None:
        """There is a new status."""
        if not self.paused or self.status is None:
            self.status = status
        serials = [worker.serial for worker in self.workers()]
        if self.chosen not in serials:
            self.chosen = serials[0] if serials else None

    def workers(self) -> list[WorkerStatus]:
        """In the order that is wanted."""
        assert self.status is not None
        return sorted(self.status.workers, key=lambda each: (SORTS[self.sort](each), each.serial))

    def press(self, key: str) -> protocol.Request | None:
        """What the key asks the master for, if it does not only change the view."""
        if self.stacks:
            self.stacks = []
            return None
        assert self.status is not None
        self.message = ""
        match ARROWS.get(key, key):
            case "up" | "down" as direction:
                self._move(-1 if direction == "up" else 1)
            case "s":
                names = list(SORTS)
                self.sort = names[(names.index(self.sort) + 1) % len(names)]
            case "p":
                self.paused = not self.paused
            case "r" if self.chosen is not None:
                self.message = f"recycling worker {self.chosen}"
                return protocol.Recycle(self.chosen)
            case "t" if self.chosen is not None:
                return protocol.Stacks(self.chosen)
            case "+" | "-" as sign:
                wanted = self.status.notice.wanted + (1 if sign == "+" else -1)
                wanted = min(max(0, wanted), protocol.MOST_WORKERS)
                self.message = f"scaling to {wanted}"
                return protocol.Scale(wanted)
        return None

    def hear(self, done: protocol.Done | str) -> None:
        """The master has answered: what it did, or why it could not."""
        if isinstance(done, str):
            self.message = done
        elif "stacks" in done.data:
            self.stacks = masters.stack_lines(done.data["stacks"])
        else:
            self.message = done.text

    def lines(self, now: float, width: int, height: int | None) -> list[str]:
        """As many lines as fit; `height` None for all, and without a choice or keys."""
        assert self.status is not None
        if self.stacks:
            room = None if height is None else height - 2
            shown = [*self.stacks[:room], "", "any key goes back"]
        else:
            shown = [*head(self.status, now), "", *self._table(height is not None)]
            if height is not None:
                paused = "  PAUSED" if self.paused else ""
                shown = shown[: height - 2]
                shown += [""] * (height - 2 - len(shown))
                shown += [self.message, f"{KEYS}  (by {self.sort}){paused}"]
        return [line[:width] for line in shown[:height]]

    def _table(self, with_choice: bool) -> list[str]:
        workers = self.workers()
        lines = table(HEADINGS, [row(worker) for worker in workers])
        if not with_choice:
            return lines
        marks = [" ", *(">" if worker.serial == self.chosen else " " for worker in workers)]
        return [f"{mark} {line}" for mark, line in zip(marks, lines, strict=True)]

    def _move(self, by: int) -> None:
        serials = [worker.serial for worker in self.workers()]
        if self.chosen in serials:
            place = serials.index(self.chosen) + by
            self.chosen = serials[min(max(0, place), len(serials) - 1)]


# --- The terminal -------------------------------------------------------------------------------


def _live(view: Screen, watcher: Watcher, found: BoardFolder, interval: float) -> None:
    """Redraw and obey keys until told to quit, or the server is gone."""
    highlight = _highlighter()
    answers: SimpleQueue[protocol.Done | str] = SimpleQueue()
    while True:
        _draw(view, highlight)
        for key in _keys(interval):
            if key == "q":
                return
            request = view.press(key)
            if request is not None:
                # A command may take as long as a worker boots, and the view goes on meanwhile;
                # and whoever quits does not wait for it.
                Thread(target=_ask, args=(found, request, answers), daemon=True).start()
                time.sleep(0.1)  # most are done by then, and shown at once
        while not answers.empty():
            view.hear(answers.get())
        view.see(_look(watcher))


def _ask(
    found: BoardFolder, request: protocol.Request, answers: SimpleQueue[protocol.Done | str]
) -> None:
    try:
        answers.put(masters.ask(found, request))
    except MasterError as exc:
        answers.put(str(exc))


def _draw(view: Screen, highlight: Callable[[str], str]) -> None:
    size = shutil.get_terminal_size()
    lines = view.lines(time.time(), size.columns, size.lines)
    body = f"{CLEAR_LINE}\r\n".join(map(highlight, lines))
    sys.stdout.write(f"{HOME}{body}{CLEAR_LINE}{CLEAR_REST}")
    sys.stdout.flush()


def _highlighter() -> Callable[[str], str]:
    """Gives the words of a line their colours, where rich is installed."""
    try:
        from rich.console import Console
        from rich.text import Text
    except ImportError:
        return str
    console = Console(color_system="standard", force_terminal=True, width=1000)
    words = {
        r"\bserving\b(?![ )]*$)": "green",  # not the heading, nor what the rows are sorted by
        r"\b(starting|draining|exiting|reloading)\b": "yellow",
        r"\b(stopping|not ready: .*|rolled back.*|refused.*)": "red",
        r"^> .*": "bold",
    }

    def highlight(line: str) -> str:
        text = Text(line)
        for pattern, style in words.items():
            text.highlight_regex(pattern, style)
        with console.capture() as captured:
            console.print(text, end="", soft_wrap=True)
        return captured.get()

    return highlight


@contextmanager
def _terminal() -> Iterator[None]:
    """The other screen of the terminal, keys one by one; everything as before in the end."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        sys.stdout.write(ENTER)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        sys.stdout.write(LEAVE)
        sys.stdout.flush()


def _keys(patience: float) -> list[str]:
    """The keys that are pressed, as soon as one is; none if that takes too long."""
    if not select.select([sys.stdin], [], [], patience)[0]:
        return []
    # At the end of the terminal nobody looks any more.
    return keys_in(os.read(sys.stdin.fileno(), 64).decode(errors="replace")) or ["q"]


def keys_in(text: str) -> list[str]:
    """The keys that a terminal sends as `text`; an arrow is three characters."""
    return re.findall(r"\x1b\[.|[^\x1b]", text)


def _look(watcher: Watcher) -> Status:
    try:
        return watcher.look(time.monotonic())
    except FileNotFoundError:
        raise MasterError("the server has stopped") from None
