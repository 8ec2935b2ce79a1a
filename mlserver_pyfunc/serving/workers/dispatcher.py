"""Chooses the worker for each call, queues calls, and ends calls that fail or expire.

Brief calls are prefetched: a worker gets several while it is busy, and those behind a long one are
taken back. docs/design/worker-protocol.md says why, and what does not work.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque

from mlserver_pyfunc.definition import ServingDefinition
from mlserver_pyfunc.errors import OverloadedError, RequestError, WorkerError
from mlserver_pyfunc.handler.call import InferenceCall
from mlserver_pyfunc.protocol.contract import Contract
from mlserver_pyfunc.serving import limits
from mlserver_pyfunc.serving.metrics import WORKERS_UP, FunctionMetrics
from mlserver_pyfunc.serving.runner import HandlerInfo

from .pending import PendingCall
from .process import Exit
from .wire.durations import BRIEF_SECONDS
from .wire.messages import Kind, Message
from .worker import Worker

CANCEL_SECONDS = 1.0
"""How long a cancelled async handler may take to end, before its worker is killed."""

MAX_CALLS = 32
"""Largest number of calls that a worker has if they are brief."""

MAX_BYTES = 16 * 2**20
"""Shared memory, in bytes, from which on a worker gets no more calls in advance."""

_CHECK_SECONDS = 0.002
"""Longest time that a result may stay unnoticed if the worker's next call is long."""


