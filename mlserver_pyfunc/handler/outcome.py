"""The outcome of user code, carried as a value between threads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Outcome(Generic[T]):
    """What user code returned or raised.

    A SystemExit or KeyboardInterrupt that passes through an event loop stops the server. So
    the thread that runs user code catches every exception and hands it over as a value.
    """

    value: T | None = None
    error: BaseException | None = None

    def get(self) -> T:
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]


async def outcome_of(start: Callable[[], Awaitable[T]]) -> Outcome[T]:
    """Awaits user code and returns its outcome. Needs a task of its own: see `outcome_of_task`."""
    try:
        return Outcome(await start())
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        return Outcome(error=error)


def outcome_of_task(task: asyncio.Task[Outcome[T]]) -> Outcome[T]:
    """Returns the outcome of a task that has run `outcome_of` and is done.

    A CancelledError that user code raises cannot be told from a cancellation of the task that
    awaits it. In a task of its own it ends this task alone, and is an error like any other.
    """
    return Outcome(error=asyncio.CancelledError()) if task.cancelled() else task.result()


async def outcome_in_task(start: Callable[[], Awaitable[T]]) -> Outcome[T]:
    """Awaits user code in a task of its own, which a cancellation ends, and returns its outcome."""
    task = asyncio.ensure_future(outcome_of(start))
    try:
        await asyncio.wait({task})
    finally:
        task.cancel()
    return outcome_of_task(task)
