"""The master process: waits, lets the supervisor decide, performs.  It holds no policy.

    wait(until = supervisor.next_deadline())     signals, announcements, zygotes' answers
        → events → supervisor.handle(event, now) → actions → one method and one log line each

It is single-threaded, imports no application, touches no client, and blocks nowhere but in its
one wait.  Everything that is remembered about a process (pid, pidfd, slot, pipes) is here or in
spawn.py, under the serial by which the supervisor knows it.
"""

from __future__ import annotations

import logging
import math
import os
import selectors
import signal
import time
from collections import deque
from dataclasses import asdict
from pathlib import Path
from time import monotonic, monotonic_ns
from typing import TYPE_CHECKING, Any

from forkmaster import __version__
from forkmaster.board import layout
from forkmaster.board.board import Board, remove_stale
from forkmaster.board.board import places as board_places
from forkmaster.board.notice import Listening, Notice, read_notice
from forkmaster.board.reader import read_slot
from forkmaster.errors import ForkmasterError
from forkmaster.logs import setup as logs
from forkmaster.master import actions, events, hooks, incidents, upgrade
from forkmaster.master.banner import ReadyLine, greeting
from forkmaster.master.bindings import Bindings
from forkmaster.master.chronicle import Chronicle
from forkmaster.master.control import Control
from forkmaster.master.evidence import IncidentFolder, KernelKills
from forkmaster.master.inquests import Inquests
from forkmaster.master.notify import Announcer, standing_of
from forkmaster.master.orders import Orders
from forkmaster.master.policy import Policy, Role, State
from forkmaster.master.sampling import Sampler
from forkmaster.master.sizing import bounds_of, sized
from forkmaster.master.spawn import Process, Spawner, records_for
from forkmaster.master.supervisor import PROBES, Child, Supervisor
from forkmaster.master.watcher import fingerprint_of
from forkmaster.system import processes
from forkmaster.system.daemon import Launch, detach, leave_terminal
from forkmaster.system.listeners import address_of
from forkmaster.system.memory import memory_group
from forkmaster.system.pidfile import Pidfile
from forkmaster.system.privileges import identity, is_root_of_the_machine
from forkmaster.system.queues import inode_of
from forkmaster.system.signals import SignalPipe, signal_name, signals_blocked
from forkmaster.system.systemd import InheritedSocket, Notifier, take_inherited_sockets
from forkmaster.worker.views import ServerView

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from forkmaster.board.slot import Slot
    from forkmaster.config.sources import Loaded
    from forkmaster.config.table import Config

log = logging.getLogger("forkmaster.error")

# The kinds of worker that serve several requests at once.
MANY_AT_ONCE = frozenset(map(layout.KINDS.index, ("threaded", "asgi")))

LONGEST_WAIT = 3600.0  # seconds: poll takes milliseconds in an int, and infinity does not fit

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


def run(loaded: Loaded) -> int:
    """Serve until told to stop.  Returns the exit code of the process.

    Raises ForkmasterError if the server cannot start: nothing was forked then.
    """
    left = upgrade.inherited(os.environ)
    # Out of the environment: no worker is to believe that they were meant for it.
    inherited = take_inherited_sockets(os.environ, os.getpid())
    notifier = Notifier.take(os.environ, os.getpid())
    # After an upgrade it is in the background already.
    if left is not None or not loaded.config.daemon:
        return _serve(loaded, left, inherited, notifier, Launch())
    launch = detach()
    try:
        return _serve(loaded, left, inherited, notifier, launch)
    except ForkmasterError as exc:
        # The parent says it, and has the exit code.
        launch.ended(exc.exit_code, str(exc))
        return exc.exit_code


