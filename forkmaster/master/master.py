"""The master process: waits, lets the supervisor decide, performs.  It holds no policy.

    wait(until = supervisor.next_deadline())     signals, ready bytes
        → events → supervisor.handle(event, now) → actions → one method and one log line each

It is single-threaded, imports no application, touches no client, and blocks nowhere but in its
one wait.  Everything that is remembered about a process (pid, pidfd, slot, pipes) is here, under
the serial by which the supervisor knows it.
"""

from __future__ import annotations

import logging
import math
import os
import selectors
import signal
import socket
import sys
from dataclasses import dataclass
from time import monotonic, monotonic_ns
from typing import TYPE_CHECKING, Any

from forkmaster import __version__
from forkmaster.board import layout
from forkmaster.board.balance import Balance
from forkmaster.board.board import Board, remove_stale
from forkmaster.board.reader import read_slot
from forkmaster.errors import ForkmasterError
from forkmaster.logs import setup as logs
from forkmaster.master import incidents, spawn
from forkmaster.master import supervisor as policy
from forkmaster.master.bindings import Bindings
from forkmaster.system import processes
from forkmaster.system.pidfile import Pidfile
from forkmaster.system.signals import SignalPipe, signal_name
from forkmaster.worker.assignment import Assignment
from forkmaster.worker.child import DUMP_SIGNAL, Child
from forkmaster.worker.views import ServerView, WorkerView

if TYPE_CHECKING:
    from collections.abc import Callable

    from forkmaster.board.slot import Slot
    from forkmaster.config.sources import Loaded
    from forkmaster.config.table import Config

log = logging.getLogger("forkmaster.error")

LONGEST_WAIT = 3600.0  # seconds: poll takes milliseconds in an int, and infinity does not fit


@dataclass
class Process:
    """What the master keeps of a child, besides what the supervisor knows."""

    pid: int
    pidfd: int | None
    slot: Slot
    cell: int
    view: WorkerView
    forked_at: float  # monotonic seconds

    def send(self, number: signal.Signals) -> None:
        """Send a signal.  If the process has ended meanwhile, its reaping tells."""
        processes.send(self.pid, number, self.pidfd)

    def close(self) -> None:
        """Close what the master holds of it."""
        if self.pidfd is not None:
            os.close(self.pidfd)

    def __str__(self) -> str:
        return f"worker {self.slot.words[layout.SERIAL]}"


def run(loaded: Loaded) -> int:
    """Serve until told to stop.  Returns the exit code of the process.

    Raises ForkmasterError if the server cannot start: nothing was forked then.
    """
    return Master(loaded).run()


