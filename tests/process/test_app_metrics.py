"""The application's own prometheus_client metrics, added up over the workers."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.process.everybody import PYTHON
from tests.process.harness import Kind, wait_for
from tests.process.watching import Monitored

Watch = Callable[..., Monitored]


def start(monitored: Watch, kind: Kind, *arguments: str, **options: Any) -> Monitored:
    app = "measured:asgi" if kind.name == "asgi" else "measured"
    return monitored("--prometheus-app-metrics", *kind.arguments, *arguments, app, **options)


def shown(site: Monitored) -> dict[str, float]:
    """Every sample of the application, by its name with labels."""
    text = site.get("/metrics")[1]
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in text.splitlines())
        if name.startswith("shop_")
    }


def ask_all(site: Monitored, count: int, query: str) -> None:
    """Ask until each of so many workers has answered; each request is an order more."""
    seen: set[bytes] = set()
    while len(seen) < count:
        seen.add(site.server.get(f"/?{query}").body)


@pytest.mark.parametrize(
    "preload",
    [
        pytest.param(False, id="forked"),
        pytest.param(True, id="preloaded", marks=pytest.mark.lab),
    ],
)
def test_they_are_added_up_and_survive_whatever_dies(
    monitored: Watch,
    kind: Kind,
    preload: bool,
) -> None:
    site = start(monitored, kind, "-w", "2", *(("--preload",) if preload else ()))
    site.server.wait_until_ready(2)
    site.server.expect("was killed by SIGKILL")
    ask_all(site, 2, "order=tea")
    wait_for(lambda: shown(site).get("shop_workers") == 2)
    before = shown(site)

    os.kill(site.server.workers()[0], signal.SIGKILL)
    site.server.wait_until_ready(3)
    after = shown(site)

    orders = 'shop_orders_total{kind="tea"}'
    assert before[orders] >= 2
    assert before["shop_order_size_count"] == before['shop_order_size_bucket{le="10.0"}']
    assert {name: after[name] for name in before if name != "shop_workers"} == {
        name: before[name] for name in before if name != "shop_workers"
    }
    assert after["shop_workers"] == 1, "the dead one is no more among the living"
    site.server.get("/?order=tea")
    wait_for(lambda: shown(site)[orders] == before[orders] + 1)


def test_a_name_of_ours_is_ours(monitored: Watch) -> None:
    site = monitored("--prometheus-app-metrics", "measured")
    site.server.wait_until_ready()
    site.server.get("/?order=tea")
    wait_for(lambda: "shop_orders_total" in site.get("/metrics")[1])

    text = site.get("/metrics")[1]

    assert re.findall(r"^forkmaster_websockets_total .*", text, re.M) == [
        "forkmaster_websockets_total 0.0"
    ]


@pytest.mark.lab
def test_files_do_not_multiply(monitored: Watch, kind: Kind) -> None:
    site = start(monitored, kind, "-w", "2", "--max-requests", "5")
    site.server.wait_until_ready(2)

    for count in range(3, 9):
        while site.server.times_ready() < count:
            site.server.get("/?order=tea")
    (board,) = site.server.board_folder.iterdir()
    names = {path.name for path in (board / "metrics").iterdir()}

    # Two workers, the monitor between them, and one more while another is replaced.
    numbers = {re.sub(r"\D", "", name) for name in names}
    assert len(numbers) <= 4, names


@pytest.mark.lab
@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool")
def test_promtool_finds_nothing_wrong_with_them(monitored: Watch, kind: Kind) -> None:
    site = start(monitored, kind)
    site.server.wait_until_ready()
    site.server.get("/?order=tea")
    wait_for(lambda: "shop_orders_total" in site.get("/metrics")[1])

    text = site.get("/metrics")[1]
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.lab
@pytest.mark.skipif(PYTHON is None, reason="needs root, and a Python that nobody may run")
@pytest.mark.parametrize("preload", [False, True], ids=["forked", "preloaded"])
def test_they_are_kept_by_workers_of_another_user(
    monitored: Watch,
    kind: Kind,
    preload: bool,
) -> None:
    assert PYTHON is not None
    python, environ = PYTHON
    more = ("--user", "nobody", *(("--preload",) if preload else ()))
    site = start(monitored, kind, *more, python=python, env=environ)
    site.server.wait_until_ready()

    site.server.get("/?order=tea")

    wait_for(lambda: shown(site).get('shop_orders_total{kind="tea"}') == 1)
