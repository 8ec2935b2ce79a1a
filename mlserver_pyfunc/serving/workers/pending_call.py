"""A call that waits for a worker or runs on one."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

from mlserver_pyfunc.errors import RequestError
from mlserver_pyfunc.handler.call import InferenceCall
from mlserver_pyfunc.serving.metrics import Wait
from mlserver_pyfunc.serving.runner import Answer

W = TypeVar("W")
"""Type of a worker. A worker holds its pending calls, so this module cannot import it."""


class PendingCall(Generic[W]):
    """A call that waits for a worker or runs on one.

    Attributes:
        call: Call of the handler.
        number: Number of the call in messages.
        deadline: When the caller gets the error of the time limit, in the event loop's time.
        runs_until: When the call has run for its time limit, in the event loop's time; 0 while
            it has not begun.
        future: Answer of the call; for a stream its next item, None at the end.
        failure: Error of a stream that came while nobody waited for an item.
        wait: Time in the queue, for the metrics; None if the call never waited.
        worker: Worker that has the call; None while the call waits.
        retried: Whether the call was already running on a worker that died.
        begun: Whether the stream has given an item.

    Args:
        call: Call of the handler.
        number: Number of the call in messages.
        future: Where the caller waits for the answer or the first item.
    """

    __slots__ = (
        "begun", "call", "deadline", "failure", "future", "number", "retried", "runs_until",
        "wait", "worker",
    )  # fmt: skip

    def __init__(
        self, call: InferenceCall, number: int, future: asyncio.Future[Answer | None]
    ) -> None:
        self.call = call
        self.number = number
        self.future = future
        self.failure: RequestError | None = None
        self.deadline = 0.0
        self.runs_until = 0.0
        self.wait: Wait | None = None
        self.worker: W | None = None
        self.retried = False
        self.begun = False

    def fail(self, error: RequestError) -> None:
        """Raises an error in the caller, now or when it next asks for an item."""
        self.failure = error
        if not self.future.done():
            self.future.set_exception(error)

    def end_wait(self) -> None:
        """Ends the call's time in the queue."""
        if self.wait is not None:
            self.wait.end()