def _serve(
    loaded: Loaded,
    left: upgrade.State | None,
    inherited: list[InheritedSocket],
    notifier: Notifier,
    launch: Launch,
) -> int:
    config = loaded.config
    if config.chdir is not None:
        os.chdir(config.chdir)
    logs.configure(config)
    if left is None:
        for line in greeting(loaded, os.environ):
            log.info("%s", line)
    for warning in (*loaded.warnings, *_doubts(config)):
        log.warning("%s", warning)
    loaded = sized(loaded)
    if left is not None:
        return Master.adopt(loaded, notifier, left).run()
    for stale in remove_stale(config.worker_tmp_dir, os.geteuid()):
        log.info("removed %s, left by a master that was killed", stale)
    server = ServerView(config)
    hooks.call(config, "nworkers_changed", server, server.num_workers, None, may_refuse=True)
    # Before anything is bound: a hook may make the folder of a unix socket, or refuse the start.
    hooks.call(config, "on_starting", server, may_refuse=True)
    # Before the pid file: a bind that fails is the only sure sign of another instance, and must
    # not cost that one its pid file.
    bindings = Bindings.open(config, inherited)
    board: Board | None = None
    try:
        board = Board.create(config.worker_tmp_dir, records=records_for(config))
        master = Master(loaded, bindings, board, notifier, launch, server=server)
    except OSError as exc:  # ENOSPC, EMFILE
        if board is not None:
            board.remove()
        bindings.close()
        where = board_places(config.worker_tmp_dir)[-1]
        raise ForkmasterError(f"cannot make the board in {where}: {exc.strerror}") from exc
    return master.run()


def _doubts(config: Config) -> Iterator[str]:
    """What is allowed but hardly meant."""
    if config.user in (None, 0) and is_root_of_the_machine():
        yield "the workers run as root; set user"
    if config.daemon and not config.enable_stdio_inheritance and logs.goes_to_terminal(config):
        yield "a daemon has no terminal to log to; set errorlog to a file"


