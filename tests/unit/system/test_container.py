"""A server in a container that listens on its loopback only is out of reach."""

from __future__ import annotations

from pathlib import Path

import pytest

from forkmaster.addresses import TCPAddress, parse_address
from forkmaster.system.container import is_container, out_of_reach


@pytest.mark.parametrize("mark", [".dockerenv", "run/.containerenv"])
def test_a_container_has_a_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mark: str) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("container", raising=False)
    assert not is_container(tmp_path)
    (tmp_path / mark).parent.mkdir(exist_ok=True)
    (tmp_path / mark).touch()

    assert is_container(tmp_path)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert not is_container(tmp_path)


def test_podman_names_itself_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("container", "podman")
    assert is_container(tmp_path)
    monkeypatch.setenv("container", "systemd-nspawn")

    assert not is_container(tmp_path)


@pytest.mark.parametrize("text", ["127.0.0.1:8000", "localhost:8000", "[::1]:8000", "127.1.2.3:1"])
def test_published_ports_do_not_lead_to_the_loopback(text: str) -> None:
    address = parse_address(text)

    assert out_of_reach([address]) == address
    assert out_of_reach([address, parse_address("127.0.0.1:1")]) == address


@pytest.mark.parametrize("text", ["0.0.0.0:8000", "[::]:8000", "web:8000", "unix:/s", "fd://3"])
def test_they_lead_to_other_addresses(text: str) -> None:
    assert out_of_reach([TCPAddress("127.0.0.1", 8000), parse_address(text)]) is None
    assert out_of_reach([parse_address(text)]) is None
