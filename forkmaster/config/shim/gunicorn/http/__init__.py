"""Stand-in for gunicorn.http."""

from gunicorn.http.message import Message, Request

__all__ = ["Message", "Request"]
