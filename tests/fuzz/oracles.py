"""What tensor data mean, worked out a second time: element by element, and without our code.

A decoder and its oracle share no code but NumPy and the standard library, so that they do not
share a mistake.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

CODES = {
    "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b",
    "INT16": "h", "INT32": "i", "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
"""Format characters of the `struct` module."""


class RefusedError(Exception):
    """The data are no tensor of this datatype and shape."""


def raw_elements(datatype: str, data: bytes, shape: Sequence[int]) -> list[Any]:
    """Returns the elements of raw tensor data.

    Raises:
        RefusedError: They are no such tensor.
    """
    count = math.prod(shape)
    if min(shape, default=0) < 0:
        raise RefusedError("a negative size")
    if datatype == "BYTES":
        elements: list[Any] = _split(data)
    elif len(data) != count * struct.calcsize(CODES[datatype]):
        raise RefusedError(f"{len(data)} bytes for {count} elements")
    else:
        elements = list(struct.unpack(f"<{count}{CODES[datatype]}", data))
    if len(elements) != count:
        raise RefusedError(f"{len(elements)} elements, not {count}")
    return elements


def _split(data: bytes) -> list[bytes]:
    elements, position = [], 0
    while position < len(data):
        size = int.from_bytes(data[position : position + 4], "little")
        if position + 4 + size > len(data):
            raise RefusedError("an element that is cut off")
        elements.append(data[position + 4 : position + 4 + size])
        position += 4 + size
    return elements


def list_elements(
    datatype: str, data: Any, shape: Sequence[int], *, is_base64: bool, is_json: bool
) -> list[Any]:
    """Returns the elements of a list, flat or nested.

    Raises:
        RefusedError: They are no such tensor.
    """
    if min(shape, default=0) < 0:
        raise RefusedError("a negative size")
    flat = _flat(data, shape)
    if len(flat) != math.prod(shape):
        raise RefusedError(f"{len(flat)} elements, not {math.prod(shape)}")
    return [_element(datatype, each, is_base64, is_json) for each in flat]


def _flat(data: Any, shape: Sequence[int]) -> list[Any]:
    if not isinstance(data, list):
        return [data] if len(shape) == 0 else _refuse("not a list")
    if not data or not isinstance(data[0], list):
        return data
    return _nested(data, shape)


def _nested(data: Any, shape: Sequence[int]) -> list[Any]:
    if not isinstance(data, list) or not shape or len(data) != shape[0]:
        return _refuse("ragged")
    if len(shape) == 1:
        return data
    return [each for row in data for each in _nested(row, shape[1:])]


def _element(datatype: str, element: Any, is_base64: bool, is_json: bool) -> Any:
    if datatype == "BYTES":
        return _bytes(element, is_base64)
    if datatype == "BOOL":
        return element if type(element) is bool else _refuse("not a boolean")
    if type(element) not in (int, float):
        return _refuse("not a number")
    if datatype.startswith("FP"):
        if is_json and type(element) is float and not math.isfinite(element):
            return _refuse("not finite")
        return _packed(datatype, element)
    if type(element) is float:
        element = int(element) if element.is_integer() else _refuse("a fraction")
    return _packed(datatype, element)


def _bytes(element: Any, is_base64: bool) -> bytes:
    if type(element) is bytes:
        return element
    if type(element) is not str:
        return bytes(_refuse("not text"))
    try:
        return base64.b64decode(element, validate=True) if is_base64 else element.encode()
    except (binascii.Error, ValueError):
        return bytes(_refuse("not base64, or not UTF-8"))


def _packed(datatype: str, number: Any) -> Any:
    code = f"<{CODES[datatype]}"
    try:
        return struct.unpack(code, struct.pack(code, number))[0]
    except (struct.error, OverflowError):
        return _refuse("out of range")


def _refuse(why: str) -> Any:
    raise RefusedError(why)


def parsed(text: bytes) -> Any:
    """Parses JSON with Python's own parser.

    Raises:
        ValueError: It is not JSON.
    """
    return json.loads(text, parse_constant=_no_constant)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def same(array: np.ndarray[Any, Any], elements: list[Any]) -> bool:
    """Whether an array has exactly these elements; NaN equals NaN."""
    got = array.ravel().tolist()
    if array.dtype.kind != "f":
        return got == elements and list(map(type, got)) == list(map(type, elements))
    return len(got) == len(elements) and all(
        (a == b and math.copysign(1, a) == math.copysign(1, b)) or (a != a and b != b)
        for a, b in zip(got, elements, strict=True)
    )
