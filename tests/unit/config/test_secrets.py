"""Configuration can be shown to anybody."""

from __future__ import annotations

import pytest

from forkmaster.config.secrets import HIDDEN, redacted


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("raw_env", ["A=1", "SECRET_KEY=x"], ["A=1", f"SECRET_KEY={HIDDEN}"]),
        ("raw_env", "DB_PASSWORD=x", f"DB_PASSWORD={HIDDEN}"),
        ("raw_env", "PGPASSWORD=x", f"PGPASSWORD={HIDDEN}"),
        ("raw_env", "SENTRY_DSN=https://a@b/1", f"SENTRY_DSN={HIDDEN}"),
        ("raw_env", "API_KEY=x", f"API_KEY={HIDDEN}"),
        ("raw_env", "AUTH_TOKEN=", f"AUTH_TOKEN={HIDDEN}"),
        ("raw_env", "KEYBOARD=x", "KEYBOARD=x"),
        (
            "raw_env",
            "DATABASE_URL=postgres://user:pw@host/db",
            f"DATABASE_URL=postgres://user:{HIDDEN}@host/db",
        ),
        ("statsd_host", "udp://a:b@c:1", f"udp://a:{HIDDEN}@c:1"),
        ("keyfile_password", "x", HIDDEN),
        ("keyfile_password", None, None),
        ("keyfile", "/etc/key.pem", "/etc/key.pem"),
        ("workers", 3, 3),
        ("bind", ["127.0.0.1:8000", "[::1]:80"], ["127.0.0.1:8000", "[::1]:80"]),
        (
            "logconfig_dict",
            {"handlers": {"x": {"password": "y", "level": "INFO"}}},
            {"handlers": {"x": {"password": HIDDEN, "level": "INFO"}}},
        ),
    ],
)
def test_what_looks_like_a_secret_is_hidden(name: str, value: object, shown: object) -> None:
    assert redacted(name, value) == shown
