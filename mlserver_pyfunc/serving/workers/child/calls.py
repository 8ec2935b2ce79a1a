"""Runs calls in a worker: from the server's message to the handler and back."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from mlserver_pyfunc.errors import RequestError, ResponseError
from mlserver_pyfunc.handler.binding import CallPlan
from mlserver_pyfunc.handler.call import InferenceCall, handler_error, request_id
from mlserver_pyfunc.handler.context import Context
from mlserver_pyfunc.handler.outcome import Outcome, outcome_of
from mlserver_pyfunc.handler.results import name_values
from mlserver_pyfunc.protocol.contract import AxisSizes, Contract, companions
from mlserver_pyfunc.serving.relay import AHEAD, AHEAD_SECONDS
from mlserver_pyfunc.serving.workers.wire.codec import read_tensors
from mlserver_pyfunc.serving.workers.wire.durations import BRIEF_SECONDS, TypicalDuration
from mlserver_pyfunc.serving.workers.wire.messages import Kind, Message

from .channel import Channel

TRACEBACK_CHARS = 20_000
_OF_REQUEST = ("parameters", "headers", "outputs", "tensor_parameters")


class LoopThread:
    """An event loop on a thread of its own. The thread starts when it is first needed."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._run, name="pyfunc-loop", daemon=True).start()
            return self._loop

    def run(self, awaitable: Awaitable[Any]) -> Outcome[Any]:
        """Awaits user code on the loop and returns its outcome. For other threads."""
        outcome = outcome_of(lambda: awaitable)
        return asyncio.run_coroutine_threadsafe(outcome, self.loop).result()

    def _run(self) -> None:
        assert self._loop is not None
        asyncio.set_event_loop(self._loop)
        while True:
            # A SystemExit in a task of user code ends `run_forever`. It must not end the worker.
            with suppress(BaseException):
                self._loop.run_forever()


class Lead:
    """How far a generator is ahead of the server, which says when it has read all items."""

    def __init__(self) -> None:
        self._items = 0
        self._since = time.monotonic()

    def is_long(self) -> bool:
        """Counts an item, and returns whether the generator has to wait for the server."""
        self._items += 1
        return self._items >= AHEAD or time.monotonic() - self._since > AHEAD_SECONDS

    def goes_on(self, wish: bool | None) -> bool:
        """Returns whether the generator makes another item, by what the server has said."""
        if wish:
            self._items = 0
            self._since = time.monotonic()
        return wish is not False


