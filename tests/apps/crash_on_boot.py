"""Raises while it is imported, two calls deep."""


def read_settings():
    raise RuntimeError("the database is not configured")


read_settings()
