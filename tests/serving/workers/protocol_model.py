"""Explores what can happen between the server and its workers, in every order.

The server's side is the real dispatcher with real connections, the worker's the real channel. What
the model replaces is only what decides about order: the event loop, the handler and the processes.
So each thing that may happen next is a step, and `explore` takes the steps in all orders, with
sockets and eventfds of the kernel. A state that was seen before is not explored again.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from mlserver_pyfunc.definition import ServingDefinition
from mlserver_pyfunc.errors import OverloadedError, RequestError, WorkerError
from mlserver_pyfunc.handler.call import InferenceCall
from mlserver_pyfunc.protocol.contract import Contract, TensorSpec
from mlserver_pyfunc.protocol.tensors import DATATYPES
from mlserver_pyfunc.serving.workers.child.channel import Channel
from mlserver_pyfunc.serving.workers.connection import Connection
from mlserver_pyfunc.serving.workers.dispatcher import Dispatcher
from mlserver_pyfunc.serving.workers.process import Exit
from mlserver_pyfunc.serving.workers.wire.codec import Codec
from mlserver_pyfunc.serving.workers.wire.messages import Kind
from mlserver_pyfunc.serving.workers.wire.shared_memory import Reader, Writer
from mlserver_pyfunc.serving.workers.worker import HandlerInfo

Step = tuple[str, int]
"""What happens, and to which worker or call."""

FAULTS = ("die", "leave", "expire")
"""Steps that need not happen: a worker dies, a client leaves, a time limit passes."""

MOST_STEPS = 40
"""More than can happen to three calls, if nothing goes round in circles."""

_SPEC = TensorSpec("x", DATATYPES["FP32"], (1,))
_NUMBER = struct.Struct("<20xQ")


class Loop:
    """An event loop that runs a callback only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ready: deque[Callable[[], Any]] = deque()
        self.timers: list[SimpleNamespace] = []

    def time(self) -> float:
        return self.now

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)  # type: ignore[arg-type]

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> None:
        self.ready.append(partial(callback, *args))

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any) -> Any:
        return self.call_at(self.now + delay, callback, *args)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any) -> Any:
        timer = SimpleNamespace(when=when, run=partial(callback, *args))
        timer.cancel = lambda: timer in self.timers and self.timers.remove(timer)
        self.timers.append(timer)
        return timer

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        pass  # a call's error that nobody has asked for

    def add_reader(self, *_: Any) -> None:
        pass

    remove_reader = add_writer = remove_writer = add_reader


class Socket:
    """A socket that knows which calls the packets in it are about."""

    def __init__(self, real: socket.socket, sent: deque[Any], received: deque[Any]) -> None:
        self._real = real
        self._sent = sent
        self._received = received

    def send(self, packet: bytes) -> int:
        size = self._real.send(packet)
        self._sent.append((len(packet), _NUMBER.unpack_from(packet)[0]))
        return size

    def recv(self, size: int, flags: int = 0) -> bytes:
        packet = self._real.recv(size, flags)
        if packet:
            self._received.popleft()
        return packet

    def close(self) -> None:
        self._real.close()


