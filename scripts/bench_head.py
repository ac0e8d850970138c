"""What reading the head of a request costs, from the caches and without them.

    python scripts/bench_head.py

The least of many short runs, so that a busy machine does not matter.  httptools does less than
the others here: it hands out bytes, and the rules of RFC 9112 are still to be looked after.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import cycle
from typing import Any

import httptools

from forkmaster.http.environ import Origin

TWO = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8000"
TWELVE = b"""\
GET /articles/2024/some-slug?page=2&q=hello HTTP/1.1\r
Host: www.example.com\r
Connection: keep-alive\r
Cache-Control: max-age=0\r
Upgrade-Insecure-Requests: 1\r
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0\r
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r
Sec-Fetch-Site: none\r
Sec-Fetch-Mode: navigate\r
Sec-Fetch-User: ?1\r
Accept-Encoding: gzip, deflate, br\r
Accept-Language: en-US,en;q=0.9\r
Cookie: sessionid=abcdefghijklmnop%d; csrftoken=xyzzy1234567890"""
TEMPLATE: dict[str, Any] = {f"wsgi.{number}": number for number in range(13)}


class Collector:
    """The least that can be done with httptools: an environ like ours."""

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.names: dict[bytes, str] = {}

    def on_message_begin(self) -> None:
        self.environ = TEMPLATE.copy()
        self.target = b""

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key = self.names.get(name)
        if key is None:
            key = self.names[name] = "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
        self.environ[key] = value.decode("latin-1")

    def read(self, head: bytes) -> dict[str, Any]:
        self.parser.feed_data(head)
        self.parser.feed_data(b"\r\n\r\n")
        path, _, query = self.target.partition(b"?")
        environ = self.environ
        environ["REQUEST_METHOD"] = self.parser.get_method().decode()
        environ["PATH_INFO"] = path.decode("latin-1")
        environ["QUERY_STRING"] = query.decode("latin-1")
        environ["SERVER_PROTOCOL"] = "HTTP/" + self.parser.get_http_version()
        self.parser.should_keep_alive()
        return environ


def least(read: Callable[[bytes], object], heads: list[bytes]) -> float:
    """Microseconds for one head."""
    turn, count, best = cycle(heads), 500, 1.0
    for _ in range(300):
        some = [next(turn) for _ in range(count)]
        began = time.perf_counter()
        for head in some:
            read(head)
        best = min(best, (time.perf_counter() - began) / count)
    return best * 1e6


def main() -> None:
    origin = Origin(TEMPLATE)

    def cold(head: bytes) -> None:
        for cache in (origin._requests, origin._blocks, origin._lines, origin._names):
            cache.clear()
        origin.read(head)

    cookies = [TWELVE % number for number in range(5000)]
    for name, heads in (("2 headers", [TWO]), ("12 headers", cookies[:1])):
        print(f"{name}, seen before       {least(origin.read, heads):6.2f} us")
        print(f"{name}, never seen        {least(cold, heads):6.2f} us")
        print(f"{name}, httptools         {least(Collector().read, heads):6.2f} us")
    print(f"12 headers, another cookie  {least(origin.read, cookies):6.2f} us")


if __name__ == "__main__":
    main()
