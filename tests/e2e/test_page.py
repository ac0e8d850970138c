"""The status page in a real browser, while the server works."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import Serve
from tests.e2e import pictures
from tests.e2e.browser import AVAILABLE, Browser
from tests.process.harness import Load, Server, request_bytes, wait_for

pytestmark = [
    pytest.mark.skipif(not AVAILABLE, reason="needs chromium-driver"),
    pytest.mark.timeout(180),
]

LONGER = 50 if pictures.RENEWED else 0  # looks, so that there is something to see in the charts

CELLS = "return [...document.querySelectorAll('#workers tbody tr')].map(r => r.cells[0].innerText)"
TILES = """return Object.fromEntries([...document.querySelectorAll('.tile')].map(
    t => [t.querySelector('span').innerText, t.querySelector('b').innerText]))"""
WORKERS = "return document.querySelector('#workers').innerText"
DRAWN_LAST = "return document.querySelector('svg').lastElementChild.getAttribute('class')"
LABELS = "return [...document.querySelectorAll('svg')].map(s => s.getAttribute('aria-label'))"
OVERFLOW = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
GROUND = "return getComputedStyle(document.body).backgroundColor"


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    browser = Browser(tmp_path)
    yield browser
    browser.close()


Start = Callable[..., tuple[Server, str]]


@pytest.fixture
def start(serve: Serve) -> Iterator[Start]:
    """Starts servers, and says where their monitors are."""
    listeners = []

    def started(*arguments: str, **options: Any) -> tuple[Server, str]:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        monitor = f"fd://{listener.fileno()}"
        passes = [listener.fileno()]
        server = serve("--monitor-bind", monitor, *arguments, passes=passes, **options)
        return server, f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield started
    for listener in listeners:
        listener.close()


@pytest.fixture
def monitored(start: Start) -> tuple[Server, str]:
    """A server with three workers, and where its monitor is."""
    server, url = start("-w", "3", "--timeout", "4", "wsgi_echo")
    server.wait_until_ready(3)
    return server, url


def status_of(url: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{url}/status.json").json()
    return found


def test_it_shows_what_the_server_does(browser: Browser, monitored: tuple[Server, str]) -> None:
    server, url = monitored
    server.expect("sent no heartbeat", "raised ValueError")
    hung = server.send(request_bytes("/slow?60"))
    server.wait_for_line("sent no heartbeat")
    server.wait_until_ready(4)
    browser.open(url, width=1200, dark=False)

    with Load(server, clients=2) as load, Load(server, "/slow?3", clients=1):
        server.get("/raise")
        load.wait_for_answers(300)
        wait_for(lambda: browser.run(TILES).get("busy, of ready", "").endswith("/ 3"))
        wait_for(lambda: len(browser.run("return looks")) > 12 + LONGER, 100)
        wait_for(lambda: "GET /slow?3" in browser.run(WORKERS))
        picture = browser.screenshot()
        rate = browser.run("return looks[looks.length - 1].rates['2xx']")
        labels = browser.run(LABELS)
        drawn_last = browser.run(DRAWN_LAST)
    status = status_of(url)

    assert browser.run(CELLS) == [str(each["serial"]) for each in status["workers"]]
    assert rate > 0
    assert labels[0].startswith("Requests per second: 2xx ")
    assert "5xx" in labels[0]
    assert drawn_last == "filled good"  # and nothing of no height over it
    assert labels[2].endswith("ready 3, wanted 3")
    assert f"127.0.0.1:{server.port} " in labels[3]
    assert labels[4].count("worker ") == 3
    wait_for(lambda: shown(browser)["requests"] == status_of(url)["requests"])
    assert browser.run("return document.querySelector('#app').innerText") == "wsgi_echo"
    assert "sent no heartbeat" in browser.run(
        "return document.querySelector('#incidents').innerText"
    )
    stacks = "return document.querySelector('#incidents pre').textContent"
    assert "wsgi_echo.py" in browser.run(stacks)
    assert browser.complaints() == []
    pictures.keep(picture, "monitor-light.png")
    hung.close()


def shown(browser: Browser) -> dict[str, Any]:
    """The status that the page shows."""
    found: dict[str, Any] = browser.run("return looks[looks.length - 1].status")
    return found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_it_fits_a_telephone(browser: Browser, monitored: tuple[Server, str], dark: bool) -> None:
    server, url = monitored
    browser.open(url, width=400, dark=dark)

    with Load(server, clients=1):
        wait_for(lambda: len(browser.run("return looks")) > 4 + LONGER, 100)
        picture = browser.screenshot()

    assert browser.run(OVERFLOW) == 0
    dark_ground = browser.run(GROUND) == "rgb(22, 22, 21)"
    assert dark_ground is dark
    assert browser.complaints() == []
    if dark:
        pictures.keep(picture, "monitor-dark.png")


def test_nothing_that_a_client_sends_is_markup(
    browser: Browser, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "sleepy.py").write_text(
        "import time\ndef application(environ, start):\n    time.sleep(4)\n"
        "    start('200 OK', [])\n    return [b'']\n"
    )
    server, url = start("sleepy", cwd=tmp_path)
    server.wait_until_ready()
    browser.open(url, width=1200, dark=False)
    wait_for(lambda: browser.run(CELLS))

    raw = server.send(request_bytes("/?<img/src=x/onerror=document.title=1><script>1</script>"))
    wait_for(lambda: "onerror" in browser.run("return document.querySelector('main').innerText"))

    assert browser.run("return document.querySelectorAll('main img, main script').length") == 0
    assert browser.run("return document.title").startswith("sleepy ")
    assert browser.complaints() == []
    raw.close()


def test_it_says_when_what_it_shows_is_old(browser: Browser, monitored: tuple[Server, str]) -> None:
    server, url = monitored
    browser.open(url, width=800, dark=False)
    wait_for(lambda: len(browser.run("return looks")) > 1)

    server.stop()

    trouble = "return document.querySelector('#trouble').innerText"
    wait_for(lambda: browser.run(trouble).startswith("The monitor does not answer"))
    assert browser.run("return document.querySelector('#app').innerText") == "wsgi_echo"
