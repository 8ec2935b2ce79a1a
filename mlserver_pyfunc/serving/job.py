"""What passes between the event loop and a handler's threads: jobs, and wakeups."""

from __future__ import annotations

import asyncio
import contextvars
import os
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mlserver_pyfunc.handler.outcome import Outcome

_ONE = (1).to_bytes(8, sys.byteorder)


@dataclass(slots=True, eq=False)
class Job:
    """One call that a thread is to run, unless the event loop drops it: see `claim`."""

    function: Callable[[], Any]
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    outcome: Outcome[Any] = field(default_factory=Outcome)
    done: threading.Lock = field(default_factory=threading.Lock)  # released at the end of the call
    wants_wakeup: bool = False  # whether the thread must wake the event loop then
    future: asyncio.Future[None] = field(init=False)  # until then, if the wakeup is requested
    ended: bool = False  # whether the job no longer counts as active
    deadline: float | None = None  # of the time limit, if the call waits, by time.monotonic()
    began: float = 0.0  # by time.monotonic(); 0 before
    counts: bool = False  # whether its duration is one of those that calls typically have
    overdue: bool = False  # whether it has run for longer than its time limit
    _claim: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.done.acquire()

    def take_outcome(self) -> Outcome[Any]:
        """Takes the outcome of a call that has ended, so that its thread cannot free the result."""
        outcome, self.outcome = self.outcome, Outcome()
        return outcome

    def claim(self) -> bool:
        """Takes the job, to run it or to drop it. Returns False if it is already taken."""
        return self._claim.acquire(blocking=False)

    def request_wakeup(self) -> None:
        """Asks the thread to wake the event loop when the call has ended."""
        self.future = self.loop.create_future()
        self.wants_wakeup = True

    def wait_briefly(self, seconds: float) -> bool:
        """Blocks the event loop until the call has ended, for at most `seconds`; 0 only looks.

        Returns whether it has. If not, its thread will wake the event loop, which would cost more
        than a brief wait does: see docs/design/calls.md.
        """
        if self.done.acquire(blocking=False):
            return True
        if seconds and self.done.acquire(timeout=seconds):
            return True
        self.request_wakeup()
        # The thread reads `wants_wakeup` after it releases `done`: at least one side notices.
        return self.done.acquire(blocking=False)


class WakeupSemaphore:
    """A counting semaphore that hands work to threads: each `release` ends one `acquire`.

    An eventfd, because `os.write` wakes a thread without holding the GIL: docs/design/calls.md.
    """

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_SEMAPHORE | os.EFD_CLOEXEC)
        weakref.finalize(self, os.close, self._fd).atexit = False

    def release(self) -> None:
        """Lets one waiting thread continue, or the next thread that waits."""
        os.write(self._fd, _ONE)

    def acquire(self) -> None:
        """Blocks until `release` is called."""
        # Not os.eventfd_read: a signal ends it with an error. os.read tries again (PEP 475).
        os.read(self._fd, len(_ONE))


def new_semaphore() -> WakeupSemaphore | threading.Semaphore:
    """Makes a semaphore that wakes threads. Systems without eventfd have Python's own."""
    return WakeupSemaphore() if hasattr(os, "eventfd") else threading.Semaphore(0)
