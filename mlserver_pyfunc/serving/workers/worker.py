"""A worker on the server's side: a process that loads the function and holds calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlserver_pyfunc.errors import LoadError
from mlserver_pyfunc.handler.call import printable_id
from mlserver_pyfunc.serving.runner import logger

from .process import Exit, WorkerProcess
from .wire.messages import Kind, Message

if TYPE_CHECKING:
    from .pending_call import PendingCall

UNLOAD_SECONDS = 10.0
"""How long the unload function and the process's end may take."""


@dataclass(frozen=True)
class WorkerConfig:
    """What every worker of a function is started with.

    Attributes:
        model_name: As served.
        python: The interpreter.
        head: Of the message that tells what to load.
        init_timeout: Seconds until it must be ready for calls.
    """

    model_name: str
    python: Path
    head: Mapping[str, Any]
    init_timeout: float


@dataclass(frozen=True)
class HandlerInfo:
    """What a loaded worker says about its handler.

    Attributes:
        kind: As `handler.Kind`.
        required_fields: What to send besides the tensors.
        python: Version of the worker's interpreter.
        numpy: Version of its NumPy.
    """

    kind: str
    required_fields: frozenset[str]
    python: str
    numpy: str

    @property
    def streams(self) -> bool:
        return self.kind in ("generator", "async generator")

    @property
    def cancels(self) -> bool:
        return self.kind in ("async", "async generator")


@dataclass(eq=False)
class Worker:
    """One worker. All methods are for the event loop's thread.

    Attributes:
        index: Its place in the pool, for logs.
        config: What it runs.
        on_message: Takes messages about calls.
        max_requests: Calls after which it is worn out.
        calls: In flight, by number, in the order in which they were sent.
        counted: How many of its calls the metrics count as waiting.
        taken_back: How many calls it has yet to drop, that were taken back.
        served: Calls that ended.
        ended: Its exit, once the process is gone.
        max_requests_reached: Done once it has served its calls.
    """

    index: int
    config: WorkerConfig
    on_message: Callable[[Worker, Message], None]
    max_requests: int | None = None
    calls: dict[int, PendingCall] = field(default_factory=dict)
    counted: int = 0
    taken_back: int = 0
    served: int = 0
    since: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Exit] = loop.create_future()
        self.max_requests_reached: asyncio.Future[None] = loop.create_future()
        self._loaded: asyncio.Future[HandlerInfo] = loop.create_future()
        self._phase = "start"
        self._logged_at = 0.0
        self.process = WorkerProcess(
            self.config.python, self._message, self._exited, self._log_line
        )

    async def load(self) -> HandlerInfo:
        """Has the process load the function.

        Raises:
            LoadError: Names the phase and the cause. The process is gone.
        """
        self.process.connection.send(Kind.LOAD, head=self.config.head)
        limit = self.config.init_timeout
        try:
            await asyncio.wait({self._loaded}, timeout=limit)
            if not self._loaded.done():
                raise self._failure(f"passed its limit of {limit:g} s (serving.init_timeout)")
            return self._loaded.result()
        except BaseException:
            self._loaded.cancel()
            self.process.kill("init", "was stopped during init")
            raise

    @property
    def logged_recently(self) -> bool:
        """Whether it printed a line in the last second."""
        return time.monotonic() - self._logged_at < 1

    def count_call(self) -> None:
        """Notes that a call ended."""
        self.served += 1
        if self.served == self.max_requests:
            self.max_requests_reached.set_result(None)

    async def unload(self) -> None:
        """Has the process run the unload function and leave; kills it if it does not."""
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

    def _message(self, message: Message) -> None:
        head = message.values
        if message.kind >= Kind.RESULT and message.kind is not Kind.LOG:
            self.on_message(self, message)
        elif message.kind is Kind.LOG:
            self._log(head["level"], head["text"], head["request"])
        elif message.kind is Kind.PHASE:
            self._phase = head["phase"]
        elif self._loaded.done():
            return
        elif message.kind is Kind.LOADED:
            needs = frozenset(head["needs"])
            self._loaded.set_result(HandlerInfo(head["kind"], needs, head["python"], head["numpy"]))
        elif message.kind is Kind.FAILED:
            self._phase = head["phase"]
            if head["traceback"]:
                logger.error("%s: %s failed\n%s", self._name(), self._phase, head["traceback"])
            self._loaded.set_exception(self._failure(head["cause"]))

    def _exited(self, exit_: Exit) -> None:
        self.ended.set_result(exit_)
        if not self._loaded.done():
            self._loaded.set_exception(self._failure(f"the worker {exit_.text}{self._said()}"))

    def _said(self) -> str:
        """The last that the process printed, without a crash's traceback, which is logged."""
        lines: list[str] = []
        for line in self.process.last_lines:
            if line.startswith("Fatal Python error"):
                break
            lines.append(line.strip())
        said = " | ".join(filter(None, lines))
        return f"; it said: {said[-500:]}" if said else ""

    def _failure(self, cause: str) -> LoadError:
        return LoadError(self.config.model_name, self._phase, cause)

    def _log_line(self, line: str) -> None:
        self._logged_at = time.monotonic()
        calls = list(self.calls.values())
        self._log(20, line, calls[0].call.id if len(calls) == 1 else "")

    def _log(self, level: int, text: str, request: str) -> None:
        tag = f" request {printable_id(request)}" if request else ""
        logger.log(level, "[%s%s] %s", self._name(), tag, text)

    def _name(self) -> str:
        return f"{self.config.model_name} worker {self.index}"
