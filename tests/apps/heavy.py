"""Weighs what a large Django site weighs: many modules, and objects that requests look at.

The modules are Django's own.  Models and settings exist from the import on; URL patterns,
templates and translations are made by the first request, as Django makes them.  Every request
reads the same hundredth of it all, and makes and keeps some objects, as caches do.
"""

import importlib
import pkgutil
from collections import deque

import django
from django.conf import settings

if not settings.configured:
    settings.configure(SECRET_KEY="x", USE_TZ=True)

SKIPPED = ("gis", "oracle", "mysql", "postgres", "__main__")
for found in pkgutil.walk_packages(django.__path__, "django.", onerror=lambda name: None):
    if not any(part in found.name for part in SKIPPED):
        try:
            importlib.import_module(found.name)
        except Exception:
            pass  # needs an application registry, or a library that is not here


def objects(kind, count):
    """So many of them, each with what such objects have."""
    return [
        {"name": f"{kind}{n}", "fields": [f"field{i}" for i in range(12)], "options": {"order": n}}
        for n in range(count)
    ]


MODELS = objects("model", 40_000)
LAZY = []
CACHE = deque(maxlen=20_000)


def application(environ, start_response):
    if not LAZY:
        LAZY.extend(objects("pattern", 40_000))
    read = sum(len(each["fields"]) for each in MODELS[:400] + LAZY[:400])
    CACHE.extend([n, {}] for n in range(200))
    body = str(read).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
