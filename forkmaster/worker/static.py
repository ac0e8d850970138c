"""Static files before a WSGI application, by WhiteNoise: the setting static_map.

The files are listed when a worker starts, and again by a reload; nothing that is not in the list
is served, whatever the path says.  Behind nginx or a CDN none of this is needed.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from forkmaster.errors import AppError, BootError
from forkmaster.worker.application import kind_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger("forkmaster.error")

# As Django's ManifestStaticFilesStorage names a file after its contents: style.55e7cbb9ba48.css.
HASHED = r"\.[0-9a-f]{12}\.[^/]+$"


def serve_before(
    application: Callable[..., Any], static_map: Mapping[str, Path] | str
) -> Callable[..., Any]:
    """A WSGI application that answers with the files, and leaves the rest to `application`.

    Raises AppError or BootError.
    """
    if kind_of(application) == "asgi":
        raise AppError(
            "static_map is for WSGI applications; let nginx or a CDN serve the static files of an"
            " ASGI one, or put WhiteNoise into its MIDDLEWARE"
        )
    folders = django_folders() if static_map == "auto" else static_map
    assert not isinstance(folders, str)
    try:
        from whitenoise import WhiteNoise
    except ImportError:
        raise BootError("static_map needs WhiteNoise: pip install 'forkmaster[static]'") from None
    noise = WhiteNoise(application, immutable_file_test=HASHED)
    for url, folder in folders.items():
        if not folder.is_dir():
            raise BootError(
                f"static_map: there is no folder {folder}; has manage.py collectstatic run?"
            )
        noise.add_files(str(folder), prefix=url)
    log.debug("%d static files are served", len(noise.files))
    return noise  # type: ignore[no-any-return]  # WhiteNoise has no types


def django_folders() -> dict[str, Path]:
    """STATIC_URL and STATIC_ROOT of the Django project that has been loaded."""
    if "django.conf" not in sys.modules:
        raise AppError('static_map is "auto", but the application is not a Django project')
    from django.conf import settings

    if not settings.STATIC_ROOT or not settings.STATIC_URL:
        raise BootError('static_map is "auto", but STATIC_ROOT or STATIC_URL is not set')
    return {urlsplit(settings.STATIC_URL).path: Path(settings.STATIC_ROOT)}
