"""What an application has counted, as /metrics shows it."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.registry import Collector

from forkmaster.monitor.metrics import ApplicationCollector


class Ours(Collector):
    """The server's own metrics: one."""

    def collect(self) -> Iterable[Metric]:
        yield CounterMetricFamily("forkmaster_websockets", "Ours.", 7)


def counted(folder: Path, number: int, name: str, value: float) -> None:
    """What worker `number` has counted."""
    file = MmapedDict(str(folder / f"counter_{number}.db"))
    file.write_value(mmap_key(name, f"{name}_total", (), (), "Theirs."), value, 0.0)
    file.close()


def shown(folder: Path) -> list[str]:
    registry = CollectorRegistry()
    registry.register(ApplicationCollector(folder, Ours()))
    lines = generate_latest(registry).decode().splitlines()
    return [line for line in lines if line[0] != "#"]


def test_workers_are_added_up(tmp_path: Path) -> None:
    counted(tmp_path, 1, "shop_orders", 2)
    counted(tmp_path, 2, "shop_orders", 3)
    (tmp_path / "counter_3.db").touch()  # it is being made

    assert shown(tmp_path) == ["shop_orders_total 5.0"]


def test_names_of_ours_are_left_out(tmp_path: Path) -> None:
    for name in ("forkmaster_websockets", "process_cpu_seconds", "shop_orders"):
        counted(tmp_path, 1, name, 1)

    assert shown(tmp_path) == ["shop_orders_total 1.0"]


def test_a_folder_that_is_not_there_shows_nothing(tmp_path: Path) -> None:
    assert shown(tmp_path / "metrics") == []


@pytest.mark.parametrize(
    "damaged",
    [struct.pack("=ii", 64, 0) + struct.pack("=i", 999) + bytes(52), b"\x40", b"\x40" * 64],
    ids=["a length that is too great", "cut off", "garbage"],
)
def test_a_damaged_file_costs_the_applications_metrics_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damaged: bytes
) -> None:
    (tmp_path / "counter_1.db").write_bytes(damaged)

    assert shown(tmp_path) == []
    assert "cannot read the metrics of the application" in caplog.text
