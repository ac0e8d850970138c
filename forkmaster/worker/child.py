"""What every child does after the fork, in order.  In the worker.

Whoever forked has already closed what is the master's.  From here to `serve` the order matters,
and each step says why it stands where it does.

A child's exit status is part of the protocol with the master: 0 asked to stop, 3 the application
raised while it was loaded, 4 it does not exist, 1 anything else.  3 and 4 mean that only before
the worker was ready; a `sys.exit(3)` in a view is that request's error.
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import signal
import sys
import threading
from dataclasses import replace
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, NoReturn

from forkmaster.board import layout
from forkmaster.config.gunicorn import in_words, worker_class_at
from forkmaster.config.values import BadValueError
from forkmaster.errors import AppError, BootError, ForkmasterError
from forkmaster.logs import losses
from forkmaster.logs import setup as logs
from forkmaster.system import privileges, processes
from forkmaster.system.allocator import keep_freed_memory
from forkmaster.system.signals import unblock_signals
from forkmaster.system.stack import with_room
from forkmaster.worker import application, warmup
from forkmaster.worker.assignment import announce

if TYPE_CHECKING:
    from collections.abc import Callable

    from forkmaster.config.gunicorn import WorkerKind
    from forkmaster.config.table import Config
    from forkmaster.worker.assignment import Assignment, Worker
    from forkmaster.worker.interface import Interface

log = logging.getLogger("forkmaster.error")

# faulthandler answers it in C, so it tells where a thread stands even while C code holds the GIL.
DUMP_SIGNAL = signal.SIGRTMIN + 1

FAILED = 1
IGNORED = (signal.SIGHUP, signal.SIGUSR2, signal.SIGWINCH, signal.SIGTTIN, signal.SIGTTOU)


class ToldToStop(KeyboardInterrupt):
    """A signal asks a child to stop that does not serve yet.

    Not SystemExit: a module that calls sys.exit() cannot be imported, which is another story.
    KeyboardInterrupt, because no library takes that for a failure of its own.
    """


class Child:
    """This process.  One instance, made after the fork."""

    def __init__(self, assignment: Assignment, loaded: Callable[..., Any] | None = None) -> None:
        self.assignment = assignment
        self.config = assignment.config
        self.view = assignment.view
        self.loaded = loaded
        """The application, if the process that forked this one has loaded it."""
        self.worker: Worker | None = None
        self.ready = False

    def run(self) -> int:
        """Boot, serve, clean up.  Returns the exit status; never raises."""
        try:
            return self.guard(self._serve)
        finally:
            self.assignment.slot.words[layout.STATE] = layout.EXITING
            self.view.alive = False
            self.hook("worker_exit", self.assignment.server, self.view)

    def on_ready(self) -> None:
        """Tell the master that this child does what it is for from now on."""
        slot = self.assignment.slot
        slot.beat()
        slot.words[layout.READY] = monotonic_ns()
        slot.words[layout.STATE] = layout.SERVING
        self.ready = self.view.booted = True
        announce(self.assignment.announce_fd)

    def hook(self, name: str, *arguments: Any) -> None:
        """Call the hook `name`, if the configuration has it; log what it raises.

        Only for hooks after which this process ends or goes on regardless.
        """
        called: Callable[..., Any] | None = getattr(self.config, name)
        if called is None:
            return
        try:
            called(*arguments)
        except Exception:
            log.exception("%s: the hook %s raised", self.view, name)

    # --- Booting ------------------------------------------------------------------------------

    def guard(self, step: Callable[[], None]) -> int:
        """Run `step`, after which this process ends; returns its exit status, and never raises.

        What `step` raises is logged.
        """
        try:
            status = self._outcome(step)
            ignore_requests_to_stop()
        except ToldToStop:
            ignore_requests_to_stop()
            return 0  # it came in `step`, or while that was told
        return status

    def _outcome(self, step: Callable[[], None]) -> int:
        """Run `step`; returns the exit status that what it raised amounts to, having logged it."""
        try:
            step()
        except ToldToStop:
            raise
        except SystemExit as exc:
            return self._status_of_exit(exc)
        except ForkmasterError as exc:
            log.error("%s cannot boot: %s", self.view, exc)
            return exc.exit_code if isinstance(exc, AppError) else BootError.exit_code
        except BaseException as exc:
            what = "failed" if self.ready else "cannot boot"
            log.error("%s %s: %s", self.view, what, type(exc).__name__, exc_info=True)
            return FAILED if self.ready else BootError.exit_code
        return 0

    def _serve(self) -> None:
        self.enter("worker")
        preloaded = self.loaded is not None
        self.loaded = self.loaded or self.load()
        self.view.wsgi = self.loaded
        make = self.worker_class(self.loaded)
        if not preloaded and application.kind_of(self.loaded) == "wsgi":
            warmup.warm_wsgi(self.loaded, self.config.warmup)  # an asgi worker does in its loop
        self.worker = make(self.assignment, self.loaded)
        if self.config.post_worker_init is not None:
            self.config.post_worker_init(self.view)
        keep_freed_memory()
        with_room(self.worker.serve, self.on_ready)

    def enter(self, role: str) -> None:
        """Become a process of our own: signals, rights, name, place."""
        config, assignment = self.config, self.assignment
        self.view.pid = os.getpid()
        assignment.slot.words[layout.PID] = os.getpid()
        # First of all, so that even a hang in a hook can be asked where it stands.
        faulthandler.enable(file=assignment.stacks_fd, all_threads=True)
        faulthandler.register(DUMP_SIGNAL, file=assignment.stacks_fd, all_threads=True, chain=False)
        if assignment.output_fd >= 0:
            logs.print_into(assignment.output_fd)
        losses.count_in(assignment.slot.words, layout.LINES_LOST)
        logs.identify(assignment.serial, assignment.generation)
        self._take_signals()
        for item in config.raw_env:
            name, _, value = item.partition("=")
            os.environ[name] = value
        # Before the privileges go: hooks open log files, and raise limits, as root, who alone may
        # enter the board.
        if role == "worker" and config.post_fork is not None:
            config.post_fork(assignment.server, self.view)
        if config.prometheus_app_metrics and role != "monitor":
            from forkmaster.worker.app_metrics import keep_on_board

            keep_on_board(assignment.slot.path.parent, assignment.balance.number)
        encryption = assignment.encryption
        if encryption is not None and not encryption.is_loaded:
            encryption.load()  # the key may be root's
        privileges.drop(config.user, config.group, initgroups=config.initgroups)
        # After: the kernel clears it whenever the credentials change.
        if not processes.die_with_parent(signal.SIGKILL, assignment.master_pid):
            raise SystemExit(0)
        processes.set_title(f"{config.proc_name or 'forkmaster'}: {role} {assignment.serial}")
        # By the name it was started in: `current` may be another release by now.
        os.chdir(assignment.folder)
        for folder in reversed(config.pythonpath):
            if folder not in sys.path:
                sys.path.insert(0, folder)

    def load(self) -> Callable[..., Any]:
        """The application.  Raises AppError or BootError."""
        # A collection while modules are imported finds next to nothing and costs a tenth of
        # the time to boot Django.
        gc.disable()
        try:
            loaded = application.load(self.config.app)
        finally:
            gc.enable()
        if self.config.static_map:
            from forkmaster.worker.static import serve_before

            loaded = serve_before(loaded, self.config.static_map)
        return loaded

    def worker_class(self, loaded: Callable[..., Any]) -> Callable[..., Worker]:
        """The class that serves `loaded`.

        Raises AppError if the configuration contradicts it, BootError if its class cannot be had.
        """
        self.config = with_worker_class(self.config)
        self.assignment = replace(self.assignment, config=self.config)
        kind = worker_kind(self.config, application.kind_of(loaded))
        self.assignment.slot.words[layout.KIND] = layout.KINDS.index(kind)
        # Imported here: a sync worker has no use for asyncio, nor an asgi one for the reactor.
        if kind == "asgi" and self.config.speaks_http2:
            from forkmaster.worker.http2 import HypercornWorker

            return HypercornWorker
        if kind == "asgi":
            from forkmaster.worker.asgi import AsgiWorker

            return AsgiWorker
        if kind == "threaded":
            from forkmaster.worker.threaded import ThreadedWorker

            return ThreadedWorker
        from forkmaster.worker.sync import SyncWorker

        return SyncWorker

    # --- Signals ------------------------------------------------------------------------------

    def _take_signals(self) -> None:
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGINT, self._on_quit)
        signal.signal(signal.SIGQUIT, self._on_quit)
        signal.signal(signal.SIGABRT, self._on_abort)
        signal.signal(signal.SIGUSR1, self._on_usr1)
        unblock_signals()

    def _on_term(self, *_: object) -> None:
        if self.worker is None or not self.ready:
            raise ToldToStop
        self.assignment.slot.words[layout.STATE] = layout.DRAINING
        try:
            self.worker.drain()
        except OSError:
            pass  # it has drained, and closed what would wake it

    def _on_quit(self, *_: object) -> None:
        if self.worker is None or not self.ready:
            raise ToldToStop
        self.hook("worker_int", self.view)
        self.worker.quit()

    def _on_abort(self, *_: object) -> None:
        # The application stands where it hangs, on this very thread, so nothing is unwound:
        # a SystemExit would be the view's to swallow.
        self.view.aborted = True
        self.hook("worker_abort", self.view)
        self.hook("worker_exit", self.assignment.server, self.view)
        logs.write_held()
        flush()
        os._exit(FAILED)

    def _on_usr1(self, *_: object) -> None:
        level = self.assignment.slot.words[layout.LOG_LEVEL]
        if level:
            logs.set_level(level)
        logs.reopen()

    def _status_of_exit(self, exc: SystemExit) -> int:
        if exc.code in (0, None):
            return 0
        if self.ready:
            return exc.code if isinstance(exc.code, int) else FAILED
        log.error("%s cannot boot: the application called sys.exit(%r)", self.view, exc.code)
        return BootError.exit_code


def with_worker_class(config: Config) -> Config:
    """`config`, with the class itself where its worker_class is the path of one.

    Here and not where the configuration is read: the class lies in the application's package as a
    rule, and of that the master imports nothing.  Raises BootError.
    """
    path = config.worker_class
    if not isinstance(path, str) or config.kind is not None:
        return config
    try:
        return replace(config, worker_class=worker_class_at(path))
    except BadValueError as exc:
        raise BootError(f"worker_class: {exc}") from exc


def worker_kind(config: Config, found: Interface) -> WorkerKind:
    """Which worker serves an application of the interface `found`.  Raises AppError if none can."""
    asked = config.kind
    if asked is None:
        if found == "asgi":
            return "asgi"
        return "threaded" if config.threads > 1 else "sync"
    assert config.worker_class is not None
    wanted = "asgi" if asked == "asgi" else "wsgi"
    if wanted != found:
        raise AppError(
            f"worker_class is {in_words(config.worker_class)}, but the application is"
            f" {found.upper()}; name its {wanted.upper()} callable (Django: project.{wanted}),"
            " or leave worker_class out"
        )
    return asked


def ignore_requests_to_stop() -> None:
    """From here on this process is ending; a handler that raises would end it with a failure."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for number in (signal.SIGINT, signal.SIGQUIT):
        # The threads that are joined at the end may take long.
        signal.signal(number, lambda *_: os._exit(0))


def end(status: int) -> NoReturn:
    """End this process as the interpreter would, but without unwinding the master's frames."""
    import atexit

    if status == 0:
        # What the interpreter calls first: it tells the idle threads of executors to end, for
        # which a bare join would wait for ever, and joins the rest.  One that never ends is the
        # master's to kill.
        threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    flush()
    os._exit(status)


def flush() -> None:
    """Write out what is buffered."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass  # closed, or its reader is gone: nobody is left to tell
