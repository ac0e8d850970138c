"""What static_map cannot do is said before anything is served."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from forkmaster.errors import AppError, BootError
from forkmaster.worker.static import django_folders, serve_before


def wsgi(environ: object, start_response: object) -> None: ...
async def asgi(scope: object, receive: object, send: object) -> None: ...


def test_an_asgi_application_has_no_files_before_it(tmp_path: Path) -> None:
    with pytest.raises(AppError, match=r"^static_map is for WSGI applications; let nginx or a CDN"):
        serve_before(asgi, {"/static/": tmp_path})


def test_whitenoise_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "whitenoise", None)  # what makes an import fail

    with pytest.raises(BootError) as caught:
        serve_before(wsgi, {"/static/": tmp_path})

    assert str(caught.value) == "static_map needs WhiteNoise: pip install 'forkmaster[static]'"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BootError) as caught:
        serve_before(wsgi, {"/static/": tmp_path / "no"})

    assert str(caught.value) == (
        f"static_map: there is no folder {tmp_path}/no; has manage.py collectstatic run?"
    )


def test_auto_wants_a_django_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "django.conf", raising=False)

    with pytest.raises(AppError, match='"auto", but the application is not a Django project'):
        django_folders()


@pytest.mark.parametrize(("url", "root"), [("/static/", None), (None, "/srv"), ("", "")])
def test_auto_wants_the_settings_of_django(
    url: str | None, root: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SimpleNamespace(STATIC_URL=url, STATIC_ROOT=root)
    monkeypatch.setitem(sys.modules, "django.conf", SimpleNamespace(settings=settings))

    with pytest.raises(BootError) as caught:
        django_folders()

    assert str(caught.value) == 'static_map is "auto", but STATIC_ROOT or STATIC_URL is not set'
