"""The outcome of user code, carried as a value between threads and processes.

Needs only the standard library.
"""

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

    Attributes:
        value: Return value; None if the code raised.
        error: Exception; None if the code returned.
    """

    value: T | None = None
    error: BaseException | None = None

    def get(self) -> T:
        """Returns the value or raises the error."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]


async def outcome_of(start: Callable[[], Awaitable[T]]) -> Outcome[T]:
    """Awaits user code and returns its outcome.

    Args:
        start: Returns what to await.

    Raises:
        asyncio.CancelledError: The task that awaits was cancelled.
    """
    try:
        return Outcome(await start())
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        return Outcome(error=error)
