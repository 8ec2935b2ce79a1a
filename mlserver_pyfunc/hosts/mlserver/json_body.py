"""Large JSON request bodies, their numbers read into arrays rather than Python lists.

simdjson copies a homogeneous list of numbers into a buffer and refuses any other list, so
the check that every element is a number costs nothing more.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import orjson
import simdjson

from mlserver_pyfunc.protocol.tensors import JsonNumbers

MIN_BYTES = 4096
"""Below this, Python lists are as fast."""

MAX_DEPTH = 100
"""Of lists and objects within each other: far below what Python's own recursion takes."""

KEYS = frozenset({"name", "shape", "datatype"})
"""What an input must have beside its data."""

_BUFFERS = {
    "FP16": "d",
    "FP32": "d",
    "FP64": "d",
    "INT8": "i",
    "INT16": "i",
    "INT32": "i",
    "INT64": "i",
    "UINT8": "i",
    "UINT16": "i",
    "UINT32": "i",
    "UINT64": "u",
}
_DTYPES = {"d": np.float64, "i": np.int64, "u": np.uint64}
_MAX_ROWS = 4096


def parse(body: bytes) -> Any:
    """Parses a request's body; numeric data of its inputs become `JsonNumbers`.

    Raises:
        json.JSONDecodeError: It is not JSON, or too deep.
    """
    if len(body) < MIN_BYTES:
        return parse_lists(body)
    try:
        payload = _parse(body)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError):
        # Not a plain request of numbers: lists tell best what is wrong with it.
        return parse_lists(body)
    _check_depth(payload)
    return payload


def parse_lists(body: bytes | memoryview) -> Any:
    """Parses JSON into Python's own values.

    Raises:
        json.JSONDecodeError: It is not JSON, or too deep.
    """
    payload = orjson.loads(body)
    if len(body) > 2 * MAX_DEPTH and _opened(body) > MAX_DEPTH:
        _check_depth(payload)
    return payload


def _opened(text: bytes | memoryview) -> int:
    """How many lists and objects begin in a JSON text, at most."""
    if isinstance(text, bytes) and len(text) < MIN_BYTES:
        return text.count(b"[") + text.count(b"{")
    # The two differ by one bit.
    return int(np.count_nonzero((np.frombuffer(text, np.uint8) | 0x20) == ord("{")))


def _check_depth(payload: Any) -> None:
    level = [_without_data(payload)]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for each in level
            for item in (each.values() if type(each) is dict else each)
            if type(item) is list or type(item) is dict
        ]
        if not level:
            return
    raise json.JSONDecodeError(f"expected up to {MAX_DEPTH} lists or objects in each other", "", 0)


def _without_data(payload: Any) -> Any:
    """A request but for its tensors' data, whose nesting is looked at when they are decoded."""
    inputs = payload.get("inputs") if type(payload) is dict else None
    if type(inputs) is not list:
        return payload
    heads = [
        {key: value for key, value in tensor.items() if key != "data"}
        if type(tensor) is dict and tensor.keys() >= KEYS
        else tensor
        for tensor in inputs
    ]
    return {**payload, "inputs": heads}


def _parse(body: bytes) -> Any:
    document: Any = simdjson.Parser().parse(body)
    payload = _without(document, "inputs")
    sources = document["inputs"]
    brackets = 0
    payload["inputs"] = inputs = []
    # By index, because iterating turns all that is inside into Python objects.
    for index in range(len(sources)):
        source = sources[index]
        tensor = _without(source, "data")
        data = source["data"]
        if not tensor.keys() >= KEYS:
            raise KeyError("an input lacks a key")
        code = _BUFFERS.get(tensor["datatype"])
        if code is None:
            tensor["data"] = _plain(data)
        else:
            brackets += _nesting(data, tensor["shape"])
            values = np.frombuffer(data.as_buffer(of_type=code), dtype=_DTYPES[code])
            tensor["data"] = JsonNumbers(values)
        inputs.append(tensor)
    # Counted, because a buffer flattens lists inside a row without a word.
    if _lists(body) != brackets + _lists(orjson.dumps(payload, default=_nothing)):
        raise ValueError("lists within the data")
    return payload


def _lists(text: bytes) -> int:
    """How many lists begin in a JSON text; bytes.count takes four times as long."""
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord("[")))


def _without(source: Any, key: str) -> dict[str, Any]:
    """A document's object as a dict, but for one key."""
    return {name: _plain(source[name]) for name in source.keys() if name != key}  # noqa: SIM118


def _plain(value: Any) -> Any:
    """A document's value as Python's own."""
    if isinstance(value, simdjson.Object):
        return value.as_dict()
    return value.as_list() if isinstance(value, simdjson.Array) else value


def _nesting(data: Any, shape: list[int]) -> int:
    """Counts the lists of tensor data, flat or nested as its shape says.

    Raises:
        ValueError: It is neither, or has so many rows that looking at each is slow.
    """
    if not len(data) or not isinstance(data[0], simdjson.Array):
        return 1
    if math.prod(shape[:-1]) > _MAX_ROWS:
        raise ValueError("many rows")
    level, count = [data], 1
    for axis, size in enumerate(shape):
        if any(len(row) != size for row in level):
            raise ValueError("ragged")
        if axis < len(shape) - 1:
            level = [rows[index] for rows in level for index in range(size)]
            count += len(level)
    return count


def _nothing(value: Any) -> None:
    """Stands in for arrays where only the rest of the payload is of interest."""