class Master:
    """This process.  Made once; `run` returns when the last child is gone."""

    def __init__(self, loaded: Loaded) -> None:
        self.generations = {0: loaded}
        self.supervisor = policy.Supervisor(policy_of(loaded.config))
        self.processes: dict[int, Process] = {}
        self.serials: dict[int, int] = {}  # by pid
        self.exit_code: int | None = None
        self.server = ServerView(loaded.config)

    @property
    def config(self) -> Config:
        """The committed configuration."""
        return self.generations[self.supervisor.committed].config

    # --- Life ---------------------------------------------------------------------------------

    def run(self) -> int:
        config = self.config
        for folder in (config.chdir,):
            if folder is not None:
                os.chdir(folder)
        logs.configure(config)
        log.info("forkmaster %s, %s", __version__, config.app)
        for stale in remove_stale(config.worker_tmp_dir, os.geteuid()):
            log.info("removed %s, left by a master that was killed", stale)
        # Before the pid file: a bind that fails is the only sure sign of another instance, and
        # must not cost that one its pid file.
        self.bindings = Bindings.open(config)
        try:
            return self._run_bound(config)
        finally:
            self.bindings.close()

    def _run_bound(self, config: Config) -> int:
        self.board = Board.create(config.worker_tmp_dir, records=records_for(config))
        self.balance = Balance.create(self.board.path / "balance")
        self.announce_read, self.announce_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # The master alone holds the write end, so a worker reads its end when the master dies.
        self.liveness_read, self.liveness_write = os.pipe2(os.O_CLOEXEC)
        self.handoff = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in self.handoff:
            end.setblocking(False)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.announce_read, selectors.EVENT_READ, self._on_announcement)
        # Before the pid file: people signal as soon as it exists.
        self.signals = SignalPipe(SIGNALS)
        self.selector.register(self.signals, selectors.EVENT_READ, self._on_signals)
        pidfile = Pidfile.write(config.pidfile) if config.pidfile else None
        try:
            processes.set_title(f"{config.proc_name or 'forkmaster'}: master [{config.app}]")
            self._hook("on_starting", self.server)
            self.server.LISTENERS = list(self.bindings.of(config))
            self._hook("when_ready", self.server)
            self._decide(policy.Start())
            self._loop()
        finally:
            if pidfile is not None:
                pidfile.remove()
            self._hook("on_exit", self.server)
            self.board.remove()
        assert self.exit_code is not None
        return self.exit_code

    def _loop(self) -> None:
        words = self.board.master.words
        while self.exit_code is None:
            now, due = monotonic(), self.supervisor.next_deadline()
            # A watcher tells a stuck master by a promise that is overdue: an idle one may sleep.
            words[layout.BEAT] = monotonic_ns()
            words[layout.EXTENDED] = 0 if due == math.inf else int(due * 1e9)
            for key, _ in self.selector.select(min(max(0.0, due - now), LONGEST_WAIT)):
                key.data()
            if self.exit_code is None:
                self._decide(policy.Tick())

    def _decide(self, event: policy.Event) -> None:
        """Tell the supervisor, and perform what it answers."""
        # The beats first: a deadline is judged by what the board says now.
        beats = {serial: process.slot.last_beat() for serial, process in self.processes.items()}
        events = (policy.Beats(beats), event) if beats else (event,)
        for told in events:
            for action in self.supervisor.handle(told, monotonic()):
                self._perform(action)

    # --- What happens -------------------------------------------------------------------------

    def _on_signals(self) -> None:
        for number in self.signals.read():
            self._on_signal(number)

    def _on_signal(self, number: int) -> None:
        match number:
            case signal.SIGCHLD:
                self._reap()
            case signal.SIGTERM:
                log.info("received SIGTERM; stopping gracefully")
                self._decide(policy.Stop())
            case signal.SIGINT | signal.SIGQUIT:
                log.info("received %s; stopping at once", signal_name(number))
                self._decide(policy.Stop(graceful=False))
            case signal.SIGHUP:
                self._reload()
            case signal.SIGUSR1:
                log.info("received SIGUSR1; reopening the logs")
                logs.reopen()
                for process in self.processes.values():
                    process.send(signal.SIGUSR1)
            case signal.SIGTTIN | signal.SIGTTOU:
                by = 1 if number == signal.SIGTTIN else -1
                self._resize(policy.Resize(by), signal_name(number))
            case signal.SIGWINCH:
                self._resize(policy.Scale(0), "SIGWINCH")
            case _:
                log.info("received %s; ignored", signal_name(number))

    def _resize(self, event: policy.Event, cause: str) -> None:
        before = self.supervisor.target
        self._decide(event)
        log.info(
            "received %s; workers wanted: %d, before %d", cause, self.supervisor.target, before
        )
        if before != self.supervisor.target:
            self.server.num_workers = self.supervisor.target
            self._hook("nworkers_changed", self.server, self.supervisor.target, before)

    def _on_announcement(self) -> None:
        """A worker wrote a byte: its slot says what it wants to tell."""
        try:
            os.read(self.announce_read, 4096)
        except BlockingIOError:
            pass  # the byte was read together with another one
        for serial, process in list(self.processes.items()):
            words = process.slot.words
            child = self.supervisor.children.get(serial)
            if child is None:
                continue
            if child.state is policy.State.STARTING and words[layout.READY]:
                took = words[layout.READY] / 1e9 - process.forked_at
                log.info("%s ready after %.2f s", process, took)
                process.view.booted = True
                self._decide(policy.Ready(serial))
            elif words[layout.FLAGS] & layout.WANT_RECYCLE and not child.recycle:
                reason = words[layout.FLAGS] >> layout.WANT_RECYCLE_REASON_SHIFT
                self._decide(policy.Recycle(serial, layout.RECYCLE_REASONS[reason]))

    def _reap(self) -> None:
        for pid, ended in processes.reap():
            serial = self.serials.pop(pid, None)
            if serial is None:
                log.debug("reaped process %d, not a worker of ours", pid)
                continue
            self._bury(serial, ended)

    def _bury(self, serial: int, death: processes.Exit) -> None:
        # A worker may have become ready and died between two looks at the announcements.
        self._on_announcement()
        process = self.processes.pop(serial)
        child = self.supervisor.children[serial]
        self._report(process, child, death)
        process.close()
        self.balance.give_back(process.cell)
        self.board.drop(serial)
        self.server.WORKERS.pop(process.pid, None)
        self._hook("child_exit", self.server, process.view)
        self._decide(policy.Exited(serial, death.status))

    def _report(self, process: Process, child: policy.Child, death: processes.Exit) -> None:
        asked = child.expected or self.supervisor.stopping
        if asked and death.signal is None and death.status == 0:
            log.info("%s %s", process, death)
            return
        now = monotonic()
        view = read_slot(process.slot)
        before = "" if child.ready_at is not None else " before it was ready"
        level = logging.ERROR if view.in_flight or not asked else logging.WARNING
        lost = incidents.serving(view.in_flight, now)
        log.log(level, "%s (pid %d) %s%s%s", process, process.pid, death, before, lost)
        stacks = self.board.take_stacks(child.serial)
        if stacks:
            log.error("%s stood here:\n%s", process, stacks.rstrip())

    # --- What is done -------------------------------------------------------------------------

    def _perform(self, action: policy.Action) -> None:
        match action:
            case policy.Spawn(serial, generation, reason):
                self._spawn(serial, generation, reason)
            case policy.Retire(serial, reason, number) | policy.Quit(serial, reason, number):
                process = self.processes[serial]
                log.info("%s %s; sending %s", process, reason, number.name)
                process.send(number)
            case policy.Abort(serial, reason, number):
                process = self.processes[serial]
                lost = incidents.serving(read_slot(process.slot).in_flight, monotonic())
                log.error(
                    "%s (pid %d) %s%s; sending %s", process, process.pid, reason, lost, number.name
                )
                # The kernel delivers both before the process runs again, the dump included.
                process.send(DUMP_SIGNAL)
                process.send(number)
            case policy.Kill(serial, reason, number):
                process = self.processes[serial]
                log.warning("%s (pid %d) %s; sending %s", process, process.pid, reason, number.name)
                process.send(number)
            case policy.Delay(seconds, reason):
                log.error("%s; next attempt in %.1f s", reason, seconds)
            case policy.Commit(generation):
                self._commit(generation)
            case policy.RollBack(generation, reason):
                log.error(
                    "reload failed: %s; generation %d serves on", reason, self.supervisor.committed
                )
                self._forget_generations()
                self.bindings.keep(self.config)
            case policy.Halt(exit_code, reason):
                log.info("stopped: %s", reason)
                self.exit_code = exit_code

    def _spawn(self, serial: int, generation: int, reason: str) -> None:
        config = self.generations[generation].config
        try:
            process = self._fork(serial, generation, config)
        except OSError as exc:
            self._decide(policy.SpawnFailed(serial, f"cannot fork worker {serial}: {exc.strerror}"))
            return
        self.processes[serial] = process
        self.serials[process.pid] = serial
        self.server.WORKERS[process.pid] = process.view
        log.info("%s started (pid %d, generation %d, %s)", process, process.pid, generation, reason)

    def _fork(self, serial: int, generation: int, config: Config) -> Process:
        slot = self.board.new_slot(serial, generation)
        try:
            stacks_fd = self.board.stacks_file(serial)
            cell = self.balance.take()
        except (OSError, OverflowError):
            self.board.drop(serial)
            raise
        sockets = self.bindings.of(config)
        view = WorkerView(serial, config, sockets, slot)
        assignment = Assignment(
            serial=serial,
            generation=generation,
            config=config,
            listeners=sockets,
            slot=slot,
            balance=self.balance.share(cell),
            handoff=self.handoff,
            liveness_fd=self.liveness_read,
            announce_fd=self.announce_write,
            stacks_fd=stacks_fd,
            master_pid=os.getpid(),
            server=self.server,
            view=view,
        )
        self._hook("pre_fork", self.server, view)
        let_go: list[Callable[[], None]] = [
            self.selector.close,
            self.signals.close_in_child,
            lambda: os.close(self.announce_read),
            lambda: os.close(self.liveness_write),
            lambda: self.board.close_in_child(serial),
            *(process.close for process in self.processes.values()),
        ]
        forked_at = monotonic()
        try:
            pid = spawn.fork(lambda: Child(assignment).run(), close=let_go)
        except OSError:
            self.balance.give_back(cell)
            self.board.drop(serial)
            raise
        view.pid = pid
        return Process(pid, processes.open_pidfd(pid), slot, cell, view, forked_at)

    # --- Reload -------------------------------------------------------------------------------

    def _reload(self) -> None:
        log.info("received SIGHUP; reloading")
        try:
            loaded = self.generations[self.supervisor.committed].again()
            self.bindings.add(loaded.config)
        except ForkmasterError as exc:
            log.error("reload refused: %s; generation %d serves on", exc, self.supervisor.committed)
            return
        for warning in loaded.warnings:
            log.warning("%s", warning)
        generation = self.supervisor.next_generation
        self.generations[generation] = loaded
        self._hook("on_reload", self.server)
        self._decide(policy.Reload(policy_of(loaded.config)))

    def _commit(self, generation: int) -> None:
        log.info("reload done: generation %d serves alone", generation)
        config = self.generations[generation].config
        logs.configure(config)
        self.server.cfg = config
        self.bindings.keep(config)
        self._forget_generations()

    def _forget_generations(self) -> None:
        wanted = {self.supervisor.committed, self.supervisor.candidate}
        self.generations = {g: loaded for g, loaded in self.generations.items() if g in wanted}

    def _hook(self, name: str, *arguments: Any) -> None:
        """Call a hook of the committed configuration; what it raises is logged and never fatal."""
        called: Callable[..., Any] | None = getattr(self.config, name)
        if called is None:
            return
        try:
            called(*arguments)
        except Exception:
            log.exception("the hook %s raised", name)


SIGNALS = (
    signal.SIGCHLD,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
    signal.SIGWINCH,
)


def policy_of(config: Config) -> policy.Policy:
    """The part of a configuration that the supervisor decides by."""
    return policy.Policy(
        workers=config.workers,
        timeout=config.timeout,
        boot_timeout=config.boot_timeout,
        graceful_timeout=config.graceful_timeout,
        kill_timeout=config.kill_timeout,
        surge=config.reload_surge,
    )


def records_for(config: Config) -> int:
    """How many request records a slot needs: all that can be in flight, and the last ones."""
    return max(config.threads, layout.ASYNC_RECORDS) + layout.HISTORY


assert sys.platform != "win32"  # a fork, and signals
