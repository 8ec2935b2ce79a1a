"""Prefetch: queues short calls in a worker while it is busy.

The problem: to send a call to an idle worker wakes its process, and its result wakes the server.
If the handler takes a few microseconds, these two wakeups cost most of the CPU time of the call.
To block the event loop until the answer comes, as `Job.wait_briefly` does, was tried: it did not
help over both REST and gRPC.

The solution: brief calls wait in the worker's socket instead of the server's queue. The worker
takes one after another without a message from the server, and both sides are woken once for
several calls. Two things must not suffer:

- A call behind a long one would wait although another worker is free. `Connection.take_back`
  takes such calls back, and they go to other workers.
- Results that the worker sends without a wakeup would wait until its next call ends. A timer
  looks for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mlserver_pyfunc.definition import ServingDefinition
from mlserver_pyfunc.serving.metrics import FunctionMetrics
from mlserver_pyfunc.serving.runner import HandlerInfo

from .wire.durations import BRIEF_SECONDS, TypicalDuration
from .worker import Worker

MAX_CALLS = 32
"""Largest number of calls that a worker has if they are brief."""

MAX_BYTES = 16 * 2**20
"""Shared memory, in bytes, from which on a worker gets no more calls in advance."""

_CHECK_SECONDS = 0.002
"""Longest time that a result may stay unnoticed if the worker's next call is long."""


class Prefetch:
    """Decides how many calls a worker may have, and checks workers that have several."""

    def __init__(
        self,
        serving: ServingDefinition,
        metrics: FunctionMetrics,
        typical: TypicalDuration,
        take_back: Callable[[Worker], None],
    ) -> None:
        self._typical = typical
        self._serving = serving
        self._metrics = metrics
        self._take_back = take_back
        self._loop = asyncio.get_running_loop()
        self._is_possible = False
        self._checks: dict[Worker, int] = {}

    def bind(self, handler_info: HandlerInfo) -> None:
        """Adapts to the kind of the handler: only calls that run one by one are prefetched."""
        self._is_possible = self._serving.concurrency == 1 and handler_info.kind == "sync"

    def has_room(self, worker: Worker) -> bool:
        """Whether a worker may have one more call, to run or to prefetch."""
        if worker.taken_back:
            return False
        calls = len(worker.calls)
        if calls < self._serving.concurrency:
            return True
        return (
            self._is_possible
            and calls < MAX_CALLS
            and worker.process.connection.memory_used < MAX_BYTES
            and self._typical.seconds < BRIEF_SECONDS
            # A printed line is logged with a request's id only if the worker has a single call.
            and not worker.logged_recently
        )

    def count_waiting(self, worker: Worker) -> int:
        """Counts the calls that a worker has and has not begun."""
        return max(len(worker.calls) - self._serving.concurrency, 0)

    def needs_token(self, worker: Worker) -> bool:
        """Whether the last call of a worker may be taken back."""
        return len(worker.calls) > self._serving.concurrency and self._serving.workers > 1

    def may_coalesce(self, worker: Worker) -> bool:
        """Whether the last call of a worker may be sent together with calls to come."""
        return self._is_possible and (
            len(worker.calls) > 1 or worker.process.connection.sent_several
        )

    def note_begin(self, worker: Worker) -> None:
        """Notes when a worker begins its next prefetched call: when the one before has ended."""
        if self._is_possible:
            first = next(iter(worker.calls.values()))
            first.runs_until = first.runs_until or self._loop.time() + self._serving.timeout

    def check_later(self, worker: Worker) -> None:
        """Starts to check a worker that has several calls, until it has one or none.

        A check receives results that the worker has sent without a wakeup. If the first call
        is still the same, it takes back the calls behind it. It also updates the queue depth
        in the metrics.
        """
        if self._is_possible and len(worker.calls) > 1 and worker not in self._checks:
            self._checks[worker] = next(iter(worker.calls))
            self._loop.call_later(_CHECK_SECONDS, self._check, worker)

    def _check(self, worker: Worker) -> None:
        first = self._checks.pop(worker)
        worker.process.connection.receive()
        if len(worker.calls) > 1 and next(iter(worker.calls)) == first:
            self._take_back(worker)
        waiting = self.count_waiting(worker)
        if waiting != worker.reported_waiting:
            self._metrics.change_depth(waiting - worker.reported_waiting)
            worker.reported_waiting = waiting
        self.check_later(worker)
