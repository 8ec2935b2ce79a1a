"""When a batch runs and what becomes of its members, in virtual time and without a handler."""

from __future__ import annotations

import asyncio
import weakref
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mlserver_pyfunc.definition import BatchDefinition, ServingDefinition
from mlserver_pyfunc.errors import (
    ContractError,
    HandlerError,
    InferenceError,
    OverloadedError,
    ResponseError,
    TimeLimitError,
    WorkerError,
)
from mlserver_pyfunc.handler.call import InferenceCall
from mlserver_pyfunc.protocol.contract import NamedArray, TensorSpec
from mlserver_pyfunc.protocol.tensors import DATATYPES
from mlserver_pyfunc.serving import limits
from mlserver_pyfunc.serving.batching import Batcher
from mlserver_pyfunc.serving.runner import Answer, HandlerInfo

from .virtual_time import in_virtual_time, run, turn

Y = TensorSpec("y", DATATYPES["FP32"], (-1,))


class Subject:
    """A batcher with a runner whose batches end when a test says so."""

    def __init__(
        self,
        *,
        max_size: int = 8,
        delay: float = 1,
        slots: int = 1,
        fields: tuple[str, ...] = (),
        **serving: Any,
    ) -> None:
        self.handler = HandlerInfo("sync", frozenset(fields))
        self.running: list[tuple[InferenceCall, asyncio.Future[Answer]]] = []
        self.waiting = 0
        self.batches: list[tuple[int, int]] = []
        self.loop = asyncio.get_running_loop()
        self.began = self.loop.time()
        self.batcher = Batcher(
            self,  # type: ignore[arg-type]
            "iris",
            ServingDefinition(**serving),
            BatchDefinition(max_size=max_size, max_delay_ms=delay * 1000),
            slots,
            self,  # type: ignore[arg-type]
        )

    async def answer(self, call: InferenceCall) -> Answer:
        future: asyncio.Future[Answer] = self.loop.create_future()
        self.running.append((call, future))
        return await future

    async def end_one_before_two(self) -> list[asyncio.Future[Any]]:
        """Sends a request, and two more while it runs. They run together when it has ended."""
        calls = [self.send(0)]
        await turn()
        calls += [self.send(1), self.send(2)]
        await turn()
        await self.end()
        return calls

    def enter_queue(self, trace: Any) -> Any:
        ended: list[int] = []

        def end() -> None:
            if not ended:
                self.waiting -= 1
                ended.append(1)

        self.waiting += 1
        return SimpleNamespace(end=end)

    def count_batch(self, requests: int, rows: int) -> None:
        self.batches.append((requests, rows))

    def send(self, *values: float, parameters: Any = None, **more: Any) -> asyncio.Task[Any]:
        inputs = {"x": np.array(values, dtype="f4")}
        inputs.update({name: np.array(value, dtype="f4") for name, value in more.items()})
        request = SimpleNamespace(id=f"r{values}", parameters=parameters, inputs=())
        call = InferenceCall(None, inputs, dict.fromkeys(inputs, Y), request)  # type: ignore[arg-type]

        async def answer() -> list[float]:
            answer = await self.batcher.answer(call)
            return list(answer.arrays[0].array)

        return asyncio.ensure_future(answer())

    @property
    def rows(self) -> list[list[float]]:
        """The rows of the calls that run."""
        return [list(call.inputs["x"]) for call, _ in self.running]

    @property
    def seconds(self) -> float:
        return round(self.loop.time() - self.began, 6)

    async def end(self, error: BaseException | None = None, rows: int | None = None) -> None:
        """Ends the call that runs longest."""
        call, future = self.running.pop(0)
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(Answer([NamedArray(Y, (call.inputs["x"] * 2)[:rows])], {}))
        await turn()

    async def until_running(self) -> None:
        while not self.running:
            await asyncio.sleep(0.125)


@in_virtual_time
async def test_a_request_that_finds_the_function_idle_runs_at_once() -> None:
    it = Subject()
    call = it.send(1, 2)
    await turn()
    assert (it.rows, it.waiting, it.seconds) == ([[1, 2]], 0, 0)
    await it.end()
    assert await call == [2, 4]
    assert it.batches == [(1, 2)]


