"""Weighs what a large Django site weighs: many modules, and objects that requests look at.

The modules are Django's own, the objects stand for URL patterns, models, templates and
translations.  A request reads a part of them, as a view does.
"""

import importlib
import pkgutil

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

REGISTRY = {
    f"model{n}": {"fields": [f"field{i}" for i in range(12)], "meta": {"ordering": [n]}}
    for n in range(40_000)
}
NAMES = list(REGISTRY)
asked = 0


def application(environ, start_response):
    global asked
    asked += 1
    found = 0
    for name in NAMES[asked % 4 :: 4]:
        found += len(REGISTRY[name]["fields"])
    body = str(found).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
