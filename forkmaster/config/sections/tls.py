"""Encryption.  To ignore any of it would serve in the clear what was meant to be secret."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from forkmaster.config.code import ANYTHING, hook
from forkmaster.config.places import FILE
from forkmaster.config.settings import Effect, setting
from forkmaster.config.values import BOOLEAN, COUNT, OPTIONAL_TEXT, optional

_NOT_YET = "forkmaster does not speak TLS yet; let nginx or a load balancer do it"


@dataclass(frozen=True, kw_only=True)
class TLS:
    title: ClassVar[str] = "TLS"

    certfile: Path | None = setting(
        None,
        optional(FILE),
        "--certfile",
        "The certificate, with its chain, in PEM.",
        effect=Effect.REFUSED,
        instead=_NOT_YET,
    )
    keyfile: Path | None = setting(
        None,
        optional(FILE),
        "--keyfile",
        "The private key of the certificate, in PEM.",
        effect=Effect.REFUSED,
        instead=_NOT_YET,
    )
    keyfile_password: str | None = setting(
        None,
        OPTIONAL_TEXT,
        "--keyfile-password",
        "The password of the private key.",
        own=True,
        effect=Effect.REFUSED,
        instead=_NOT_YET,
    )
    ca_certs: Path | None = setting(
        None,
        optional(FILE),
        "--ca-certs",
        "The certificates that a client's certificate must lead to, in PEM.",
        effect=Effect.REFUSED,
        instead=_NOT_YET,
    )
    cert_reqs: int = setting(
        0,
        COUNT,
        "--cert-reqs",
        "Whether a client must show a certificate: 0 no, 1 if it has one, 2 yes.",
        effect=Effect.REFUSED,
        instead=_NOT_YET,
    )
    ciphers: str | None = setting(
        None,
        OPTIONAL_TEXT,
        "--ciphers",
        "The ciphers that are allowed, as OpenSSL lists them.",
        effect=Effect.REFUSED,
        instead=_NOT_YET,
    )
    ssl_context: Callable[..., Any] | None = setting(
        None,
        hook("config", "default_ssl_context_factory"),
        "",
        "A function that makes the SSLContext.",
        effect=Effect.REFUSED,
        instead=_NOT_YET,
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
