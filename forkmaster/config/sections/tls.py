"""Encryption of all listeners but the monitor's.

What cannot be honoured stops the start: else secrets would be served in the clear.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from forkmaster.config.code import ANYTHING, hook
from forkmaster.config.places import FILE
from forkmaster.config.settings import Effect, setting
from forkmaster.config.values import BOOLEAN, OPTIONAL_TEXT, count, optional


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class TLS:
    title: ClassVar[str] = "TLS"

    certfile: Path | None = setting(
        None,
        optional(FILE),
        "--certfile",
        "The certificate, with its chain, in PEM.",
    )
    keyfile: Path | None = setting(
        None,
        optional(FILE),
        "--keyfile",
        "The private key of the certificate, in PEM.",
    )
    keyfile_password: str | None = setting(
        None,
        OPTIONAL_TEXT,
        "--keyfile-password",
        "The password of the private key.",
        own=True,
    )
    ca_certs: Path | None = setting(
        None,
        optional(FILE),
        "--ca-certs",
        "The certificates that a client's certificate must lead to, in PEM.",
    )
    cert_reqs: int = setting(
        0,
        count(0, 2),
        "--cert-reqs",
        "Whether a client must show a certificate: 0 no, 1 if it has one, 2 yes.",
    )
    ciphers: str | None = setting(
        None,
        OPTIONAL_TEXT,
        "--ciphers",
        "The ciphers that are allowed, as OpenSSL lists them.",
    )
    ssl_context: Callable[..., Any] | None = setting(
        None,
        hook("config", "default_ssl_context_factory"),
        "",
        "A function that makes the SSLContext.",
    )
    ssl_version: object = setting(
        None,
        ANYTHING,
        "--ssl-version",
        "The version of TLS.",
        effect=Effect.HARMLESS,
        instead="ignored, as by gunicorn since 21; use ssl_context",
    )
    suppress_ragged_eofs: bool = setting(
        True,
        BOOLEAN,
        "--suppress-ragged-eofs",
        "Take a connection that ends without farewell for one that ended.",
        effect=Effect.HARMLESS,
        instead="it is always so",
    )
    do_handshake_on_connect: bool = setting(
        False,
        BOOLEAN,
        "--do-handshake-on-connect",
        "Shake hands before the connection is used.",
        effect=Effect.HARMLESS,
        instead="it is always so, and never blocks",
    )

    @property
    def is_encrypted(self) -> bool:
        """Whether connections are encrypted."""
        return self.certfile is not None or self.ssl_context is not None

    def contradictions(self) -> Iterator[tuple[str, str, str]]:
        """Settings that cannot be honoured: the name, what is wrong, and what would be right."""
        if not self.is_encrypted:
            for name in ("keyfile", "keyfile_password", "ca_certs", "cert_reqs", "ciphers"):
                if getattr(self, name):
                    yield name, "nothing is encrypted without a certificate", "set certfile"
        if self.cert_reqs and self.ca_certs is None and self.ssl_context is None:
            yield "cert_reqs", "no certificate of a client could be verified", "set ca_certs"
