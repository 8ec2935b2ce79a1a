"""Reads JSON request bodies. Numbers of large ones become arrays, not Python lists.

simdjson copies a list of numbers of one kind into a buffer and refuses any other list. So the
check that each element is a number costs nothing.
"""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import orjson
import simdjson

from mlserver_pyfunc.protocol.tensors import DATATYPES, JsonNumbers

MIN_BYTES = 4096
"""Length of a body with one tensor from which arrays are faster than Python lists."""
MAX_DEPTH = 100
"""Allowed nesting of lists and objects: far below the limit of Python's recursion."""

MAX_LISTS = 2**22
"""Allowed number of lists and objects. As Python's own values, each takes 56 bytes or more."""

MAX_VALUES = 2**25
"""Allowed number of values. As Python's own, each takes up to 32 bytes and more."""

KEYS = frozenset({"name", "shape", "datatype"})
"""Names that an input must have besides `data`."""

# The kind of simdjson's buffer for a datatype. All integers fit into int64, except UINT64.
_BUFFERS = {
    name: "u" if name == "UINT64" else {"f": "d"}.get(datatype.dtype.kind, "i")
    for name, datatype in DATATYPES.items()
    if datatype.dtype.kind in "fiu"
}
_DTYPES = {"d": np.float64, "i": np.int64, "u": np.uint64}
_MAX_ROWS = 4096


def _has_small_tensors(body: bytes) -> bool:
    """Whether a body has many small tensors, as columns are: lists are faster then."""
    # To count the tensors of a large body takes long, so the second one has to begin soon.
    first = body.find(b'"data"', 0, MIN_BYTES)
    is_small = body.find(b'"data"', first + 1, first + MIN_BYTES) > 0
    return is_small and len(body) < MIN_BYTES * body.count(b'"data"', 0, 2**20)


def parse(body: bytes) -> Any:
    """Parses the body of a request. Numeric data of its inputs become `JsonNumbers`.

    Raises json.JSONDecodeError if it is not JSON, nested too deep, or has too many values.
    """
    if len(body) < MIN_BYTES or _has_small_tensors(body):
        return parse_lists(body)
    _check_width(body)
    try:
        payload = _parse(body)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError):
        # Not a plain request of numbers. The error messages of the slow way are the better ones.
        return parse_lists(body)
    _check_depth(payload)
    return payload


def parse_lists(body: bytes | memoryview) -> Any:
    """Parses JSON into Python's own values. Raises as `parse` does."""
    _check_width(body)
    payload = orjson.loads(body)
    if len(body) > 2 * MAX_DEPTH and _opened(body) > MAX_DEPTH:
        _check_depth(payload)
    return payload


def _opened(text: bytes | memoryview) -> int:
    """Returns an upper bound of the lists and objects in a JSON text."""
    if isinstance(text, bytes) and len(text) < MIN_BYTES:
        return text.count(b"[") + text.count(b"{")
    # "[" and "{" differ by one bit.
    return int(np.count_nonzero((np.frombuffer(text, np.uint8) | 0x20) == ord("{")))


def _check_width(text: bytes | memoryview) -> None:
    if len(text) > MAX_LISTS and _opened(text) > MAX_LISTS:
        raise json.JSONDecodeError(f"expected up to {MAX_LISTS} lists and objects", "", 0)
    if len(text) > MAX_VALUES and _count(text, b",") >= MAX_VALUES:
        raise json.JSONDecodeError(f"expected up to {MAX_VALUES} values", "", 0)


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
    """Returns a request without the data of its tensors. Decoding checks the nesting of those."""
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
    # A buffer flattens lists inside a row without an error, so count the lists of the body.
    if _count(body, b"[") != brackets + _count(
        orjson.dumps(payload, default=lambda array: None), b"["
    ):
        raise ValueError("lists within the data")
    return payload


def _count(text: bytes | memoryview, character: bytes) -> int:
    """Counts a character in a JSON text. `bytes.count` takes four times as long."""
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord(character)))


def _without(source: Any, key: str) -> dict[str, Any]:
    names = list(source.keys())
    # Of two equal keys simdjson takes the first one, and orjson the last.
    if len(set(names)) < len(names):
        raise KeyError("a key is given twice")
    return {name: _plain(source[name]) for name in names if name != key}


def _plain(value: Any) -> Any:
    if isinstance(value, simdjson.Object):
        return value.as_dict()
    return value.as_list() if isinstance(value, simdjson.Array) else value


def _nesting(data: Any, shape: list[int]) -> int:
    """Returns the number of lists in tensor data that is flat, or nested as its shape.

    Raises ValueError if it is neither, or has so many rows that a look at each is slow.
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
