"""Steady load on a function, which checks every answer and counts what fails."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlserver_pyfunc.errors import RequestError, WorkerError
from mlserver_pyfunc.serving.function import Function
from tests.serving.workers.functions import request

CLIENTS = 16
HANG_SECONDS = 80.0
"""A call that takes longer is a hang: no limit of the function allows it."""

_SIZES = (2, 50, 20_000)


@dataclass
class Tally:
    """What became of calls."""

    faults: int = 0
    calls: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    slowest_recovery: float = 0.0

    def add(self, other: Tally) -> None:
        self.faults += other.faults
        self.calls += other.calls
        self.failed += other.failed
        self.slowest_recovery = max(self.slowest_recovery, other.slowest_recovery)

    def __str__(self) -> str:
        failed = ", ".join(f"{count} {why}" for why, count in self.failed.items()) or "none"
        return (
            f"{self.faults} faults, {self.calls} calls, failed: {failed}, "
            f"slowest return to full service {self.slowest_recovery:.2f} s"
        )


class Load:
    """Clients that call without a pause. Each call's answer can be no other call's.

    Args:
        function: What they call: it must answer twice its input.
        streams: Read a stream of three items per call.
    """

    def __init__(self, function: Function, *, streams: bool = False) -> None:
        self.tally = Tally()
        self._function = function
        self._call = self._stream if streams else self._infer
        self._numbers = itertools.count(1)
        self._going = asyncio.Event()
        self._going.set()
        self._stopped = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._client()) for _ in range(CLIENTS)]
        await self.calls(CLIENTS)
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._stopped = True
        self._going.set()
        await asyncio.gather(*self._tasks)

    async def calls(self, count: int) -> None:
        """Waits until so many more calls have ended."""
        end = self.tally.calls + count
        deadline = time.monotonic() + HANG_SECONDS
        while self.tally.calls < end:
            for task in self._tasks:
                if task.done():
                    task.result()
            assert time.monotonic() < deadline, f"only {self.tally.calls} of {end} calls ended"
            await asyncio.sleep(0.005)

    async def pause(self) -> None:
        """Lets calls end and starts no more."""
        self._going.clear()
        before = -1
        while before != self.tally.calls:
            before = self.tally.calls
            await asyncio.sleep(0.1)

    def resume(self) -> None:
        self._going.set()

    async def full_service(self, workers: int, since: float) -> None:
        """Waits until all workers are up again."""
        up = f"{workers} of {workers} up"
        while self._function.metadata["workers"] != up:
            assert time.monotonic() - since < HANG_SECONDS, self._function.metadata
            await asyncio.sleep(0.005)
        self.tally.slowest_recovery = max(self.tally.slowest_recovery, time.monotonic() - since)

    async def _client(self) -> None:
        while not self._stopped:
            await self._going.wait()
            number = next(self._numbers)
            x = np.full(_SIZES[number % len(_SIZES)], number, dtype=np.float32)
            x[0] = 0
            try:
                await asyncio.wait_for(self._call(x), HANG_SECONDS)
            except WorkerError:
                self.tally.failed["on a dead worker"] += 1
            except RequestError as error:
                self.tally.failed[str(error)] += 1
            self.tally.calls += 1

    async def _infer(self, x: np.ndarray[Any, Any]) -> None:
        answer = await self._function.infer(request(x=x))
        np.testing.assert_array_equal(answer.arrays[0].array, x * 2)

    async def _stream(self, x: np.ndarray[Any, Any]) -> None:
        items = self._function.stream(request(x=x))
        try:
            count = 0
            async for answer in items:
                np.testing.assert_array_equal(answer.arrays[0].array, x * 2 + count)
                count += 1
            assert count == 3, f"the stream ended after {count} items"
        finally:
            await items.aclose()
