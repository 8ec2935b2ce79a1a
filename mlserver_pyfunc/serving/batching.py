"""Joins requests that wait into one call of the handler: which of them, and when.

Requests share a call where their tensors, trailing shapes and parameters are equal, so that
the handler cannot tell.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from mlserver_pyfunc.definition import BatchDefinition, ServingDefinition
from mlserver_pyfunc.errors import (
    HandlerError,
    InferenceError,
    LoadError,
    OverloadedError,
    RequestError,
    TimeLimitError,
)
from mlserver_pyfunc.handler.call import InferenceCall
from mlserver_pyfunc.protocol.contract import Contract

from . import batch
from .metrics import FunctionMetrics, Wait
from .runner import UNLOAD_SECONDS, Answer, Runner

_LIGHT_LOAD = 10
"""After so many delays without a call, no company is expected for the next request."""


@dataclass(eq=False)
class _Member:
    """A request on its way into a batch."""

    call: InferenceCall
    rows: int
    future: asyncio.Future[Answer]
    wait: Wait


@dataclass(eq=False)
class _Group:
    """Requests that wait and may be joined."""

    members: list[_Member] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None

    @property
    def rows(self) -> int:
        return sum(member.rows for member in self.members)


class BatchingRunner:
    """Joins the calls of another runner. All methods are for the event loop's thread.

    Args:
        runner: Runs the joined calls.
        contract: Names the model in errors.
        serving: Time and queue limits.
        batch: How calls are joined.
        slots: Batches that may run at a time.
        metrics: The function's.
    """

    def __init__(
        self,
        runner: Runner,
        contract: Contract,
        serving: ServingDefinition,
        batch: BatchDefinition,
        slots: int,
        metrics: FunctionMetrics,
    ) -> None:
        self._runner = runner
        self._contract = contract
        self._serving = serving
        self._max_size = batch.max_size
        self._max_delay = batch.max_delay_ms / 1000
        self._slots = slots
        self._metrics = metrics
        self._tells_parameters = False
        self._groups: dict[Hashable, _Group] = {}
        self._full: deque[_Group] = deque()
        self._waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._expected = 1
        self._last = 0.0
        self._loop = asyncio.get_running_loop()

    @property
    def ready(self) -> bool:
        return self._runner.ready

    @property
    def accepts_calls(self) -> bool:
        return self._runner.accepts_calls

    @property
    def metadata(self) -> Mapping[str, str]:
        return self._runner.metadata

    @property
    def streams(self) -> bool:
        return self._runner.streams

    @property
    def required_fields(self) -> frozenset[str]:
        return self._runner.required_fields

    async def load(self) -> None:
        """As `Runner.load`; fails too where calls of the handler cannot be joined."""
        await self._runner.load()
        obstacles = batch.obstacles(
            self._contract, self._runner.streams, self._runner.required_fields
        )
        if obstacles:
            await self._runner.close()
            cause = f"serving.batch: {'; '.join(obstacles)}"
            raise LoadError(self._contract.model_name, "bind", cause)
        self._tells_parameters = "parameters" in self._runner.required_fields

    async def answer(self, call: InferenceCall) -> Answer:
        """Answers a call, alone or together with others.

        Raises:
            RequestError: With the status to answer.
        """
        rows = batch.rows_of(call, self._contract.model_name)
        if self._waiting >= max(self._serving.max_queue, 1):
            raise self._overloaded()
        member = _Member(call, rows, self._loop.create_future(), self._metrics.enter_queue())
        limit = self._loop.call_later(self._serving.timeout, self._expire, member)
        self._join(member)
        try:
            return await member.future
        finally:
            member.wait.end()
            limit.cancel()

    def items(self, call: InferenceCall) -> AsyncGenerator[Answer, None]:
        """As `Runner.items`: what streams is not joined."""
        return self._runner.items(call)

    async def close(self) -> None:
        """As `Runner.close`, once the requests that wait are answered."""
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._drain(), UNLOAD_SECONDS)
        await self._runner.close()

    async def _drain(self) -> None:
        while self._tasks or self._waiting:
            self._send_waiting()
            if self._tasks:
                await asyncio.wait(self._tasks)

    def _join(self, member: _Member) -> None:
        key = self._key(member.call)
        group = self._groups.get(key)
        if group is not None and group.rows + member.rows > self._max_size:
            self._seal(key)
            group = None
        if group is None:
            group = self._groups[key] = _Group()
        group.members.append(member)
        self._waiting += 1
        if group.rows >= self._max_size or self._expects_no_more(group):
            self._seal(key)
        elif group.timer is None:
            group.timer = self._loop.call_later(self._max_delay, self._due, key)

    def _expects_no_more(self, group: _Group) -> bool:
        """Whether to wait for company is no use: a call could run, and none is expected."""
        if len(self._tasks) >= self._slots:
            return False
        if time.monotonic() - self._last > _LIGHT_LOAD * self._max_delay:
            self._expected = 1
        return len(group.members) >= self._expected

    def _seal(self, key: Hashable) -> None:
        """Lets no more requests into a group, which runs as soon as it can."""
        group = self._groups.pop(key)
        if group.timer is not None:
            group.timer.cancel()
        self._full.append(group)
        self._send_waiting()

    def _due(self, key: Hashable) -> None:
        """Has a group run if it can. If it cannot, it may as well grow until then."""
        if len(self._tasks) < self._slots:
            self._seal(key)

    def _send_waiting(self) -> None:
        while len(self._tasks) < self._slots and (self._full or self._groups):
            if not self._full:
                self._full.append(self._groups.pop(next(iter(self._groups))))
            self._send(self._full.popleft())

    def _send(self, group: _Group) -> None:
        if group.timer is not None:
            group.timer.cancel()
        self._waiting -= len(group.members)
        self._expected = len(group.members)
        self._last = time.monotonic()
        for member in group.members:
            member.wait.end()
        members = [member for member in group.members if not member.future.done()]
        if not members:
            return
        task = self._loop.create_task(self._answer(members))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._send_waiting()

    async def _answer(self, members: Sequence[_Member]) -> None:
        sizes = [member.rows for member in members]
        self._metrics.count_batch(len(members), sum(sizes))
        try:
            answer = await self._runner.answer(batch.join([member.call for member in members]))
            parts = batch.split(answer, sizes, self._contract.model_name)
        except (HandlerError, InferenceError) as error:
            if len(members) == 1:
                _fail(members[0], error)
                return
            # One of them may be to blame, and fails alone.
            await asyncio.gather(*(self._answer([member]) for member in members))
        except RequestError as error:
            for member in members:
                _fail(member, error)
        except BaseException:
            for member in members:
                member.future.cancel()
            raise
        else:
            for member, part in zip(members, parts, strict=True):
                if not member.future.done():
                    member.future.set_result(part)

    def _key(self, call: InferenceCall) -> Hashable:
        tensors = tuple(sorted((name, array.shape[1:]) for name, array in call.inputs.items()))
        if not self._tells_parameters:
            return tensors
        return tensors, repr(sorted(call.parameters.items()))

    def _expire(self, member: _Member) -> None:
        limit = f"{self._serving.timeout:g} s (serving.timeout)"
        name = self._contract.model_name
        _fail(member, TimeLimitError(f'call of model "{name}" passed its time limit of {limit}'))

    def _overloaded(self) -> OverloadedError:
        return OverloadedError(
            f'model "{self._contract.model_name}" is at its limit: {self._slots} batches at a '
            f"time and {self._serving.max_queue} requests waiting (serving.max_queue)"
        )


def _fail(member: _Member, error: RequestError) -> None:
    if not member.future.done():
        member.future.set_exception(error)
