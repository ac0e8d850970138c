"""Certificates for the tests, of an authority that nobody else trusts."""

from __future__ import annotations

import ssl
from functools import cached_property
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization


class Certificates:
    """Files in a folder: an authority, a certificate of localhost, one of a client."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._authority = trustme.CA()
        self.ca = folder / "ca.pem"
        self._authority.cert_pem.write_to_path(self.ca)
        self.cert, self.key = self.issue("localhost")
        self.client_cert, self.client_key = self.issue("client@example.com")

    def issue(self, name: str, stem: str = "") -> tuple[Path, Path]:
        """A new certificate for `name`, and its key."""
        stem = stem or name.partition("@")[0]
        issued = self._authority.issue_cert(name)
        cert, key = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        return cert, key

    def encrypted_key(self, password: str) -> Path:
        """The key of localhost, to be read with `password`."""
        key = serialization.load_pem_private_key(self.key.read_bytes(), None)
        path = self.folder / "encrypted.key"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(password.encode()),
            )
        )
        return path

    @cached_property
    def client_context(self) -> ssl.SSLContext:
        """What a client connects with that trusts the authority."""
        return self.new_client_context()

    def new_client_context(self) -> ssl.SSLContext:
        """The same, to be changed."""
        return ssl.create_default_context(cafile=self.ca)
