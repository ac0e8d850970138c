"""From a configuration to a master that runs: what can fail before anything is forked.

The order is the point: what another instance could notice or lose comes after what proves that
there is none.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from forkmaster.addresses import TCPAddress
from forkmaster.board.board import Board, remove_stale
from forkmaster.board.board import places as board_places
from forkmaster.errors import ForkmasterError
from forkmaster.logs import setup as logs
from forkmaster.master import hooks, upgrade
from forkmaster.master.banner import greeting
from forkmaster.master.bindings import Bindings
from forkmaster.master.master import Master
from forkmaster.master.sizing import sized
from forkmaster.master.spawn import records_for
from forkmaster.system.container import is_container, out_of_reach
from forkmaster.system.daemon import Launch, detach
from forkmaster.system.privileges import is_root_of_the_machine
from forkmaster.system.systemd import InheritedSocket, Notifier, take_inherited_sockets
from forkmaster.worker.assignment import check_encryption
from forkmaster.worker.child import worker_kind
from forkmaster.worker.interface import as_written
from forkmaster.worker.views import ServerView

if TYPE_CHECKING:
    from collections.abc import Iterator

    from forkmaster.config.sources import Loaded
    from forkmaster.config.table import Config

log = logging.getLogger("forkmaster.error")


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
    interface = as_written(config.app, [*map(Path, config.pythonpath), Path.cwd()])
    if left is None and interface is not None:
        # Raises: a contradiction that can be seen by now is not worth a fork.
        worker_kind(config, interface)
    logs.configure(config)
    if left is None:
        for line in greeting(loaded, os.environ, interface):
            log.info("%s", line)
    binds = not (inherited or (left and any(each.inherited for each in left.listeners)))
    for warning in (*loaded.warnings, *_doubts(config, binds)):
        log.warning("%s", warning)
    loaded = sized(loaded)
    if left is not None:
        return Master.adopt(loaded, notifier, left).run()
    for stale in remove_stale(config.worker_tmp_dir, os.geteuid()):
        log.info("removed %s, left by a master that was killed", stale)
    check_encryption(config)
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


def _doubts(config: Config, binds: bool) -> Iterator[str]:
    """What is allowed but hardly meant.  `binds` is False where others have opened the sockets."""
    if config.user in (None, 0) and is_root_of_the_machine():
        yield "the workers run as root; set user"
    unreachable = out_of_reach(config.bind) if binds else None
    if unreachable is not None and is_container():
        everywhere = TCPAddress("0.0.0.0", unreachable.port)
        yield f"published ports of this container do not lead to {unreachable}; bind {everywhere}"
    if config.daemon and not config.enable_stdio_inheritance and logs.goes_to_terminal(config):
        yield "a daemon has no terminal to log to; set errorlog to a file"
