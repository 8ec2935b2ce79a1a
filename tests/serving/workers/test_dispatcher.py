"""Which call goes to which worker and how it ends, in virtual time and without processes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mlserver_pyfunc.definition import ServingDefinition
from mlserver_pyfunc.errors import (
    HandlerError,
    OverloadedError,
    RequestError,
    ResponseError,
    TimeLimitError,
    WorkerError,
)
from mlserver_pyfunc.handler.call import InferenceCall
from mlserver_pyfunc.protocol.contract import Contract, TensorSpec
from mlserver_pyfunc.protocol.tensors import DATATYPES
from mlserver_pyfunc.serving.runner import HandlerInfo
from mlserver_pyfunc.serving.workers import dispatcher as dispatching
from mlserver_pyfunc.serving.workers.dispatcher import Dispatcher
from mlserver_pyfunc.serving.workers.pending import PendingCall
from mlserver_pyfunc.serving.workers.process import Exit
from mlserver_pyfunc.serving.workers.wire.messages import Head, Kind, Message
from tests.serving.virtual_time import in_virtual_time, turn

X = TensorSpec("x", DATATYPES["FP32"], (-1,))
LIMIT = "passed its time limit of 10 s"


class Worker:
    """What the dispatcher needs of a worker, of its process and of its connection."""

    def __init__(self, subject: Subject, index: int) -> None:
        self.index = index
        self.calls: dict[int, PendingCall] = {}
        self.taken_back = self.reported_waiting = self.served = self.received = 0
        self.logged_recently = self.sent_several = False
        self.memory_used = self.tokens = 0
        self.sent: list[tuple[Any, ...]] = []
        self.options: list[dict[str, Any]] = []
        self.killed: list[tuple[str, str, float]] = []
        self.error: Exception | None = None
        self.process = self.connection = self
        self._subject = subject

    def count_call(self) -> None:
        self.served += 1

    def send(
        self, kind: Kind, number: int, head: Any = None, named: Any = (), **options: Any
    ) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append((kind.name, number))
        self.options.append({"head": head, "named": named, **options})

    def take_back(self) -> int:
        taken, self.tokens = self.tokens, 0
        return taken

    def receive(self) -> None:
        self.received += 1

    def kill(self, reason: str, text: str) -> None:
        self.killed.append((reason, text, self._subject.seconds))

    def report(self, kind: Kind, number: int, seconds: float = 0, **values: Any) -> None:
        head = Head({"parameters": {"of": number}, **values})
        message = Message(kind, number, "", head, b"", seconds, False)
        self._subject.dispatcher.on_message(self, message)  # type: ignore[arg-type]

    def end(self, number: int, seconds: float = 0) -> None:
        self.report(Kind.RESULT, number, seconds)

    @property
    def numbers(self) -> list[int]:
        return list(self.calls)


class Subject:
    def __init__(
        self, workers: int = 1, *, kind: str = "sync", fields: tuple[str, ...] = (), **more: Any
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.began = self.loop.time()
        self.waiting = self.depth = self.up = 0
        serving = ServingDefinition(workers=max(workers, 1), **{"timeout": 10, **more})
        contract = Contract("iris", [X], [])
        self.dispatcher = Dispatcher(contract, serving, self)  # type: ignore[arg-type]
        assert self.dispatcher.handler_info == HandlerInfo()
        self.dispatcher.handler_info = HandlerInfo(kind, frozenset(fields))
        self.workers = [Worker(self, index) for index in range(workers)]
        for worker in self.workers:
            self.dispatcher.add(worker)  # type: ignore[arg-type]

    def set(self, _: Any, number: int) -> None:
        self.up = number

    def change_depth(self, calls: int) -> None:
        self.depth += calls

    def enter_queue(self, trace: Any) -> Any:
        ended: list[int] = []

        def end() -> None:
            self.waiting -= not ended
            ended.append(1)

        self.waiting += 1
        return SimpleNamespace(end=end)

    def submit(self, count: int = 1) -> list[PendingCall]:
        return [self.submit_one() for _ in range(count)]

    def submit_one(self) -> PendingCall:
        inputs = {"x": np.zeros(2, dtype="f4")}
        request = SimpleNamespace(id="r", parameters={"a": 1}, inputs=(), outputs=None)
        call = InferenceCall(None, inputs, {"x": X}, request)  # type: ignore[arg-type]
        return self.dispatcher.submit(call)

    def make_brief(self) -> None:
        """Lets workers get calls in advance."""
        self.dispatcher._limit.typical.seconds = dispatching.BRIEF_SECONDS / 2

    @property
    def seconds(self) -> float:
        return round(self.loop.time() - self.began, 6)


def answer_of(pending: PendingCall) -> Any:
    answer = pending.future.result()
    assert answer is not None
    return answer.parameters["of"]


def error_of(pending: PendingCall) -> BaseException:
    error = pending.future.exception()
    assert error is not None
    return error


@in_virtual_time
async def test_a_call_goes_to_a_worker_and_its_answer_to_the_caller() -> None:
    it = Subject(1)
    [call] = it.submit()
    [worker] = it.workers
    assert worker.sent == [("CALL", 1)]
    options = worker.options[0]
    [(spec, array)] = options.pop("named")
    assert (spec, array.shape) == (X, (2,))
    assert options == {"head": None, "request_id": "r", "coalesce": False, "needs_token": False}
    assert (it.dispatcher.active.count, worker.numbers, it.up) == (1, [1], 1)
    worker.end(1)
    assert answer_of(call) == 1
    assert (it.dispatcher.active.count, worker.numbers, worker.served) == (0, [], 1)
    await asyncio.sleep(100)
    assert worker.killed == []


@in_virtual_time
async def test_the_fields_that_the_handler_takes_are_sent() -> None:
    it = Subject(1, fields=("parameters",))
    it.submit()
    assert it.workers[0].options[0]["head"] == {"parameters": {"a": 1}}


@in_virtual_time
async def test_calls_go_to_the_least_busy_worker_and_the_others_wait_in_order() -> None:
    it = Subject(2, concurrency=2)
    it.submit(7)
    one, two = it.workers
    assert (one.numbers, two.numbers, it.waiting) == ([1, 3], [2, 4], 3)
    two.end(4)
    assert (two.numbers, it.waiting) == ([2, 5], 2)
    one.end(1)
    one.end(3)
    assert (one.numbers, it.waiting) == ([6, 7], 0)
    it.submit()
    assert it.waiting == 1
    two.end(2)
    two.end(5)
    assert two.numbers == [8]
    it.submit()
    assert two.numbers == [8, 9]


@pytest.mark.parametrize("max_queue", [0, 2])
@in_virtual_time
async def test_a_call_beyond_the_queue_is_refused(max_queue: int) -> None:
    it = Subject(2, concurrency=2, max_queue=max_queue)
    it.submit(4 + max_queue)
    with pytest.raises(OverloadedError) as caught:
        it.submit()
    assert str(caught.value) == (
        'model "iris" is at its limit: 4 calls at a time (serving.workers times '
        f"serving.concurrency) and {max_queue} waiting (serving.max_queue)"
    )
    assert (it.waiting, it.dispatcher.active.count) == (max_queue, 4 + max_queue)
    it.workers[0].end(1)
    it.submit()


@in_virtual_time
async def test_prefetched_calls_count_as_waiting() -> None:
    it = Subject(2, max_queue=3)
    it.make_brief()
    it.submit(5)
    assert [worker.numbers for worker in it.workers] == [[1, 3, 5], [2, 4]]
    with pytest.raises(OverloadedError):
        it.submit()
    assert it.waiting == 0


@in_virtual_time
async def test_a_worker_gets_only_so_many_calls_in_advance() -> None:
    it = Subject(1, max_queue=1000)
    it.make_brief()
    it.submit(dispatching.MAX_CALLS + 1)
    [worker] = it.workers
    assert (len(worker.calls), it.waiting) == (dispatching.MAX_CALLS, 1)
    assert [options["coalesce"] for options in worker.options[:3]] == [False, True, True]
    assert not any(options["needs_token"] for options in worker.options)


@pytest.mark.parametrize(
    ("change", "calls"),
    [
        ({"memory_used": dispatching.MAX_BYTES - 1}, 2),
        ({"memory_used": dispatching.MAX_BYTES}, 1),
        ({"logged_recently": True}, 1),
        ({"taken_back": 1}, 0),
    ],
)
@in_virtual_time
async def test_what_keeps_a_worker_from_calls_in_advance(
    change: dict[str, Any], calls: int
) -> None:
    it = Subject(1)
    it.make_brief()
    vars(it.workers[0]).update(change)
    it.submit(2)
    assert len(it.workers[0].calls) == calls


@pytest.mark.parametrize(
    ("kind", "concurrency", "typical", "calls"),
    [
        ("sync", 1, 0.99, 3),
        ("sync", 1, 1, 1),
        ("sync", 2, 0.5, 2),
        ("async", 1, 0.5, 1),
        ("generator", 1, 0.5, 1),
    ],
)
@in_virtual_time
async def test_only_brief_calls_that_run_one_by_one_are_prefetched(
    kind: str, concurrency: int, typical: float, calls: int
) -> None:
    it = Subject(1, kind=kind, concurrency=concurrency)
    it.dispatcher._limit.typical.seconds = dispatching.BRIEF_SECONDS * typical
    it.submit(3)
    assert len(it.workers[0].calls) == calls


@in_virtual_time
async def test_a_worker_that_got_several_calls_at_once_may_get_the_next_ones_so() -> None:
    it = Subject(1)
    it.workers[0].sent_several = True
    it.submit()
    assert it.workers[0].options[0]["coalesce"] is True


@in_virtual_time
async def test_calls_behind_a_long_one_go_to_another_worker() -> None:
    it = Subject(2)
    one, two = it.workers
    it.make_brief()
    calls = it.submit(5)
    assert [options["needs_token"] for options in one.options] == [False, True, True]
    calls[2].future.cancel()
    for worker in it.workers:
        worker.logged_recently = True
    two.end(2)
    two.end(4)
    one.tokens = 2
    await asyncio.sleep(dispatching._CHECK_SECONDS)
    assert (one.numbers, one.taken_back, one.received) == ([1], 2, 1)
    assert (two.numbers, it.dispatcher.active.count) == ([5], 2)
    one.report(Kind.DROPPED, 3)
    assert one.taken_back == 1
    one.report(Kind.DROPPED, 5)
    one.end(1)
    two.end(5)
    assert it.dispatcher.active.count == 0
    assert [answer_of(calls[n]) for n in (0, 1, 3, 4)] == [1, 2, 4, 5]


@in_virtual_time
async def test_calls_that_are_taken_back_keep_their_order() -> None:
    it = Subject(2)
    one, two = it.workers
    two.taken_back = 1
    it.make_brief()
    it.submit(5)
    assert one.numbers == [1, 2, 3, 4, 5]
    one.tokens = 3
    two.taken_back = 0
    await asyncio.sleep(dispatching._CHECK_SECONDS)
    assert (one.numbers, two.numbers) == ([1, 2], [3, 4, 5])


@in_virtual_time
async def test_a_worker_whose_calls_end_keeps_those_behind() -> None:
    it = Subject(2)
    one, two = it.workers
    it.make_brief()
    it.submit(6)
    two.end(2)
    two.end(4)
    two.end(6)
    one.end(1)
    one.tokens = 1  # It has begun its next call.
    await asyncio.sleep(dispatching._CHECK_SECONDS)
    assert (one.numbers, one.received) == ([3, 5], 1)
    await asyncio.sleep(dispatching._CHECK_SECONDS)
    assert one.numbers == [3], "its first call is the same as before"


@in_virtual_time
async def test_nothing_is_taken_back_if_no_worker_has_room() -> None:
    it = Subject(2)
    it.make_brief()
    it.submit(4)
    for worker in it.workers:
        worker.logged_recently = True
        worker.tokens = 1
    await asyncio.sleep(dispatching._CHECK_SECONDS * 3)
    assert [worker.numbers for worker in it.workers] == [[1, 3], [2, 4]]
    assert [worker.received for worker in it.workers] == [3, 3]
    assert it.depth == 2
    for number in (1, 3):
        it.workers[0].end(number)
    await asyncio.sleep(dispatching._CHECK_SECONDS * 3)
    assert (it.workers[0].received, it.depth) == (4, 0)
    assert [worker.numbers for worker in it.workers] == [[4], [2]]


@in_virtual_time
async def test_a_worker_that_drops_calls_gets_none_until_it_has() -> None:
    it = Subject(1)
    it.workers[0].taken_back = 2
    it.submit()
    assert it.waiting == 1
    it.workers[0].report(Kind.DROPPED, 9)
    assert it.waiting == 1
    it.workers[0].report(Kind.DROPPED, 9)
    assert (it.waiting, it.workers[0].numbers) == (0, [1])


@in_virtual_time
async def test_a_call_that_runs_for_its_limit_ends_its_worker() -> None:
    it = Subject(1)
    [call] = it.submit()
    await asyncio.sleep(10)
    await turn()
    with pytest.raises(TimeLimitError, match=LIMIT):
        await call.future
    text = "was stopped when another call passed its limit of 10 s (serving.timeout)"
    assert it.workers[0].killed == [("timeout", text, 10)]
    assert (it.up, len(it.dispatcher.workers)) == (0, 0)
    it.dispatcher.on_exit(it.workers[0], Exit("timeout", "was stopped"))  # type: ignore[arg-type]
    assert it.dispatcher.active.count == 0


@in_virtual_time
async def test_a_call_that_has_waited_may_run_for_its_limit() -> None:
    it = Subject(1)
    it.dispatcher._limit.typical.seconds = 1
    calls = it.submit(2)
    await asyncio.sleep(4)
    it.workers[0].end(1, seconds=1)
    await asyncio.sleep(6)
    await turn()
    assert isinstance(error_of(calls[1]), TimeLimitError)
    await asyncio.sleep(3.75)
    assert it.workers[0].killed == []
    await asyncio.sleep(1)
    assert it.workers[0].killed[0][2] == 14


@in_virtual_time
async def test_a_call_that_ends_after_its_limit_harms_no_worker() -> None:
    it = Subject(1)
    it.dispatcher._limit.typical.seconds = 1
    calls = it.submit(2)
    await asyncio.sleep(4)
    it.workers[0].end(1, seconds=1)
    await asyncio.sleep(7)
    it.workers[0].end(2)
    assert isinstance(error_of(calls[1]), TimeLimitError)
    await asyncio.sleep(60)
    assert (it.workers[0].killed, it.dispatcher.active.count) == ([], 0)


@in_virtual_time
async def test_the_time_of_a_prefetched_call_starts_when_the_one_before_has_ended() -> None:
    it = Subject(1)
    it.make_brief()
    calls = it.submit(3)
    assert [call.runs_until > 0 for call in calls] == [True, False, False]
    await asyncio.sleep(4)
    it.workers[0].end(1)
    assert [call.runs_until > 0 for call in calls[1:]] == [True, False]
    await asyncio.sleep(6.01)
    assert isinstance(error_of(calls[1]), TimeLimitError)
    assert isinstance(error_of(calls[2]), TimeLimitError)
    await asyncio.sleep(3.75)
    assert it.workers[0].killed == []
    await asyncio.sleep(1)
    assert round(it.workers[0].killed[0][2], 2) == 14


@in_virtual_time
async def test_a_call_that_waits_for_its_limit_leaves_the_queue() -> None:
    it = Subject(0)
    calls = it.submit(2)
    await asyncio.sleep(10)
    await turn()
    assert [type(error_of(call)) for call in calls] == [TimeLimitError] * 2
    assert (it.waiting, it.dispatcher.active.count) == (0, 0)
    worker: Any = Worker(it, 0)
    it.dispatcher.add(worker)
    assert (worker.sent, it.dispatcher.active.count) == ([], 0)


@in_virtual_time
async def test_a_call_that_cannot_end_in_time_is_not_begun() -> None:
    it = Subject(1)
    calls = it.submit(3)
    await asyncio.sleep(6)
    it.workers[0].end(1)
    # Calls take 6 s: 7.5 s must be left, and 4 s are.
    for call in calls[1:]:
        assert str(error_of(call)).endswith("calls take 6 s on average: it was not begun")
    assert (it.workers[0].numbers, it.waiting, it.dispatcher.active.count) == ([], 0, 0)
    it.submit()
    assert it.workers[0].numbers == [4], "a call that finds a worker is begun"


@in_virtual_time
async def test_the_workers_own_measure_counts_if_it_has_one() -> None:
    it = Subject(1)
    it.submit()
    await asyncio.sleep(6)
    it.workers[0].end(1, seconds=2)
    assert it.dispatcher._limit.typical.seconds == 2


@in_virtual_time
async def test_streams_are_begun_whatever_the_average_and_do_not_count_in_it() -> None:
    it = Subject(1, kind="generator")
    it.dispatcher._limit.typical.seconds = 100
    it.submit(2)
    await asyncio.sleep(6)
    it.workers[0].report(Kind.END, 1)
    assert it.workers[0].numbers == [2]
    assert it.dispatcher._limit.typical.seconds == 100


@in_virtual_time
async def test_the_limit_of_a_stream_is_that_of_each_item() -> None:
    it = Subject(1, kind="generator")
    [call] = it.submit()
    worker = it.workers[0]
    for _ in range(3):
        await asyncio.sleep(9)
        worker.report(Kind.ITEM, 1)
        assert answer_of(call) == 1
        await asyncio.sleep(100)
        assert worker.killed == [], "the client may take its time"
        it.dispatcher.next_item(call)
    assert worker.sent == [("CALL", 1), *[("NEXT", 1)] * 3]
    began = it.seconds
    await asyncio.sleep(10)
    await turn()
    assert isinstance(error_of(call), TimeLimitError)
    assert worker.killed[0][2] == began + 10


@in_virtual_time
async def test_a_stream_ends_with_none_or_with_its_error() -> None:
    it = Subject(2, kind="generator")
    calls = it.submit(2)
    one, two = it.workers
    one.report(Kind.END, 1)
    assert calls[0].future.result() is None
    two.report(Kind.ITEM, 2)
    error = {"error": "HandlerError", "message": "no", "status": 500}
    two.report(Kind.ERROR, 2, **error)
    assert answer_of(calls[1]) == 2
    with pytest.raises(HandlerError, match="no"):
        it.dispatcher.next_item(calls[1])
    assert it.dispatcher.active.count == 0


@pytest.mark.parametrize(
    ("name", "kind"), [("OverloadedError", OverloadedError), ("Unheard", RequestError)]
)
@in_virtual_time
async def test_an_error_of_a_worker_is_that_of_the_call(name: str, kind: type) -> None:
    it = Subject(1)
    [call] = it.submit()
    it.workers[0].report(Kind.ERROR, 1, error=name, message="no", status=418)
    error = error_of(call)
    assert (type(error), str(error), error.status) == (kind, "no", 418)  # type: ignore[attr-defined]
    assert it.dispatcher.active.count == 0


@in_virtual_time
async def test_an_answer_that_breaks_the_contract_is_an_error() -> None:
    it = Subject(1)
    [call] = it.submit()
    it.workers[0].report(Kind.RESULT, 1, tensors=[["y", [1], 0, 4]])
    assert isinstance(error_of(call), ResponseError)
    assert (it.workers[0].numbers, it.dispatcher.active.count) == ([], 0)


@in_virtual_time
async def test_a_message_that_cannot_be_read_leaves_the_call_on_the_worker() -> None:
    it = Subject(1)
    it.submit()
    with pytest.raises(LookupError):
        it.workers[0].report(Kind.ERROR, 1)
    assert (it.workers[0].numbers, it.dispatcher.active.count) == ([1], 1)
    it.workers[0].end(7)  # about no call: it is ignored
    assert it.workers[0].served == 0


@in_virtual_time
async def test_a_call_that_cannot_be_sent_fails_alone() -> None:
    it = Subject(1)
    it.workers[0].error = MemoryError("too big")
    [call] = it.submit()
    text = 'request to model "iris" cannot be sent to its worker: too big'
    assert (type(error_of(call)), str(error_of(call))) == (RequestError, text)
    assert (it.workers[0].numbers, it.dispatcher.active.count) == ([], 0)


@pytest.mark.parametrize("ends", [False, True])
@in_virtual_time
async def test_an_async_call_is_cancelled_at_its_limit_and_its_worker_killed_later(
    ends: bool,
) -> None:
    it = Subject(1, kind="async")
    [call] = it.submit()
    await asyncio.sleep(10)
    await turn()
    worker = it.workers[0]
    assert isinstance(error_of(call), TimeLimitError)
    assert (worker.sent[-1], worker.killed) == (("CANCEL", 1), [])
    await asyncio.sleep(0.75)
    if ends:
        worker.end(1)
    await asyncio.sleep(1)
    assert [killed[2] for killed in worker.killed] == ([] if ends else [11])


@pytest.mark.parametrize(
    ("kind", "sent", "killed"),
    [
        ("sync", [], 10),
        ("async", [("CANCEL", 1)], 16),
        ("generator", [("CLOSE", 1)], 15),
        ("async generator", [("CANCEL", 1)], 16),
    ],
)
@in_virtual_time
async def test_a_call_that_nobody_waits_for_is_ended_if_it_can_be(
    kind: str, sent: list[Any], killed: float
) -> None:
    it = Subject(1, kind=kind)
    [call] = it.submit()
    await asyncio.sleep(5)
    it.dispatcher.leave(call)
    worker = it.workers[0]
    assert call.future.cancelled()
    assert (worker.sent[1:], worker.numbers) == (sent, [1])
    await asyncio.sleep(20)
    assert worker.killed[0][2] == killed
    worker.end(1)
    sent = list(worker.sent)
    it.dispatcher.leave(call)
    assert (worker.sent, it.dispatcher.active.count) == (sent, 0)


@pytest.mark.parametrize(
    ("kind", "message"), [("generator", "CLOSE"), ("async generator", "CANCEL")]
)
@in_virtual_time
async def test_a_stream_between_two_items_is_closed(kind: str, message: str) -> None:
    it = Subject(1, kind=kind)
    [call] = it.submit()
    it.workers[0].report(Kind.ITEM, 1)
    it.dispatcher.leave(call)
    assert it.workers[0].sent[1:] == [(message, 1)]
    it.workers[0].report(Kind.END, 1)
    await asyncio.sleep(100)
    assert (it.workers[0].killed, it.dispatcher.active.count) == ([], 0)


@in_virtual_time
async def test_a_call_that_is_left_while_it_waits_leaves_the_queue() -> None:
    it = Subject(1)
    calls = it.submit(3)
    it.dispatcher.leave(calls[1])
    it.dispatcher.leave(calls[1])
    assert (it.waiting, it.dispatcher.active.count) == (1, 2)
    it.workers[0].end(1)
    assert it.workers[0].numbers == [3]


def die(it: Subject, index: int = 0) -> None:
    it.dispatcher.on_exit(it.workers[index], Exit("signal", "was killed by SIGSEGV"))  # type: ignore[arg-type]


@in_virtual_time
async def test_a_call_on_a_worker_that_dies_fails_and_one_behind_it_goes_elsewhere() -> None:
    it = Subject(2)
    it.make_brief()
    calls = it.submit(6)
    one, two = it.workers
    assert (one.numbers, two.numbers) == ([1, 3, 5], [2, 4, 6])
    die(it)
    assert isinstance(error_of(calls[0]), WorkerError)
    assert str(error_of(calls[0])) == (
        'the call was on worker 0 of model "iris", which was killed by SIGSEGV'
    )
    assert (one.numbers, two.numbers, it.up) == ([], [2, 4, 6, 3, 5], 1)
    assert it.dispatcher.active.count == 5


@in_virtual_time
async def test_a_call_that_had_begun_is_repeated_once_if_it_may_be() -> None:
    it = Subject(2, idempotent=True)
    [call] = it.submit()
    die(it)
    assert it.workers[1].numbers == [1]
    die(it, 1)
    assert isinstance(error_of(call), WorkerError)
    assert it.dispatcher.active.count == 0


@in_virtual_time
async def test_calls_that_are_repeated_keep_their_order_and_those_that_ended_do_not_count() -> None:
    it = Subject(2, idempotent=True, concurrency=3)
    calls = it.submit(6)
    it.dispatcher.remove(it.workers[1])  # type: ignore[arg-type]
    calls[2].future.cancel()
    die(it)
    assert it.waiting == 0
    it.dispatcher.add(it.workers[1])  # type: ignore[arg-type]
    it.workers[1].end(2)
    assert it.workers[1].numbers == [4, 6, 1]
    it.workers[1].end(4)
    assert it.workers[1].numbers == [6, 1, 5]
    assert it.dispatcher.active.count == 3


@in_virtual_time
async def test_a_stream_that_has_given_an_item_is_not_repeated() -> None:
    it = Subject(2, kind="generator", idempotent=True)
    [call] = it.submit()
    it.workers[0].report(Kind.ITEM, 1)
    it.dispatcher.next_item(call)
    die(it)
    assert isinstance(error_of(call), WorkerError)
    assert it.workers[1].numbers == []


@in_virtual_time
async def test_calls_are_refused_while_no_worker_can_be_started() -> None:
    it = Subject(0)
    calls = it.submit(2)
    it.dispatcher.refuse("it crashes")
    for call in calls:
        error = error_of(call)
        assert isinstance(error, OverloadedError)
        assert str(error) == 'model "iris" has no worker: it crashes'
        assert error.retry_after == 5
    with pytest.raises(OverloadedError, match="it crashes"):
        it.submit()
    assert (it.waiting, it.dispatcher.active.count) == (0, 0)
    worker: Any = Worker(it, 0)
    it.dispatcher.add(worker)
    it.submit()
    assert worker.numbers == [2 + 1]


@in_virtual_time
async def test_a_closed_dispatcher_refuses_calls_that_wait_and_those_of_workers_that_die() -> None:
    it = Subject(1, idempotent=True)
    calls = it.submit(2)
    it.dispatcher.close()
    assert str(error_of(calls[1])) == 'model "iris" is not loaded'
    with pytest.raises(OverloadedError, match="is not loaded"):
        it.submit()
    die(it)
    assert str(error_of(calls[0])) == 'model "iris" is not loaded'
    assert (it.waiting, it.dispatcher.active.count) == (0, 0)


@in_virtual_time
async def test_calls_that_wait_go_to_a_worker_that_is_added() -> None:
    it = Subject(0, concurrency=2)
    it.submit(3)
    worker: Any = Worker(it, 0)
    it.dispatcher.add(worker)
    assert (worker.numbers, it.waiting, it.up) == ([1, 2], 1, 1)
    it.dispatcher.remove(worker)
    it.dispatcher.remove(worker)
    worker.end(1)
    assert (worker.numbers, it.up) == ([2], 0)


@in_virtual_time
async def test_a_call_whose_worker_died_expires_while_it_waits_for_another() -> None:
    it = Subject(1, idempotent=True)
    calls = it.submit(2)
    die(it)
    await asyncio.sleep(5)
    it.dispatcher.leave(calls[1])
    assert it.dispatcher.active.count == 1
    await asyncio.sleep(5)
    await turn()
    assert isinstance(error_of(calls[0]), TimeLimitError)
    assert (it.dispatcher.active.count, it.workers[0].killed) == (0, [])


@in_virtual_time
async def test_a_call_that_was_taken_back_expires_while_it_waits_for_another_worker() -> None:
    it = Subject(2)
    one, two = it.workers
    it.make_brief()
    calls = it.submit(5)
    two.end(2, seconds=5e-5)
    two.end(4, seconds=5e-5)
    for worker in it.workers:
        worker.logged_recently = True
    one.tokens = 2
    await asyncio.sleep(dispatching._CHECK_SECONDS)
    assert (one.numbers, two.numbers) == ([1], [3])
    it.dispatcher.leave(calls[4])
    assert it.dispatcher.active.count == 2


@in_virtual_time
async def test_a_call_that_would_be_prefetched_is_refused_if_as_many_wait_as_may() -> None:
    it = Subject(2, max_queue=2)
    one, two = it.workers
    it.make_brief()
    two.taken_back = 1
    it.submit(3)
    two.taken_back = 0
    it.submit()
    assert (one.numbers, two.numbers) == ([1, 2, 3], [4])
    with pytest.raises(OverloadedError):
        it.submit()


@in_virtual_time
async def test_a_call_that_has_waited_a_moment_may_run_for_its_limit_too() -> None:
    it = Subject(1)
    it.submit(2)
    await asyncio.sleep(0.5)
    it.workers[0].end(1, seconds=0.5)
    await asyncio.sleep(20)
    assert it.workers[0].killed[0][2] == 10.5


@in_virtual_time
async def test_a_call_that_has_ended_does_not_expire() -> None:
    it = Subject(1, kind="async")
    it.submit()
    it.workers[0].end(1)
    await asyncio.sleep(20)
    assert it.workers[0].sent == [("CALL", 1)]


@in_virtual_time
async def test_a_call_that_nobody_waits_for_counts_with_all_of_its_time() -> None:
    it = Subject(1, kind="async")
    [call] = it.submit()
    await asyncio.sleep(5)
    it.dispatcher.leave(call)
    await asyncio.sleep(2)
    it.workers[0].end(1)
    assert it.dispatcher._limit.typical.seconds == 7


@pytest.mark.parametrize(
    ("fields", "sent"), [((), ["CALL"]), (("cancelled",), ["CALL", "CANCEL"])], ids=str
)
@in_virtual_time
async def test_a_sync_handler_is_told_that_its_client_has_left_if_it_asks(
    fields: tuple[str, ...], sent: list[str]
) -> None:
    it = Subject(1, fields=fields)
    [call], [worker] = it.submit(), it.workers
    call.future.cancel()
    it.dispatcher.leave(call)
    assert [kind for kind, _ in worker.sent] == sent
    worker.end(1)
    assert (it.dispatcher.active.count, worker.killed) == (0, [])


@pytest.mark.parametrize(
    ("more", "calls"),
    [({}, 3), ({"fields": ("cancelled",)}, 1), ({"cancel": "kill"}, 1)],
    ids=str,
)
@in_virtual_time
async def test_no_calls_are_prefetched_behind_one_that_can_be_ended(
    more: dict[str, Any], calls: int
) -> None:
    it = Subject(1, **more)
    it.make_brief()
    it.submit(3)
    assert len(it.workers[0].calls) == calls


@pytest.mark.parametrize(
    ("kind", "seconds"),
    [("sync", 0), ("async", 1), ("generator", 1), ("async generator", 1)],
)
@in_virtual_time
async def test_the_worker_of_a_call_that_is_left_is_killed_if_the_function_says_so(
    kind: str, seconds: float
) -> None:
    it = Subject(1, kind=kind, cancel="kill")
    [call], [worker] = it.submit(), it.workers
    await asyncio.sleep(2)
    call.future.cancel()
    it.dispatcher.leave(call)
    await asyncio.sleep(5)
    text = "was stopped when the client of another call left (serving.cancel: kill)"
    assert worker.killed == [("cancel", text, 2 + seconds)]
    assert it.dispatcher.workers == []


@pytest.mark.parametrize("kind", ["async", "generator", "async generator"])
@in_virtual_time
async def test_a_worker_whose_call_ends_soon_is_not_killed(kind: str) -> None:
    it = Subject(1, kind=kind, cancel="kill")
    [call], [worker] = it.submit(), it.workers
    call.future.cancel()
    it.dispatcher.leave(call)
    await asyncio.sleep(0.5)
    worker.report(Kind.END, 1)
    await asyncio.sleep(100)
    assert (worker.killed, it.dispatcher.active.count) == ([], 0)
