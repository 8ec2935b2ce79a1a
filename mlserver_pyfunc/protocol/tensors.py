"""Conversion of tensor data, as requests and responses carry it, to and from NumPy arrays.

Follows the Open Inference Protocol v2, "Tensor Data" (REST) and `InferTensorContents` (gRPC).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from . import bytes_tensors
from .datatypes import DATATYPES as DATATYPES
from .datatypes import Datatype as Datatype
from .types import Array as Array
from .types import Shape as Shape
from .types import TensorError as TensorError
from .types import short_repr


@dataclass(slots=True)
class RawTensor:
    """Raw tensor data as received: row-major, little-endian, BYTES elements after their lengths."""

    buffer: bytes | memoryview
    declared: int | None = None  # their size in bytes, according to the request
    surplus: int = 0  # bytes that follow the last tensor's


@dataclass(frozen=True, slots=True)
class JsonNumbers:
    """JSON numbers that a parser has put into a flat array of float64, int64 or uint64."""

    values: Array


def from_list(datatype: Datatype, data: Any, shape: Shape, *, is_base64: bool = False) -> Array:
    """Decodes JSON data, flat or nested, or gRPC's typed contents, or raises a TensorError."""
    flat = _flatten(data, shape)
    size = math.prod(shape)
    if len(flat) != size:
        raise TensorError(_count(size, shape), str(len(flat)))
    if is_base64 and datatype.is_bytes:
        flat = bytes_tensors.from_base64(flat)
    return reshape(datatype.decode(datatype, flat), shape)


def from_raw(datatype: Datatype, raw: RawTensor, shape: Shape) -> Array:
    """Decodes raw tensor data, or raises a TensorError if its number of bytes does not fit.

    The array is a read-only view of the data, not a copy, except for BYTES and for BOOL data that
    has bytes other than 0 and 1.
    """
    buffer = raw.buffer
    if raw.declared is not None and raw.declared != len(buffer):
        raise TensorError(f"{raw.declared} bytes (binary_data_size)", f"{len(buffer)} in the body")
    if raw.surplus:
        raise TensorError("the body to end with this tensor", f"{raw.surplus} bytes more")
    if datatype.is_bytes:
        return reshape(bytes_tensors.object_array(bytes_tensors.split_elements(buffer)), shape)
    expected = math.prod(shape) * datatype.dtype.itemsize
    if len(buffer) != expected:
        raise TensorError(
            f"{expected} bytes for {datatype.name} of shape {list(shape)}", str(len(buffer))
        )
    array = np.frombuffer(buffer, dtype=datatype.dtype)
    if datatype.dtype.kind == "b":
        array = _normal_bools(array)
    return reshape(array, shape)


def from_other(datatype: Datatype, data: Any, shape: Shape, *, is_base64: bool = False) -> Array:
    """Decodes an array of numbers, or a JSON scalar. Raises a TensorError as `from_list` does."""
    if isinstance(data, JsonNumbers):
        array = data.values
        if array.size == math.prod(shape) and (cast := _exact_cast(datatype, array)) is not None:
            return reshape(cast, shape)
        data = array.tolist()
    elif isinstance(data, np.ndarray):
        if data.dtype == datatype.dtype:
            return reshape(data, shape)
        data = data.ravel().tolist()
    return from_list(datatype, data, shape, is_base64=is_base64)


def _exact_cast(datatype: Datatype, array: Array) -> Array | None:
    """Casts finite JSON numbers; None if one does not fit, so that `from_list` names it."""
    if datatype.dtype.kind == "f":
        with np.errstate(over="ignore"):
            cast = array.astype(datatype.dtype)
        return cast if np.isfinite(cast).all() else None
    if datatype.dtype.kind not in "iu" or array.dtype.kind == "f":
        return None
    return array.astype(datatype.dtype, copy=False) if datatype.holds(array) else None


def reshape(array: Array, shape: Shape) -> Array:
    """Reshapes an array, or raises a TensorError."""
    if array.size != math.prod(shape):
        raise TensorError(_count(math.prod(shape), shape), str(array.size))
    if type(array) is not np.ndarray and array.ndim == len(shape) == 1:
        return array  # To reshape a masked array takes a few microseconds.
    try:
        return array.reshape(shape)
    except (ValueError, OverflowError):
        raise TensorError("a shape NumPy can hold", str(list(shape))) from None


def to_list(array: Array) -> list[Any]:
    """Encodes an array as a flat list in row-major order."""
    flat: list[Any] = array.ravel().tolist()
    return flat


def to_contents(datatype: Datatype, array: Array) -> list[Any]:
    """Encodes an array as a field of gRPC's typed contents has it."""
    elements = to_list(array)
    return bytes_tensors.encode_elements(elements) if datatype.is_bytes else elements


def to_raw(datatype: Datatype, array: Array) -> bytes:
    """Encodes an array as raw tensor data, row-major and little-endian."""
    if datatype.is_bytes:
        return bytes_tensors.join_elements(array.ravel().tolist())
    return array.astype(datatype.dtype, copy=False).tobytes()


def _flatten(data: Any, shape: Shape) -> list[Any]:
    if not isinstance(data, list):
        if len(shape) == 0 and not isinstance(data, dict):
            return [data]
        raise TensorError(f"a list of elements for shape {list(shape)}", short_repr(data))
    if not data or not isinstance(data[0], list):
        return data
    level = data
    for axis, size in enumerate(shape):
        if axis:
            level = _next_level(level, shape, axis)
        elif len(level) != size:
            raise TensorError(f"nested lists of shape {list(shape)}", f"{len(level)} on axis 0")
        if axis and any(length != size for length in set(map(len, level))):
            odd = next(len(row) for row in level if len(row) != size)
            raise TensorError(
                f"nested lists of shape {list(shape)}", f"a row of {odd} on axis {axis}"
            )
    return list(chain.from_iterable(level)) if len(shape) > 1 else level


def _next_level(level: list[Any], shape: Shape, axis: int) -> list[Any]:
    rows = level if axis == 1 else list(chain.from_iterable(level))
    for row in rows:
        if not isinstance(row, list):
            raise TensorError(
                f"nested lists of shape {list(shape)}", f"{short_repr(row)} on axis {axis - 1}"
            )
    return rows


def _normal_bools(array: Array) -> Array:
    # NumPy assumes that the byte of a bool is 0 or 1: others show up in tobytes and in C code.
    codes = array.view(np.uint8)
    if codes.size and np.max(codes) > 1:
        array = codes != 0
        array.flags.writeable = False
    return array


def _count(size: int, shape: Shape) -> str:
    return f"{size} elements for shape {list(shape)}"
