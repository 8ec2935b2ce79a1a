"""More calls than can be run: none is run in vain, and no worker dies of the others' wait."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from mlserver_pyfunc.errors import OverloadedError, TimeLimitError
from mlserver_pyfunc.serving.function import Function
from mlserver_pyfunc.serving.workers import dispatcher as dispatching

from .workers.functions import call as call_for_array
from .workers.functions import children, loaded, until

# x[0]: how many seconds it takes; x[1]: what it notes.
HANDLERS = {
    "sync": """
import time

def handler(x, context):
    with open(context.init_parameters["notes"], "a") as notes:
        notes.write(f"{x[1]:g} ")
    time.sleep(float(x[0]))
    return x * 2
""",
    "async": """
import asyncio

async def handler(x, context):
    with open(context.init_parameters["notes"], "a") as notes:
        notes.write(f"{x[1]:g} ")
    await asyncio.sleep(float(x[0]))
    return x * 2
""",
}
WAYS = [(where, kind) for where in ("none", "process") for kind in HANDLERS]


def subject(tmp_path: Path, kind: str, where: str, **serving: Any) -> Any:
    notes = {"notes": str(tmp_path / "notes")}
    return loaded(HANDLERS[kind], isolation=where, init_parameters=notes, **serving)


async def call(function: Function, *values: float) -> Any:
    return (await call_for_array(function, *values)).tolist()


def workers() -> set[int]:
    return {child.pid for child in children()}


async def one_behind_the_other(function: Function, seconds: float) -> list[Any]:
    """Sends two calls that note 1 and 2, of which the second has to wait for the first."""
    first = asyncio.ensure_future(call(function, seconds, 1))
    await asyncio.sleep(0.02)
    second = asyncio.ensure_future(call(function, seconds, 2))
    return await asyncio.gather(first, second, return_exceptions=True)


@pytest.mark.parametrize(("where", "kind"), WAYS)
async def test_a_call_that_cannot_end_in_time_is_not_begun(
    where: str, kind: str, tmp_path: Path
) -> None:
    async with subject(tmp_path, kind, where, timeout=4) as function:
        first, second = await one_behind_the_other(function, 2.5)
        assert first == [5, 2]
        assert isinstance(second, TimeLimitError)
        assert str(second).endswith("on average: it was not begun")
        assert await call(function, 0, 3) == [0, 6]
    assert (tmp_path / "notes").read_text() == "1 3 "


@pytest.mark.parametrize("kind", HANDLERS)
@pytest.mark.parametrize("prefetched", [False, True])
async def test_a_worker_is_not_killed_for_the_time_that_its_call_has_waited(
    kind: str, prefetched: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if prefetched:
        monkeypatch.setattr(dispatching, "BRIEF_SECONDS", 3600)
    async with subject(tmp_path, kind, "process", timeout=4) as function:
        for _ in range(16):  # the second call shall seem to be able to end
            await call(function, 0, 0)
        before = workers()
        first, second = await one_behind_the_other(function, 2.5)
        assert first == [5, 2]
        assert isinstance(second, TimeLimitError)
        assert await call(function, 0, 3) == [0, 6]
        assert workers() == before
        assert "last_exit" not in function.metadata
    assert (tmp_path / "notes").read_text().split() == ["0"] * 16 + ["1", "2", "3"]


async def test_a_call_that_waited_and_then_hangs_is_stopped_when_it_has_run_for_its_limit(
    tmp_path: Path,
) -> None:
    async with subject(tmp_path, "sync", "process", timeout=4) as function:
        for _ in range(16):
            await call(function, 0, 0)
        before = workers()
        first = asyncio.ensure_future(call(function, 2.5, 1))
        await asyncio.sleep(0.02)
        sent = time.monotonic()
        with pytest.raises(TimeLimitError, match="passed its time limit of 4 s"):
            await call(function, 3600, 2)
        assert workers() == before, "killed before the call had run for its limit"
        await first
        await until(lambda: workers() and workers() != before)
        assert time.monotonic() - sent > 6
        assert await call(function, 0, 3) == [0, 6]


async def test_in_process_a_call_that_began_late_does_not_make_the_function_unready(
    tmp_path: Path,
) -> None:
    async with subject(tmp_path, "sync", "none", timeout=4) as function:
        for _ in range(16):
            await call(function, 0, 0)
        _, second = await one_behind_the_other(function, 2.5)
        assert isinstance(second, TimeLimitError)
        assert function.ready
        assert await call(function, 0, 3) == [0, 6]


@pytest.mark.parametrize(("where", "kind"), WAYS)
async def test_with_three_times_the_load_the_answers_keep_coming(
    where: str, kind: str, tmp_path: Path
) -> None:
    async with subject(tmp_path, kind, where, timeout=1) as function:
        before, right, started = workers(), 0, time.monotonic()

        async def client() -> None:
            nonlocal right
            while right < 12:
                assert time.monotonic() - started < 120, f"{right} answers"
                try:
                    assert await call(function, 0.25, 1) == [0.5, 2]
                    right += 1
                except TimeLimitError:
                    pass
                except OverloadedError:
                    await asyncio.sleep(0.05)

        await asyncio.gather(*(client() for _ in range(12)))
        assert workers() == before, "a worker was killed"
