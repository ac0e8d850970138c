"""Stand-in for gunicorn.http.errors: names to catch."""

from __future__ import annotations


class ParseException(Exception):  # noqa: N818  gunicorn's names, here and below
    pass


class NoMoreData(IOError):  # noqa: N818
    pass


class InvalidRequestLine(ParseException):
    pass


class InvalidHeader(ParseException):
    pass


class LimitRequestLine(ParseException):
    pass


class LimitRequestHeaders(ParseException):
    pass
