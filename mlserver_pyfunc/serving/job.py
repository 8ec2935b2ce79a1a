"""What passes between the event loop and a handler's thread: calls, outcomes, items."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Outcome(Generic[T]):
    """What user code returned or raised. Carried as a value, since a SystemExit or
    KeyboardInterrupt that passes through the event loop stops the server."""

    value: T | None = None
    error: BaseException | None = None

    def get(self) -> T:
        """Returns the value or raises the error."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]


_NOTHING: Outcome[Any] = Outcome()


class Job:
    """One call on its way to a thread. Whoever claims it first decides whether it runs."""

    __slots__ = (
        "_claim", "awaited", "context", "done", "ended", "function", "future", "loop", "outcome",
        "overdue",
    )  # fmt: skip

    future: asyncio.Future[Outcome[Any]]
    """Where the event loop waits for the outcome. There is one once the job is awaited."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.loop = asyncio.get_running_loop()
        self.context = contextvars.copy_context()
        self.outcome: Outcome[Any] = _NOTHING
        self.done = threading.Lock()
        self.done.acquire()
        self.awaited = False
        self.ended = False
        self.overdue = False
        self._claim = threading.Lock()

    def claim(self) -> bool:
        """Takes the job, to run it or to drop it; False where somebody has already."""
        return self._claim.acquire(blocking=False)

    def expect(self) -> None:
        """Has the job's thread wake the event loop when the call is done."""
        self.future = self.loop.create_future()
        self.awaited = True

    def wait_briefly(self, seconds: float) -> bool:
        """Blocks the event loop until the call is done, but no longer than that.

        Where it is not done, its thread will wake the event loop.
        """
        if self.done.acquire(blocking=False):
            return True
        if seconds and self.done.acquire(timeout=seconds):
            return True
        self.expect()
        # The thread looks at `awaited` after it releases `done`: one of the two sees the other.
        return self.done.acquire(blocking=False)


class GeneratorBridge(Generic[T]):
    """Hands the items of a generator on a thread to the event loop, one by one on demand."""

    def __init__(
        self, function: Callable[[], Iterator[T]], loop: asyncio.AbstractEventLoop
    ) -> None:
        self._function = function
        self._loop = loop
        self._wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._items: asyncio.Queue[T] = asyncio.Queue()

    def run(self) -> None:
        """For the thread: gives items until the generator or the demand ends."""
        items = self._function()
        try:
            while self._wanted.get():
                try:
                    item = next(items)
                except StopIteration:
                    return
                self._loop.call_soon_threadsafe(self._items.put_nowait, item)
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    async def next(self) -> T:
        """For the event loop: asks for an item and waits for it."""
        self._wanted.put(True)
        return await self._items.get()

    def stop(self) -> None:
        """Ends the demand, and with it the generator."""
        self._wanted.put(False)
