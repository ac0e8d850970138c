"""Stand-in for gunicorn.app.wsgiapp."""

from __future__ import annotations

from gunicorn.app.base import Application


class WSGIApplication(Application):  # type: ignore[misc]
    pass
