"""static_map: files before the application."""

from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path

import pytest

from tests.conftest import Serve
from tests.process.harness import ask, read_all

pytest.importorskip("whitenoise")

STYLE = b"body { color: black }\n" * 100
WSGI_KINDS = pytest.mark.parametrize(
    "kind", [("-k", "sync"), ("-k", "gthread", "--threads", "4")], ids=["sync", "threaded"]
)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with a style, its compressed form, one named after its contents, and a large file.

    Beside the folder is a file that must never be served.
    """
    folder = tmp_path / "files"
    (folder / "css").mkdir(parents=True)
    (folder / "css" / "style.css").write_bytes(STYLE)
    (folder / "css" / "style.css.gz").write_bytes(gzip.compress(STYLE))
    (folder / "css" / "style.55e7cbb9ba48.css").write_bytes(STYLE)
    (folder / "large.bin").write_bytes(os.urandom(3 * 1024 * 1024))
    (tmp_path / "secret").write_text("secret")
    return folder


@WSGI_KINDS
def test_files_come_before_the_application(
    serve: Serve, files: Path, kind: tuple[str, ...]
) -> None:
    server = serve("hello", *kind, "--static-map", f"/static/={files}")

    style = server.get("/static/css/style.css")
    large = server.get("/static/large.bin")

    assert (style.status, style.body) == (200, STYLE)
    assert style.headers["content-type"] == 'text/css; charset="utf-8"'
    assert style.headers["cache-control"] == "max-age=60, public"
    wanted = hashlib.sha256((files / "large.bin").read_bytes()).hexdigest()
    assert hashlib.sha256(large.body).hexdigest() == wanted
    assert server.get("/").body == b"hello, world\n"


def test_a_name_with_a_hash_is_kept_for_ever(serve: Serve, files: Path) -> None:
    server = serve("hello", "--static-map", f"/static/={files}")

    assert "immutable" in server.get("/static/css/style.55e7cbb9ba48.css").headers["cache-control"]


def test_ranges_and_conditions(serve: Serve, files: Path) -> None:
    server = serve("hello", "--static-map", f"/static/={files}")
    connection = server.connect()
    path = "/static/css/style.css"

    whole = ask(connection, "GET", path)
    part = ask(connection, "GET", path, headers={"Range": "bytes=5-9"})
    beyond = ask(connection, "GET", path, headers={"Range": "bytes=99999-"})
    unchanged = ask(connection, "GET", path, headers={"If-None-Match": whole.headers["etag"]})
    head = ask(connection, "HEAD", path)

    assert (part.status, part.body) == (206, STYLE[5:10])
    assert part.headers["content-range"] == f"bytes 5-9/{len(STYLE)}"
    assert beyond.status == 416
    assert (unchanged.status, unchanged.body) == (304, b"")
    assert (head.status, head.headers["content-length"]) == (200, str(len(STYLE)))


def test_a_compressed_file_goes_to_who_takes_it(serve: Serve, files: Path) -> None:
    server = serve("hello", "--static-map", f"/static/={files}")

    zipped = server.get("/static/css/style.css", **{"Accept-Encoding": "gzip"})

    assert zipped.headers["content-encoding"] == "gzip"
    assert zipped.headers["vary"] == "Accept-Encoding"
    assert gzip.decompress(zipped.body) == STYLE


@pytest.mark.parametrize(
    "path",
    [
        "/static/../secret",
        "/static/%2e%2e/secret",
        "/static/..%2fsecret",
        "/static//../../secret",
        "/static/css/../../secret",
        "/static/%2fetc/passwd",
        "/static/css/..\\..\\..\\secret",
        "/static/css",
    ],
)
def test_no_path_leads_out_of_the_folder(serve: Serve, files: Path, path: str) -> None:
    server = serve("hello", "--static-map", f"/static/={files}")

    answer = read_all(
        server.send(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    )

    assert answer.endswith(b"hello, world\n")  # it was left to the application


def test_a_folder_that_is_not_there_stops_the_start(serve: Serve, tmp_path: Path) -> None:
    server = serve("hello", "--static-map", f"/static/={tmp_path}/missing")
    server.expect("static_map: there is no folder .*/missing; has manage.py collectstatic run?")
    server.tolerate("ERROR", "WARNING")

    assert server.wait() == 3


def test_an_asgi_application_is_told_where_to_turn(serve: Serve, files: Path) -> None:
    server = serve("asgi_hello", "--static-map", f"/static/={files}")
    server.expect("static_map is for WSGI applications; let nginx or a CDN")
    server.tolerate("ERROR", "WARNING")

    assert server.wait() == 4
