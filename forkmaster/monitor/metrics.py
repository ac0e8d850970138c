"""The board in the words of Prometheus, and what the application has counted there.

Names follow OpenTelemetry's semantic conventions where there are such
(`http_server_request_duration_seconds`), and are `forkmaster_…` where there are not.  No label
has more values than the configuration has listeners: a label per worker or per path would grow
for as long as the server runs.  docs/metrics.md describes every one.

Counters are the sums over all workers that ever were, so nothing that dies makes one go back.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    StateSetMetricFamily,
)
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from forkmaster.board import layout
from forkmaster.board.app_metrics import FOLDER
from forkmaster.monitor.status import Status

log = logging.getLogger("forkmaster.error")

STATES = ("starting", "serving", "reloading", "stopping")
WORKER_STATES = ("starting", "serving", "draining", "exiting")
RESULTS = ("committed", "refused", "rolled_back")

# Of the board's buckets, 2**i * 1.024 microseconds each, those that tell anything about a web
# application: 262 us to 69 s.
FIRST_BUCKET, LAST_BUCKET = 8, 26


def exposition(status: Status, accept: str, board: Path) -> tuple[str, bytes]:
    """The content type and the text of all metrics, in the format that a scraper accepts best.

    `board` is where the application's own may be.
    """
    registry = CollectorRegistry()
    ours = StatusCollector(status)
    registry.register(ours)
    registry.register(ApplicationCollector(board / FOLDER, ours))
    # Of the master; what a process has open nobody but its own user may see.
    registry.register(ProcessCollector(pid=lambda: status.pid, registry=None))
    encode, content_type = choose_encoder(accept)
    return content_type, encode(registry)


class StatusCollector(Collector):
    """All metrics of one status."""

    def __init__(self, status: Status) -> None:
        self.status = status

    def describe(self) -> Iterable[Metric]:
        return ()  # or the registry would collect once more to learn the names

    def collect(self) -> Iterable[Metric]:
        yield from self._server()
        yield from self._workers()
        yield from self._traffic()
        yield from self._listeners()

    def _server(self) -> Iterable[Metric]:
        status, notice = self.status, self.status.notice
        yield InfoMetricFamily(
            "forkmaster",
            "The versions of forkmaster and Python, and the application.",
            {"version": notice.version, "python": notice.python, "app": notice.app},
        )
        yield GaugeMetricFamily(
            "forkmaster_start_time_seconds", "When the server was started.", notice.started
        )
        yield StateSetMetricFamily(
            "forkmaster_state",
            "What the server is doing.",
            {state: state == notice.state for state in STATES},
        )
        yield GaugeMetricFamily(
            "forkmaster_generation", "Which generation serves.", notice.generation
        )
        yield GaugeMetricFamily(
            "forkmaster_master_overdue_seconds",
            "How late the master is to look at its workers; 0 unless it hangs.",
            status.overdue,
        )
        reloads = CounterMetricFamily(
            "forkmaster_reloads", "Reloads and rollbacks that have ended.", labels=["result"]
        )
        for result in RESULTS:
            reloads.add_metric([result], (notice.outcomes or {}).get(result, 0))
        yield reloads
        if notice.outcome is not None:
            yield GaugeMetricFamily(
                "forkmaster_last_reload_successful",
                "Whether the last reload or rollback went through.",
                notice.outcome.result == "committed",
            )
            yield GaugeMetricFamily(
                "forkmaster_last_reload_timestamp_seconds",
                "When the last reload or rollback ended.",
                notice.outcome.at,
            )

    def _workers(self) -> Iterable[Metric]:
        status, notice = self.status, self.status.notice
        workers = GaugeMetricFamily("forkmaster_workers", "Workers by state.", labels=["state"])
        for state in WORKER_STATES:
            workers.add_metric([state], sum(w.state == state for w in status.workers))
        yield workers
        yield GaugeMetricFamily(
            "forkmaster_workers_wanted", "How many workers there are to be.", notice.wanted
        )
        yield GaugeMetricFamily(
            "forkmaster_workers_busy", "Workers that serve a request right now.", status.busy
        )
        yield CounterMetricFamily(
            "forkmaster_worker_spawns", "Workers that were started.", notice.spawned
        )
        exits = CounterMetricFamily(
            "forkmaster_exits", "Processes of ours that ended, by the cause.", labels=["cause"]
        )
        for cause, count in status.died.items():
            exits.add_metric([cause.replace(" ", "_")], count)
        yield exits
        known = [worker.memory for worker in status.workers if worker.memory is not None]
        yield GaugeMetricFamily(
            "forkmaster_workers_private_memory_bytes",
            "Memory that only workers hold, of all of them.",
            sum(known),
        )
        yield GaugeMetricFamily(
            "forkmaster_worker_private_memory_max_bytes",
            "Memory that only the biggest worker holds.",
            max(known, default=0),
        )
        yield CounterMetricFamily(
            "forkmaster_workers_cpu_seconds",
            "Processor time of all workers.",
            status.counters["cpu_nanoseconds"] / 1e9,
        )

    def _traffic(self) -> Iterable[Metric]:
        counters = self.status.counters
        yield HistogramMetricFamily(
            "http_server_request_duration_seconds",
            "Durations of the requests that have finished.",
            buckets=_buckets(self.status.histogram),
            sum_value=counters["busy_nanoseconds"] / 1e9,
        )
        yield GaugeMetricFamily(
            "http_server_active_requests", "Requests being served.", counters["in_flight"]
        )
        responses = CounterMetricFamily(
            "forkmaster_responses",
            "Requests that have finished, by the class of their status; none if unanswered.",
            labels=["code"],
        )
        for code in ("1xx", "2xx", "3xx", "4xx", "5xx"):
            responses.add_metric([code], counters[f"status_{code}"])
        responses.add_metric(["none"], counters["unanswered"])
        yield responses
        yield _counter(counters, "errors", "request_errors", "Requests whose application raised.")
        yield _counter(
            counters, "refused", "requests_refused", "Bad requests that no application has seen."
        )
        yield _counter(counters, "bytes_in", "received_bytes", "Bytes of the requests.")
        yield _counter(counters, "bytes_out", "sent_bytes", "Bytes of the answers.")
        yield GaugeMetricFamily(
            "forkmaster_connections", "Connections that are open.", counters["connections"]
        )
        yield _counter(counters, "accepted", "connections_accepted", "Connections accepted.")
        yield _counter(
            counters,
            "handed_off",
            "connections_handed_off",
            "Idle connections that a busy worker gave to a sibling.",
        )
        yield _counter(
            counters, "lines_lost", "log_lines_lost", "Lines of the logs that could not be written."
        )
        yield _counter(counters, "websockets", "websockets", "Websocket sessions opened.")

    def _listeners(self) -> Iterable[Metric]:
        waiting = GaugeMetricFamily(
            "forkmaster_listener_queue",
            "Connections that wait to be accepted.",
            labels=["listener"],
        )
        limit = GaugeMetricFamily(
            "forkmaster_listener_queue_limit",
            "How many connections may wait; further ones are refused.",
            labels=["listener"],
        )
        for listener in self.status.listeners:
            if listener.waiting is not None and listener.limit is not None:
                waiting.add_metric([listener.address], listener.waiting)
                limit.add_metric([listener.address], listener.limit)
        yield waiting
        yield limit


class ApplicationCollector(Collector):
    """What the application measures by itself, added up over its processes.

    With prometheus_app_metrics; otherwise there is nothing in the folder, and no folder.
    """

    def __init__(self, folder: Path, ours: Collector) -> None:
        self.folder = folder
        self.ours = ours

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        # A file is empty for the moment in which it is made.
        files = [str(path) for path in self.folder.glob("*.db") if _size_of(path)]
        if not files:
            return
        merge: Any = MultiProcessCollector.merge
        try:
            found = list(merge(files, accumulate=True))
        except (OSError, ValueError, RuntimeError, struct.error) as exc:
            log.warning("cannot read the metrics of the application: %s", exc)
            return
        # Two metrics of one name would make a scraper refuse all of them.
        taken = {metric.name for metric in self.ours.collect()}
        for metric in found:
            if metric.name not in taken and not metric.name.startswith("process_"):
                yield metric


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0  # of a worker that has just died


def _counter(
    counters: Mapping[str, int], name: str, metric: str, about: str
) -> CounterMetricFamily:
    return CounterMetricFamily(f"forkmaster_{metric}", about, counters[name])


def _buckets(histogram: tuple[int, ...]) -> list[tuple[str, float]]:
    """The cumulative buckets that Prometheus wants, with their upper bounds in seconds."""
    buckets = [
        (repr((layout.BUCKET_UNIT << bucket) / 1e9), float(sum(histogram[: bucket + 1])))
        for bucket in range(FIRST_BUCKET, LAST_BUCKET + 1)
    ]
    return [*buckets, ("+Inf", float(sum(histogram)))]
