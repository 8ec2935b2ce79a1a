"""Joins the rows of several calls into one batch, and splits its answer again.

Rows are entries on the first axis. Every tensor must declare -1 there.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from types import SimpleNamespace

import numpy as np

from mlserver_pyfunc.errors import ContractError, ResponseError
from mlserver_pyfunc.handler.call import InferenceCall
from mlserver_pyfunc.protocol.contract import Contract, NamedArray
from mlserver_pyfunc.protocol.nulls import NULLS
from mlserver_pyfunc.protocol.tensors import Array

from .runner import Answer, HandlerInfo

_MAX_ID_CHARS = 200


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
    """Splits the answer of a batch into those of its calls, of these sizes, in the order of `join`.

    Raises a ResponseError if an output has a different number of rows than the inputs.
    """
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
