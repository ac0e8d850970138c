"""`forkmaster init`: files for deployment, fitted to the project in the current folder.

The files are those of conf/, which are written for one project, called project, in /srv/project:
they can be read, checked and used as they are.  Here that project's names are replaced.  The
package carries a copy of conf/; a checkout has the folder itself.
"""

from __future__ import annotations

import ast
import os
import pwd
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

import forkmaster
from forkmaster.cli.options import given_by
from forkmaster.config.files import CONFIG_FILES
from forkmaster.config.sources import Loaded, load
from forkmaster.errors import ForkmasterError, UsageError

# What is written for each kind: the file in conf/, and where it goes.  {} is the project's name.
KINDS = {
    "config": {"forkmaster.toml": "forkmaster.toml"},
    "systemd": {
        "systemd/forkmaster.service": "deploy/{}.service",
        "systemd/forkmaster.socket": "deploy/{}.socket",
    },
    "nginx": {
        "nginx/project.conf": "deploy/{}.conf",
        "nginx/forkmaster_proxy.conf": "deploy/forkmaster_proxy.conf",
    },
    "docker": {
        "docker/Dockerfile": "Dockerfile",
        "docker/Dockerfile.dockerignore": ".dockerignore",
        "docker/compose.yaml": "compose.yaml",
        "docker/nginx/Dockerfile": "nginx/Dockerfile",
        "docker/nginx/default.conf": "nginx/default.conf",
    },
    "k8s": {
        f"kubernetes/{name}.yaml": f"deploy/k8s/{name}.yaml"
        for name in ("deployment", "service", "disruption", "autoscaler", "kustomization")
    },
}

# What the project of conf/ is called in each of them.
FOLDER, APP, SETTINGS_MODULE, USER = "/srv/project", "project.wsgi", "project.settings", "app"
VENV, CONFIG = f"{FOLDER}/.venv", f"-c {FOLDER}/gunicorn.py "

# What a unit of systemd or a file for nginx would want quoted, each in its own way.
UNQUOTED = re.compile(r"[^\w./@+,:=-]")


@dataclass(frozen=True)
class Project:
    """What the files must be told of a project."""

    folder: Path
    app: str
    settings: str | None
    """The settings module, if it is one of Django."""
    config: Path | None
    user: str
    venv: Path

    @property
    def name(self) -> str:
        """What its units are called: its folder's name, in letters that all of them take."""
        return re.sub(r"[^a-z0-9]+", "-", self.folder.name.lower()).strip("-") or "project"


