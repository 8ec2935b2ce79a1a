from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mlserver_pyfunc.handler.outcome import Outcome, outcome_in_task, outcome_of


async def _give(value: Any) -> Any:
    await asyncio.sleep(0)
    if isinstance(value, BaseException):
        raise value
    return value


def test_an_outcome_is_a_value_or_an_error() -> None:
    assert Outcome(1).get() == 1
    assert Outcome[Any]().get() is None
    with pytest.raises(SystemExit):
        Outcome[Any](error=SystemExit(1)).get()


@pytest.mark.parametrize("error", [ValueError(), SystemExit(1), KeyboardInterrupt()])
async def test_whatever_is_raised_is_an_outcome(error: BaseException) -> None:
    for read in (outcome_of, outcome_in_task):
        assert (await read(lambda: _give(error))).error is error
        assert (await read(lambda: _give(5))) == Outcome(5)


async def test_a_cancellation_by_the_code_itself_is_an_outcome_in_a_task_of_its_own() -> None:
    outcome = await outcome_in_task(lambda: _give(asyncio.CancelledError()))
    assert isinstance(outcome.error, asyncio.CancelledError)
    with pytest.raises(asyncio.CancelledError):
        await outcome_of(lambda: _give(asyncio.CancelledError()))


async def test_a_cancellation_of_who_waits_ends_the_code() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.sleep(3600)
        finally:
            ended.set()

    task = asyncio.ensure_future(outcome_in_task(wait))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(ended.wait(), 60)
