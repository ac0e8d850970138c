"""What is served, and what its process is given before it is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from forkmaster.config.places import FOLDER, PYTHONPATH, STATIC_MAP
from forkmaster.config.settings import Effect, setting
from forkmaster.config.values import BOOLEAN, OPTIONAL_TEXT, TEXT, TEXTS, VARIABLES, WARMUP
from forkmaster.config.warmup import WarmupRequest


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Application:
    title: ClassVar[str] = "Application"

    app: str = setting(
        "",
        TEXT,
        "",
        "The application, as MODULE:ATTRIBUTE, as MODULE (the attribute is then application), or "
        'as a factory: MODULE:create_app("production"). Usually the argument of the command.',
        own=True,
        everyday=True,
        # Many a Python file has a variable of this name; there it is wsgi_app.
        in_python=False,
    )
    wsgi_app: str | None = setting(
        None,
        OPTIONAL_TEXT,
        "",
        "The application, for a file; an application named on the command line wins.",
    )
    chdir: Path | None = setting(
        None,
        FOLDER,
        "--chdir",
        "Change to this folder before the application is imported, and import from it.",
        default_text="the folder the server is started in",
        everyday=True,
    )
    pythonpath: tuple[str, ...] = setting(
        (),
        PYTHONPATH,
        "--pythonpath",
        "Folders to import from, before all others; several are separated by commas.",
        differs="a folder that does not exist is reported",
    )
    raw_env: tuple[str, ...] = setting(
        (),
        VARIABLES,
        "-e --env",
        "An environment variable for the application, as NAME=VALUE. May be repeated.",
        everyday=True,
    )
    preload_app: bool = setting(
        False,
        BOOLEAN,
        "--preload",
        "Import the application once, before the workers are forked: they start at once and "
        "share its memory. A reload imports it again.",
        differs="a reload loads the new code",
        everyday=True,
    )
    warmup: tuple[WarmupRequest, ...] = setting(
        (),
        WARMUP,
        "--warmup",
        "A request that each new generation of the application must answer before it gets any "
        "of a client: a path, as /, or more, as GET https://example.com/ 200. May be repeated.",
        own=True,
    )
    static_map: dict[str, Path] | str = setting(
        {},
        STATIC_MAP,
        "--static-map",
        "Serve files before a WSGI application, as /static/=staticfiles; auto takes STATIC_URL and "
        "STATIC_ROOT of a Django project. Needs the extra static, which is WhiteNoise. May be "
        "repeated.",
        own=True,
    )
    root_path: str = setting(
        "",
        TEXT,
        "--root-path",
        "The path under which a proxy mounts an ASGI application.",
    )
    paste: str | None = setting(
        None,
        OPTIONAL_TEXT,
        "--paste --paster",
        "A PasteDeploy file to load the application from.",
        effect=Effect.REFUSED,
        instead='write a module that calls paste.deploy.loadapp("config:FILE") and name it',
    )
    raw_paste_global_conf: tuple[str, ...] = setting(
        (),
        TEXTS,
        "--paste-global",
        "A global variable of the PasteDeploy file, as NAME=VALUE.",
        effect=Effect.NONE,
        instead="pass global_conf to paste.deploy.loadapp",
    )
