"""A worker as the server sees it: a process that loads the function and holds calls."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from operator import itemgetter
from pathlib import Path
from typing import Any

from mlserver_pyfunc.errors import LoadError
from mlserver_pyfunc.handler.call import printable_id
from mlserver_pyfunc.handler.metrics import Send
from mlserver_pyfunc.handler.signature import Derived
from mlserver_pyfunc.protocol.contract import Report
from mlserver_pyfunc.serving.limits import UNLOAD_SECONDS, over_init_limit
from mlserver_pyfunc.serving.runner import HandlerInfo, logger

from .pending import PendingCall
from .process import Exit, WorkerProcess
from .wire.messages import Kind, Message

_ABOUT_CALLS = (Kind.RESULT, Kind.ITEM, Kind.END, Kind.ERROR, Kind.DROPPED, Kind.SPANS)
_in_log = itemgetter("level", "text", "request")
_in_breach = itemgetter("kind", "tensor", "text")


@dataclass(eq=False)
class Worker:
    """One worker. All methods are for the event loop's thread."""

    model_name: str
    python: Path
    load_message: Mapping[str, Any]
    init_timeout: float  # in seconds, from the start of the process
    report: Report
    count: Send
    on_call_message: Callable[[Worker, Message], None]
    index: int
    max_requests: int | None = None
    devices: Sequence[int] = ()  # numbers of those that it sees; empty: all
    calls: dict[int, PendingCall] = field(default_factory=dict)  # in the order of sending
    reported_waiting: int = 0  # how many of its calls the metrics count as waiting
    taken_back: int = 0  # calls that it has not dropped yet
    served: int = 0
    since: float = field(default_factory=time.monotonic)
    unloading: bool = False  # whether the process was asked to exit, or will be

    def __post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Exit] = loop.create_future()
        self.max_requests_reached: asyncio.Future[None] = loop.create_future()
        self._loaded: asyncio.Future[HandlerInfo] = loop.create_future()
        self._phase = "start"
        self._logged_at = 0.0
        on_message: dict[Kind, Callable[[Message], None]] = {
            **dict.fromkeys(_ABOUT_CALLS, partial(self.on_call_message, self)),
            Kind.LOG: lambda message: self._log(*_in_log(message.values)),
            Kind.BREACH: lambda message: self.report(*_in_breach(message.values)),
            Kind.METRICS: lambda message: self.count(message.values["record"]),
            Kind.PHASE: self._on_phase,
            Kind.LOADED: self._on_loaded,
            Kind.FAILED: self._on_failed,
        }
        self.process = WorkerProcess(
            self.python, on_message, self._on_exit, self._on_output_line, self.devices
        )

    async def load(self) -> HandlerInfo:
        """Loads the function in the process, or raises a LoadError and kills the process."""
        self.process.connection.send(Kind.LOAD, head=self.load_message)
        try:
            await asyncio.wait({self._loaded}, timeout=self.init_timeout)
            if not self._loaded.done():
                raise self._failure(over_init_limit(self.init_timeout))
            return self._loaded.result()
        except BaseException:
            self._loaded.cancel()
            self.process.kill("init", "was stopped during init")
            raise

    @property
    def logged_recently(self) -> bool:
        return time.monotonic() - self._logged_at < 1

    def count_call(self) -> None:
        self.served += 1
        if self.served == self.max_requests:
            self.max_requests_reached.set_result(None)

    async def unload(self) -> None:
        """Asks the process to run the unload function and to exit; kills it at the time limit."""
        self.unloading = True
        if not self._loaded.done():
            self.process.kill("unload", "was stopped")
        self.process.connection.send(Kind.UNLOAD)
        done, _ = await asyncio.wait({self.ended}, timeout=UNLOAD_SECONDS)
        if not done:
            logger.warning(
                "%s: still runs %g s after its unload, killing it", self._name(), UNLOAD_SECONDS
            )
            self.process.kill("unload", "was stopped")
            await asyncio.wait({self.ended}, timeout=1)

    def _on_phase(self, message: Message) -> None:
        self._phase = message.values["phase"]

    def _on_loaded(self, message: Message) -> None:
        if not self._loaded.done():
            values = message.values
            fields = frozenset(values["required_fields"])
            derived = Derived(**values["derived"])
            self._loaded.set_result(
                HandlerInfo(values["kind"], fields, values["python"], values["numpy"], derived)
            )

    def _on_failed(self, message: Message) -> None:
        if self._loaded.done():
            return
        self._on_phase(message)
        if traceback := message.values["traceback"]:
            logger.error("%s: %s failed\n%s", self._name(), self._phase, traceback)
        self._loaded.set_exception(self._failure(message.values["cause"]))

    def _on_exit(self, exit_: Exit) -> None:
        self.ended.set_result(exit_)
        if not self._loaded.done():
            cause = f"the worker {exit_.text}{self._last_words()}"
            self._loaded.set_exception(self._failure(cause))

    def _last_words(self) -> str:
        """Quotes the last output of the process, without a crash's traceback, which is logged."""
        lines = takewhile(
            lambda line: not line.startswith("Fatal Python error"), self.process.output.last_lines
        )
        text = " | ".join(filter(None, map(str.strip, lines)))
        return f"; it said: {text[-500:]}" if text else ""

    def _failure(self, cause: str) -> LoadError:
        return LoadError(self.model_name, self._phase, cause)

    def _on_output_line(self, line: str) -> None:
        self._logged_at = time.monotonic()
        calls = list(self.calls.values())
        self._log(logging.INFO, line, calls[0].call.label if len(calls) == 1 else "")

    def _log(self, level: int, text: str, request_id: str) -> None:
        tag = f" request {printable_id(request_id)}" if request_id else ""
        logger.log(level, "[%s%s] %s", self._name(), tag, text)

    def _name(self) -> str:
        return f"{self.model_name} worker {self.index}"
