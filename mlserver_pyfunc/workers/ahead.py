"""Which calls are sent to a worker before it has ended those it has."""

from __future__ import annotations

import asyncio

from ..definition import ServingDefinition
from .wire import BRIEF_SECONDS
from .worker import Handling, Worker

MOST_CALLS = 32
"""That a worker has where they are brief."""

_LOOK_SECONDS = 0.002
"""How long a result may go unnoticed where the worker's next call is not brief."""


class Ahead:
    """Brief calls of a lone worker wait in the worker in place of the queue.

    One after another it takes them without a word from the server, and both are woken once
    for many: that saves most of what a brief call costs. With several workers a call waits
    for whichever is free first, and none is sent ahead.

    Args:
        serving: Workers and concurrency.
    """

    def __init__(self, serving: ServingDefinition) -> None:
        self._serving = serving
        self._loop = asyncio.get_running_loop()
        self._can = False
        self._typical_seconds = BRIEF_SECONDS
        self._looking = False

    def bind(self, handling: Handling) -> None:
        """Notes what kind of handler it is."""
        serving = self._serving
        self._can = serving.workers == serving.concurrency == 1 and handling.kind == "sync"

    def note(self, seconds: float) -> None:
        """Notes how long a handler took."""
        self._typical_seconds += (seconds - self._typical_seconds) / 8

    def room(self, worker: Worker) -> int:
        """How many calls a worker may have, running or ahead."""
        if (
            self._can
            and self._typical_seconds < BRIEF_SECONDS
            # A line that it prints is taken for its only call's.
            and not worker.spoke_lately
        ):
            return MOST_CALLS
        return self._serving.concurrency

    def waiting(self, worker: Worker) -> int:
        """How many of a worker's calls have not begun."""
        return max(len(worker.calls) - self._serving.concurrency, 0)

    def may_gather(self, worker: Worker) -> bool:
        """Whether the call that a worker was just given may be sent with others to come."""
        return self._can and (len(worker.calls) > 1 or worker.process.bursts)

    def look_later(self, worker: Worker) -> None:
        """Has results be noticed that a worker holds back while its next call takes long."""
        if self._can and len(worker.calls) > 1 and not self._looking:
            self._looking = True
            self._loop.call_later(_LOOK_SECONDS, self._look, worker)

    def _look(self, worker: Worker) -> None:
        self._looking = False
        worker.process.receive()
        self.look_later(worker)