class Worker:
    """A worker: what `worker.Worker` is to the dispatcher, and the program in its process."""

    def __init__(self, index: int, dispatcher: Dispatcher, idempotent: bool) -> None:
        self.index = index
        self.calls: dict[int, Any] = {}
        self.reported_waiting = self.taken_back = self.served = 0
        self.logged_recently = False
        self.is_killed = self.is_dead = self.is_reported = False
        self.running: int | None = None
        self.process = self
        on_message = partial(dispatcher.on_message, self)
        self.connection = Connection(dict.fromkeys(Kind, on_message), self._on_protocol_error)
        theirs, wakeup, tokens, inbound, outbound = map(os.dup, self.connection.passed)
        codec = Codec(Writer(outbound), Reader(inbound))
        self.to_worker: deque[Any] = deque()
        self.to_server: deque[Any] = deque()
        ours = Socket(self.connection._socket, self.to_worker, self.to_server)
        self.connection._socket = ours  # type: ignore[assignment]
        their_socket = Socket(socket.socket(fileno=theirs), self.to_server, self.to_worker)
        self.channel = Channel(their_socket, wakeup, tokens, codec)  # type: ignore[arg-type]
        self._descriptors = (wakeup, tokens, inbound, outbound)
        self.connection.start()

    def count_call(self) -> None:
        self.served += 1

    def kill(self, reason: str, text: str) -> None:
        self.is_killed = True

    def die(self) -> None:
        """Ends the process. The server does not know it yet."""
        self.is_dead, self.running = True, None
        self.channel._connection.close()
        for descriptor in self._descriptors:
            os.close(descriptor)

    def close(self) -> None:
        """Closes all that is still open."""
        if not self.is_dead:
            self.die()
        if not self.is_reported:
            self.connection.abandon()

    @property
    def can_take(self) -> bool:
        return self.running is None and bool(self.channel._received or self.to_worker)

    def count(self, descriptor: int) -> int:
        """Reads the count of an eventfd without changing it."""
        with open(f"/proc/self/fdinfo/{descriptor}") as file:
            line = next(line for line in file if line.startswith("eventfd-count:"))
        return int(line.split()[1], 16)

    def _on_protocol_error(self, error: Exception) -> None:
        raise error


@dataclass(frozen=True)
class Setting:
    """What is explored.

    Attributes:
        calls: Number of calls.
        workers: Number of workers.
        idempotent: Whether a call may run again if its worker dies.
        faults: How many of each of `FAULTS` may happen.
        max_queue: Calls that may wait.
    """

    calls: int = 3
    workers: int = 2
    idempotent: bool = False
    faults: tuple[tuple[str, int], ...] = ()
    max_queue: int = 64


