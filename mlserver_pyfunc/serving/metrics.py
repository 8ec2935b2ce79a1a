"""Prometheus metrics, on MLServer's own endpoint, by model and version.

They are made once per process, however often functions are loaded: a reload counts on.
"""

from __future__ import annotations

import time
from contextlib import suppress
from functools import cache

from prometheus_client import Counter, Gauge, Histogram

_LABELS = ["model", "version"]
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

REQUESTS = Histogram(
    "pyfunc_request_duration_seconds",
    "Time from a request's tensors to its answer, by HTTP status; its count is that of requests.",
    [*_LABELS, "status"],
    buckets=_SECONDS,
)
QUEUE_DEPTH = Gauge(
    "pyfunc_queue_depth", "Requests that wait.", _LABELS, multiprocess_mode="livesum"
)
QUEUE_WAIT = Histogram(
    "pyfunc_queue_wait_seconds", "Time in the queue, of requests that waited.", _LABELS,
    buckets=_SECONDS,
)  # fmt: skip
BATCH_ROWS = Histogram(
    "pyfunc_batch_rows", "Rows of each joined call.", _LABELS,
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
)  # fmt: skip
BATCH_REQUESTS = Histogram(
    "pyfunc_batch_requests", "Requests in each joined call.", _LABELS,
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256),
)  # fmt: skip
WORKERS_UP = Gauge(
    "pyfunc_workers_up", "Worker processes that take calls.", _LABELS, multiprocess_mode="livesum"
)
WORKER_EXITS = Counter(
    "pyfunc_worker_restarts",
    "Worker processes that were replaced: exit, signal, timeout, protocol, init or max_requests.",
    [*_LABELS, "reason"],
)
ENVIRONMENT_SECONDS = Gauge(
    "pyfunc_environment_build_seconds",
    "Time that making the environment took; 0 where it was there.",
    _LABELS,
    multiprocess_mode="livesum",
)


class Wait:
    """A request's time in the queue. Safe for threads."""

    __slots__ = ("_depth", "_started", "_wait")

    def __init__(self, depth: Gauge, wait: Histogram) -> None:
        self._depth = depth
        self._wait = wait
        self._started = [time.perf_counter()]

    def end(self) -> None:
        """The request runs, or nobody waits for it any more. Counts once."""
        with suppress(IndexError):
            seconds = time.perf_counter() - self._started.pop()
            self._depth.dec()
            self._wait.observe(seconds)


class FunctionMetrics:
    """The metrics of one model's version."""

    def __init__(self, model: str, version: str) -> None:
        self._labels = (model, version)
        self._depth = QUEUE_DEPTH.labels(*self._labels)
        self._wait = QUEUE_WAIT.labels(*self._labels)
        self._requests: dict[int, Histogram] = {}

    def count_request(self, seconds: float, status: int) -> None:
        """Notes a request that was answered with a status."""
        requests = self._requests.get(status)
        if requests is None:
            requests = self._requests[status] = REQUESTS.labels(*self._labels, str(status))
        requests.observe(seconds)

    def enter_queue(self) -> Wait:
        """Notes that a request has to wait."""
        self._depth.inc()
        return Wait(self._depth, self._wait)

    def change_depth(self, calls: int) -> None:
        """Notes that so many more requests wait, elsewhere than in the queue."""
        self._depth.inc(calls)

    def count_batch(self, requests: int, rows: int) -> None:
        """Notes a joined call."""
        BATCH_REQUESTS.labels(*self._labels).observe(requests)
        BATCH_ROWS.labels(*self._labels).observe(rows)

    def set_workers(self, up: int) -> None:
        """Notes how many workers take calls."""
        WORKERS_UP.labels(*self._labels).set(up)

    def count_exit(self, reason: str) -> None:
        """Notes a worker that is replaced."""
        WORKER_EXITS.labels(*self._labels, reason).inc()

    def set_environment_seconds(self, seconds: float) -> None:
        """Notes what making the environment took."""
        ENVIRONMENT_SECONDS.labels(*self._labels).set(seconds)


@cache
def metrics_of(model: str, version: str | None) -> FunctionMetrics:
    """The metrics of a model's version: the same ones for each load of it."""
    return FunctionMetrics(model, version or "")