@in_virtual_time
async def test_requests_that_wait_run_together_when_a_slot_is_free() -> None:
    it = Subject(slots=2)
    calls = [it.send(1), it.send(2)]
    await turn()
    assert it.rows == [[1], [2]], "one for each slot"
    calls += [it.send(3), it.send(4, 5)]
    await turn()
    assert (it.rows, it.waiting) == ([[1], [2]], 2)
    await it.end()
    assert (it.rows, it.waiting) == ([[2], [3, 4, 5]], 0)
    assert it.running[1][0].id == "r(3,),r(4, 5)"
    assert not it.running[1][0].inputs["x"].flags.writeable
    await it.end()
    await it.end()
    assert await asyncio.gather(*calls) == [[2], [4], [6], [8, 10]]
    assert it.batches == [(1, 1), (1, 1), (2, 3)]


@in_virtual_time
async def test_a_group_that_waits_past_its_delay_still_grows_until_a_slot_is_free() -> None:
    it = Subject(delay=1)
    calls = [it.send(1)]
    await turn()
    calls.append(it.send(2))
    await asyncio.sleep(5)
    calls.append(it.send(3))
    await turn()
    assert it.rows == [[1]]
    await it.end()
    assert (it.rows, it.seconds) == ([[2, 3]], 5)
    await it.end()
    await asyncio.gather(*calls)


@in_virtual_time
async def test_a_call_has_at_most_as_many_rows_as_it_may() -> None:
    it = Subject(max_size=4)
    calls = [it.send(0)]
    await turn()
    calls += [it.send(1, 2), it.send(3, 4), it.send(5, 6, 7), it.send(8, 9), it.send(*range(6))]
    expected = [[0], [1, 2, 3, 4], [5, 6, 7], [8, 9], [0, 1, 2, 3, 4, 5]]
    for rows in expected:
        await turn()
        assert it.rows == [rows]
        await it.end()
    await asyncio.gather(*calls)


@in_virtual_time
async def test_as_many_requests_as_came_before_are_waited_for_but_not_for_long() -> None:
    it = Subject(delay=1)
    calls = await it.end_one_before_two()
    await it.end()
    calls += [it.send(3)]
    await turn()
    assert not it.running, "two came together before"
    calls += [it.send(4)]
    await turn()
    assert (it.rows, it.seconds) == ([[3, 4]], 0)
    await it.end()
    calls += [it.send(5)]
    await it.until_running()
    assert (it.rows, it.seconds) == ([[5]], 1)
    await it.end()
    calls += [it.send(6)]
    await turn()
    assert (it.rows, it.seconds) == ([[6]], 1), "one came alone before"
    await it.end()
    await asyncio.gather(*calls)


@pytest.mark.parametrize(("pause", "waits"), [(20, 2), (20.125, 0)])
def test_after_ten_delays_without_a_request_the_next_one_does_not_wait(
    pause: float, waits: float
) -> None:
    async def test() -> None:
        it = Subject(delay=2)
        calls = [it.send(0)]
        await turn()
        calls += [it.send(1), it.send(2)]
        await turn()
        await it.end()
        await it.end()
        await asyncio.sleep(pause)
        calls += [it.send(3)]
        await turn()
        await it.until_running()
        assert it.seconds == pause + waits
        await it.end()
        await asyncio.gather(*calls)

    run(test())


@in_virtual_time
async def test_only_requests_that_the_handler_cannot_tell_apart_are_joined() -> None:
    it = Subject(fields=("parameters",))
    blocker = it.send(0)
    await turn()
    calls = [
        it.send(1),
        it.send(2, z=[7]),
        it.send(3, parameters={"a": 1, "b": 2}),
        it.send(4),
        it.send(5, z=[[1, 2]]),
        it.send(6, parameters={"b": 2, "a": 1}),
    ]
    joined = []
    for _ in range(5):
        await turn()
        joined += it.rows
        await it.end()
    assert joined == [[0], [1, 4], [2], [3, 6], [5]]
    await asyncio.gather(blocker, *calls)


@in_virtual_time
async def test_parameters_do_not_count_if_the_handler_does_not_take_them() -> None:
    it = Subject()
    calls = [it.send(0)]
    await turn()
    calls += [it.send(1), it.send(2, parameters={"a": 1})]
    await turn()
    await it.end()
    assert it.rows == [[1, 2]]
    await it.end()
    await asyncio.gather(*calls)


