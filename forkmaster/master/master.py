"""The master process: waits, lets the supervisor decide, performs.  It holds no policy.

    wait(until = supervisor.next_deadline())     signals, announcements, zygotes' answers
        → events → supervisor.handle(event, now) → actions → one method and one log line each

It is single-threaded, imports no application, touches no client, and blocks nowhere but in its
one wait.  startup.py makes it; family.py keeps the processes.
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
from forkmaster.board import app_metrics, layout
from forkmaster.board.board import Board
from forkmaster.board.notice import Listening, Notice, read_notice
from forkmaster.config.lasting import lasting
from forkmaster.errors import ForkmasterError
from forkmaster.logs import losses
from forkmaster.logs import setup as logs
from forkmaster.master import actions, events, hooks, upgrade
from forkmaster.master.banner import ReadyLine
from forkmaster.master.bindings import Bindings
from forkmaster.master.chronicle import Chronicle
from forkmaster.master.control import Control
from forkmaster.master.evidence import IncidentFolder, KernelKills
from forkmaster.master.family import Family, routine
from forkmaster.master.inquests import Inquests
from forkmaster.master.notify import Announcer, standing_of
from forkmaster.master.orders import Orders
from forkmaster.master.output import Outputs
from forkmaster.master.policy import Role
from forkmaster.master.readings import is_serving, policy_of, pulse_of
from forkmaster.master.sampling import Sampler
from forkmaster.master.sizing import sized
from forkmaster.master.spawn import Process, Spawner
from forkmaster.master.supervisor import Supervisor
from forkmaster.system import processes
from forkmaster.system.daemon import Launch, leave_terminal
from forkmaster.system.listeners import address_of
from forkmaster.system.memory import memory_group
from forkmaster.system.pidfile import Pidfile
from forkmaster.system.privileges import identity
from forkmaster.system.queues import inode_of
from forkmaster.system.signals import SignalPipe, signal_name, signals_blocked
from forkmaster.system.systemd import Notifier
from forkmaster.worker.views import ServerView

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from forkmaster.config.sources import Loaded
    from forkmaster.config.table import Config

log = logging.getLogger("forkmaster.error")

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
    signal.SIGCONT,
)


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
        self.selector = selectors.DefaultSelector()
        self.outputs = Outputs(self.selector)
        self.spawner = Spawner(board, self.server, self.outputs, left)
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
        self._measured: int | None = None
        self.observers: list[Callable[[events.Event, Sequence[actions.Action]], None]] = []
        """Called after each event that was decided, with what was done about it."""
        self.ready_line = ReadyLine(self.supervisor)
        self.ready_line.told = left is not None
        self.observers.append(self.ready_line.observe)
        self._last_words = ""  # why the server has ended
        self._events: deque[events.Event] = deque()
        self.family = self._new_family()

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

    def _new_family(self) -> Family:
        return Family(
            supervisor=self.supervisor,
            spawner=self.spawner,
            bindings=self.bindings,
            board=self.board,
            selector=self.selector,
            inquests=self.inquests,
            chronicle=self.chronicle,
            kernel_kills=self.kernel_kills,
            ready_line=self.ready_line,
            server=self.server,
            processes=self.processes,
            generations=lambda: self.generations,
            decide=self._decide,
            child_exited=lambda gone: self._hook("child_exit", self.server, gone.view),
        )

    # --- Life ---------------------------------------------------------------------------------

    def run(self) -> int:
        """Returns the exit code of the server."""
        config = self.loaded.config
        losses.count_in(self.board.master.words, layout.LINES_LOST)
        # Before the pid file: people signal as soon as it exists.
        self.signals = SignalPipe(SIGNALS)
        self.spawner.masters_own += [
            self.selector.close,
            self.signals.close_in_child,
            self.launch.close,
        ]
        self._watch(self.signals.fileno(), self._on_signals)
        self._watch(self.spawner.announcements, self.family.heed)
        self.control = self._open_control()
        let_monitor_read(self.board, config)
        if config.prometheus_app_metrics:
            workers = identity(config.user, config.group)
            app_metrics.prepare(self.board.path, workers.uid, workers.gid)
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
        self.outputs.close()
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
            self._measure()
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

    def _measure(self) -> None:
        """Tell statsd how many workers there are, if that has changed."""
        statsd = logs.statsd()
        count = sum(process.role is Role.WORKER for process in self.processes.values())
        if statsd is not None and count != self._measured:
            self._measured = count
            statsd.gauge("gunicorn.workers", count)

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
                self.family.reap()
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
            case signal.SIGCONT:
                # Caught because systemd starts no Type=notify-reload service that lets its
                # ReloadSignal= take the default action, and that of ours is one without a meaning.
                pass
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

    # --- What is done -------------------------------------------------------------------------

    def _perform(self, action: actions.Action) -> None:
        match action:
            case actions.Spawn():
                self.family.spawn(action)
            case actions.Retire(serial, reason, number) | actions.Quit(serial, reason, number):
                process = self.processes[serial]
                log.log(routine(process), "%s: %s; sending %s", process, reason, number.name)
                process.send(number)
            case actions.Abort(serial, reason, number):
                self.family.strike(serial, reason, logging.ERROR, number)
            case actions.Kill(serial, reason, number):
                lost = is_serving(self.processes[serial])
                level = logging.ERROR if lost else logging.WARNING
                self.family.strike(serial, reason, level, number)
            case actions.Dump(serial, reason):
                process = self.processes[serial]
                self.inquests.open(process, reason, level=logging.WARNING, then=None, kept=False)
            case actions.Delay(seconds, reason):
                log.error("%s; next attempt in %.1f s", reason, seconds)
            case actions.Wait(reason):
                log.error("%s; waiting for the code to change", reason)
            case actions.Linger(seconds, reason):
                log.info("%s; serving on for %g s", reason, seconds)
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

    # --- Reload -------------------------------------------------------------------------------

    def _adopt(self) -> None:
        """Read the configuration that the validator found sound, and bind what it adds."""
        try:
            loaded = lasting(self.loaded, sized(self.loaded.again()))
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
        if self.family.is_forking:
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
            processes=self.family.states(),
            supervisor=self.supervisor.snapshot(),
            forkmaster=__version__,
        )

    def _take_over(self, left: upgrade.State) -> None:
        """Go on with the children of the program before this one, and replace them."""
        self.family.adopt(left.processes, self.loaded)
        upgrade.adopted(left, os.environ)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        log.info(
            "upgraded from forkmaster %s; %d children adopted", left.forkmaster, len(self.processes)
        )
        self.family.heed()  # what was told while the program changed
        self.family.reap()
        self._propose(self.loaded)

    def _forget_generations(self) -> None:
        needed = self.supervisor.generations
        self.generations = {g: loaded for g, loaded in self.generations.items() if g in needed}

    def _hook(self, name: str, *arguments: Any) -> None:
        """Call a hook of the committed configuration."""
        may_refuse = not self.supervisor.started
        hooks.call(self.loaded.config, name, *arguments, may_refuse=may_refuse)


def let_monitor_read(board: Board, config: Config) -> None:
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
