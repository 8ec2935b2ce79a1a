"""The worker program: loads one function and answers calls until the server is gone.

Needs only NumPy and the standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import logging
import os
import platform
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mlserver_pyfunc.errors import BindError, describe
from mlserver_pyfunc.handler.binding import CallPlan, bind
from mlserver_pyfunc.handler.call import request_id
from mlserver_pyfunc.handler.context import Context
from mlserver_pyfunc.handler.loader import FunctionPackage
from mlserver_pyfunc.handler.resolver import Resolver
from mlserver_pyfunc.protocol.contract import Contract, TensorSpec
from mlserver_pyfunc.protocol.tensors import DATATYPES
from mlserver_pyfunc.serving.workers.wire.codec import Codec
from mlserver_pyfunc.serving.workers.wire.messages import Kind, Message
from mlserver_pyfunc.serving.workers.wire.shared_memory import Reader, Writer

from .calls import Calls, LoopThread
from .channel import Channel

LOG_CHARS = 8000
TRACEBACK_CHARS = 20_000

_PR_SET_PDEATHSIG = 1


class PhaseError(Exception):
    """The function cannot be loaded: the phase, the cause, and user code's traceback."""

    def __init__(self, phase: str, cause: str, text: str) -> None:
        super().__init__(cause)
        self.head = {"phase": phase, "cause": cause, "traceback": text}


def main(connection: int, wakeup: int, tokens: int, inbound: int, outbound: int) -> None:
    """Runs a worker.

    Args:
        connection: Descriptor of the socket to the server.
        wakeup: Of the eventfd that tells the server of messages.
        tokens: Of that which holds tokens for calls sent ahead.
        inbound: Of the shared memory that the server writes.
        outbound: Of the shared memory that this process writes.
    """
    _die_with(connection)
    codec = Codec(Writer(outbound), Reader(inbound))
    channel = Channel(socket.socket(fileno=connection), wakeup, tokens, codec)
    _set_up_output()
    _give_way()
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    message = channel.receive()
    if message is None or message.kind is not Kind.LOAD:
        return
    program = _Program(channel, message.values)
    try:
        program.load()
    except PhaseError as failure:
        channel.send(Kind.FAILED, head=failure.head)
        return
    program.serve()
    program.unload()


