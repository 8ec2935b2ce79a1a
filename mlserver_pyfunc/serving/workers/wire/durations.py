"""How long calls of a handler typically take, measured in the server and in workers."""

from __future__ import annotations

BRIEF_SECONDS = 100e-6
"""A call that is shorter than this is brief: to wake a thread or a process for it would cost
more CPU time than the call itself. So brief calls and their results are handed over in groups,
or the caller waits for them on the spot."""

_WEIGHT = 1 / 8


class TypicalDuration:
    """Moving average of the durations of a handler's calls, in seconds, exponentially weighted."""

    __slots__ = ("_weight", "seconds")

    def __init__(self) -> None:
        self.seconds = BRIEF_SECONDS
        self._weight = 1.0

    def add(self, seconds: float) -> None:
        self.seconds += (seconds - self.seconds) * self._weight
        if self._weight > _WEIGHT:
            self._weight /= 1 + self._weight
