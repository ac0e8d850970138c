"""The context that connections are encrypted with: from settings, renewed with its files."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path
from typing import Any

import pytest

from forkmaster.config.table import Config
from forkmaster.errors import ConfigError
from forkmaster.worker.assignment import check_encryption, encryption_of
from forkmaster.worker.certificates import Encryption
from tests.certificates import Certificates


def made(certificates: Certificates, **settings: Any) -> Encryption:
    """What these settings and the certificate of localhost come to."""
    settings = {"certfile": certificates.cert, "keyfile": certificates.key, **settings}
    encryption = Encryption(Config(**settings))
    encryption.load()
    return encryption


def test_without_settings_nothing_is_encrypted() -> None:
    assert encryption_of(Config()) is None
    check_encryption(Config())


def test_the_settings_are_in_the_context(certificates: Certificates) -> None:
    context = made(
        certificates,
        ca_certs=certificates.ca,
        cert_reqs=2,
        ciphers="ECDHE-ECDSA-AES256-GCM-SHA384",
    ).context

    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert len(context.get_ca_certs()) == 1
    names = [cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] == "TLSv1.2"]
    assert names == ["ECDHE-ECDSA-AES256-GCM-SHA384"]


def test_the_key_may_be_in_the_same_file(certificates: Certificates, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(certificates.key.read_bytes() + certificates.cert.read_bytes())

    made(certificates, certfile=both, keyfile=None)


def test_an_encrypted_key_is_opened_with_its_password(certificates: Certificates) -> None:
    made(certificates, keyfile=certificates.encrypted_key("x y"), keyfile_password="x y")


def without_a_certificate(config: Config, default: Any) -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def test_the_hook_has_the_last_word(certificates: Certificates) -> None:
    def ssl_context(config: Config, default: Any) -> ssl.SSLContext:
        context: ssl.SSLContext = default()
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        return context

    context = made(certificates, ssl_context=ssl_context).context

    assert context.minimum_version == ssl.TLSVersion.TLSv1_3


def refused(certificates: Certificates, folder: Path) -> dict[str, tuple[dict[str, Any], str]]:
    """Settings that no worker can honour, and what is said of them."""
    nothing = folder / "nothing.pem"
    nothing.write_text("nothing\n")
    other_key = certificates.client_key
    encrypted = certificates.encrypted_key("x y")

    def raises(config: Config, default: Any) -> ssl.SSLContext:
        raise LookupError("no vault")

    return {
        "no such file": (
            {"certfile": folder / "absent.pem"},
            f"certfile: cannot read {folder}/absent.pem: No such file or directory",
        ),
        "no PEM": (
            {"certfile": nothing},
            f"certfile: {nothing} and {certificates.key} are not a certificate and its key in PEM",
        ),
        "no key": (
            {"keyfile": None},
            f"certfile: {certificates.cert} does not hold a certificate and its key in PEM",
        ),
        "the key of another": (
            {"keyfile": other_key},
            f"keyfile: the key in {other_key} is not that of {certificates.cert}",
        ),
        "a key without its password": (
            {"keyfile": encrypted},
            f"keyfile: {encrypted} is encrypted; set keyfile_password",
        ),
        "a wrong password": (
            {"keyfile": encrypted, "keyfile_password": "y"},
            "a certificate and its key in PEM, or keyfile_password is wrong",
        ),
        "no authorities": (
            {"ca_certs": nothing, "cert_reqs": 2},
            f"ca_certs: {nothing} has no certificate in PEM",
        ),
        "no such cipher": (
            {"ciphers": "ROT13"},
            "ciphers: OpenSSL knows none of 'ROT13'",
        ),
        "a hook that raises": (
            {"ssl_context": raises},
            "the hook ssl_context raised LookupError: no vault",
        ),
        "a hook that returns nothing": (
            {"ssl_context": lambda config, default: None},
            "the hook ssl_context returned NoneType, not an ssl.SSLContext",
        ),
        "a hook without a certificate": (
            {"ssl_context": without_a_certificate},
            "no client can connect with this certificate and these ciphers",
        ),
        "a hook that asks for a certificate that is not set": (
            {"certfile": None, "keyfile": None, "ssl_context": lambda config, default: default()},
            "no client can connect with this certificate and these ciphers",
        ),
    }


def test_what_cannot_be_honoured_is_refused(certificates: Certificates, tmp_path: Path) -> None:
    for what, (settings, message) in refused(certificates, tmp_path).items():
        with pytest.raises(ConfigError) as caught:
            made(certificates, **settings)

        assert message in str(caught.value), what


@pytest.fixture
def renewable(certificates: Certificates, tmp_path: Path) -> tuple[Encryption, Path, Path]:
    """A context of files that the test may change."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_bytes(certificates.cert.read_bytes())
    key.write_bytes(certificates.key.read_bytes())
    return made(certificates, certfile=cert, keyfile=key), cert, key


def test_files_that_stay_are_not_read_again(renewable: tuple[Encryption, Path, Path]) -> None:
    encryption, _, _ = renewable
    before = encryption.context

    encryption.renew()
    encryption.renew()

    assert encryption.context is before


def test_files_that_changed_are_read_when_they_rest(
    certificates: Certificates,
    renewable: tuple[Encryption, Path, Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "forkmaster.error")
    encryption, cert, key = renewable
    before = encryption.context
    new_cert, new_key = certificates.issue("localhost", "renewed")

    new_cert.replace(cert)
    encryption.renew()  # in the moment between the two files
    assert encryption.context is before
    new_key.replace(key)
    encryption.renew()
    assert encryption.context is before
    encryption.renew()

    assert encryption.context is not before
    assert caplog.messages == [f"read the certificate anew from {cert}"]


def test_files_that_cannot_be_seen_are_left_alone(
    renewable: tuple[Encryption, Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    encryption, cert, _ = renewable
    before = encryption.context
    cert.unlink()

    for _ in range(3):
        encryption.renew()

    assert encryption.context is before
    assert caplog.messages == []


def test_a_renewal_that_fails_is_told_once(
    renewable: tuple[Encryption, Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    encryption, cert, _ = renewable
    before = encryption.context
    os.truncate(cert, 10)

    for _ in range(4):
        encryption.renew()

    assert encryption.context is before
    (message,) = caplog.messages
    assert message.startswith("cannot renew the certificate, the old one stays: certfile: ")
