"""Prometheus metrics by model and version, on MLServer's own endpoint."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from .handler_metrics import HandlerMetrics
from .limits import Deadline

_LABELS = ["model", "version"]
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


def _gauge(name: str, text: str) -> Gauge:
    return Gauge(name, text, _LABELS, multiprocess_mode="livesum")


def _histogram(name: str, text: str, buckets: Sequence[float] = _SECONDS, *more: str) -> Histogram:
    return Histogram(name, text, [*_LABELS, *more], buckets=buckets)


REQUESTS = _histogram(
    "pyfunc_request_duration_seconds",
    "Time from a request's tensors to its answer, by HTTP status; its count is that of requests.",
    _SECONDS,
    "status",
)
QUEUE_DEPTH = _gauge("pyfunc_queue_depth", "Requests that wait.")
IN_FLIGHT = _gauge("pyfunc_requests_in_flight", "Requests that run or wait.")
SLOTS = _gauge("pyfunc_slots", "Requests that can run at a time.")
UTILIZATION = _gauge("pyfunc_utilization", "Requests in flight over slots: 1 is full, more wait.")
QUEUE_WAIT = _histogram("pyfunc_queue_wait_seconds", "Time in the queue, of requests that waited.")
BATCH_ROWS = _histogram("pyfunc_batch_rows", "Rows of each joined call.", [2**n for n in range(11)])
BATCH_REQUESTS = _histogram(
    "pyfunc_batch_requests", "Requests in each joined call.", [2**n for n in range(9)]
)
WORKERS_UP = _gauge("pyfunc_workers_up", "Worker processes that take calls.")
WORKER_EXITS = Counter(
    "pyfunc_worker_restarts",
    "Replaced worker processes: exit, signal, timeout, cancel, protocol, init or max_requests.",
    [*_LABELS, "reason"],
)
CANCELLED = Counter(
    "pyfunc_cancelled",
    "Requests whose client waits no more: it has left, or its deadline has passed.",
    [*_LABELS, "reason"],
)
ENVIRONMENT_SECONDS = _gauge(
    "pyfunc_environment_build_seconds",
    "Time that making the environment took; 0 where it was there.",
)
CONTRACT_WARNINGS = Counter(
    "pyfunc_contract_warnings",
    "Breaches of the contract that were let through (contract: warn), by kind.",
    [*_LABELS, "kind"],
)
PAYLOAD_EVENTS = Counter(
    "pyfunc_payload_events",
    "Events with payloads: sent, or dropped: full, failed, invalid, or unloaded meanwhile.",
    [*_LABELS, "outcome"],
)

GONE = 499
"""Status if the client left before the answer. Nginx uses the same number."""

waits: ContextVar[list[float] | None] = ContextVar("waits", default=None)
"""What the seconds that a request waits are added to, too; None if nobody asks for them."""


class Wait:
    """Measures the time of one request in the queue. Safe for threads."""

    __slots__ = ("_depth", "_span", "_started", "_wait", "_waits")

    def __init__(self, depth: Gauge, wait: Histogram, trace: Any) -> None:
        self._span = trace and trace.below("queue")
        self._depth = depth
        self._wait = wait
        self._waits = waits.get()
        self._started = [time.perf_counter()]

    def end(self) -> None:
        """Ends the wait, because the request runs or nobody waits for it. Counts only once."""
        with suppress(IndexError):
            seconds = time.perf_counter() - self._started.pop()
            self._depth.dec()
            self._wait.observe(seconds)
            if self._waits is not None:
                self._waits[0] += seconds
            if self._span:
                self._span.end()


@dataclass(frozen=True)
class Measured:
    """What histograms have observed: how often, and the sum in seconds or rows."""

    count: int = 0
    total: float = 0.0


class FunctionMetrics:
    """Metrics of one version of a model. The version is empty if there is none."""

    def __init__(self, model: str, version: str) -> None:
        self._labels = (model, version)
        self._depth = QUEUE_DEPTH.labels(*self._labels)
        self._wait = QUEUE_WAIT.labels(*self._labels)
        self._requests: dict[int, Histogram] = {}
        self._batch_rows: Histogram | None = None
        self.in_flight = 0
        self.of_handler = HandlerMetrics(model, version)
        self._slots = 1
        # Read when Prometheus asks, so that a request costs one addition. With parallel workers,
        # MLServer's metrics go through files, which know no functions and would say 0 for ever.
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            IN_FLIGHT.labels(*self._labels).set_function(lambda: self.in_flight)
            UTILIZATION.labels(*self._labels).set_function(lambda: self.in_flight / self._slots)

    def measured(self) -> dict[str, Measured]:
        """Returns what was measured until now. Requests with a status below 400 have succeeded."""
        requests = self._requests.items()
        return {
            "success": _measured(*(metric for status, metric in requests if status < 400)),
            "fail": _measured(*(metric for status, metric in requests if status >= 400)),
            "queue": _measured(self._wait),
            "batch": _measured(self._batch_rows) if self._batch_rows else Measured(),
        }

    def count_request(self, seconds: float, status: int, deadline: Deadline | None) -> None:
        requests = self._requests.get(status)
        if requests is None:
            requests = self._requests[status] = REQUESTS.labels(*self._labels, str(status))
        requests.observe(seconds)
        if status in (GONE, 504):
            # gRPC itself cancels a call at its deadline, a moment before or after we do.
            is_late = deadline and deadline.by_client and deadline.is_near(0.05)
            if is_late or status == GONE:
                self.count(CANCELLED, "deadline" if is_late else "left")

    def enter_queue(self, trace: Any) -> Wait:
        """Counts and records a request that has to wait, until the returned wait is ended."""
        self._depth.inc()
        return Wait(self._depth, self._wait, trace)

    def change_depth(self, calls: int) -> None:
        """Changes the number of waiting requests by those that wait outside the queue."""
        self._depth.inc(calls)

    def count_batch(self, requests: int, rows: int) -> None:
        BATCH_REQUESTS.labels(*self._labels).observe(requests)
        if self._batch_rows is None:
            self._batch_rows = BATCH_ROWS.labels(*self._labels)
        self._batch_rows.observe(rows)

    def set_slots(self, slots: int) -> None:
        self._slots = slots
        self.set(SLOTS, slots)

    def set(self, gauge: Gauge, value: float) -> None:
        gauge.labels(*self._labels).set(value)

    def count(self, counter: Counter, kind: str) -> None:
        counter.labels(*self._labels, kind).inc()


@cache
def metrics_of(model: str, version: str | None) -> FunctionMetrics:
    """Returns the metrics of a model's version. Each load of it gets the same object."""
    return FunctionMetrics(model, version or "")


def _measured(*histograms: Histogram) -> Measured:
    samples = [s for each in histograms for metric in each.collect() for s in metric.samples]
    count, total = (
        sum(s.value for s in samples if s.name.endswith(end)) for end in ("_count", "_sum")
    )
    return Measured(int(count), total)
