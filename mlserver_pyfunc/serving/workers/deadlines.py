"""Expires calls at their time limit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Expiring(Protocol):
    """A call with a deadline.

    Attributes:
        number: Number that identifies the call.
        deadline: When the time limit passes, in the event loop's time.
    """

    number: int
    deadline: float


C = TypeVar("C", bound=Expiring)


class Deadlines(Generic[C]):
    """Expires calls with one shared timer.

    All calls have the same time limit, so they expire in the order in which they were started.
    A timer for each call would cost a push and a pop of the event loop's heap for each.

    Args:
        seconds: Time limit of a call.
        expire: Called with each call whose time limit has passed.
    """

    def __init__(self, seconds: float, expire: Callable[[C], None]) -> None:
        self._seconds = seconds
        self._expire = expire
        self._loop = asyncio.get_running_loop()
        self._calls: dict[int, C] = {}
        self._timer: asyncio.TimerHandle | None = None

    def start(self, call: C) -> None:
        """Starts, or starts again, the time of a call."""
        call.deadline = self._loop.time() + self._seconds
        self._calls.pop(call.number, None)
        self._calls[call.number] = call
        if self._timer is None:
            self._timer = self._loop.call_at(call.deadline, self._check)

    def stop(self, call: C) -> None:
        """Stops the time of a call, which then never expires."""
        self._calls.pop(call.number, None)

    def _check(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._calls:
            call = next(iter(self._calls.values()))
            if call.deadline > now:
                self._timer = self._loop.call_at(call.deadline, self._check)
                return
            del self._calls[call.number]
            self._expire(call)
