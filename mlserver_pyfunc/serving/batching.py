"""Collects waiting requests into batches, and decides when one runs: docs/design/calls.md.

Rows are entries on the first axis. Every tensor must declare -1 there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from types import SimpleNamespace

import numpy as np

from mlserver_pyfunc.definition import BatchDefinition, ServingDefinition
from mlserver_pyfunc.errors import ContractError, HandlerError, InferenceError, ResponseError
from mlserver_pyfunc.handler.call import InferenceCall
from mlserver_pyfunc.protocol.contract import Contract, NamedArray
from mlserver_pyfunc.protocol.nulls import NULLS
from mlserver_pyfunc.protocol.tensors import Array

from . import limits, tracing
from .metrics import FunctionMetrics, Wait
from .runner import Answer, HandlerInfo, Runner

_LIGHT_LOAD = 10
"""After that many times `max_delay_ms` without a batch, the next request does not wait."""
_MAX_ID_CHARS = 200


@dataclass(eq=False)
class _Member:
    call: InferenceCall
    rows: int
    future: asyncio.Future[Answer]
    wait: Wait
    deadline: float
    found_slot: bool


@dataclass(eq=False)
class _Group:
    key: Hashable
    members: list[_Member] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None
    task: asyncio.Task[None] | None = None  # which runs the batch for its members

    @property
    def rows(self) -> int:
        return sum(member.rows for member in self.members)


@dataclass(eq=False)
class Batcher:
    """Batches the calls of a runner that is loaded. For the event loop's thread."""

    runner: Runner
    model_name: str
    serving: ServingDefinition
    batching: BatchDefinition
    slots: int
    metrics: FunctionMetrics

    def __post_init__(self) -> None:
        self._limit = limits.TimeLimit(self.model_name, self.serving.timeout)
        self._max_delay = self.batching.max_delay_ms / 1000
        self._takes_parameters = "parameters" in self.runner.handler.required_fields
        self._groups: dict[Hashable, _Group] = {}
        self._full: deque[_Group] = deque()
        self._waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._expected = 1
        self._last_sent = 0.0
        self._loop = asyncio.get_running_loop()

    async def answer(self, call: InferenceCall) -> Answer:
        """Answers a call, alone or in a batch, as `Runner.answer` describes."""
        rows = rows_of(call, self.model_name)
        if self._waiting >= max(self.serving.max_queue, 1):
            running = f"{self.slots} batches at a time"
            raise limits.queue_full(self.model_name, running, f"{self.serving.max_queue} requests")
        deadline = self._loop.time() + self._limit.seconds
        wait = self.metrics.enter_queue(call.trace)
        found_slot = len(self._tasks) < self.slots
        member = _Member(call, rows, self._loop.create_future(), wait, deadline, found_slot)
        limit = self._loop.call_at(deadline, lambda: _fail(member, self._limit.passed()))
        group = self._join(member)
        try:
            return await member.future
        finally:
            self._leave(group, member)
            wait.end()
            limit.cancel()

    async def close(self) -> None:
        """Answers the requests that wait, if they end in `UNLOAD_SECONDS`."""
        self._send_waiting()
        deadline = self._loop.time() + limits.UNLOAD_SECONDS
        while self._tasks and (left := deadline - self._loop.time()) > 0:
            await asyncio.wait(self._tasks, timeout=left)

    def _join(self, member: _Member) -> _Group:
        key = self._key(member.call)
        group = self._groups.get(key)
        if group is not None and group.rows + member.rows > self.batching.max_size:
            self._close_group(key)
            group = None
        if group is None:
            group = self._groups[key] = _Group(key)
        group.members.append(member)
        self._waiting += 1
        if group.rows >= self.batching.max_size or self._expects_no_more(group):
            self._close_group(key)
        elif group.timer is None:
            group.timer = self._loop.call_later(self._max_delay, self._due, key)
        return group

    def _leave(self, group: _Group, member: _Member) -> None:
        """Takes a member out of a group that waits. Cancels a batch that all members have left."""
        if group.task is not None and all(each.future.cancelled() for each in group.members):
            group.task.cancel()
        if group.task is not None or member not in group.members:
            return
        group.members.remove(member)
        self._waiting -= 1
        if group.members:
            return
        if group.timer is not None:
            group.timer.cancel()
        if self._groups.get(group.key) is group:
            del self._groups[group.key]
        else:
            self._full.remove(group)

    def _expects_no_more(self, group: _Group) -> bool:
        """Whether a batch could run now, and has as many requests as the last one had."""
        if len(self._tasks) >= self.slots:
            return False
        if self._loop.time() - self._last_sent > _LIGHT_LOAD * self._max_delay:
            self._expected = 1
        return len(group.members) >= self._expected

    def _close_group(self, key: Hashable) -> None:
        """Closes a group to more requests. It runs as soon as a slot is free."""
        self._full.append(self._groups.pop(key))
        self._send_waiting()

    def _due(self, key: Hashable) -> None:
        """Runs a group whose delay is over. If no slot is free, it may grow until one is."""
        if len(self._tasks) < self.slots:
            self._close_group(key)

    def _send_waiting(self) -> None:
        while len(self._tasks) < self.slots and (self._full or self._groups):
            if not self._full:
                self._full.append(self._groups.pop(next(iter(self._groups))))
            self._send(self._full.popleft())

    def _send(self, group: _Group) -> None:
        if group.timer is not None:
            group.timer.cancel()
        members, group.members = group.members, []
        self._waiting -= len(members)
        self._expected = len(members)
        self._last_sent = self._loop.time()
        for member in members:
            member.wait.end()
        members = [member for member in members if member.found_slot or self._can_end(member)]
        members = [member for member in members if not member.future.done()]
        if not members:
            return
        group.members = members
        group.task = task = self._loop.create_task(self._answer(members))
        self._tasks.add(task)
        task.add_done_callback(self._on_batch_end)

    def _on_batch_end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._send_waiting()

    async def _answer(self, members: Sequence[_Member]) -> None:
        sizes = [member.rows for member in members]
        self.metrics.count_batch(len(members), sum(sizes))
        try:
            answer = await self._run(members)
            if answer is None:
                for member in members:
                    if self._can_end(member):
                        await self._answer([member])
                return
            parts = split(answer, sizes, self.model_name)
        except BaseException as error:
            for member in members:
                _fail(member, error)
        else:
            for member, part in zip(members, parts, strict=True):
                if not member.future.done():
                    member.future.set_result(part)

    async def _run(self, members: Sequence[_Member]) -> Answer | None:
        """Runs a batch. Returns None if one member may have caused an error of all."""
        began = self._loop.time()
        calls = [member.call for member in members]
        call = join(calls)
        try:
            with tracing.active.batch(call, calls) if tracing.active else tracing.OFF:
                return await self.runner.answer(call)
        except (ContractError, HandlerError, InferenceError, ResponseError):
            if len(members) == 1:
                raise
            return None
        finally:
            self._limit.typical.add(self._loop.time() - began)

    def _can_end(self, member: _Member) -> bool:
        """Whether a member still waits and can end within its time limit; fails it if not."""
        if error := self._limit.too_late(member.deadline - self._loop.time()):
            _fail(member, error)
        return not member.future.done()

    def _key(self, call: InferenceCall) -> Hashable:
        own = [(n, x.shape[1:]) for n, x in call.inputs.items() if not call.specs[n].is_nulls]
        tensors = tuple(sorted(own))
        if not self._takes_parameters:
            return tensors
        return tensors, repr(sorted(call.parameters.items()))


