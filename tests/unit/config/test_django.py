"""In the folder of a Django project nobody need name the application."""

from __future__ import annotations

from pathlib import Path

import pytest

from forkmaster.config.django import find_application
from forkmaster.config.sources import load

MANAGE = 'import os\ndef main():\n    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{}")\n'


def project(folder: Path, settings: str, files: dict[str, str]) -> Path:
    (folder / "manage.py").write_text(MANAGE.format(settings))
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("settings", "files", "application"),
    [
        (
            "mysite.settings",
            {"mysite/settings.py": 'WSGI_APPLICATION = "mysite.wsgi.application"'},
            "mysite.wsgi:application",
        ),
        (
            "config.settings.production",
            {
                "config/settings/base.py": 'WSGI_APPLICATION = "config.serve.wsgi_app"',
                "config/settings/production.py": "from .base import *",
            },
            "config.serve:wsgi_app",
        ),
        (
            "config.settings",
            {"config/settings/__init__.py": 'WSGI_APPLICATION = "config.wsgi.application"'},
            "config.wsgi:application",
        ),
        ("mysite.settings", {"mysite/settings.py": "", "mysite/wsgi.py": ""},
         "mysite.wsgi:application"),
        ("mysite.settings", {"mysite/settings.py": ""}, None),
        ("mysite.settings", {"mysite/settings.py": "x = = 1"}, None),
        ("mysite.settings", {"mysite/settings.py": 'WSGI_APPLICATION = "nothing"'}, None),
    ],
)  # fmt: skip
def test_the_settings_name_the_application(
    settings: str, files: dict[str, str], application: str | None, tmp_path: Path
) -> None:
    assert find_application(project(tmp_path, settings, files)) == application


def test_another_folder_is_no_project(tmp_path: Path) -> None:
    assert find_application(tmp_path) is None
    (tmp_path / "manage.py").write_text("print('somebody else')")
    assert find_application(tmp_path) is None


def test_the_application_is_said_to_come_from_manage_py(tmp_path: Path) -> None:
    files = {"mysite/settings.py": 'WSGI_APPLICATION = "mysite.wsgi.application"'}

    loaded = load(environ={}, folder=project(tmp_path, "mysite.settings", files))

    assert loaded.config.app == "mysite.wsgi:application"
    assert str(loaded.origins["app"]) == "manage.py"
