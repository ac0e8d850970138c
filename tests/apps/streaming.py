"""Streams: the query is the number of parts and the seconds between two, `parts,delay`."""

import time


def application(environ, start_response):
    parts, _, delay = (environ["QUERY_STRING"] or "3").partition(",")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return produce(int(parts), float(delay or 0))


def produce(parts, delay):
    for number in range(parts):
        if number:
            time.sleep(delay)
        yield b"part %d\n" % number
