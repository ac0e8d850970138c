"""Stand-in for gunicorn.http.message: names for annotations."""

from __future__ import annotations


class Message:
    pass


class Request(Message):
    pass
