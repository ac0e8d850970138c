"""Counts by itself: a counter, a histogram, gauges; WSGI and ASGI."""

import os
from urllib.parse import parse_qs

from prometheus_client import Counter, Gauge, Histogram

ORDERS = Counter("shop_orders", "Orders that were taken.", ["kind"])
SIZES = Histogram("shop_order_size", "How much was ordered.", buckets=(1, 10))
WORKERS = Gauge("shop_workers", "Who lives.", multiprocess_mode="livesum")
TAKEN = Counter("forkmaster_websockets", "A name that is taken.")


def count(query):
    WORKERS.set(1)
    TAKEN.inc()
    SIZES.observe(5)
    for kind in parse_qs(query).get("order", ()):
        ORDERS.labels(kind).inc()
    return str(os.getpid()).encode()


def application(environ, start_response):
    body = count(environ["QUERY_STRING"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    body = count(scope["query_string"].decode())
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