def command() -> click.Command:
    return click.Command(
        "init",
        params=[
            click.Argument(["kind"], type=click.Choice(list(KINDS)), default="config"),
            click.Argument(["app"], required=False),
            click.Option(
                ["-c", "--config"],
                metavar="FILE",
                help="The configuration file to use; else one of a name that is found by itself.",
            ),
            click.Option(["--force"], is_flag=True, help="Write over files that exist."),
        ],
        help=(
            "Write a configuration, units of systemd, or files for nginx, Docker or Kubernetes, "
            "for the application APP in the current folder."
        ),
        callback=run,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def run(kind: str, app: str | None, config: str | None, force: bool) -> int:
    project = look_around(load(given_by({"config": config})), app)
    if kind in ("systemd", "nginx") and UNQUOTED.search(f"{project.folder}{project.venv}"):
        raise UsageError(f"{project.folder}: {kind} reads more in this name than a folder")
    files = {project.folder / path: text for path, text in written(kind, project)}
    existing = [path for path in files if path.exists()]
    if existing and not force:
        names = ", ".join(str(path.relative_to(project.folder)) for path in existing)
        verb = "exists" if len(existing) == 1 else "exist"
        raise UsageError(f"{names} {verb}, so nothing was written; --force writes over them")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(f"wrote {path.relative_to(project.folder)}")
    for line in remarks(kind, project):
        print(line)
    return 0


def look_around(loaded: Loaded, app: str | None) -> Project:
    """The project in the current folder.  Raises UsageError if its application is not plain."""
    folder = loaded.folder
    app = app or loaded.config.app or _likely_application(folder)
    if not app:
        raise UsageError("no application is found here; name it: forkmaster init KIND main:app")
    me = pwd.getpwuid(os.geteuid())
    return Project(
        folder=folder,
        app=app,
        settings=_settings_of(folder),
        config=loaded.file,
        user=USER if me.pw_uid == 0 else me.pw_name,
        venv=Path(sys.prefix),
    )


def written(kind: str, project: Project) -> Iterator[tuple[str, str]]:
    """The path and the text of each file of `kind`."""
    for template, path in KINDS[kind].items():
        if not (templates() / template).exists():
            raise ForkmasterError(f"this installation of forkmaster is without conf/{template}")
        yield path.format(project.name), fitted((templates() / template).read_text(), project)


def fitted(text: str, project: Project) -> str:
    """A file of conf/ for this project in place of that one."""
    config = f"-c {project.config} " if project.config is not None else ""
    home = project.folder.is_relative_to("/home") or project.folder.is_relative_to("/root")
    replaced = {
        CONFIG: config,
        VENV: str(project.venv),
        FOLDER: str(project.folder),
        f"{APP}:application": project.app,
        APP: project.app,
        f"User={USER}\n": f"User={project.user}\n",
        f"Group={USER}\n": f"Group={project.user}\n",
        "/etc/forkmaster/project.env": f"/etc/forkmaster/{project.name}.env",
        # Where the files of Docker are in conf/, and where they are here.
        "context: ../..": "context: .",
        "docker build -f conf/docker/Dockerfile .": "docker build .",
        "docker compose -f conf/docker/compose.yaml up": "docker compose up",
        "conf/docker/Dockerfile": "Dockerfile",
        "../../.env": ".env",
        # The file of all settings is generated; this one is going to be edited.
        "# Generated by scripts/generate_docs.py: every": "# Every",
        '#app = ""': f'app = "{project.app}"',
    }
    if home:
        # Else it could not be read at all.
        replaced["ProtectHome=yes"] = "ProtectHome=read-only"
    if project.settings is not None:
        replaced[SETTINGS_MODULE] = project.settings
    else:
        text = _without_django(text)
    for word in ("forkmaster.service", "forkmaster.socket", "forkmaster.sock"):
        replaced[word] = word.replace("forkmaster", project.name)
    replaced["polls"] = project.name
    replaced["project.conf"] = f"{project.name}.conf"
    # In one pass, the longest first: what was put in is not looked at again.
    words = sorted(replaced, key=len, reverse=True)
    return re.sub("|".join(map(re.escape, words)), lambda found: replaced[found[0]], text)


def _without_django(text: str) -> str:
    kept: list[str] = []
    for line in text.splitlines(keepends=True):
        if "collectstatic" in line or "DJANGO_SETTINGS_MODULE:" in line:
            continue
        if SETTINGS_MODULE in line and kept and "DJANGO_SETTINGS_MODULE" in kept[-1]:
            kept.pop()  # Kubernetes writes a variable in two lines
            continue
        kept.append(line)
    return "".join(kept)


def remarks(kind: str, project: Project) -> Iterator[str]:
    """What is left to do, if that cannot be read in the files."""
    if kind == "config" and project.config not in (None, project.folder / CONFIG_FILES[0]):
        yield f"{CONFIG_FILES[0]} is read from now on, and {project.config.name} is not"
    if kind == "docker" and not (project.folder / "requirements.txt").exists():
        yield "requirements.txt is missing: it lists what the image needs, forkmaster among it"
    if kind == "docker" and project.settings is None:
        yield "compose.yaml and nginx/ are for a site with static files; keep what you need"
    if kind == "nginx":
        yield "the first line of each file says where it goes; then: nginx -t"
    if kind == "systemd":
        if project.config is None and (project.folder / "gunicorn.py").exists():
            yield "gunicorn.py is not used: forkmaster init systemd -c gunicorn.py"
        yield "the first line of each file says where it goes; then: systemctl daemon-reload"


def templates() -> Path:
    """The folder with the files of conf/."""
    package = Path(forkmaster.__file__).parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "systemd").is_dir():
            return folder
    raise ForkmasterError("this installation of forkmaster is without its conf/ folder")


def _likely_application(folder: Path) -> str | None:
    """The one variable or function called app or application of the modules in `folder`."""
    found = []
    for path in sorted(folder.glob("*.py")):
        try:
            tree = ast.parse(path.read_bytes())
        except (OSError, SyntaxError, ValueError):
            continue  # the server will say why
        names = set(_names(tree))
        found += [f"{path.stem}:{name}" for name in ("application", "app") if name in names][:1]
    return found[0] if len(found) == 1 else None


def _names(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.Assign(targets=targets):
                yield from (target.id for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name


def _settings_of(folder: Path) -> str | None:
    from forkmaster.config.django import settings_module

    return settings_module(folder / "manage.py")
