"""`forkmaster workers`: the kinds of worker, and the names each goes by."""

from __future__ import annotations

import click

from forkmaster.config.gunicorn import ALIASES, GREEN, HYPERCORN

KINDS = {
    "sync": "one request at a time; the default for WSGI",
    "threaded": "as many requests at a time as threads says",
    "asgi": "any number of requests and websockets at a time; the default for ASGI",
    HYPERCORN: "asgi, and HTTP/2 too: pip install 'forkmaster[http2]'",
}


def command() -> click.Command:
    return click.Command(
        "workers",
        help="Show the kinds of worker, and the names each goes by.",
        callback=run,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def run() -> int:
    for kind, about in KINDS.items():
        names = [name for name, each in ALIASES.items() if each == kind and name != kind]
        print(f"{kind:<10}{about}")
        if names:
            print(f"{'':<10}also: {', '.join(names)}")
    print(f"{'':<10}in place of {', '.join(GREEN)} threads are run, with a warning")
    return 0