@pytest.mark.parametrize("max_queue", [0, 1, 3])
def test_the_queue_is_bounded_but_one_may_wait_in_any_case(max_queue: int) -> None:
    async def test() -> None:
        it = Subject(slots=2, max_queue=max_queue)
        calls = [it.send(0), it.send(0)]
        await turn()
        calls += [it.send(1) for _ in range(max(max_queue, 1))]
        await turn()
        with pytest.raises(OverloadedError) as caught:
            await it.send(9)
        assert str(caught.value) == (
            f'model "iris" is at its limit: 2 batches at a time and {max_queue} requests waiting '
            "(serving.max_queue)"
        )
        assert it.waiting == max(max_queue, 1)
        for _ in range(3):
            await it.end()
        await asyncio.gather(*calls)

    run(test())


@in_virtual_time
async def test_a_request_that_waits_for_its_limit_leaves_the_queue() -> None:
    it = Subject(timeout=3, max_queue=1)
    first = it.send(0)
    await asyncio.sleep(1)
    with pytest.raises(TimeLimitError, match="passed its time limit of 3 s"):
        await it.send(1)
    assert (it.seconds, it.waiting) == (4, 0)
    with pytest.raises(TimeLimitError):
        await first
    later = it.send(2)
    await turn()
    assert it.waiting == 1, "there is room for it"
    await asyncio.sleep(3)
    with pytest.raises(TimeLimitError):
        await later
    await it.end()
    assert (it.running, it.batches) == ([], [(1, 1)])


@in_virtual_time
async def test_a_request_that_has_waited_is_begun_only_if_it_can_end_in_time() -> None:
    it = Subject(timeout=6)
    first = it.send(0)
    await turn()
    early, late = it.send(1), None
    await asyncio.sleep(1)
    late = it.send(2)
    await asyncio.sleep(3)
    # Calls take 4 s on average now, so 5 s must be left: `early` has 2 s, `late` has 3 s.
    third = it.send(3)
    await turn()
    await it.end()
    assert it.rows == [[3]]
    for call in (early, late):
        with pytest.raises(TimeLimitError, match="it was not begun"):
            await call
    assert await first == [0]
    await it.end()
    assert await third == [6]


@in_virtual_time
async def test_a_batch_of_which_nobody_is_left_takes_no_slot() -> None:
    it = Subject(timeout=6)
    first = it.send(0)
    await turn()
    late = it.send(1)
    await asyncio.sleep(5)
    await it.end()
    with pytest.raises(TimeLimitError):
        await late
    assert (await first, it.batches) == ([0], [(1, 1)])
    last = it.send(2)
    await turn()
    assert it.rows == [[2]], "a request that finds a slot is begun, whatever the average"
    await it.end()
    assert await last == [4]


@pytest.mark.parametrize("kind", [ContractError, HandlerError, InferenceError, ResponseError])
def test_an_error_that_one_member_may_have_caused_makes_each_run_alone(kind: Any) -> None:
    async def test() -> None:
        it = Subject()
        first = it.send(0)
        await turn()
        calls = [it.send(n) for n in (1, 2, 3)]
        await turn()
        await it.end()
        assert it.rows == [[1, 2, 3]]
        other = it.send(4)
        await it.end(kind("no"))
        assert it.rows == [[1]], "in the slot of the batch"
        await it.end()
        await it.end(kind("two"))
        await it.end()
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [found[0], found[2]] == [[2], [6]]
        assert isinstance(found[1], kind)
        assert str(found[1]) == "two"
        assert it.rows == [[4]]
        await it.end()
        assert (await first, await other) == ([0], [8])
        assert it.batches == [(1, 1), (3, 3), (1, 1), (1, 1), (1, 1), (1, 1)]

    run(test())


@in_virtual_time
async def test_members_that_left_or_are_too_late_do_not_run_again() -> None:
    it = Subject(timeout=10)
    first = it.send(0)
    await turn()
    calls = [it.send(n) for n in (1, 2, 3)]
    await turn()
    await it.end()
    calls[1].cancel()
    await asyncio.sleep(4)
    await it.end(HandlerError("no"))
    assert it.rows == [[1]]
    await asyncio.sleep(3)
    await it.end()
    # 3 s are left, and calls take (0 + 4 + 3) / 3 s on average.
    assert it.rows == [[3]]
    await it.end()
    assert (await first, await calls[0], await calls[2]) == ([0], [2], [6])
    with pytest.raises(asyncio.CancelledError):
        await calls[1]