class Master:
    """This process.  Made once; `run` returns when the last child is gone."""

    def __init__(
        self,
        loaded: Loaded,
        bindings: Bindings,
        board: Board,
        notifier: Notifier,
        launch: Launch,
        left: upgrade.State | None = None,
        server: ServerView | None = None,
    ) -> None:
        """`left` is what the program before this one left, after an upgrade."""
        self.left = left
        self.supervisor = Supervisor(policy_of(loaded.config))
        if left is not None:
            self.supervisor = Supervisor.restore(left.supervisor, monotonic())
        self.generations = {self.supervisor.committed: loaded}
        self.bindings = bindings
        self.board = board
        self.server = server or ServerView(loaded.config)
        self.spawner = Spawner(board, self.server, left)
        self.processes: dict[int, Process] = {}
        self.notifier = notifier
        self.announcer = Announcer(notifier.watchdog, is_ready=left is not None)
        self.launch = launch
        self.pidfile: Pidfile | None = None
        self.exit_code: int | None = None
        self._complaint = ""  # why the last reload failed
        group = memory_group()
        self.kernel_kills = KernelKills(group)
        self.sampler = Sampler(self.supervisor, self.processes, group, monotonic())
        folder = loaded.config.incident_dir or board.path / "incidents"
        self.incident_folder = IncidentFolder(folder, loaded.config.incident_limit)
        self.inquests = Inquests(board, self.incident_folder)
        self.chronicle = Chronicle(time.time(), read_notice(board.path) if left else None)
        self._published: Notice | None = None
        self.observers: list[Callable[[events.Event, Sequence[actions.Action]], None]] = []
        """Called after each event that was decided, with what was done about it."""
        self.ready_line = ReadyLine(self.supervisor)
        self.ready_line.told = left is not None
        self.observers.append(self.ready_line.observe)
        self._last_words = ""  # why the server has ended
        self._events: deque[events.Event] = deque()
        self._strangers: dict[int, processes.Exit] = {}  # reaped before a zygote named them

    @property
    def loaded(self) -> Loaded:
        """The committed configuration and where it came from."""
        return self.generations[self.supervisor.committed]

    @classmethod
    def adopt(cls, loaded: Loaded, notifier: Notifier, left: upgrade.State) -> Master:
        """The master that goes on where the program before this one left off."""
        serials = [each.serial for each in left.processes]
        board = Board.reopen(
            Path(left.board), lock_fd=left.lock_fd, serials=serials, records=left.records
        )
        bindings = Bindings.adopt(left.listeners)
        return cls(loaded, bindings, board, notifier, Launch(), left)

    # --- Life ---------------------------------------------------------------------------------

    def run(self) -> int:
        """Returns the exit code of the server."""
        config = self.loaded.config
        self.selector = selectors.DefaultSelector()
        # Before the pid file: people signal as soon as it exists.
        self.signals = SignalPipe(SIGNALS)
        self.spawner.masters_own += [
            self.selector.close,
            self.signals.close_in_child,
            self.launch.close,
        ]
        self._watch(self.signals.fileno(), self._on_signals)
        self._watch(self.spawner.announcements, self._on_announcement)
        self.control = self._open_control()
        _let_monitor_read(self.board, config)
        self.incident_folder.readers = self.board.readers
        self.incident_folder.prepare()
        # Of what a zygote forks, the master is to be the parent.
        processes.become_subreaper()
        try:
            self.pidfile = Pidfile.write(config.pidfile) if config.pidfile else None
        except ForkmasterError:
            self._close()
            raise
        try:
            processes.set_title(f"{config.proc_name or 'forkmaster'}: master [{config.app}]")
            if self.left is None:
                self.server.LISTENERS = list(self.bindings.of(config))
                self._hook("when_ready", self.server)
                if config.daemon:
                    # The last moment: what is forked now has no terminal either.
                    leave_terminal(output=not config.enable_stdio_inheritance)
                    if not config.enable_stdio_inheritance:
                        logs.leave_terminal()
                self._decide(events.Start())
            else:
                self._take_over(self.left)
            self._loop()
        finally:
            if self.pidfile is not None:
                self.pidfile.remove()
            self._hook("on_exit", self.server)
            self._close()
        assert self.exit_code is not None  # the loop ends with it
        self.launch.ended(self.exit_code, f"{self._last_words}; see {config.errorlog}")
        return self.exit_code

    def _close(self) -> None:
        """Give back everything: no child is left, or none ever came."""
        if self.control is not None:
            self.control.close()
        self.spawner.close()
        self.signals.close()
        self.selector.close()
        self.board.remove()
        self.bindings.close()

    def _open_control(self) -> Control | None:
        orders = Orders(
            supervisor=self.supervisor,
            processes=self.processes,
            board=self.board,
            decide=self._decide,
            resize=self._resize,
            reopen=self._reopen,
            set_level=self._set_log_level,
            status=lambda: asdict(self._notice()),
        )
        try:
            control = Control.open(self.board.path, self.selector, orders)
        except OSError as exc:
            log.warning("cannot make the control socket: %s; commands cannot reach us", exc)
            return None
        self.observers.append(control.observe)
        self.spawner.masters_own.append(control.close_in_child)
        return control

    def _watch(self, fd: int, on_readable: Callable[[], None]) -> None:
        self.selector.register(fd, selectors.EVENT_READ, on_readable)

    def _loop(self) -> None:
        words = self.board.master.words
        while self.exit_code is None:
            self._publish()
            self._notify()
            due = min(
                self.supervisor.next_deadline(),
                self.announcer.next_deadline(),
                self.inquests.next_look(),
                self.sampler.next_look(self.loaded.config),
            )
            if self.control is not None:
                due = min(due, self.control.next_deadline())
            now = monotonic()
            # A watcher tells a stuck master by a promise that is overdue: an idle one may sleep.
            words[layout.BEAT] = monotonic_ns()
            words[layout.EXTENDED] = 0 if due == math.inf else int(due * 1e9)
            call_back(self.selector, min(max(0.0, due - now), LONGEST_WAIT))
            if self.exit_code is None:
                self._decide(events.Tick())
                self._sample()
            self.inquests.look(monotonic())
            if self.control is not None:
                self.control.turn(monotonic())
        self._notify()

    def _publish(self) -> None:
        """Put up a new notice, if there is anything new."""
        notice = self._notice()
        if notice == self._published:
            return
        try:
            notice.write(self.board.path, self.board.readers)
        except OSError as exc:
            log.warning("cannot write the notice on the board: %s", exc.strerror)
        self._published = notice

    def _notice(self) -> Notice:
        config = self.loaded.config
        return self.chronicle.notice(
            self.loaded,
            self.supervisor,
            listeners=tuple(map(_listening, self.bindings.of(config))),
            monitor=tuple(map(_listening, self.bindings.of_monitor(config))),
            incidents=str(self.incident_folder.path),
        )

    def _sample(self) -> None:
        config = self.loaded.config
        for event in self.sampler.look(config, self.bindings.of(config), monotonic()):
            if isinstance(event, events.Aim):
                self._resize(event, event.reason)
            else:
                self._decide(event)

    def _notify(self) -> None:
        """Tell whoever waits for us what they do not know yet: a service manager, a terminal."""
        if self.notifier.address is None and not self.launch.is_awaited:
            return
        ready_workers = self.loaded.config.ready_workers
        standing = standing_of(self.supervisor, ready_workers, self._complaint)
        for message in self.announcer.messages(monotonic(), standing):
            self.notifier.send(*message)
        if self.announcer.is_ready:
            self.launch.succeeded()

    def _decide(self, event: events.Event) -> None:
        """Tell the supervisor, and perform what it answers.

        What performing an action tells in turn is decided after all actions of this event.
        """
        self._events.append(event)
        if len(self._events) > 1:
            return  # called from an action; the loop below is running
        while self._events:
            # The time before the pulses: if this process is stopped between the two, workers
            # have beaten by then of which the pulses know nothing.
            now = monotonic()
            # The pulses before the event: a deadline is judged by what the board says now.
            requests = self.supervisor.judges_requests
            pulses = {s: pulse_of(process, requests) for s, process in self.processes.items()}
            done: list[actions.Action] = []
            for told in (events.Pulses(pulses), self._events[0]):
                for action in self.supervisor.handle(told, now):
                    self._perform(action)
                    done.append(action)
            self.chronicle.observe(self._events[0], done, self.supervisor.committed, time.time())
            for observe in self.observers:
                observe(self._events[0], done)
            self._events.popleft()

    # --- What happens -------------------------------------------------------------------------

    def _on_signals(self) -> None:
        # Deaths last: Ctrl-C reaches the workers too, and one that it ended is not to be replaced
        # by a master that has the same SIGINT still to read.
        for number in sorted(self.signals.read(), key=lambda each: each == signal.SIGCHLD):
            self._on_signal(number)

    def _on_signal(self, number: signal.Signals) -> None:
        match number:
            case signal.SIGCHLD:
                self._reap()
            case signal.SIGTERM:
                log.info("received SIGTERM; stopping gracefully")
                self._decide(events.Stop())
            case signal.SIGINT | signal.SIGQUIT:
                log.info("received %s; stopping at once", number.name)
                self._decide(events.Stop(graceful=False))
            case signal.SIGHUP:
                log.info("received SIGHUP; reloading")
                self.announcer.reload_asked()
                self._decide(events.Reload())
            case signal.SIGUSR1:
                log.info("received SIGUSR1; reopening the logs")
                self._reopen()
            case signal.SIGUSR2:
                log.info("received SIGUSR2; upgrading")
                self._decide(events.Upgrade())
            case signal.SIGTTIN:
                self._resize(events.Resize(+1), f"received {number.name}")
            case signal.SIGTTOU:
                self._resize(events.Resize(-1), f"received {number.name}")
            case signal.SIGWINCH:
                self._resize(events.Scale(0), f"received {number.name}")
            case _:
                log.info("received %s; ignored", signal_name(number))

    def _reopen(self) -> None:
        logs.reopen()
        for process in self.processes.values():
            process.send(signal.SIGUSR1)

    def _set_log_level(self, name: str) -> None:
        level = logging.getLevelNamesMapping()[name.upper()]
        logs.set_level(level)
        for process in self.processes.values():
            process.slot.words[layout.LOG_LEVEL] = level
            process.send(signal.SIGUSR1)

    def _resize(self, event: events.Event, cause: str) -> None:
        before = self.supervisor.aimed
        self._decide(event)
        after = self.supervisor.aimed
        log.info("%s; workers wanted: %d, before: %d", cause, after, before)
        if before != after:
            self._tell_workers_changed()

    def _tell_workers_changed(self) -> None:
        before, self.server.num_workers = self.server.num_workers, self.supervisor.aimed
        self._hook("nworkers_changed", self.server, self.server.num_workers, before)

    def _on_announcement(self) -> None:
        """A child wrote a byte: its slot says what it wants to tell."""
        try:
            os.read(self.spawner.announcements, 4096)
        except BlockingIOError:
            pass  # the byte was read together with another one
        for zygote in [p for p in self.processes.values() if p.link is not None]:
            self._on_answers(zygote)  # so that a worker has a pid before it is ready
        for serial, process in list(self.processes.items()):
            words = process.slot.words
            child = self.supervisor.children.get(serial)
            if child is None:
                continue
            if child.state is State.STARTING and words[layout.READY]:
                took = words[layout.READY] / 1e9 - process.born
                log.log(
                    _level(process), "%s ready after %.2f s (pid %d)", process, took, process.pid
                )
                process.view.booted = True
                self._decide(events.Ready(serial))
            # The same byte may announce both.
            if words[layout.FLAGS] & layout.WANT_RECYCLE and not child.recycle:
                reason = words[layout.FLAGS] >> layout.WANT_RECYCLE_REASON_SHIFT
                self._decide(events.Recycle(serial, layout.RECYCLE_REASONS[reason]))

    def _on_answers(self, zygote: Process) -> None:
        """A zygote has forked, or could not."""
        assert zygote.link is not None
        for answer in zygote.link.answers():
            process = self.processes[answer.serial]
            if answer.error:
                self._spawn_failed(process, answer.error)
                continue
            process.is_born(answer.pid)
            self._log_start(process)
            ended = self._strangers.pop(answer.pid, None)
            if ended is not None:
                self._bury(process, ended)

    def _reap(self) -> None:
        for pid, ended in processes.reap():
            process = next((p for p in self.processes.values() if p.pid == pid), None)
            if process is not None:
                self._bury(process, ended)
            elif any(p.pid == 0 for p in self.processes.values()):
                self._strangers[pid] = ended
            else:
                log.debug("reaped process %d, not a child of ours", pid)

    def _bury(self, process: Process, ended: processes.Exit) -> None:
        # It may have become ready and died between two looks at the announcements.
        self._on_announcement()
        child = self.supervisor.children[process.serial]
        self._report(process, child, ended)
        said = self.board.take_stacks(process.serial) if process.role in PROBES else ""
        del self.processes[process.serial]
        if process.link is not None:
            self._bury_zygote(process)
        self.spawner.forget(process)
        self.inquests.forget(process.serial)
        self.chronicle.forget(process.serial)
        if process.role is Role.WORKER:
            self.server.WORKERS.pop(process.pid, None)
            self._hook("child_exit", self.server, process.view)
        self._decide(events.Exited(process.serial, ended.status, said))

    def _bury_zygote(self, zygote: Process) -> None:
        assert zygote.link is not None
        self.selector.unregister(zygote.link)
        self._on_answers(zygote)
        for serial in list(zygote.link.pending):
            self._spawn_failed(self.processes[serial], f"{zygote} died")

    def _report(self, process: Process, child: Child, ended: processes.Exit) -> None:
        """Say what ended a process, and count it."""
        if process.role in PROBES:
            return  # what it found is told as the outcome of the reload or the upgrade
        asked = child.expected or self.supervisor.stopping
        # Nobody here sends a SIGKILL without a missed deadline.
        unexplained = ended.signal == signal.SIGKILL and not child.missed
        death = incidents.Death(
            status=ended.status,
            was_ready=child.ready_at is not None,
            asked=asked,
            limit=bool(child.recycle),
            missed=child.missed,
            orderly=process.slot.words[layout.STATE] == layout.EXITING,
            by_kernel=unexplained and self.kernel_kills.explain_one(),
        )
        cause = incidents.cause_of(death)
        self.board.count_death(cause.value)
        if process.role is Role.WORKER:
            lost = incidents.serving(read_slot(process.slot).in_flight)
            how = f"{ended}{lost}"
            self.chronicle.buried(process.serial, process.pid, cause.value, how, time.time())
        if cause in (incidents.Cause.REQUESTED, incidents.Cause.LIMIT):
            unasked = "" if asked else "; nobody here asked it to"
            log.log(_level(process), "%s %s%s", process, ended, unasked)
            return
        reason = str(ended)
        if cause is incidents.Cause.OUT_OF_MEMORY:
            reason = "was killed by the kernel: the control group is out of memory"
        if not death.was_ready:
            reason += " before it was ready"
        level = logging.WARNING if asked and not is_serving(process) else logging.ERROR
        self.inquests.died(process, cause, reason, ended, level)

    # --- What is done -------------------------------------------------------------------------

    def _perform(self, action: actions.Action) -> None:
        match action:
            case actions.Spawn():
                self._spawn(action)
            case actions.Retire(serial, reason, number) | actions.Quit(serial, reason, number):
                process = self.processes[serial]
                log.log(_level(process), "%s: %s; sending %s", process, reason, number.name)
                process.send(number)
            case actions.Abort(serial, reason, number):
                self._strike(serial, reason, logging.ERROR, number)
            case actions.Kill(serial, reason, number):
                lost = is_serving(self.processes[serial])
                self._strike(serial, reason, logging.ERROR if lost else logging.WARNING, number)
            case actions.Dump(serial, reason):
                process = self.processes[serial]
                self.inquests.open(process, reason, level=logging.WARNING, then=None, kept=False)
            case actions.Delay(seconds, reason):
                log.error("%s; next attempt in %.1f s", reason, seconds)
            case actions.Wait(reason):
                log.error("%s; waiting for the code to change", reason)
            case actions.Adopt():
                self._adopt()
            case actions.Execute():
                self._execute()
            case actions.Refuse(reason, what):
                self._tell_failed(f"{what} refused", reason)
            case actions.RollBack(generation, reason, failed):
                what = f"reload of generation {generation} rolled back"
                self._tell_failed(what, reason, logging.ERROR if failed else logging.INFO)
                self.bindings.keep(self.loaded.config)
                self._forget_generations()
            case actions.Commit(generation):
                self._commit(generation)
            case actions.Halt(exit_code, reason):
                log.info("stopped: %s", reason)
                self.exit_code, self._last_words = exit_code, reason

    def _strike(self, serial: int, reason: str, level: int, number: int) -> None:
        """End a process that missed a deadline; the first time it shows where it stands."""
        process = self.processes[serial]
        if process.role in PROBES or self.inquests.has_told(serial):
            name = signal_name(number)
            log.log(level, "%s (pid %d) %s; sending %s", process, process.pid, reason, name)
            process.send(number)
        else:
            self.inquests.open(process, reason, level=level, then=number)

    def _spawn(self, action: actions.Spawn) -> None:
        loaded = self.generations[action.generation]
        config = loaded.config
        is_monitor = action.role is Role.MONITOR
        listeners = self.bindings.of_monitor(config) if is_monitor else self.bindings.of(config)
        try:
            process = self.spawner.spawn(
                action.serial,
                action.generation,
                action.role,
                loaded,
                listeners=listeners,
                unserved=self.bindings.others(listeners),
                siblings=list(self.processes.values()),
            )
        except OSError as exc:
            reason = f"cannot fork {action.role.value} {action.serial}: {exc.strerror}"
            self._decide(events.SpawnFailed(action.serial, reason))
            return
        self.processes[action.serial] = process
        if process.link is not None:
            self._watch_zygote(process)
        if process.pid:
            self._log_start(process, action.reason)

    def _watch_zygote(self, zygote: Process) -> None:
        assert zygote.link is not None
        self._watch(zygote.link.fileno(), lambda: self._on_answers(zygote))

    def _log_start(self, process: Process, reason: str = "from the zygote") -> None:
        # At the start the banner says how many come, and each says when it is ready.
        level = _level(process) if self.ready_line.told else logging.DEBUG
        log.log(
            level,
            "%s started (pid %d, generation %d): %s",
            process,
            process.pid,
            process.generation,
            reason,
        )
        if process.role is Role.WORKER:
            self.server.WORKERS[process.pid] = process.view

    def _spawn_failed(self, process: Process, reason: str) -> None:
        del self.processes[process.serial]
        self.spawner.forget(process)
        self._decide(events.SpawnFailed(process.serial, f"cannot fork {process}: {reason}"))

    # --- Reload -------------------------------------------------------------------------------

    def _adopt(self) -> None:
        """Read the configuration that the validator found sound, and bind what it adds."""
        try:
            loaded = sized(self.loaded.again())
            self.bindings.add(loaded.config)
        except ForkmasterError as exc:
            self._decide(events.Refused(str(exc)))
            return
        for warning in loaded.warnings:
            log.warning("%s", warning)
        self._propose(loaded)

    def _propose(self, loaded: Loaded) -> None:
        self.generations[self.supervisor.next_generation] = loaded
        hooks.call(loaded.config, "on_reload", self.server)
        self._decide(events.Propose(policy_of(loaded.config)))

    def _commit(self, generation: int) -> None:
        config = self.loaded.config
        self._complaint = ""
        try:
            logs.configure(config)
        except (ForkmasterError, OSError) as exc:
            log.error("%s; logging as before", exc)
        log.info("reload done: generation %d serves alone", generation)
        self.server.cfg = self.server.log.cfg = config
        # With every reload, changed or not, as gunicorn calls it.
        self._tell_workers_changed()
        self.bindings.keep(config)
        self._keep_pidfile(config.pidfile)
        self._forget_generations()

    def _keep_pidfile(self, path: Path | None) -> None:
        """Have the pid file where the configuration wants it, whatever became of it."""
        before = self.pidfile
        try:
            self.pidfile = Pidfile.write(path) if path is not None else None
        except ForkmasterError as exc:
            log.error("%s; the one from before stays", exc)
            return
        if before is not None and (self.pidfile is None or before.path != self.pidfile.path):
            before.remove()

    def _tell_failed(self, what: str, reason: str, level: int = logging.ERROR) -> None:
        serving = self.supervisor.committed
        self._complaint = f"{what}: {reason}"
        follows = f"generation {serving} serves on"
        if self.supervisor.waiting and not self.supervisor.workers():
            follows = "waiting for the code to change"
        log.log(level, "%s: %s; %s", what, reason.rstrip(), follows)

    # --- Upgrade ------------------------------------------------------------------------------

    def _execute(self) -> None:
        """Become the new program, or go on as the old one if that is refused."""
        if any(process.pid == 0 for process in self.processes.values()):
            self._tell_failed("upgrade refused", "a zygote is forking; try again")
            return
        self._hook("pre_exec", self.server)
        program = upgrade.this_program(str(self.loaded.folder))
        state = self._state()
        fd = upgrade.freeze(state)
        log.info("becoming %s", " ".join(program.arguments))
        # Signals that come meanwhile stay pending, over the exec.
        with signals_blocked():
            try:
                told = {**self.notifier.variables(), upgrade.STATE_VARIABLE: str(fd)}
                upgrade.execute(program, {**os.environ, **told})
            except OSError as exc:
                reason = f"cannot execute {program.path}: {exc.strerror}"
        upgrade.thaw(state, fd)
        self._tell_failed("upgrade refused", reason)

    def _state(self) -> upgrade.State:
        return upgrade.State(
            version=upgrade.STATE_VERSION,
            program=upgrade.this_program(str(self.loaded.folder)),
            board=str(self.board.path),
            lock_fd=self.board.lock_fd,
            records=self.board.records,
            **self.spawner.state(),
            listeners=self.bindings.state(),
            processes=tuple(
                upgrade.ProcessState(
                    serial=process.serial,
                    generation=process.generation,
                    role=process.role.value,
                    pid=process.pid,
                    cell=process.cell,
                    born=process.born,
                    link_fd=None if process.link is None else process.link.fileno(),
                )
                for process in self.processes.values()
            ),
            supervisor=self.supervisor.snapshot(),
            forkmaster=__version__,
        )

    def _take_over(self, left: upgrade.State) -> None:
        """Go on with the children of the program before this one, and replace them."""
        listeners = self.bindings.of(self.loaded.config)
        for each in left.processes:
            process = self.spawner.adopt(each, self.loaded, listeners)
            self.processes[process.serial] = process
            if process.link is not None:
                self._watch_zygote(process)
            elif process.role is Role.WORKER:
                self.server.WORKERS[process.pid] = process.view
        upgrade.adopted(left, os.environ)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        log.info(
            "upgraded from forkmaster %s; %d children adopted", left.forkmaster, len(self.processes)
        )
        self._reap()
        self._propose(self.loaded)

    def _forget_generations(self) -> None:
        needed = self.supervisor.generations
        self.generations = {g: loaded for g, loaded in self.generations.items() if g in needed}

    def _hook(self, name: str, *arguments: Any) -> None:
        """Call a hook of the committed configuration."""
        may_refuse = not self.supervisor.started
        hooks.call(self.loaded.config, name, *arguments, may_refuse=may_refuse)