class Dispatcher:
    """Distributes calls over workers. All methods are for the event loop's thread."""

    def __init__(
        self, contract: Contract, serving: ServingDefinition, metrics: FunctionMetrics
    ) -> None:
        self.active = limits.ActiveCalls()
        self.handler_info = HandlerInfo()  # as the last loaded worker has reported it
        self.refusal = ""  # why calls are refused; empty while they are accepted
        self._closed = False
        self._contract = contract
        self._limit = limits.TimeLimit(contract.model_name, serving.timeout)
        self._serving = serving
        self._metrics = metrics
        self.workers: list[Worker] = []  # those that get calls
        self._queue: deque[PendingCall] = deque()
        self._numbers = itertools.count(1)
        self._loop = asyncio.get_running_loop()
        self._prefetches = False
        self._checks: dict[Worker, int] = {}

    def add(self, worker: Worker) -> None:
        self.refusal = ""
        info, serving = self.handler_info, self._serving
        # Only calls that run one by one, and whose end nobody asks for, are prefetched.
        is_stoppable = serving.cancel == "kill" or "cancelled" in info.required_fields
        self._prefetches = serving.concurrency == 1 and info.kind == "sync" and not is_stoppable
        self.workers.append(worker)
        self._metrics.set(WORKERS_UP, len(self.workers))
        self._send_waiting(worker)

    def remove(self, worker: Worker) -> None:
        if worker in self.workers:
            self.workers.remove(worker)
            self._metrics.set(WORKERS_UP, len(self.workers))

    def refuse(self, reason: str) -> None:
        """Refuses calls that wait and calls to come, until a worker is added."""
        self.refusal = reason
        self._drop_waiting()

    def close(self) -> None:
        """Refuses calls that wait, and those of workers that end: the function is unloaded."""
        self._closed = True
        self._drop_waiting()

    def submit(self, call: InferenceCall) -> PendingCall:
        """Sends a call to the least busy worker, or queues it until a worker has room.

        Raises an OverloadedError if the queue is full or no worker can be started.
        """
        if self._closed or self.refusal:
            raise self._refused()
        worker = self._free_worker()
        if self._is_full(worker):
            calls = self._serving.workers * self._serving.concurrency
            running = f"{calls} calls at a time (serving.workers times serving.concurrency)"
            waiting = f"{self._serving.max_queue}"
            raise limits.queue_full(self._contract.model_name, running, waiting)
        pending = PendingCall(call, next(self._numbers), self._loop.create_future())
        self._start_timer(pending)
        self.active.add()
        if worker is None:
            pending.wait = self._metrics.enter_queue(call.trace)
            self._queue.append(pending)
        else:
            self._send(worker, pending, pending.deadline)
        return pending

    def next_item(self, pending: PendingCall) -> None:
        """Asks for items of a stream, since all have been read; raises the error that ended it."""
        if pending.failure is not None:
            raise pending.failure
        pending.future = self._loop.create_future()
        if pending.ended:
            pending.future.set_result(None)
            return
        assert pending.worker is not None
        self._start_timer(pending)
        pending.worker.process.connection.send(Kind.NEXT, pending.number)

    def leave(self, pending: PendingCall) -> None:
        """Gives up a call that nobody waits for any more.

        A call on a worker keeps its place until it has ended. The handler is cancelled if it is
        async, closed if it is a generator, and told if it asks.
        """
        worker = pending.worker
        pending.end_span(asyncio.CancelledError())
        if worker is None:
            if pending in self._queue:
                self._queue.remove(pending)
                self._end(pending)
            return
        if pending.number not in worker.calls:
            return
        info, send = self.handler_info, worker.process.connection.send
        ends_soon = info.streams or info.can_cancel
        if info.streams and not info.can_cancel:
            send(Kind.CLOSE, pending.number)
        elif info.can_cancel or "cancelled" in info.required_fields:
            send(Kind.CANCEL, pending.number)
        if ends_soon:
            # The handler gets its time limit once more to end. Then its worker is killed.
            self._start_timer(pending)
        if self._serving.cancel == "kill":
            seconds = CANCEL_SECONDS if ends_soon else 0
            self._loop.call_later(seconds, self._kill, pending, "cancel")
        if pending.future.done():
            pending.future = self._loop.create_future()
        pending.future.cancel()

    def on_message(self, worker: Worker, message: Message) -> None:
        """Handles a worker's message about one of its calls.

        Raises any Exception if a value of the message is missing or wrong. The call goes on then.
        """
        if message.kind is Kind.DROPPED:
            worker.taken_back -= 1
            self._send_waiting(worker)
            return
        pending = worker.calls.get(message.call)
        if pending is None:
            return
        if message.kind is Kind.SPANS:
            if pending.span:
                pending.span.add(message.values["spans"])
            return
        if message.kind is Kind.ITEM:
            self._stop_timer(pending)
            pending.begun = True
            pending.set_answer(message, self._contract)
            return
        # Read first: an error here kills the worker, which must still have the call then.
        if message.kind is Kind.RESULT:
            pending.set_answer(message, self._contract)
        elif message.kind is Kind.ERROR:
            pending.set_error(message, self._contract.model_name)
        else:
            pending.ended = True
            if not pending.future.done():
                pending.future.set_result(None)
        del worker.calls[pending.number]
        worker.count_call()
        self._end(pending)
        if worker.calls and self._prefetches:
            # The worker begins its next prefetched call.
            following = next(iter(worker.calls.values()))
            following.runs_until = following.runs_until or self._loop.time() + self._limit.seconds
        if not self.handler_info.streams:
            # Some workers do not measure their calls, those of async handlers.
            seconds = self._loop.time() - pending.runs_until + self._limit.seconds
            self._limit.typical.add(message.seconds or seconds)
        self._send_waiting(worker)

    def on_exit(self, worker: Worker, exit_: Exit) -> None:
        self.remove(worker)
        calls, worker.calls = worker.calls, {}
        for place, pending in reversed(list(enumerate(calls.values()))):
            pending.worker = None
            pending.end_span(WorkerError(""))
            has_begun = place < self._serving.concurrency
            is_repeated = self._serving.idempotent and not pending.retried and not pending.begun
            if not pending.future.done() and (not has_begun or is_repeated):
                pending.retried = pending.retried or has_begun
                self._queue.appendleft(pending)
                continue
            where = f'worker {worker.index} of model "{self._contract.model_name}"'
            self._drop(pending, WorkerError(f"the call was on {where}, which {exit_.text}"))
        for other in list(self.workers):
            self._send_waiting(other)
        if self._closed:
            self._drop_waiting()

    def _free_worker(self) -> Worker | None:
        free = None
        for worker in self.workers:
            less = free is None or len(worker.calls) < len(free.calls)
            if less and self._has_room(worker):
                free = worker
        return free

    def _has_room(self, worker: Worker) -> bool:
        if worker.taken_back:
            return False
        calls = len(worker.calls)
        if calls < self._serving.concurrency:
            return True
        return (
            self._prefetches
            and calls < MAX_CALLS
            and worker.process.connection.memory_used < MAX_BYTES
            and self._limit.typical.seconds < BRIEF_SECONDS
            # A printed line is logged with a request's id only if the worker has a single call.
            and not worker.logged_recently
        )

    def _count_waiting(self, worker: Worker) -> int:
        return max(len(worker.calls) - self._serving.concurrency, 0)

    def _is_full(self, free: Worker | None) -> bool:
        """Whether the queue is full. Prefetched calls count as waiting."""
        if free is not None and len(free.calls) < self._serving.concurrency:
            return False
        prefetched = sum(map(self._count_waiting, self.workers))
        return len(self._queue) + prefetched >= self._serving.max_queue

    def _send_waiting(self, worker: Worker) -> None:
        """Sends calls from the queue. A call that cannot end within its time limit is dropped."""
        while self._queue and worker in self.workers and self._has_room(worker):
            pending, now = self._queue.popleft(), self._loop.time()
            error = self._limit.too_late(pending.deadline - now)
            if error and not self.handler_info.streams:
                self._drop(pending, error)
            else:
                self._send(worker, pending, now + self._limit.seconds)

    def _take_back(self, worker: Worker) -> None:
        """Gives the calls that a worker has not begun to other workers, if one has room."""
        others = [w for w in self.workers if w is not worker and self._has_room(w)]
        if not others:
            return
        taken = worker.process.connection.take_back()
        worker.taken_back += taken
        for number in list(worker.calls)[: -taken - 1 : -1]:
            pending = worker.calls.pop(number)
            pending.worker = None
            pending.end_span()
            if pending.future.done():
                self._end(pending)
            else:
                self._queue.appendleft(pending)
        for other in others:
            self._send_waiting(other)

    def _send(self, worker: Worker, pending: PendingCall, runs_until: float) -> None:
        """Sends a call to a worker that has room. `runs_until` holds if the worker is idle."""
        call = pending.call
        specs = call.specs
        named = [(specs[name], array) for name, array in call.inputs.items()]
        required_fields = self.handler_info.required_fields
        head = pending.head(required_fields) if required_fields else None
        if call.trace:
            pending.span = call.trace.below("worker", attributes={"pyfunc.worker": worker.index})
            head = {**(head or {}), "trace": pending.span.for_worker(call.id)}
        pending.end_wait()
        pending.worker = worker
        worker.calls[pending.number] = pending
        waits = len(worker.calls) > self._serving.concurrency
        pending.runs_until = 0.0 if waits else runs_until
        self._check_later(worker)
        connection = worker.process.connection
        together = len(worker.calls) > 1 or connection.sent_several
        try:
            connection.send(
                Kind.CALL, pending.number, head, named,
                request_id=call.id,
                coalesce=self._prefetches and together,
                needs_token=waits and self._serving.workers > 1,
            )  # fmt: skip
        except (TypeError, ValueError, RecursionError, MemoryError) as error:
            del worker.calls[pending.number]
            name = self._contract.model_name
            text = f'request to model "{name}" cannot be sent to its worker: {error}'
            self._drop(pending, RequestError(text))

    def _check_later(self, worker: Worker) -> None:
        """Starts to check a worker that has several calls, until it has one or none."""
        if self._prefetches and len(worker.calls) > 1 and worker not in self._checks:
            self._checks[worker] = next(iter(worker.calls))
            self._loop.call_later(_CHECK_SECONDS, self._check, worker)

    def _check(self, worker: Worker) -> None:
        first = self._checks.pop(worker)
        worker.process.connection.receive()
        if len(worker.calls) > 1 and next(iter(worker.calls)) == first:
            self._take_back(worker)
        waiting = self._count_waiting(worker)
        if waiting != worker.reported_waiting:
            self._metrics.change_depth(waiting - worker.reported_waiting)
            worker.reported_waiting = waiting
        self._check_later(worker)

    def _start_timer(self, pending: PendingCall) -> None:
        self._stop_timer(pending)
        pending.deadline = self._loop.time() + self._limit.seconds
        pending.timer = self._loop.call_at(pending.deadline, self._expire, pending)

    def _stop_timer(self, pending: PendingCall) -> None:
        if pending.timer is not None:
            pending.timer.cancel()

    def _expire(self, pending: PendingCall) -> None:
        pending.fail(self._limit.passed())
        worker = pending.worker
        if worker is None:
            self._queue.remove(pending)
            self._end(pending)
            return
        if self.handler_info.can_cancel:
            worker.process.connection.send(Kind.CANCEL, pending.number)
            self._loop.call_later(CANCEL_SECONDS, self._kill, pending)
            return
        self._kill(pending)

    def _kill(self, pending: PendingCall, reason: str = "timeout") -> None:
        """Kills the worker of a call, as soon as it has run for its time limit; `cancel`: now."""
        worker = pending.worker
        if worker is None or pending.number not in worker.calls:
            return
        remaining = self._serving.timeout
        if pending.runs_until:
            remaining = pending.runs_until - self._loop.time()
        cause = f"another call passed its limit of {self._serving.timeout:g} s (serving.timeout)"
        if reason == "cancel":
            cause = "the client of another call left (serving.cancel: kill)"
        elif remaining > 0:
            self._loop.call_later(remaining, self._kill, pending)
            return
        self.remove(worker)
        worker.process.kill(reason, f"was stopped when {cause}")

    def _drop(self, pending: PendingCall, error: RequestError) -> None:
        self._end(pending)
        pending.fail(error)

    def _end(self, pending: PendingCall) -> None:
        self._stop_timer(pending)
        pending.end_wait()
        pending.end_span()
        self.active.remove()

    def _drop_waiting(self) -> None:
        while self._queue:
            self._drop(self._queue.popleft(), self._refused())

    def _refused(self) -> RequestError:
        if self._closed:
            return limits.not_loaded(self._contract.model_name)
        return OverloadedError(
            f'model "{self._contract.model_name}" has no worker: {self.refusal}', retry_after=5
        )
