"""For programs that are servers themselves: `forkmaster.run`, and those that embed gunicorn."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from forkmaster.config.origins import Given, Origin
from forkmaster.config.sources import Loaded, load
from forkmaster.errors import ForkmasterError, UsageError
from forkmaster.master import startup
from forkmaster.worker import application

_CALL = Origin("call", "forkmaster.run")
_SET = Origin("call", "cfg.set")


def run(app: str | Callable[..., Any], settings: Mapping[str, object]) -> int:
    """See `forkmaster.run`."""
    _require_the_main_thread()
    given = [Given(name, value, _CALL) for name, value in settings.items()]
    if isinstance(app, str):
        name = app
    else:
        name = f"{app.__module__}:{getattr(app, '__qualname__', type(app).__qualname__)}"
        application.provide(name, lambda: app)
    return _serve(load([*given, Given("app", name, _CALL)]))


def run_embedded(program: Any) -> None:
    """Serve a gunicorn.app.base.BaseApplication.  Ends the process, as gunicorn does.

    Its `load` is called in each worker, after the fork; with preload_app once, in the zygote.
    It says all settings itself: neither a file that lies about nor the environment is read.
    """
    try:
        _require_the_main_thread()
        kind = type(program)
        name = f"{kind.__module__}:{kind.__qualname__}"
        application.provide(name, program.wsgi)
        given = [Given(key, value, _SET) for key, value in program.cfg.given.items()]
        loaded = load([*given, Given("app", name, _SET)], environ={}, discover=False)
        status = _serve(loaded)
    except ForkmasterError as exc:
        print(exc.said(), file=sys.stderr)
        status = exc.exit_code
    sys.exit(status)


def run_command_line() -> None:
    """What gunicorn.app.wsgiapp.run does: the command line of this process is ours."""
    from forkmaster.cli.entry import main

    main()


def _serve(loaded: Loaded) -> int:
    return startup.run(loaded)


def _require_the_main_thread() -> None:
    if threading.current_thread() is not threading.main_thread():
        raise UsageError("a server runs on the main thread; only there it gets signals")