def _level(process: Process) -> int:
    """The level of what is routine in the life of a child."""
    return logging.DEBUG if process.role is Role.WATCHER else logging.INFO


def _let_monitor_read(board: Board, config: Config) -> None:
    """Give the group of the workers, which is the monitor's too, the right to read the board."""
    workers = identity(config.user, config.group)
    if config.monitor_bind and not workers.is_current() and os.geteuid() == 0:
        board.let_read(workers.gid)


def _listening(listener: socket.socket) -> Listening:
    return Listening(str(address_of(listener)), inode_of(listener))


def call_back(selector: selectors.BaseSelector, seconds: float) -> None:
    """Wait so long at most, and call what is registered for each descriptor that is ready."""
    for key, _ in selector.select(seconds):
        # One callback may close what another one of the same batch watched; its number may have
        # been given to something new by then, so the number alone proves nothing.
        if key.fd in selector.get_map() and selector.get_key(key.fd) is key:
            key.data()


def policy_of(config: Config) -> Policy:
    """The part of a configuration that the supervisor decides by."""
    workers, least, most = bounds_of(config)
    return Policy(
        workers=workers,
        workers_min=least,
        workers_max=most,
        timeout=config.timeout,
        request_timeout=config.request_timeout,
        slow_request=config.slow_request,
        boot_timeout=config.boot_timeout,
        graceful_timeout=config.graceful_timeout,
        kill_timeout=config.kill_timeout,
        surge=config.workers if config.reload_mode == "all-at-once" else config.reload_surge,
        preload=config.preload_app,
        watch=fingerprint_of(config),
        monitor=bool(config.monitor_bind),
    )


def pulse_of(process: Process, requests: bool) -> events.Pulse:
    """What the slot of a child says, as far as deadlines go.

    Its records are looked through only if `requests`: that costs as much as all the rest.
    """
    words = process.slot.words
    return events.Pulse(
        beat=words[layout.BEAT] / 1e9,
        oldest=oldest_request(process.slot) if requests else 0.0,
        extended=words[layout.EXTENDED] / 1e9,
        cancels=words[layout.KIND] in MANY_AT_ONCE,
    )


def is_serving(process: Process) -> bool:
    """Whether its end loses a request."""
    return process.slot.words[layout.IN_FLIGHT] > 0


def oldest_request(slot: Slot) -> float:
    """The start of the oldest request in flight, monotonic seconds; 0.0 if there is none."""
    words = slot.words
    last = layout.RECORDS_FIRST_WORD + words[layout.RECORD_COUNT] * layout.RECORD_WORDS
    starts = [
        words[first + layout.START]
        for first in range(layout.RECORDS_FIRST_WORD, last, layout.RECORD_WORDS)
        if not words[first + layout.END] and words[first + layout.START]
    ]
    return min(starts, default=0) / 1e9
