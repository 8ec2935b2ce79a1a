"""The worker program: loads one function and answers calls until the server is gone."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import logging
import os
import platform
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from mlserver_pyfunc.errors import BindError
from mlserver_pyfunc.handler.call import request_id
from mlserver_pyfunc.handler.loading import HandlerLoader, HandlerSpec, cause_of
from mlserver_pyfunc.handler.metrics import Metrics
from mlserver_pyfunc.protocol.contract import Contract
from mlserver_pyfunc.serving.workers.wire.codec import Codec
from mlserver_pyfunc.serving.workers.wire.messages import Kind, Message
from mlserver_pyfunc.serving.workers.wire.shared_memory import Reader, Writer

from .calls import TRACEBACK_CHARS, Calls, LoopThread
from .channel import Channel
from .guardian import PR_SET_PDEATHSIG
from .spans import new_recorder

LOG_CHARS = 8000


def main(connection: int, wakeup: int, tokens: int, inbound: int, outbound: int) -> None:
    """Runs a worker until the server is gone or unloads the function."""
    # The kernel ends this process if its guardian is gone, also in C code that keeps the GIL.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    codec = Codec(Writer(outbound), Reader(inbound))
    channel = Channel(socket.socket(fileno=connection), wakeup, tokens, codec)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    # On one core, the server gathers more calls then: see docs/design/worker-protocol.md.
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    message = channel.receive()
    if message is None or message.kind is not Kind.LOAD:
        return
    logger = logging.getLogger("mlserver.pyfunc")
    logger.setLevel(message.values["log_level"])
    logger.addHandler(_ServerLog(channel))
    logger.propagate = False
    program = _Program(channel, logger, message.values)
    if program.load():
        program.serve()
        program.unload()


class _Program:
    def __init__(self, channel: Channel, logger: logging.Logger, sent: Mapping[str, Any]) -> None:
        self._channel = channel
        self._spec = spec = HandlerSpec.from_json(sent["spec"])
        self._serving = spec.definition["serving"]
        self._concurrency: int = self._serving["concurrency"]
        self._logger = logger
        metrics = Metrics(self._count, lambda: sent["taken_metrics"])
        self._context = spec.new_context(logger, metrics)
        self._recorder = new_recorder(self._context) if sent["traces"] else None
        self._loop = LoopThread()
        self._loader = HandlerLoader(spec, self._context)
        self._calls: Calls
        self._threads = ThreadPoolExecutor(self._concurrency, "pyfunc")

    def load(self) -> bool:
        """Runs the load steps. Reports to the server how to call the handler, or what failed."""
        spec = self._spec
        limit = self._serving["memory_limit"]
        _limit_memory(limit, self._concurrency)
        for phase, step in self._loader.load_steps():
            self._channel.send(Kind.PHASE, head={"phase": phase})
            try:
                self._await(step())
            except BaseException as error:
                # The words of a BindError are enough; user code needs its traceback.
                text = "" if isinstance(error, BindError) else traceback.format_exc()
                head = {"phase": phase, "cause": cause_of(error)}
                head["traceback"] = text[-TRACEBACK_CHARS:]
                self._channel.send(Kind.FAILED, head=head)
                return False
        plan = self._loader.plan
        assert plan is not None
        lenient = [side for side, mode in spec.definition["contract"].items() if mode == "warn"]
        contract = Contract(spec.model_name, *self._loader.tensors, lenient, self._report_breach)
        note = "" if limit is None else f" (serving.memory_limit is {limit / 2**20:g} MiB)"
        self._calls = Calls(
            self._channel, plan, contract, self._context, self._loop, note, self._recorder
        )
        # If calls ask whether they are cancelled, this thread has to read the messages meanwhile.
        self._is_alone = self._concurrency == 1 and "cancelled" not in plan.required_fields
        if not self._is_alone and not plan.kind.startswith("async"):
            self._start_threads()
        # What init made lives as long as the worker. The garbage collector need not visit it.
        gc.collect()
        gc.freeze()
        info = {
            "kind": plan.kind,
            "required_fields": sorted(plan.required_fields),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "derived": vars(self._loader.derived),
        }
        self._channel.send(Kind.LOADED, head=info)
        return True

    def serve(self) -> None:
        start = self._starter()
        while (message := self._receive()).kind is not Kind.UNLOAD:
            if message.kind is not Kind.CALL:
                self._calls.control(message)
            elif self._channel.claim(message):
                self._calls.begin(message)
                start(message)

    def _starter(self) -> Callable[[Message], object]:
        """Returns what starts a call. If one runs at a time, this thread runs it: the fastest."""
        calls, kind, submit = self._calls, self._calls.plan.kind, self._threads.submit
        if kind.startswith("async"):
            return calls.start_async
        if self._is_alone and kind == "generator":
            return lambda message: calls.stream(message, self._next_demand)
        if self._is_alone:
            return calls.answer
        if kind == "generator":
            return lambda message: submit(calls.stream, message, calls.new_demand(message))
        return lambda message: submit(calls.answer, message)

    def _start_threads(self) -> None:
        """Starts all threads. In a call, the memory limit may leave no room for another one."""
        count = self._concurrency
        all_run = threading.Barrier(count)
        try:
            list(self._threads.map(lambda _: all_run.wait(), range(count)))
        except RuntimeError:
            all_run.abort()
            raise

    def unload(self) -> None:
        if self._loader.unload is None:
            return
        try:
            self._await(self._loader.unload())
        except BaseException:
            self._logger.exception("unload_function failed")

    def _count(self, record: Sequence[Any]) -> None:
        message = self._channel.codec.encode(Kind.METRICS, head={"record": record})
        self._channel.post(message, coalesce=True)

    def _report_breach(self, kind: str, tensor: str, text: str) -> None:
        self._channel.send(Kind.BREACH, head={"kind": kind, "tensor": tensor, "text": text})

    def _next_demand(self, waits: bool) -> bool | None:
        while True:
            message = self._receive() if waits else self._channel.receive(waits=False)
            if message is None:
                return None
            if message.kind in (Kind.NEXT, Kind.CLOSE):
                return message.kind is Kind.NEXT

    def _receive(self) -> Message:
        message = self._channel.receive()
        if message is None:
            os.killpg(0, signal.SIGKILL)
            os._exit(1)
        return message

    def _await(self, value: Any) -> Any:
        return self._loop.run(value).get() if hasattr(value, "__await__") else value


class _ServerLog(logging.Handler):
    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record)[:LOG_CHARS]
            head = {"level": record.levelno, "text": text, "request": request_id.get()}
            self._channel.send(Kind.LOG, head=head)
        except Exception:
            self.handleError(record)


def _limit_memory(limit: int | None, concurrency: int) -> None:
    if limit is None:
        return
    import resource

    # Private writable memory: heap, stacks, anonymous maps; not files and shared memory. The stack
    # of a thread counts as a whole, though little of it is used: each thread adds it to the limit.
    stack = resource.getrlimit(resource.RLIMIT_STACK)[0]
    limit += (concurrency + 2) * (2**23 if stack == resource.RLIM_INFINITY else stack)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
