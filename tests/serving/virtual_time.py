"""An event loop whose time passes only while nothing is ready, and then at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self._now = 1.0
        select = self._selector.select  # type: ignore[attr-defined]

        def pass_time(timeout: float | None) -> Any:
            assert timeout is not None, "nothing will ever happen"
            self._now += timeout
            return select(0)

        self._selector.select = pass_time  # type: ignore[attr-defined]

    def time(self) -> float:
        return self._now


def run(test: Coroutine[Any, Any, None]) -> None:
    """Runs a test in virtual time; nothing that it has started is left."""
    loop = VirtualTimeLoop()
    errors: list[Any] = []
    loop.set_exception_handler(lambda _, context: errors.append(context))
    try:
        loop.run_until_complete(test)
        left = asyncio.all_tasks(loop)
        assert not left, left
    finally:
        loop.close()
    assert not errors, errors


def in_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def synchronous(*args: Any, **kwargs: Any) -> None:
        run(test(*args, **kwargs))

    return synchronous


async def turn() -> None:
    """Lets all run that is ready, in no time."""
    for _ in range(10):
        await asyncio.sleep(0)
