"""Whether the ports of this machine have to be published before anybody can reach them."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Collection
from pathlib import Path

from forkmaster.addresses import Address, TCPAddress

# What Docker and podman leave in a container, and in its environment.
MARKS = (".dockerenv", "run/.containerenv")
NAMES = ("docker", "oci", "podman")


def is_container(root: Path = Path("/")) -> bool:
    """Whether this is a container of Docker or podman, with a network of its own.

    Not in Kubernetes: there the containers of a pod reach each other through the loopback.
    `root` is where the file system is looked at.
    """
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return False
    if os.environ.get("container") in NAMES:  # noqa: SIM112 - as they spell it
        return True
    return any((root / mark).exists() for mark in MARKS)


def out_of_reach(addresses: Collection[Address]) -> TCPAddress | None:
    """The first address, if published ports lead to none of them."""
    loopback = [
        each for each in addresses if isinstance(each, TCPAddress) and _is_loopback(each.host)
    ]
    return loopback[0] if loopback and len(loopback) == len(addresses) else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