class World:
    """A server with workers, and the calls that it has got."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.loop = Loop()
        asyncio._set_running_loop(self.loop)  # type: ignore[arg-type]
        serving = ServingDefinition(
            isolation="process",
            workers=setting.workers,
            timeout=100,
            idempotent=setting.idempotent,
            max_queue=setting.max_queue,
        )
        metrics: Any = SimpleNamespace(
            set=lambda _, __: None,
            enter_queue=lambda _: SimpleNamespace(end=lambda: None),
            change_depth=lambda _: None,
        )
        contract = Contract("m", [_SPEC], [_SPEC])
        self.dispatcher = Dispatcher(contract, serving, metrics)
        self.dispatcher.handler_info = HandlerInfo("sync", frozenset(), "", "")
        self.pending: list[Any] = []
        self.refused = 0
        self.runs: Counter[int] = Counter()
        self.finished: Counter[int] = Counter()
        self.faults: Counter[str] = Counter(dict(setting.faults))
        self.workers: list[Worker] = []
        for _ in range(setting.workers):
            self._add_worker()

    def close(self) -> None:
        for worker in self.workers:
            worker.close()
        for pending in self.pending:
            if pending.future.done() and not pending.future.cancelled():
                pending.future.exception()  # or asyncio reports that nobody asked
        asyncio._set_running_loop(None)

    def steps(self) -> Iterator[Step]:
        """What can happen next."""
        if len(self.pending) + self.refused < self.setting.calls:
            yield "submit", 0
        if self.loop.ready:
            yield "tick", 0
        for place, worker in enumerate(self.workers):
            yield from ((name, place) for name in self._steps_of(worker))
        for place, _ in enumerate(self._timers(self.dispatcher._check)):
            yield "check", place
        if self.faults["expire"] and self._timers(self.dispatcher._expire):
            yield "expire", 0
        for place, pending in enumerate(self.pending):
            if self.faults["leave"] and not pending.future.done():
                yield "leave", place
        for place, _ in enumerate(self._timers(self.dispatcher._kill)):
            yield "kill", place

    def take(self, step: Step) -> None:
        """Lets one thing happen, and checks what must hold at any time."""
        name, place = step
        self.faults[name] -= name in FAULTS
        getattr(self, f"_{name}")(place)
        self._check_always()

    def state(self) -> Any:
        """What decides about the future, comparable."""
        dispatcher = self.dispatcher
        order = {worker: place for place, worker in enumerate(dispatcher.workers)}
        return (
            tuple(self._state_of(w) for w in sorted(self.workers, key=lambda w: order.get(w, 99))),
            tuple(self._state_of_call(pending) for pending in self.pending),
            tuple(pending.number for pending in dispatcher._queue),
            tuple(timer.run.args[0].number for timer in self._timers(dispatcher._expire)),
            tuple(timer.run.args[0].number for timer in self._timers(dispatcher._kill)),
            len(self.loop.ready),
            dispatcher.active.count,
            self.refused,
            tuple(sorted(self.faults.items())),
        )

    def check_end(self) -> None:
        """Checks what must hold when nothing more happens."""
        dispatcher = self.dispatcher
        assert dispatcher.active.count == 0, f"{dispatcher.active.count} calls still count"
        assert not dispatcher._queue, "calls wait, and nobody takes them"
        assert not self._timers(dispatcher._expire), "a call that has ended can expire"
        for worker in self.workers:
            assert not worker.calls, f"worker {worker.index} has calls that have ended"
            if not worker.is_reported:
                assert worker.taken_back == 0, f"worker {worker.index} gets no more calls"
                assert worker.count(worker.channel._tokens) == 0, "a token is left"
        for pending in self.pending:
            assert pending.future.done(), f"call {pending.number} is lost"

    def _check_always(self) -> None:
        for pending in self.pending:
            number, future = pending.number, pending.future
            runs = self.runs[number]
            most = 2 if self.setting.idempotent and pending.retried else 1
            assert runs <= most, f"call {number} has run {runs} times"
            if not future.done() or future.cancelled():
                continue
            if error := future.exception():
                lost = isinstance(error, WorkerError) and self.finished[number]
                assert not lost, f"the result of call {number} is lost"
                continue
            value = future.result().arrays[0].array[0]
            assert value == 2 * number, f"call {number} got the answer {value}"
            assert self.finished[number], f"call {number} was answered and never ended"
        running = [worker.running for worker in self.workers if worker.running is not None]
        assert len(running) == len(set(running)), "a call runs in two workers"
        limit = self.setting.workers + self.setting.max_queue
        assert self.dispatcher.active.count <= limit, "more calls than may wait"

    def _timers(self, function: Callable[..., Any]) -> list[Any]:
        return [timer for timer in self.loop.timers if timer.run.func == function]

    def _steps_of(self, worker: Worker) -> Iterator[str]:
        if worker.is_reported:
            return
        if worker.connection._codec and worker.count(worker.connection._wakeup):
            yield "wake"
        if worker.is_dead:
            yield "report"
            return
        if worker.running is not None:
            yield "finish"
        elif worker.can_take:
            yield "serve"
        elif worker.channel._unannounced:
            yield "announce"
        if worker.is_killed:
            yield "end"
        elif self.faults["die"]:
            yield "die"

    def _add_worker(self) -> None:
        worker = Worker(len(self.workers), self.dispatcher, self.setting.idempotent)
        self.workers.append(worker)
        self.dispatcher.add(worker)  # type: ignore[arg-type]

    def _submit(self, _: int) -> None:
        number = len(self.pending) + 1
        self.loop.now += 1
        x = np.array([number], dtype=np.float32)
        request = SimpleNamespace(id="", parameters=None, inputs=[], outputs=None)
        call = InferenceCall(SimpleNamespace(), {"x": x}, {"x": _SPEC}, request)  # type: ignore[arg-type]
        try:
            self.pending.append(self.dispatcher.submit(call))
        except OverloadedError:
            self.refused += 1

    def _tick(self, _: int) -> None:
        for _ in range(len(self.loop.ready)):
            self.loop.ready.popleft()()

    def _serve(self, place: int) -> None:
        """As `serve` of the worker's program, up to the handler."""
        worker = self.workers[place]
        message = worker.channel.receive()
        assert message is not None
        if message.kind is Kind.CALL and worker.channel.claim(message):
            worker.running = message.call
            self.runs[message.call] += 1

    def _finish(self, place: int) -> None:
        worker = self.workers[place]
        number, worker.running = worker.running, None
        assert number is not None
        self.finished[number] += 1
        outputs = [(_SPEC, np.array([2 * number], dtype=np.float32))]
        packet = worker.channel.codec.encode(Kind.RESULT, number, None, outputs, seconds=1e-6)
        worker.channel.post(packet, coalesce=True)

    def _announce(self, place: int) -> None:
        """What `receive` does before it waits."""
        with self.workers[place].channel._lock:
            self.workers[place].channel._wake_server()

    def _wake(self, place: int) -> None:
        self.workers[place].connection._on_wakeup()

    def _check(self, place: int) -> None:
        """The dispatcher looks after a worker with prefetched calls."""
        self._run(self._timers(self.dispatcher._check)[place])

    def _kill(self, place: int) -> None:
        """A call whose limit has passed has run for its limit."""
        timer = self._timers(self.dispatcher._kill)[place]
        self.loop.now = max(self.loop.now, timer.when)
        self._run(timer)

    def _run(self, timer: Any) -> None:
        self.loop.timers.remove(timer)
        timer.run()

    def _die(self, place: int) -> None:
        self.workers[place].die()

    _end = _die

    def _report(self, place: int) -> None:
        """The server learns of a death, as `WorkerProcess._exited`, and replaces the worker."""
        worker = self.workers[place]
        worker.connection.close()
        worker.is_reported = True
        self.dispatcher.on_exit(worker, Exit("signal", "was killed"))  # type: ignore[arg-type]
        self._add_worker()

    def _leave(self, place: int) -> None:
        pending = self.pending[place]
        pending.future.cancel()
        self.dispatcher.leave(pending)

    def _expire(self, _: int) -> None:
        """The time limit of the first call passes."""
        timer = self._timers(self.dispatcher._expire)[0]
        self.loop.now = max(self.loop.now, timer.when)
        self._run(timer)

    def _state_of(self, worker: Worker) -> Any:
        calls = tuple(worker.calls)
        if worker.is_reported:
            return calls
        channel, connection = worker.channel, worker.connection
        return (
            calls,
            worker in self.dispatcher.workers,
            worker.taken_back,
            worker.running,
            worker.is_dead,
            worker.is_killed,
            tuple(worker.to_worker),
            tuple(worker.to_server),
            tuple((message.kind, message.call) for message in channel._received),
            len(connection._outbox),
            connection._tokens_due,
            connection.sent_several,
            channel._unannounced,
            worker.count(connection._wakeup),
            worker.count(connection._tokens),
            self.dispatcher._checks.get(worker),  # type: ignore[call-overload]
        )

    def _state_of_call(self, pending: Any) -> Any:
        future = pending.future
        outcome: Any = None
        if future.done():
            outcome = "cancelled" if future.cancelled() else type(future.exception())
        counts = self.runs[pending.number], self.finished[pending.number]
        times = (
            pending.deadline - self.loop.now,
            pending.runs_until and (pending.runs_until - self.loop.now),
        )
        return outcome, pending.retried, counts, times


def explore(setting: Setting) -> int:
    """Takes all steps in all orders; returns the number of states.

    Raises:
        AssertionError: Something does not hold; the message has the steps that lead there.
    """
    seen: set[Any] = set()
    waiting: list[tuple[Step, ...]] = [()]
    while waiting:
        path = waiting.pop()
        world = World(setting)
        try:
            _replay(world, path)
            # Goes on from here, and leaves the other steps for later.
            while (state := world.state()) not in seen:
                seen.add(state)
                steps = list(world.steps())
                if all(name in FAULTS for name, _ in steps):
                    world.check_end()
                if not steps:
                    break
                waiting += [(*path, step) for step in steps[1:]]
                path = (*path, steps[0])
                assert len(path) < MOST_STEPS, "it goes on for ever"
                world.take(steps[0])
        except (AssertionError, RequestError, LookupError, OSError) as error:
            raise AssertionError(
                f"{error!r} after {' '.join(f'{n}:{p}' for n, p in path)}"
            ) from error
        finally:
            world.close()
    return len(seen)


def _replay(world: World, path: Sequence[Step]) -> None:
    for step in path:
        world.take(step)
