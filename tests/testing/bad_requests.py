"""Hypothesis strategies that draw requests which break one rule of the contract each."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from mlserver_pyfunc.definition import FunctionDefinition, TensorDefinition
from mlserver_pyfunc.protocol import tensors
from mlserver_pyfunc.protocol.samples import random_arrays
from mlserver_pyfunc.protocol.tensors import DATATYPES, Array, TensorError
from mlserver_pyfunc.testing.strategies import Body, _keeps, body_of


@dataclass(frozen=True)
class BadRequest:
    """A request that breaks one rule of the contract.

    Attributes:
        rule: Name of the rule, a key of `_RULES` or `named axis`.
        tensor: Name of the input that breaks it.
        body: The request in the protocol's JSON form.
    """

    rule: str
    tensor: str
    body: Body


def bad_requests_for(definition: FunctionDefinition) -> st.SearchStrategy[BadRequest]:
    """Draws requests that break one rule of the contract each. The server answers 400 to all.

    Rules whose breach only warns (`contract.requests: warn`) are left out.

    Raises:
        ValueError: The definition declares no inputs, so there is no rule to break.
    """
    rules = [(t, rule, 0) for t in definition.inputs for rule in _RULES if _RULES[rule](t)]
    rules += [(tensor, "named axis", axis) for tensor, axis in _shared_axes(definition)]
    broken = [_broken(definition, *each) for each in rules if _is_refused(definition, each[1])]
    if not broken:
        raise ValueError("expected a definition with inputs, got none")
    return st.one_of(broken)


def _is_refused(definition: FunctionDefinition, rule: str) -> bool:
    """Returns whether a request that breaks a rule is refused, not only warned of."""
    if rule == "requested outputs" and not definition.outputs:
        return False
    return definition.contract.requests == "enforce" or rule not in _ONLY_WARNED_OF


def _shared_axes(definition: FunctionDefinition) -> Iterator[tuple[TensorDefinition, int]]:
    """Yields each input and axis whose name another axis of the inputs has too."""
    names = [size for tensor in definition.inputs for size in tensor.shape]
    for tensor in definition.inputs:
        for axis, size in enumerate(tensor.shape):
            if isinstance(size, str) and names.count(size) > 1 and 0 not in tensor.shape:
                yield tensor, axis


def _outside(tensor: TensorDefinition) -> Any:
    """Returns an element that the datatype has and the limits exclude; None if there is none."""
    spec = tensor.spec
    if spec.limits is None:
        return None
    if spec.datatype.is_bytes:
        return f"not {' nor '.join(spec.limits.enum)}"
    enum, *bounds = vars(spec.limits).values()
    for bound in [*enum, *bounds]:
        for value in () if bound is None else (bound, bound - 1, bound + 1):
            number = float(value) if spec.datatype.dtype.kind == "f" else math.floor(value)
            with suppress(TensorError):
                if not _keeps(spec.limits, tensors.from_list(spec.datatype, [number], [1])):
                    return number
    return None


def _broken(
    definition: FunctionDefinition, tensor: TensorDefinition, rule: str, axis: int
) -> st.SearchStrategy[BadRequest]:
    def break_rule(arrays: dict[str, Array]) -> BadRequest:
        body = copy.deepcopy(body_of(definition, arrays))
        target = next(item for item in body["inputs"] if item["name"] == tensor.name)
        _break(rule, tensor, body, target, axis)
        return BadRequest(rule, tensor.name, body)

    # Some rules are broken by one element, so each array needs one.
    specs = [each.spec for each in definition.inputs]
    sources = st.randoms(use_true_random=False)
    return sources.map(lambda source: break_rule(random_arrays(specs, source)))


def _break(rule: str, tensor: TensorDefinition, body: Body, target: Body, axis: int) -> None:
    shape, data, is_bytes = target["shape"], target["data"], tensor.datatype == "BYTES"
    match rule:
        case "missing":
            body["inputs"].remove(target)
        case "unknown":
            body["inputs"].append({**target, "name": f"{tensor.name}_unknown"})
        case "duplicate":
            body["inputs"].append(copy.deepcopy(target))
        case "datatype":
            target["datatype"] = "INT32" if tensor.datatype == "FP64" else "FP64"
        case "rank":
            target["shape"] = [1, *shape]
        case "fixed axis":
            shape[next(axis for axis, size in enumerate(tensor.sizes) if size != -1)] += 1
        case "named axis":
            shape[axis] += 1
            target["data"] = data[:1] * math.prod(shape)
        case "negative size":
            shape[0] = -1
        case "element count":
            data.append("" if is_bytes else 0)
        case "element kind":
            data[0] = 1 if is_bytes or tensor.datatype == "BOOL" else "text"
        case "null":
            data[0] = None
        case "whole numbers":
            data[0] = 1.5
        case "range":
            data[0] = int(np.iinfo(DATATYPES[tensor.datatype].dtype).max) + 1
        case "limits":
            data[0] = _outside(tensor)
        case "requested outputs":
            body["outputs"] = [{"name": "no such output"}]


def _has_elements(tensor: TensorDefinition) -> bool:
    return 0 not in tensor.shape


def _is_integer(tensor: TensorDefinition) -> bool:
    return "INT" in tensor.datatype and _has_elements(tensor)


_RULES: dict[str, Callable[[TensorDefinition], bool]] = {
    "missing": lambda tensor: not tensor.optional,
    "unknown": lambda tensor: True,
    "duplicate": lambda tensor: True,
    "datatype": lambda tensor: True,
    "rank": lambda tensor: True,
    "fixed axis": lambda tensor: any(size != -1 for size in tensor.sizes),
    "negative size": lambda tensor: bool(tensor.shape),
    "element count": _has_elements,
    "element kind": _has_elements,
    "null": lambda tensor: not tensor.nullable and _has_elements(tensor),
    "whole numbers": _is_integer,
    "range": lambda tensor: _is_integer(tensor) and tensor.datatype != "UINT64",
    "limits": lambda tensor: _has_elements(tensor) and _outside(tensor) is not None,
    "requested outputs": lambda tensor: True,
}
_ONLY_WARNED_OF = {
    "missing", "unknown", "datatype", "rank", "fixed axis", "named axis", "limits",
    "requested outputs",
}  # fmt: skip
"""Rules whose breach `contract.requests: warn` lets through."""