class _Program:
    """One function in this process."""

    def __init__(self, channel: Channel, head: Mapping[str, Any]) -> None:
        definition = head["definition"]
        self._channel = channel
        self._source = definition["source"]
        self._serving = definition["serving"]
        self._loop = LoopThread()
        self._contract = Contract(
            head["model_name"], _specs(definition["inputs"]), _specs(definition["outputs"])
        )
        self._context = Context(
            logger=_logger(channel, head["log_level"]),
            model_name=head["model_name"],
            model_version=head["model_version"],
            definition=definition,
            source_dir=Path(head["root"]),
            init_parameters=definition["init_parameters"],
        )
        self._package = FunctionPackage(head["model_name"], Path(head["root"]), head["inline"])
        self._resolver = Resolver(self._package.load, head["module"], self._context)
        self._unload: Callable[[], Any] | None = None
        self._calls: Calls

    def load(self) -> None:
        """Imports, initialises and binds, and tells the server how to call the handler.

        Raises:
            PhaseError: User code failed, or there is no such function.
        """
        source, resolver = self._source, self._resolver
        self._limit_memory()
        self._phase("import", lambda: self._package.load(resolver.module_of(source["handler"])))
        if source["init_function"]:
            init = self._phase("init", partial(resolver.resolve, source["init_function"]))
            self._phase("init", partial(resolver.call_with_context, init))
        handler = self._phase("bind", partial(resolver.resolve, source["handler"]))
        plan: CallPlan = self._phase("bind", partial(bind, handler, self._contract.inputs.values()))
        if source["unload_function"]:
            unload = self._phase("bind", partial(resolver.resolve, source["unload_function"]))
            self._unload = partial(resolver.call_with_context, unload)
        self._calls = Calls(
            self._channel,
            plan,
            self._contract,
            self._context,
            self._loop,
            _bytes_text(self._serving["memory_limit"]),
        )
        gc.collect()
        gc.freeze()
        self._channel.send(
            Kind.LOADED,
            head={
                "kind": plan.kind,
                "needs": sorted(plan.required_fields),
                "python": platform.python_version(),
                "numpy": np.__version__,
            },
        )

    def serve(self) -> None:
        """Answers calls until the server says to unload, or is gone."""
        calls = self._calls
        if self._serving["concurrency"] == 1 and calls.plan.kind in ("sync", "generator"):
            self._serve_here()
            return
        threads = ThreadPoolExecutor(self._serving["concurrency"], "pyfunc")
        while (message := self._receive()).kind is not Kind.UNLOAD:
            if message.kind is not Kind.CALL:
                calls.control(message)
            elif calls.plan.kind in ("async", "async generator"):
                calls.start_async(message)
            elif calls.plan.kind == "generator":
                threads.submit(calls.stream, message, calls.new_demand(message))
            else:
                threads.submit(calls.answer, message)

    def unload(self) -> None:
        """Runs the unload function."""
        if self._unload is None:
            return
        try:
            self._awaited(self._unload())
        except BaseException:
            self._context.logger.exception("unload_function failed")

    def _serve_here(self) -> None:
        """Serves one call at a time on the main thread, which saves handing it over."""
        calls = self._calls
        while (message := self._receive()).kind is not Kind.UNLOAD:
            if message.kind is not Kind.CALL or not self._channel.takes(message):
                continue
            if calls.plan.streams:
                calls.stream(message, self._next_demand)
            else:
                calls.answer(message)

    def _next_demand(self) -> bool:
        while True:
            kind = self._receive().kind
            if kind in (Kind.NEXT, Kind.CLOSE):
                return kind is Kind.NEXT

    def _receive(self) -> Message:
        message = self._channel.receive()
        if message is None:
            os.killpg(0, signal.SIGKILL)
            os._exit(1)
        return message

    def _phase(self, phase: str, function: Callable[[], Any]) -> Any:
        self._channel.send(Kind.PHASE, head={"phase": phase})
        try:
            return self._awaited(function())
        except BindError as error:
            raise PhaseError(phase, str(error), "") from None
        except BaseException as error:
            text = traceback.format_exc()[-TRACEBACK_CHARS:]
            raise PhaseError(phase, describe(error), text) from None

    def _awaited(self, value: Any) -> Any:
        return self._loop.run(value).get() if hasattr(value, "__await__") else value

    def _limit_memory(self) -> None:
        limit = self._serving["memory_limit"]
        if limit is None:
            return
        import resource

        # Private writable memory: heap, threads, anonymous maps; not files or shared memory.
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


class _ServerLog(logging.Handler):
    """Sends records to the server's log."""

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


def _logger(channel: Channel, level: int) -> logging.Logger:
    logger = logging.getLogger("mlserver.pyfunc")
    logger.setLevel(level)
    logger.addHandler(_ServerLog(channel))
    logger.propagate = False
    return logger


def _die_with(connection: int) -> None:
    """Ends this process and those it started when the server is gone, whatever it does."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_watch, args=(connection,), name="pyfunc-watch", daemon=True).start()


def _watch(connection: int) -> None:
    poll = select.poll()
    poll.register(connection, 0)
    poll.poll()
    os.killpg(0, signal.SIGKILL)


def _give_way() -> None:
    """Has the server, which wakes this process, end what it is at first: on the same core it
    gathers more calls meanwhile, and both are woken less often."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _set_up_output() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]


def _specs(definitions: Sequence[Mapping[str, Any]]) -> list[TensorSpec]:
    return [
        TensorSpec(
            name=tensor["name"],
            datatype=DATATYPES[tensor["datatype"]],
            shape=tuple(tensor["shape"]),
            optional=tensor["optional"],
            text=tensor["content_type"] == "str",
        )
        for tensor in definitions
    ]


def _bytes_text(limit: int | None) -> str:
    return "" if limit is None else f" (serving.memory_limit is {limit / 2**20:g} MiB)"