@pytest.mark.parametrize("error", [WorkerError("broken"), MemoryError("broken")])
@pytest.mark.parametrize("members", [1, 2])
def test_any_other_error_is_that_of_all_members(members: int, error: Exception) -> None:
    async def test() -> None:
        it = Subject()
        first = it.send(0)
        await turn()
        calls = [it.send(n) for n in range(members)]
        await turn()
        await it.end()
        await it.end(error)
        for call in calls:
            with pytest.raises(type(error), match="broken"):
                await call
        assert (await first, it.running) == ([0], [])

    run(test())


@in_virtual_time
async def test_members_of_a_batch_that_is_cancelled_are_cancelled() -> None:
    it = Subject()
    calls = [it.send(1)]
    await turn()
    await it.end(asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await calls[0]


@in_virtual_time
async def test_an_answer_of_other_rows_is_an_error_of_all() -> None:
    it = Subject()
    first = it.send(0)
    await turn()
    calls = [it.send(1, 2), it.send(3)]
    await turn()
    await it.end()
    await it.end(rows=2)
    for call in calls:
        with pytest.raises(ResponseError, match=r'output "y".*expected 3 rows.*got 2'):
            await call
    assert await first == [0]


@in_virtual_time
async def test_a_member_that_leaves_makes_room_in_its_group_and_in_the_queue() -> None:
    it = Subject(max_size=2, max_queue=2)
    calls = [it.send(0)]
    await turn()
    gone = it.send(1)
    calls.append(it.send(2, 3))  # full, and so behind the group of `gone`, which is closed
    await turn()
    assert it.waiting == 2
    gone.cancel()
    await turn()
    assert it.waiting == 1
    calls.append(it.send(4))
    await turn()
    with pytest.raises(OverloadedError):
        await it.send(5)
    for rows in ([0], [2, 3], [4]):
        assert it.rows == [rows]
        await it.end()
    assert await asyncio.gather(*calls) == [[0], [4, 6], [8]]


@in_virtual_time
async def test_a_group_whose_last_member_left_is_forgotten_with_its_delay() -> None:
    it = Subject(delay=1)
    calls = await it.end_one_before_two()
    await it.end()
    gone = it.send(3)
    await asyncio.sleep(0.5)
    gone.cancel()
    await turn()
    calls.append(it.send(4))
    await it.until_running()
    assert (it.rows, it.seconds) == ([[4]], 1.5), "its own delay, from when it came"
    await it.end()
    await asyncio.gather(*calls)


@in_virtual_time
async def test_one_member_that_leaves_does_not_end_the_wait_of_the_others() -> None:
    it = Subject(delay=1)
    calls = [it.send(0)]
    await turn()
    calls += [it.send(n) for n in (1, 2, 3)]
    await turn()
    await it.end()
    await it.end()
    gone, stays = it.send(4), it.send(5)
    await asyncio.sleep(0.5)
    gone.cancel()
    await it.until_running()
    assert (it.rows, it.seconds) == ([[5]], 1)
    await it.end()
    assert (await stays, it.waiting) == ([10], 0)
    await asyncio.gather(*calls)


@in_virtual_time
async def test_a_close_answers_those_that_run_and_wait() -> None:
    it = Subject(max_size=2)
    calls = [it.send(n) for n in range(4)]
    await turn()
    closing = asyncio.ensure_future(it.batcher.close())
    for rows in ([0], [1, 2], [3]):
        await turn()
        assert it.rows == [rows]
        assert not closing.done()
        await it.end()
    await closing
    assert await asyncio.gather(*calls) == [[0], [2], [4], [6]]


@in_virtual_time
async def test_a_close_does_not_wait_for_a_delay() -> None:
    it = Subject(delay=1)
    calls = await it.end_one_before_two()
    await it.end()
    calls.append(it.send(3))
    await turn()
    closing = asyncio.ensure_future(it.batcher.close())
    await turn()
    assert (it.rows, it.seconds) == ([[3]], 0)
    await it.end()
    await closing
    await asyncio.gather(*calls)


@in_virtual_time
async def test_a_close_ends_after_some_time_even_if_calls_do_not() -> None:
    it = Subject()
    call = it.send(0)
    await turn()
    await it.batcher.close()
    assert it.seconds == limits.UNLOAD_SECONDS
    await it.end()
    assert await call == [0]


@in_virtual_time
async def test_a_full_batch_does_not_wait_for_the_requests_that_came_before() -> None:
    it = Subject(max_size=4, delay=1)
    calls = [it.send(0)]
    await turn()
    calls += [it.send(n) for n in (1, 2, 3)]
    await turn()
    await it.end()
    await it.end()
    calls += [it.send(4, 5), it.send(6, 7)]
    await turn()
    assert (it.rows, it.seconds) == ([[4, 5, 6, 7]], 0)
    await it.end()
    await asyncio.gather(*calls)


@in_virtual_time
async def test_a_full_group_that_is_left_is_forgotten() -> None:
    it = Subject(max_size=4, delay=1)
    calls = await it.end_one_before_two()
    gone = it.send(*range(9))
    await turn()
    gone.cancel()
    await turn()
    await it.end()
    assert it.batches == [(1, 1), (2, 2)]
    calls.append(it.send(3))
    await it.until_running()
    assert it.seconds == 1, "two came together before"
    await it.end()
    await asyncio.gather(*calls)


@in_virtual_time
async def test_a_request_is_freed_with_its_answer() -> None:
    it = Subject()
    call = it.send(1)
    await turn()
    request = weakref.ref(it.running[0][0])
    await it.end()
    assert await call == [2]
    del call
    assert request() is None


@in_virtual_time
async def test_the_delay_of_a_group_ends_with_it() -> None:
    it = Subject(delay=1)
    calls = await it.end_one_before_two()
    await it.end()
    calls.append(it.send(3))
    await asyncio.sleep(0.5)
    calls.append(it.send(4))
    await turn()
    assert it.rows == [[3, 4]]
    await it.end()
    calls.append(it.send(5))
    await it.until_running()
    assert it.seconds == 1.5
    await it.end()
    await asyncio.gather(*calls)


@in_virtual_time
async def test_a_member_that_left_keeps_no_error_from_the_others() -> None:
    it = Subject()
    calls = [it.send(0)]
    await turn()
    calls += [it.send(1), it.send(2), it.send(3)]
    await turn()
    await it.end()
    calls[2].cancel()
    await it.end(WorkerError("broken"))
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(each) for each in found[1:]] == [
        WorkerError, asyncio.CancelledError, WorkerError,
    ]  # fmt: skip


