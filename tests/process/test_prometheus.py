"""Metrics as Prometheus sees them: its own tools judge them, the rules and the dashboard."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Serve
from tests.process.harness import PATIENCE, ROOT, wait_for

CONF = ROOT / "conf"
needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool")


@pytest.fixture
def metrics(serve: Serve) -> Iterator[str]:
    """What a server shows that has served, failed, lost a worker, and been reloaded."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        server = serve(
            *("--monitor-bind", f"fd://{listener.fileno()}", "-w", "2"),
            "wsgi_echo",
            passes=[listener.fileno()],
        )
        server.wait_until_ready(2)
        server.expect("raised ValueError")
        server.get("/pid")
        server.get("/raise")
        server.send_signal(1)
        server.wait_for_line("reload done")
        server.wait_for_line(r"monitor \d+ ready")

        def ask() -> str:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
            connection.close()
            return text

        wait_for(lambda: "forkmaster_last_reload_successful" in ask())
        yield ask()


def promtool(*arguments: str, text: str = "") -> str:
    done = subprocess.run(
        ["promtool", *arguments], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@needs_promtool
def test_promtool_finds_nothing_wrong_with_the_metrics(metrics: str) -> None:
    assert promtool("check", "metrics", text=metrics) == ""


@needs_promtool
def test_the_rules_are_sound_and_fire_when_they_should() -> None:
    promtool("check", "rules", str(CONF / "prometheus" / "rules.yml"))
    promtool("check", "config", str(CONF / "prometheus" / "prometheus.yml"))
    promtool("test", "rules", str(CONF / "prometheus" / "rules_test.yml"))


def names_in(metrics: str) -> set[str]:
    return {line.split("{")[0].split(" ")[0] for line in metrics.splitlines() if line[0] != "#"}


def test_every_metric_is_documented_and_every_one_documented_is_there(metrics: str) -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    table = page[page.index("| metric |") : page.index("The causes of an exit")]
    documented = {
        re.sub(r"\{.*", "", each) for each in re.findall(r"`((?:forkmaster|http)_\w+)", table)
    }

    there = {re.sub(r"(_seconds)_(bucket|sum|count)$", r"\1", each) for each in names_in(metrics)}

    assert {each for each in there if not each.startswith("process_")} == documented


@pytest.mark.parametrize("path", ["prometheus/rules.yml", "grafana/forkmaster.json"])
def test_rules_and_dashboard_name_metrics_that_exist(metrics: str, path: str) -> None:
    named = set(
        re.findall(r"\b((?:forkmaster|http_server|process)_[a-z0-9_]+)", (CONF / path).read_text())
    )

    assert named - names_in(metrics) == set()


def test_the_dashboard_is_whole() -> None:
    dashboard: dict[str, Any] = json.loads((CONF / "grafana" / "forkmaster.json").read_text())

    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels) == 14
    cells = [
        (x, y)
        for panel in panels
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells)), "panels overlap"
    assert max(x for x, _ in cells) == 23


@pytest.mark.skipif(not shutil.which("prometheus"), reason="needs prometheus")
def test_a_real_prometheus_scrapes_it(serve: Serve, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = f"127.0.0.1:{listener.getsockname()[1]}"
        server = serve(
            *("--monitor-bind", f"fd://{listener.fileno()}", "wsgi_echo"),
            passes=[listener.fileno()],
        )
        server.wait_until_ready()
        config = tmp_path / "prometheus.yml"
        text = (CONF / "prometheus" / "prometheus.yml").read_text()
        text = text.replace("127.0.0.1:8001", target).replace("15s", "1s")
        config.write_text(text.replace("rules.yml", str(CONF / "prometheus" / "rules.yml")))
        log = tmp_path / "prometheus.log"
        with log.open("w") as output:
            prometheus = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={config}",
                    f"--storage.tsdb.path={tmp_path / 'data'}",
                    "--web.listen-address=127.0.0.1:0",
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            found = re.compile(r"Listening on\" address=127.0.0.1:(\d+)")
            listening = wait_for(lambda: found.search(log.read_text()), 30)
            assert listening is not None
            port = int(listening[1])
            wait_for(lambda: value_of(port, 'forkmaster_workers{state="serving"}') == 1, 30)
            assert value_of(port, 'up{job="forkmaster"}') == 1
            assert value_of(port, "ALERTS") is None
        finally:
            prometheus.terminate()
            prometheus.wait(20)


def value_of(port: int, query: str) -> float | None:
    """What a query answers; None for nothing."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        body = "query=" + query.replace("{", "%7B").replace("}", "%7D").replace("=", "%3D")
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/api/v1/query", body, headers)
        result = json.loads(connection.getresponse().read())["data"]["result"]
    except (OSError, http.client.HTTPException, json.JSONDecodeError):  # it starts
        return None
    finally:
        connection.close()
    return float(result[0]["value"][1]) if result else None