def _fail(member: _Member, error: BaseException) -> None:
    if not member.future.done():
        member.future.set_exception(error)


def obstacles(contract: Contract, handler: HandlerInfo) -> list[str]:
    """Lists why calls of a function cannot be batched; empty if they can."""
    found = [
        f'{kind} "{spec.name}": expected a shape with a leading -1, got {list(spec.shape)}'
        for kind, specs in (("input", contract.inputs), ("output", contract.outputs))
        for spec in specs.values()
        if spec.shape[:1] != (-1,)
    ]
    specs = [*contract.inputs.values(), *contract.outputs.values()]
    rows = {name for spec in specs for name in spec.axes[:1] if name is not None}
    found += [
        f'"{spec.name}": expected axis "{name}" first in each shape, as it counts the rows'
        for spec in specs
        for name in dict.fromkeys(spec.axes[1:])
        if name in rows
    ]
    if not contract.inputs:
        found.append("expected an input, got none")
    if contract.lenient:
        found.append("contract: expected enforce for requests and responses, got warn")
    if handler.streams:
        found.append("the handler streams")
    single = sorted(handler.required_fields & {"event", "headers", "request"})
    if single:
        found.append(f'the handler takes "{single[0]}", which is of one request')
    return found


def rows_of(call: InferenceCall, model_name: str) -> int:
    """Counts the rows of a call, or raises a ContractError if its inputs differ in theirs."""
    first = next(iter(call.inputs))
    rows = len(call.inputs[first])
    for name, array in call.inputs.items():
        if len(array) != rows:
            raise ContractError(
                f'input "{name}" of model "{model_name}": expected {rows} rows, '
                f'as "{first}" has (serving.batch), got {len(array)}'
            )
    return rows


def join(calls: Sequence[InferenceCall]) -> InferenceCall:
    """Joins calls whose shapes differ in the rows only. The request id of the call lists theirs."""
    first = calls[0]
    if len(calls) == 1:
        return first
    names = dict.fromkeys(name for call in calls for name in call.inputs)
    inputs = {name: np.concatenate([_part(call, name) for call in calls]) for name in names}
    for array in inputs.values():
        array.setflags(write=False)
    ids = ",".join(call.id for call in calls)
    request = SimpleNamespace(id=ids[:_MAX_ID_CHARS], parameters=first.parameters, inputs=())
    return InferenceCall(first.context, inputs, first.specs, request)


def _part(call: InferenceCall, name: str) -> Array:
    """Returns an input of a call. A companion that only other calls have tells of no nulls."""
    if name in call.inputs:
        return call.inputs[name]
    return np.zeros(call.inputs[name.removesuffix(NULLS)].shape, bool)


def split(answer: Answer, sizes: Sequence[int], model_name: str) -> list[Answer]:
    """Splits the answer of a batch into those of its calls. Raises ResponseError at other rows."""
    rows = sum(sizes)
    for named in answer.arrays:
        if len(named.array) != rows:
            raise ResponseError(
                f'output "{named.spec.name}" of model "{model_name}": expected {rows} rows, '
                f"as its inputs have (serving.batch), got {len(named.array)}"
            )
    parts = []
    for size, end in zip(sizes, accumulate(sizes), strict=True):
        arrays = [NamedArray.of(each.spec, each.masked[end - size : end]) for each in answer.arrays]
        parts.append(Answer(arrays, answer.parameters))
    return parts