@in_virtual_time
async def test_requests_of_other_tensors_are_not_joined() -> None:
    it = Subject()
    calls = [it.send(0)]
    await turn()
    calls += [it.send(1), it.send(2, z=[7]), it.send(3, z=[[1, 2]]), it.send(4), it.send(5, z=[8])]
    joined = []
    for _ in range(4):
        await turn()
        joined += it.rows
        await it.end()
    assert joined == [[0], [1, 4], [2, 5], [3]]
    await asyncio.gather(*calls)


@in_virtual_time
async def test_a_batch_is_given_up_when_its_last_member_has_left() -> None:
    it = Subject()
    calls = await it.end_one_before_two()
    [(_, running)] = it.running
    calls[1].cancel()
    await turn()
    assert not running.cancelled(), "the other one waits"
    calls[2].cancel()
    calls.append(it.send(3))
    await turn()
    assert running.cancelled()
    del it.running[0]
    assert it.rows == [[3]], "its slot is free"
    await it.end()
    assert await calls[0] == [0]
    assert await calls[3] == [6]


@in_virtual_time
async def test_a_member_that_leaves_at_the_moment_of_its_batch_is_not_in_it() -> None:
    it = Subject()
    calls = [it.send(0)]
    await turn()
    calls += [it.send(1), it.send(2)]
    await turn()
    it.running[0][1].set_result(Answer([NamedArray(Y, np.zeros(1, dtype="f4"))], {}))
    calls[1].cancel()
    del it.running[0]
    await turn()
    assert it.rows == [[2]]
    await it.end()
    assert await calls[2] == [4]


@in_virtual_time
async def test_a_batch_is_left_to_its_runner_when_the_limit_of_the_function_has_passed() -> None:
    it = Subject(timeout=3)
    call = it.send(1)
    with pytest.raises(TimeLimitError, match=r"limit of 3 s \(serving.timeout\)"):
        await call
    await turn()
    assert not it.running[0][1].cancelled()
    await it.end()
