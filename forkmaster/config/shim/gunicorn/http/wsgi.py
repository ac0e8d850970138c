"""Stand-in for gunicorn.http.wsgi: names for annotations."""

from __future__ import annotations

from wsgiref.util import FileWrapper

__all__ = ["FileWrapper", "Response"]


class Response:
    pass
