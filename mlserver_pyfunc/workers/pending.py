"""A call that waits for a worker or runs on one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..context import InferenceCall
from ..errors import RequestError
from ..metrics import Wait
from ..runner import Answer

if TYPE_CHECKING:
    from .worker import Worker


class PendingCall:
    """A call that waits for a worker or runs on one.

    Attributes:
        call: What is asked.
        number: Names it in messages.
        future: Its answer; for a stream the next item, None at the end.
        failure: Of a stream, where nobody waits for an item.
        wait: Its time in the queue, where it had to wait.
        worker: Where it runs; None while it waits.
        retried: It was on a worker that died.
        begun: An item of its stream was given.
    """

    __slots__ = (
        "begun",
        "call",
        "failure",
        "future",
        "number",
        "retried",
        "timer",
        "wait",
        "worker",
    )

    def __init__(
        self, call: InferenceCall, number: int, future: asyncio.Future[Answer | None]
    ) -> None:
        self.call = call
        self.number = number
        self.future = future
        self.failure: RequestError | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.wait: Wait | None = None
        self.worker: Worker | None = None
        self.retried = False
        self.begun = False

    def fail(self, error: RequestError) -> None:
        """Gives the error to whoever waits, or to the next who does."""
        self.failure = error
        if not self.future.done():
            self.future.set_exception(error)

    def end_wait(self) -> None:
        if self.wait is not None:
            self.wait.end()

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
