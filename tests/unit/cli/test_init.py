"""`forkmaster init` writes files that fit the project in the current folder."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from forkmaster.cli import entry, init
from forkmaster.cli.init import KINDS
from forkmaster.config.sources import load

MANAGE = 'import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "polls.settings.prod")\n'
# What belongs to the project that the files of conf/ are written for.
OTHERS = re.compile(r"/srv/project|project\.(wsgi|settings|conf)|conf/docker|\.\./|forkmaster\.so")

# A checkout may be without the files for Kubernetes.
WRITABLE = [kind for kind in KINDS if kind != "k8s" or (init.templates() / "kubernetes").is_dir()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    made = tmp_path / "My_Shop"
    made.mkdir()
    monkeypatch.chdir(made)
    monkeypatch.setenv("PWD", str(made))
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "meta_path", sys.meta_path[:])
    return made


@pytest.fixture
def django(folder: Path) -> Path:
    """The folder of a Django project."""
    (folder / "manage.py").write_text(MANAGE)
    (folder / "polls").mkdir()
    (folder / "polls" / "wsgi.py").write_text("")
    return folder


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("kind", WRITABLE)
def test_nothing_is_left_of_the_project_of_the_templates(
    kind: str, django: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(files(django))

    assert entry.run(["init", kind]) == 0

    made = {path: text for path, text in files(django).items() if path not in before}
    assert len(made) == len(KINDS[kind])
    assert all(f"wrote {path}\n" in capsys.readouterr().out for path in list(made)[:1])
    for path, text in made.items():
        assert not OTHERS.findall(text), path


def test_a_configuration_names_the_application_once(
    django: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (django / "gunicorn.conf.py").write_text("workers = 2\n")

    entry.run(["init"])

    text = files(django)["forkmaster.toml"]
    assert '\napp = "polls.wsgi:application"\n' in text
    assert '\n#wsgi_app = "polls.wsgi:application"\n' in text
    assert "forkmaster.toml is read from now on, and gunicorn.conf.py is not\n" in (
        capsys.readouterr().out
    )


def test_a_unit_fits_the_project(django: Path) -> None:
    (django / "gunicorn.conf.py").write_text("workers = 2\n")

    entry.run(["init", "systemd"])

    unit = files(django)["deploy/my-shop.service"]
    start = (
        f"ExecStart={sys.prefix}/bin/forkmaster -c {django}/gunicorn.conf.py polls.wsgi:application"
    )
    assert start in unit.splitlines()
    assert f"WorkingDirectory={django}\n" in unit
    assert "Requires=my-shop.socket\n" in unit
    assert "ListenStream=/run/my-shop.sock\n" in files(django)["deploy/my-shop.socket"]


def test_a_configuration_of_another_name_is_named_or_missed(
    django: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (django / "gunicorn.py").write_text("workers = 2\n")

    entry.run(["init", "systemd"])
    missed = capsys.readouterr().out
    entry.run(["init", "systemd", "--force", "-c", "gunicorn.py"])
    named = capsys.readouterr().out

    assert "gunicorn.py is not used: forkmaster init systemd -c gunicorn.py" in missed
    assert "is not used" not in named
    unit = files(django)["deploy/my-shop.service"]
    assert f"bin/forkmaster -c {django}/gunicorn.py polls.wsgi:application\n" in unit


def test_without_a_configuration_file_the_unit_names_none(folder: Path) -> None:
    entry.run(["init", "systemd", "main:app"])

    assert "bin/forkmaster main:app\n" in files(folder)["deploy/my-shop.service"]


def test_a_project_that_is_not_django_has_no_settings(folder: Path) -> None:
    (folder / "main.py").write_text("app = object()\n")

    for kind in WRITABLE:
        entry.run(["init", kind])

    made = files(folder)
    assert "collectstatic" not in made["Dockerfile"]
    assert '"main:app"]' in made["Dockerfile"]
    assert not any("DJANGO_SETTINGS_MODULE:" in text for text in made.values())
    assert not any("project.settings" in text for text in made.values())


def test_the_configuration_is_one_that_can_be_loaded(django: Path) -> None:
    entry.run(["init"])

    loaded = load(environ={}, folder=django)

    assert loaded.file == django / "forkmaster.toml"
    assert loaded.config.app == "polls.wsgi:application"
    assert loaded.warnings == []


def test_a_file_that_exists_is_left_alone(django: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (django / "Dockerfile").write_text("FROM scratch\n")

    with pytest.raises(SystemExit) as caught:
        entry.main(["init", "docker"])

    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "forkmaster: Dockerfile exists, so nothing was written; --force writes over them\n"
    )
    assert set(files(django)) == {"manage.py", "polls/wsgi.py", "Dockerfile"}
    assert entry.run(["init", "docker", "--force"]) == 0
    assert files(django)["Dockerfile"] != "FROM scratch\n"


@pytest.mark.parametrize(
    "modules",
    [{}, {"a.py": "app = 1", "b.py": "app = 1"}, {"a.py": "def app(:"}],
    ids=["none", "two", "broken"],
)
def test_an_application_that_is_not_plain_must_be_named(
    modules: dict[str, str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in modules.items():
        (folder / name).write_text(text)

    with pytest.raises(SystemExit) as caught:
        entry.main(["init", "systemd"])

    assert caught.value.code == 2
    assert "no application is found here; name it" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["my shop", "100%", "a;b", "$x", "{y}", 'a"b'])
def test_a_folder_whose_name_means_more_to_systemd_is_refused(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / name).mkdir()
    monkeypatch.chdir(folder / name)

    with pytest.raises(SystemExit) as caught:
        entry.main(["init", "systemd", "main:app"])

    assert caught.value.code == 2
    assert "systemd reads more in this name than a folder" in capsys.readouterr().err
    assert list((folder / name).iterdir()) == []


def test_the_templates_are_those_of_conf() -> None:
    assert init.templates() == Path(__file__).parents[3] / "conf"


@pytest.mark.parametrize(
    ("there", "said"),
    [
        ((), "this installation of forkmaster is without its conf/ folder"),
        (("systemd",), "this installation of forkmaster is without conf/forkmaster.toml"),
    ],
)
def test_an_installation_without_its_templates_says_so(
    there: tuple[str, ...],
    said: str,
    django: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    installed = tmp_path / "site-packages" / "forkmaster"
    for name in there:
        (installed / "conf" / name).mkdir(parents=True)
    monkeypatch.setattr(init.forkmaster, "__file__", str(installed / "__init__.py"))

    with pytest.raises(SystemExit) as caught:
        entry.main(["init"])

    assert caught.value.code == 1
    assert capsys.readouterr().err == f"forkmaster: {said}\n"
