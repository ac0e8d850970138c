"""Whom to believe: peers that may speak for others, and the headers in which they do.

**One environ key, many names.**  WSGI folds `-` and `_` into one key, so `X_Forwarded_For` could
speak for `X-Forwarded-For`; Django and others make such keys of ASGI's headers, too.  What happens
to a name with an underscore is `header_map`; names in `forwarder_headers`, sent by a trusted peer,
are let through.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

from forkmaster.http.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_log = logging.getLogger("forkmaster.error")

_PEERS = 1024


class AllowList:
    """Peers allowed to do something: addresses, networks, or `*` for all of them."""

    def __init__(self, entries: Iterable[str]) -> None:
        """Raises ValueError for what is no address, network or `*`."""
        entries = tuple(entries)
        self._all = "*" in entries
        self._known: dict[object, bool] = {}
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(
            ip_network(entry) for entry in entries if entry != "*"
        )

    def __contains__(self, host: object) -> bool:
        if self._all:
            return True
        known = self._known.get(host)
        if known is None:
            if len(self._known) >= _PEERS:
                self._known.clear()
            known = self._known[host] = self._has(host)
        return known

    def _has(self, host: object) -> bool:
        try:
            address = ip_address(str(host).partition("%")[0])  # fe80::1%eth0
        except ValueError:
            return False
        # A client of a dual-stack listener is ::ffff:127.0.0.1.
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)


@dataclass(frozen=True)
class Trust:
    """The settings that say which headers are believed, and how names are mapped."""

    header_map: str = "drop"
    forwarder_headers: frozenset[str] = frozenset(("SCRIPT_NAME", "PATH_INFO"))
    secure_scheme_headers: Mapping[str, str] = field(
        default_factory=lambda: {
            "X-FORWARDED-PROTOCOL": "ssl",
            "X-FORWARDED-PROTO": "https",
            "X-FORWARDED-SSL": "on",
        }
    )


class Peers:
    """What the headers of one kind of peer are worth: trusted to speak for others, or not."""

    def __init__(self, trust: Trust, *, trusted: bool) -> None:
        self.trust = trust
        self.trusted = trusted
        self._hinted = False

    def tells_scheme(self, name: str) -> bool:
        """Whether a header tells the scheme of the client.  `name` in upper case.

        One that would if its peer were trusted is told of in the log, once.
        """
        if name not in self.trust.secure_scheme_headers:
            return False
        if not self.trusted and not self._hinted:
            self._hinted = True
            _log.info(
                "%s from a peer that is not in forwarded_allow_ips is ignored; add the"
                " proxy's address there if it is yours",
                name.title(),
            )
        return self.trusted

    def scheme(self, value: str, secure: str, before: str | None) -> str:
        """The scheme that a header tells; `secure` is its value for https.

        Raises Refused if another header said other `before`.
        """
        scheme = "https" if value == secure else "http"
        if before not in (None, scheme):
            raise Refused(400, "headers contradict each other about the scheme")
        return scheme

    def forwards(self, name: str) -> bool:
        """Whether a header with an underscore in its name, in upper case, is let through as such.

        If not, `keeps_underscores` decides.
        """
        if not self.trusted:
            return False
        return name in self.trust.forwarder_headers or "*" in self.trust.forwarder_headers

    def keeps_underscores(self) -> bool:
        """Whether any other header with an underscore in its name is kept.  Raises Refused."""
        if self.trust.header_map == "refuse":
            raise Refused(400, "a header's name has an underscore (header_map)")
        return self.trust.header_map == "dangerous"
