"""The sentences of the limits, and the count of active calls."""

from __future__ import annotations

import asyncio

import pytest

from mlserver_pyfunc.serving import limits

from .virtual_time import in_virtual_time, turn


@pytest.mark.parametrize(("remaining", "left"), [(0.5, "0.5"), (0, "0"), (-3, "0")])
def test_a_call_that_comes_too_late_is_told_what_was_left(remaining: float, left: str) -> None:
    limit = limits.TimeLimit("iris", 5)
    limit.typical.add(4)
    assert str(limit.too_late(remaining)) == (
        f'call of model "iris" waited until {left} s were left of its time limit of 5 s '
        "(serving.timeout), and calls take 4 s on average: it was not begun"
    )
    assert str(limit.passed()) == (
        'call of model "iris" passed its time limit of 5 s (serving.timeout)'
    )


def test_a_quarter_more_than_the_average_must_be_left() -> None:
    limit = limits.TimeLimit("iris", 5)
    limit.typical.add(2)
    assert limit.too_late(2.5) is None
    assert limit.too_late(2.49) is not None


def test_the_sentences_of_the_other_limits() -> None:
    assert str(limits.not_loaded("iris")) == 'model "iris" is not loaded'
    assert limits.over_init_limit(2.5) == "passed its limit of 2.5 s (serving.init_timeout)"


@in_virtual_time
async def test_to_drain_waits_until_no_call_is_active() -> None:
    active = limits.ActiveCalls()
    assert active.count == 0
    assert await active.drain(1) is True
    active.add()
    active.add()
    assert active.count == 2
    assert await active.drain(1) is False
    active.remove()
    draining = asyncio.ensure_future(active.drain(1))
    await turn()
    assert not draining.done()
    active.remove()
    assert await draining is True
    assert active.count == 0