@dataclass(eq=False)
class Calls:
    """Runs the calls of one handler."""

    channel: Channel
    plan: CallPlan
    contract: Contract
    context: Context
    loop: LoopThread
    memory_note: str
    recorder: Any = None  # of `spans.py`

    def __post_init__(self) -> None:
        self._process = os.getpid()
        self._typical = TypicalDuration()
        self._demands: dict[int, Callable[[bool], object]] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._events: dict[int, threading.Event] = {}  # of calls that ask if they are cancelled
        self._spans: dict[int, list[dict[str, Any]]] = {}  # of calls that are recorded

    def begin(self, message: Message) -> None:
        """Notes a call before it starts. For the thread that reads the messages."""
        if "cancelled" in self.plan.required_fields:
            self._events[message.call] = threading.Event()

    def answer(self, message: Message) -> None:
        number = message.call
        self._enter(message)
        started = time.perf_counter()
        try:
            result, sizes = self._start(message)
            if hasattr(result, "__await__"):
                result = self.loop.run(result).get()
            self._send_result(Kind.RESULT, number, result, sizes, started)
        except BaseException as error:
            self._send_error(number, error, started)
        finally:
            self._events.pop(number, None)

    def stream(self, message: Message, demand: Callable[[bool], bool | None]) -> None:
        """Iterates a generator.

        `demand` returns whether the server wants more, and None if it has said nothing and need
        not be waited for.
        """
        with self._streaming(message):
            items, sizes = self._start(message)
            lead = Lead()
            with closing(items):
                for item in items:
                    self._send_result(Kind.ITEM, message.call, item, sizes)
                    del item
                    if not lead.goes_on(demand(lead.is_long())):
                        break

    def new_demand(self, message: Message) -> Callable[[bool], bool | None]:
        """Returns the `demand` for `stream` if another thread reads the messages."""
        wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._demands[message.call] = wanted.put
        return lambda waits: wanted.get() if waits or not wanted.empty() else None

    def control(self, message: Message) -> None:
        number = message.call
        if message.kind is not Kind.NEXT and (event := self._events.get(number)):
            event.set()
        if message.kind is Kind.CANCEL:
            if self.plan.kind.startswith("async"):
                self.loop.loop.call_soon_threadsafe(self._cancel, number)
            return
        if demand := self._demands.get(number):
            demand(message.kind is Kind.NEXT)

    def start_async(self, message: Message) -> None:
        number, loop = message.call, self.loop.loop
        if self.plan.kind == "async":
            run = self._answer_async(message)
        else:
            wanted: asyncio.Queue[bool] = asyncio.Queue()
            self._demands[number] = lambda more: loop.call_soon_threadsafe(wanted.put_nowait, more)
            run = self._stream_async(message, wanted)

        def start() -> None:
            self._tasks[number] = task = loop.create_task(run)
            task.add_done_callback(lambda _: self._tasks.pop(number, None))
            task.add_done_callback(lambda _: self._events.pop(number, None))

        loop.call_soon_threadsafe(start)

    async def _answer_async(self, message: Message) -> None:
        number = message.call
        self._enter(message)
        try:
            result, sizes = self._start(message)
            self._send_result(Kind.RESULT, number, await result, sizes)
        except BaseException as error:
            self._send_error(number, error)

    async def _stream_async(self, message: Message, wanted: asyncio.Queue[bool]) -> None:
        with self._streaming(message):
            items, sizes = self._start(message)
            lead = Lead()
            async with aclosing(items):
                async for item in items:
                    self._send_result(Kind.ITEM, message.call, item, sizes)
                    del item
                    waits = lead.is_long() or not wanted.empty()
                    if not lead.goes_on(await wanted.get() if waits else None):
                        break

    @contextmanager
    def _streaming(self, message: Message) -> Iterator[None]:
        self._enter(message)
        try:
            yield
        except BaseException as error:
            self._send_error(message.call, error)
        else:
            self._send_spans(message.call)
            self.channel.send(Kind.END, message.call)
        finally:
            self._demands.pop(message.call, None)
            self._events.pop(message.call, None)

    def _enter(self, message: Message) -> None:
        """Notes the request for log lines, and begins its spans if it is recorded."""
        told, records = message.values.get("trace"), None
        request_id.set(told["label"] if told else message.id)
        if told:
            handler = {"name": "handler", "kind": 0, "start": time.time_ns(), "events": ()}
            records = self._spans[message.call] = [{**handler, **told["ids"]}]
        if self.recorder:
            self.recorder.enter(told or {}, records)

    def _send_spans(self, number: int, error: BaseException | None = None) -> None:
        if records := self._spans.pop(number, None):
            attributes: dict[str, Any] = {"error.type": type(error).__qualname__} if error else {}
            ended = {"end": time.time_ns(), "status": (2 if error else 0, None)}
            records[0] |= {**ended, "attributes": attributes}
            try:
                self.channel.send(Kind.SPANS, number, {"spans": records})
            except (MemoryError, TypeError, ValueError):  # too many, or no JSON
                attributes["pyfunc.lost_spans"] = len(records) - 1
                self.channel.send(Kind.SPANS, number, {"spans": records[:1]})

    def _cancel(self, number: int) -> None:
        if task := self._tasks.get(number):
            task.cancel()

    def _start(self, message: Message) -> tuple[Any, AxisSizes]:
        """Calls the handler. Returns its result, and the sizes that the outputs must have."""
        contract = self.contract
        lenient = "requests" in contract.lenient
        inputs = read_tensors(message, contract.all_inputs, lenient=lenient)
        # Only the arrays hold the tensors now. When user code drops the last array on a region
        # of shared memory, the region goes back to the server.
        message.body = b""
        # Before the call: a handler may change its dictionary of inputs.
        sizes = contract.axis_sizes(inputs)
        call = InferenceCall(self.context, inputs, contract.input_specs(inputs), message)
        if event := self._events.get(message.call):
            vars(call)["cancelled"] = event
        sent = message.values
        if len(sent) > 1:  # more than the tensors: what the handler takes of the request
            vars(call).update((name, sent[name]) for name in _OF_REQUEST if name in sent)
        return self.plan(call), sizes

    def _send_result(
        self, kind: Kind, number: int, result: Any, sizes: AxisSizes, started: float = 0
    ) -> None:
        named = name_values(self.contract, result)
        checked = self.contract.encode_outputs(named.values, sizes)
        outputs = [(item.spec, item.array) for item in (*checked, *companions(checked))]
        self._leave_if_forked()
        seconds = self._measure(started)
        head = {"parameters": dict(named.parameters)} if named.parameters else None
        try:
            packet = self.channel.codec.encode(kind, number, head, outputs, seconds=seconds)
        except (TypeError, ValueError) as error:
            raise ResponseError(
                f'response parameters of model "{self.contract.model_name}": '
                f"expected what JSON can carry: {error}"
            ) from None
        if kind is Kind.RESULT:
            self._send_spans(number)
        is_brief = started > 0 and self._typical.seconds < BRIEF_SECONDS
        self.channel.post(packet, coalesce=is_brief)

    def _measure(self, started: float) -> float:
        if not started:
            return 0
        seconds = time.perf_counter() - started
        self._typical.add(seconds)
        return seconds

    def _send_error(self, number: int, error: BaseException, started: float = 0) -> None:
        self._leave_if_forked()
        self._send_spans(number, error)
        text = ""
        if not isinstance(error, RequestError):
            with suppress(BaseException):
                text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
            note = self.memory_note if isinstance(error, MemoryError) else ""
            error = handler_error(self.contract.model_name, error, request_id.get(), note)
        head = {
            "error": type(error).__name__,
            "message": str(error),
            "status": error.status,
            "traceback": text[-TRACEBACK_CHARS:],
        }
        codec = self.channel.codec
        self.channel.post(codec.encode(Kind.ERROR, number, head, seconds=self._measure(started)))

    def _leave_if_forked(self) -> None:
        if os.getpid() != self._process:
            os._exit(0)
