"""Which calls are sent to a worker before it has ended those it has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mlserver_pyfunc.definition import ServingDefinition
from mlserver_pyfunc.serving.metrics import FunctionMetrics

from .wire.messages import BRIEF_SECONDS
from .worker import HandlerInfo, Worker

MAX_CALLS = 32
"""That a worker has where they are brief."""

MAX_BYTES = 16 * 2**20
"""Of shared memory that such calls take."""

_CHECK_SECONDS = 0.002
"""How long a result may go unnoticed where the worker's next call is not brief."""


class Prefetch:
    """Brief calls wait in the workers in place of the queue.

    One after another a worker takes them without a word from the server, and both are woken
    once for many: that saves most of what a brief call costs. Where a call proves not to be
    brief, those behind it are taken back for other workers.

    Args:
        serving: Workers and concurrency.
        metrics: The function's.
        take_back: Takes back what a worker has not begun, if another can have it.
    """

    def __init__(
        self,
        serving: ServingDefinition,
        metrics: FunctionMetrics,
        take_back: Callable[[Worker], None],
    ) -> None:
        self._serving = serving
        self._metrics = metrics
        self._take_back = take_back
        self._loop = asyncio.get_running_loop()
        self._can = False
        self._typical_seconds = BRIEF_SECONDS
        self._checks: dict[Worker, int] = {}

    def bind(self, handler_info: HandlerInfo) -> None:
        """Notes what kind of handler it is."""
        self._can = self._serving.concurrency == 1 and handler_info.kind == "sync"

    def note(self, seconds: float) -> None:
        """Notes how long a handler took."""
        self._typical_seconds += (seconds - self._typical_seconds) / 8

    def has_room(self, worker: Worker) -> bool:
        """Whether a worker may have one more call, running or ahead."""
        if worker.taken_back:
            return False
        calls = len(worker.calls)
        if calls < self._serving.concurrency:
            return True
        return (
            self._can
            and calls < MAX_CALLS
            and worker.process.connection.memory_used < MAX_BYTES
            and self._typical_seconds < BRIEF_SECONDS
            # A line that it prints is taken for its only call's.
            and not worker.logged_recently
        )

    def waiting(self, worker: Worker) -> int:
        """How many of a worker's calls have not begun."""
        return max(len(worker.calls) - self._serving.concurrency, 0)

    def needs_token(self, worker: Worker) -> bool:
        """Whether the call that a worker was just given may be taken back."""
        return len(worker.calls) > self._serving.concurrency and self._serving.workers > 1

    def may_coalesce(self, worker: Worker) -> bool:
        """Whether the call that a worker was just given may be sent with others to come."""
        return self._can and (len(worker.calls) > 1 or worker.process.connection.bursts)

    def check_later(self, worker: Worker) -> None:
        """Looks after the calls of a worker that has more than one.

        Results that it holds back are noticed while its next call takes long, and calls
        that have not begun are counted and taken back.
        """
        if self._can and len(worker.calls) > 1 and worker not in self._checks:
            self._checks[worker] = next(iter(worker.calls))
            self._loop.call_later(_CHECK_SECONDS, self._check, worker)

    def _check(self, worker: Worker) -> None:
        first = self._checks.pop(worker)
        worker.process.connection.receive()
        if len(worker.calls) > 1 and next(iter(worker.calls)) == first:
            self._take_back(worker)
        waiting = self.waiting(worker)
        if waiting != worker.counted:
            self._metrics.change_depth(waiting - worker.counted)
            worker.counted = waiting
        self.check_later(worker)
