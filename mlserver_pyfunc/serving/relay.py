"""Passes the items of a stream from a generator to the event loop: see docs/design/calls.md."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing, closing, suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")

AHEAD = 16
"""Items that a generator may be ahead of its reader."""

AHEAD_SECONDS = 0.001
"""Age of an unread item from which on its generator waits."""


class Relay(Generic[T]):
    """Items that one generator has made and its reader has not read.

    The generator waits for `room`: a `threading.Event` for `run`, an `asyncio.Event` for
    `run_async`. All other methods are for the event loop's thread.
    """

    def __init__(self, room: threading.Event | asyncio.Event) -> None:
        self.items: deque[T] = deque()
        self._room: Any = room
        self._room.set()
        self._loop = asyncio.get_running_loop()
        self._began = self._oldest = time.monotonic()
        self._announced = False
        self._is_left = False
        self._waiter: asyncio.Future[None] | None = None

    def run(self, generator: Generator[T, None, None]) -> None:
        """Takes the items of a generator until its reader leaves. Runs on a thread."""
        with closing(generator):
            for item in generator:
                is_full = self._add(item)
                del item  # it would live until the next one
                if not self._announced:
                    self._announced = True
                    with suppress(RuntimeError):  # the loop is closed
                        self._loop.call_soon_threadsafe(self.wake)
                if is_full and self._must_wait():
                    self._room.wait()
                if self._is_left:
                    return

    async def run_async(self, generator: AsyncGenerator[T, None]) -> None:
        """Takes the items of an async generator. Its task is cancelled when its reader leaves."""
        async with aclosing(generator):
            async for item in generator:
                is_full = self._add(item)
                del item
                self.wake()
                if is_full and self._must_wait():
                    await self._room.wait()

    async def ready(
        self, end: asyncio.Future[None], seconds: float, expire: Callable[[], object]
    ) -> bool:
        """Waits for items. Returns False if there are none, and the generator has ended.

        `end` is done when it has. If an item takes longer than `seconds`, `expire` is called, which
        must end the wait by `end` and `wake`.
        """
        if self.items:
            return True
        if end.done():
            return False
        if not self._room.is_set():
            self._began = time.monotonic()
            self._room.set()
        self._announced = False
        if self.items:  # made before the flag was reset
            return True
        self._waiter = self._loop.create_future()
        timer = self._loop.call_later(self._began + seconds - time.monotonic(), expire)
        try:
            await self._waiter
        finally:
            timer.cancel()
        return True

    def wake(self, _: object = None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def leave(self) -> None:
        """Lets the generator end at its next item: nobody reads it any more."""
        self._is_left = True
        self._room.set()

    def _add(self, item: T) -> bool:
        """Adds an item, and returns whether the generator is far enough ahead."""
        self._began = now = time.monotonic()
        if not self.items:
            self._oldest = now
        self.items.append(item)
        return len(self.items) >= AHEAD or now - self._oldest > AHEAD_SECONDS

    def _must_wait(self) -> bool:
        self._room.clear()
        return bool(self.items) and not self._is_left
