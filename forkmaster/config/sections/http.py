"""What a request may look like, and what a proxy may say about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from forkmaster.config.code import SCHEME_HEADERS
from forkmaster.config.places import NETWORKS, PROXY_PROTOCOL
from forkmaster.config.settings import Effect, setting
from forkmaster.config.values import BOOLEAN, HEADERS, SIZE, choice, count

_STRICT = "the request is answered 400: it is a way to smuggle requests past a proxy"


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Requests:
    title: ClassVar[str] = "Requests"

    limit_request_line: int = setting(
        4094,
        count(0),
        "--limit-request-line",
        "The longest request line that is taken, in bytes; 0 is unlimited.",
    )
    limit_request_fields: int = setting(
        100,
        count(0),
        "--limit-request-fields",
        "How many header fields a request may have.",
    )
    limit_request_field_size: int = setting(
        8190,
        count(0),
        "--limit-request-field_size --limit-request-field-size",
        "The longest header field that is taken, in bytes; 0 is unlimited.",
    )
    limit_request_head: int = setting(
        64 * 1024,
        SIZE,
        "--limit-request-head",
        "The longest head of a request, its line and all its fields, in bytes; 0 is unlimited.",
        own=True,
    )
    limit_request_body: int = setting(
        0,
        SIZE,
        "--limit-request-body",
        'The longest body of a request that is taken, as "20MB"; 0 is unlimited.',
        own=True,
    )
    sendfile: bool = setting(
        True,
        BOOLEAN,
        "--sendfile --no-sendfile",
        "Let the kernel send files that the application answers with.",
        differs="sendfile = True means on; in gunicorn any value turns it off",
    )
    permit_obsolete_folding: bool = setting(
        False,
        BOOLEAN,
        "--permit-obsolete-folding",
        "Take header fields that go on in the next line.",
        effect=Effect.NONE,
        instead=_STRICT,
    )
    strip_header_spaces: bool = setting(
        False,
        BOOLEAN,
        "--strip-header-spaces",
        "Take a header field with a space before its colon.",
        effect=Effect.NONE,
        instead=_STRICT,
    )
    permit_unconventional_http_method: bool = setting(
        False,
        BOOLEAN,
        "--permit-unconventional-http-method",
        "Take methods that HTTP allows and nobody uses.",
        effect=Effect.HARMLESS,
        instead="every method that is a token is taken",
    )
    permit_unconventional_http_version: bool = setting(
        False,
        BOOLEAN,
        "--permit-unconventional-http-version",
        "Take HTTP versions other than 1.0 and 1.1.",
        effect=Effect.NONE,
        instead="the request is answered 505",
    )
    casefold_http_method: bool = setting(
        False,
        BOOLEAN,
        "--casefold-http-method",
        "Turn a method into capitals.",
        effect=Effect.NONE,
        instead="the application gets the method as the client wrote it",
    )


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Proxies:
    title: ClassVar[str] = "Behind a proxy"

    forwarded_allow_ips: tuple[str, ...] = setting(
        ("127.0.0.1", "::1"),
        NETWORKS,
        "--forwarded-allow-ips",
        "The proxies whose forwarded headers are believed, as addresses and networks, or * for "
        "all. A proxy that comes through a unix socket is always believed.",
        default_text="$FORWARDED_ALLOW_IPS, or 127.0.0.1,::1",
        everyday=True,
    )
    secure_scheme_headers: dict[str, str] = setting(
        {
            "X-FORWARDED-PROTOCOL": "ssl",
            "X-FORWARDED-PROTO": "https",
            "X-FORWARDED-SSL": "on",
        },
        SCHEME_HEADERS,
        "",
        "The headers, with their values, by which a proxy says that the client used https.",
    )
    forwarder_headers: tuple[str, ...] = setting(
        ("SCRIPT_NAME", "PATH_INFO"),
        HEADERS,
        "--forwarder-headers",
        "Headers with an underscore in their name that a believed proxy may send.",
    )
    header_map: str = setting(
        "drop",
        choice("drop", "refuse", "dangerous"),
        "--header-map",
        "What becomes of other headers with an underscore, which an application cannot tell from "
        "those with a hyphen.",
    )
    proxy_protocol: str = setting(
        "off",
        PROXY_PROTOCOL,
        "--proxy-protocol",
        "Expect the PROXY protocol at the start of each connection.",
    )
    proxy_allow_ips: tuple[str, ...] = setting(
        ("127.0.0.1", "::1"),
        NETWORKS,
        "--proxy-allow-from",
        "The peers that may speak the PROXY protocol.",
    )
    uwsgi_allow_ips: tuple[str, ...] = setting(
        ("127.0.0.1", "::1"),
        NETWORKS,
        "--uwsgi-allow-from",
        "The peers that may speak the uwsgi protocol.",
        effect=Effect.HARMLESS,
        instead="the uwsgi protocol is not spoken",
    )
