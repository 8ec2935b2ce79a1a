"""Calls joined into one, row by row, and its answer split again.

Only rows are joined: every tensor has a leading -1.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np

from mlserver_pyfunc.errors import ContractError, ResponseError
from mlserver_pyfunc.handler.call import InferenceCall
from mlserver_pyfunc.protocol.contract import Contract, NamedArray

from .runner import Answer

_MAX_ID_CHARS = 200


def obstacles(contract: Contract, streams: bool, needs: frozenset[str]) -> list[str]:
    """Lists why calls of a function cannot be joined; empty where they can.

    Args:
        contract: The function's.
        streams: Whether its handler does.
        needs: As `CallPlan.required_fields`.
    """
    found = [
        f'{kind} "{spec.name}": expected a shape with a leading -1, got {list(spec.shape)}'
        for kind, specs in (("input", contract.inputs), ("output", contract.outputs))
        for spec in specs.values()
        if spec.shape[:1] != (-1,)
    ]
    if not contract.inputs:
        found.append("expected an input, got none")
    if streams:
        found.append("the handler streams")
    told = sorted(needs - {"parameters"})
    if told:
        found.append(f'the handler takes "{told[0]}", which is of one request')
    return found


def rows_of(call: InferenceCall, model_name: str) -> int:
    """How many rows a call has.

    Raises:
        ContractError: Not the same in each input.
    """
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
    """Joins calls of equal trailing shapes; their ids are listed in its own."""
    first = calls[0]
    if len(calls) == 1:
        return first
    inputs = {name: np.concatenate([call.inputs[name] for call in calls]) for name in first.inputs}
    ids = ",".join(call.id for call in calls)
    payload = SimpleNamespace(id=ids[:_MAX_ID_CHARS], parameters=first.parameters, inputs=())
    return InferenceCall(first.context, inputs, first.specs, payload)


def split(answer: Answer, sizes: Sequence[int], model_name: str) -> list[Answer]:
    """Gives each of the calls that were joined its rows of the answer.

    Args:
        answer: To the joined call.
        sizes: Rows of each call, in the order in which they were joined.
        model_name: Named in errors.

    Raises:
        ResponseError: An output has another number of rows than the inputs.
    """
    rows = sum(sizes)
    for named in answer.arrays:
        if len(named.array) != rows:
            raise ResponseError(
                f'output "{named.spec.name}" of model "{model_name}": expected {rows} rows, '
                f"as its inputs have (serving.batch), got {len(named.array)}"
            )
    parts = []
    start = 0
    for size in sizes:
        end = start + size
        arrays = [NamedArray(named.spec, named.array[start:end]) for named in answer.arrays]
        parts.append(Answer(arrays, answer.parameters))
        start = end
    return parts
