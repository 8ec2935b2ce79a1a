"""The limits of a function's calls: one wording for each refusal, and the count of active calls."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Set
from typing import Any

from mlserver_pyfunc.errors import OverloadedError, TimeLimitError
from mlserver_pyfunc.handler.call import InferenceCall

from .workers.wire.durations import TypicalDuration

_MARGIN = 1.25  # of the typical duration: a call that ends a moment too late has run in vain

UNLOAD_SECONDS = 10.0
"""How long an unload waits for calls in flight, and then for the unload function."""


def not_loaded(model_name: str) -> OverloadedError:
    """Returns the error of a call to a function that is not loaded."""
    return OverloadedError(f'model "{model_name}" is not loaded')


def queue_full(model_name: str, running: str, waiting: str) -> OverloadedError:
    """Returns the error of a call that finds the queue full: how many may run, and wait."""
    return OverloadedError(
        f'model "{model_name}" is at its limit: {running} and {waiting} waiting (serving.max_queue)'
    )


def over_init_limit(seconds: float) -> str:
    """Returns the cause of a load that took longer than `serving.init_timeout`."""
    return f"passed its limit of {seconds:g} s (serving.init_timeout)"


class Deadline:
    """Ends what a `with` block awaits at a moment, as if the client of its call had left."""

    def __init__(self, model_name: str, seconds: float, name: str, *, by_client: bool) -> None:
        self.by_client = by_client
        self._error = TimeLimitError(f'call of model "{model_name}" passed {name}')
        self._loop = asyncio.get_running_loop()
        self._ends = self._loop.time() + seconds
        self._passed = False

    def is_near(self, seconds: float) -> bool:
        return self._ends - self._loop.time() <= seconds

    def __enter__(self) -> None:
        if self.is_near(0):
            raise self._error
        self._task = asyncio.current_task()
        self._timer = self._loop.call_at(self._ends, self._expire)

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._timer.cancel()
        if self._passed and isinstance(error, asyncio.CancelledError):
            raise self._error from None

    def _expire(self) -> None:
        self._passed = True
        assert self._task is not None
        self._task.cancel()


def deadline_of(
    request: Any, call: InferenceCall, taken: Set[str], stream_seconds: float | None = None
) -> Deadline | None:
    """Returns when a call has to end by its client's wish or as a stream; None if it need not.

    Clients of Triton tell it by the parameter `timeout`, in microseconds, unless the handler has
    taken a parameter of that name.
    """
    seconds: float | None = getattr(request, "seconds", None)
    if seconds is None and stream_seconds is None and not request.parameters:
        return None
    timeout, model = call.parameters.get("timeout"), call.context.model_name
    if type(timeout) is int and timeout > 0 and "timeout" not in taken:
        seconds = min(timeout / 1e6, math.inf if seconds is None else seconds)
    if seconds is not None and (stream_seconds is None or seconds <= stream_seconds):
        name = f"its client's deadline of {seconds:g} s"
        return Deadline(model, seconds, name, by_client=True)
    if stream_seconds is None:
        return None
    name = f"its time limit of {stream_seconds:g} s for the whole stream (serving.stream_timeout)"
    return Deadline(model, stream_seconds, name, by_client=False)


class TimeLimit:
    """The time limit of a function's calls, and how long they typically take. Safe for threads."""

    def __init__(self, model_name: str, seconds: float) -> None:
        self.seconds = seconds
        self.typical = TypicalDuration()
        self._model_name = model_name

    def passed(self) -> TimeLimitError:
        return TimeLimitError(
            f'call of model "{self._model_name}" passed its time limit of {self.seconds:g} s '
            "(serving.timeout)"
        )

    def too_late(self, remaining: float) -> TimeLimitError | None:
        """Returns the error of a call that has waited until it cannot end in time, else None."""
        expected = self.typical.seconds
        if remaining >= expected * _MARGIN:
            return None
        return TimeLimitError(
            f'call of model "{self._model_name}" waited until {max(remaining, 0):.3g} s were left '
            f"of its time limit of {self.seconds:g} s (serving.timeout), and calls take "
            f"{expected:.3g} s on average: it was not begun"
        )


class ActiveCalls:
    """Counts the calls that wait or run. All methods are for the event loop's thread."""

    def __init__(self) -> None:
        self.count = 0
        self._idle = asyncio.Event()
        self._idle.set()

    def add(self) -> None:
        self._idle.clear()
        self.count += 1

    def remove(self) -> None:
        self.count -= 1
        if not self.count:
            self._idle.set()

    async def drain(self, seconds: float) -> bool:
        """Waits until no call is active. Returns False if some still are after `seconds`."""
        try:
            await asyncio.wait_for(self._idle.wait(), seconds)
        except asyncio.TimeoutError:
            return False
        return True
