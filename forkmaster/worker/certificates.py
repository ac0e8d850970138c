"""What new connections are encrypted with: an SSLContext from the settings, kept fresh.

One context serves all connections of a worker.  It is made before the worker gives up its
rights, so that the key may be readable by root alone.  Once a second the worker looks whether the
files are still those it has read (three `stat`, 5 µs), and makes a new context when they have been
others for two looks in a row: whoever renews a certificate replaces two files, not both in
the same moment.  Connections that exist keep what they have.

A renewal that fails leaves the old context in place and says why, once: a server with a
certificate that expires in a month is better than none.  A reload starts workers that read
everything anew, and rolls back if they cannot.
"""

from __future__ import annotations

import logging
import os
import ssl
from typing import TYPE_CHECKING

from forkmaster.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from forkmaster.config.table import Config

log = logging.getLogger("forkmaster.error")

_Seen = tuple[tuple[int, int, int], ...]  # inode, time and size of each file


class Encryption:
    """The context for new connections, and the files it was made of."""

    context: ssl.SSLContext
    """Only after `load`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._files = [
            path for path in (config.certfile, config.keyfile, config.ca_certs) if path is not None
        ]
        self.is_loaded = False
        self._read: _Seen = ()
        self._rejected: _Seen = ()
        self._last: _Seen = ()

    def load(self) -> None:
        """Read the files and make the context.  Raises ConfigError."""
        seen = self._look()
        context = _make_context(self._config)
        _try_out(context)
        self.context = context
        self.is_loaded = True
        self._read = self._last = seen

    def renew(self) -> None:
        """Read the files again if they have changed.  Called once a second; never raises."""
        seen = self._look()
        before, self._last = self._last, seen
        if not seen or seen in (self._read, self._rejected) or seen != before:
            return
        try:
            self.load()
        except ConfigError as exc:
            self._rejected = seen
            log.warning("cannot renew the certificate, the old one stays: %s", exc)
        else:
            log.info("read the certificate anew from %s", self._files[0])

    def _look(self) -> _Seen:
        """What tells one version of the files from another; empty if they cannot be seen."""
        try:
            found = [os.stat(path) for path in self._files]
        except OSError:
            # Just being replaced, or in a folder that only root may enter.
            return ()
        return tuple((each.st_ino, each.st_mtime_ns, each.st_size) for each in found)


def _make_context(config: Config) -> ssl.SSLContext:
    if config.ssl_context is None:
        return _default_context(config)
    try:
        context = config.ssl_context(config, lambda: _default_context(config))
    except ConfigError:
        raise  # of the default that it asked for
    except Exception as exc:
        raise ConfigError(f"the hook ssl_context raised {type(exc).__name__}: {exc}") from exc
    if not isinstance(context, ssl.SSLContext):
        raise ConfigError(
            f"the hook ssl_context returned {type(context).__name__}, not an ssl.SSLContext"
        )
    return context


def _default_context(config: Config) -> ssl.SSLContext:
    """TLS 1.2 and up, and what the settings say."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["h2", "http/1.1"] if config.speaks_http2 else ["http/1.1"])
    if config.certfile is not None:
        _load_chain(context, config)
    if config.ca_certs is not None:
        _must_be_readable("ca_certs", config.ca_certs)
        try:
            context.load_verify_locations(cafile=config.ca_certs)
        except ssl.SSLError as exc:
            raise ConfigError(
                f"ca_certs: {config.ca_certs} has no certificate in PEM ({exc.reason})"
            ) from exc
    context.verify_mode = ssl.VerifyMode(config.cert_reqs)
    if config.ciphers is not None:
        try:
            context.set_ciphers(config.ciphers)
        except ssl.SSLError as exc:
            raise ConfigError(
                f"ciphers: OpenSSL knows none of {config.ciphers!r};"
                " `openssl ciphers -v` lists what it knows"
            ) from exc
    return context


def _load_chain(context: ssl.SSLContext, config: Config) -> None:
    certfile, keyfile = config.certfile, config.keyfile
    assert certfile is not None
    _must_be_readable("certfile", certfile)
    if keyfile is not None:
        _must_be_readable("keyfile", keyfile)

    def password() -> str:
        # Without this OpenSSL would ask for it on the terminal.
        if config.keyfile_password is None:
            raise ConfigError(f"keyfile: {keyfile or certfile} is encrypted; set keyfile_password")
        return config.keyfile_password

    try:
        context.load_cert_chain(certfile, keyfile, password)
    except ssl.SSLError as exc:
        if exc.reason == "KEY_VALUES_MISMATCH":
            what = f"keyfile: the key in {keyfile or certfile} is not that of {certfile}"
        elif keyfile is None:
            what = f"certfile: {certfile} does not hold a certificate and its key in PEM"
        else:
            what = f"certfile: {certfile} and {keyfile} are not a certificate and its key in PEM"
        if config.keyfile_password is not None:
            what += ", or keyfile_password is wrong"
        raise ConfigError(f"{what} ({exc.reason or exc})") from exc


def _try_out(context: ssl.SSLContext) -> None:
    """Shake hands with ourselves in memory.  Raises ConfigError if no client could."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    asking.check_hostname = False
    asking.verify_mode = ssl.CERT_NONE
    client = asking.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    try:
        for end in (client, server, client, server, client):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    except ssl.SSLError as exc:
        # Of a certificate that clients have to show we have none.
        if exc.reason != "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            raise ConfigError(
                f"no client can connect with this certificate and these ciphers ({exc.reason})"
            ) from exc


def _must_be_readable(name: str, path: Path) -> None:
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError as exc:
        raise ConfigError(f"{name}: cannot read {path}: {exc.strerror}") from exc
