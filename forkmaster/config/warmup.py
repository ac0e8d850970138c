"""A warm-up request, as people write it: `[METHOD] TARGET [STATUS]`.

/                           GET; any status below 400 is fine
HEAD /health 204            exactly 204
https://shop.example/ 200   the host and the scheme that the application sees
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

_FORM = re.compile(
    r"(?:(?P<method>[A-Z]+)\s+)?(?P<target>(?:https?://[^/\s]+)?/\S*)(?:\s+(?P<status>[1-5]\d\d))?"
)


@dataclass(frozen=True)
class WarmupRequest:
    """One request that the application answers before it gets any of a client."""

    method: str
    scheme: str
    host: str
    path: str
    query: str
    status: int | None
    """The one status that is right; None for any below 400."""

    def accepts(self, status: int) -> bool:
        """Whether an answer with `status` means that the application works."""
        return status < 400 if self.status is None else status == self.status

    def written(self) -> str:
        """The text that `parse_warmup` makes it from."""
        host = "" if (self.scheme, self.host) == ("http", "localhost") else self.host
        origin = f"{self.scheme}://{host}" if host else ""
        query = f"?{self.query}" if self.query else ""
        status = f" {self.status}" if self.status is not None else ""
        return f"{self.method} {origin}{self.path}{query}{status}"

    def __str__(self) -> str:
        return f"{self.method} {self.path}{'?' if self.query else ''}{self.query}"


def parse_warmup(text: str) -> WarmupRequest:
    """The request that `text` writes.  Raises ValueError."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'"{text}" is not a request')
    url = urlsplit(match["target"])
    return WarmupRequest(
        method=match["method"] or "GET",
        scheme=url.scheme or "http",
        host=url.netloc or "localhost",
        path=url.path,
        query=url.query,
        status=int(match["status"]) if match["status"] else None,
    )
