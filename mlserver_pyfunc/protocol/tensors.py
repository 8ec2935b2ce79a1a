"""Wire values to NumPy arrays and back.

Follows the Open Inference Protocol v2, "Tensor Data" (REST) and `InferTensorContents`
(gRPC). Needs only NumPy and the standard library.
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
    """A tensor's bytes as they came: row-major, little-endian, BYTES length-prefixed.

    Attributes:
        buffer: The bytes there are.
        declared: The size the request states, where it states one.
        surplus: Bytes of the request's body after its last tensor, which is this one.
    """

    buffer: bytes | memoryview
    declared: int | None = None
    surplus: int = 0


@dataclass(frozen=True, slots=True)
class JsonNumbers:
    """Flat JSON numbers, already an array: float64, int64 or uint64."""

    values: Array


def from_list(datatype: Datatype, data: Any, shape: Shape, *, is_base64: bool = False) -> Array:
    """Decodes JSON data, flat or nested, or the list of a gRPC typed field.

    Args:
        datatype: The tensor's datatype.
        data: A flat list in row-major order, or lists nested as `shape` says.
        shape: The request's shape, without negative sizes.
        is_base64: BYTES strings are base64.

    Returns:
        An array of `datatype.dtype` and `shape`.

    Raises:
        TensorError: The element count, the nesting or a value does not fit.
    """
    flat = _flatten(data, shape)
    size = math.prod(shape)
    if len(flat) != size:
        raise TensorError(_count(size, shape), str(len(flat)))
    if is_base64 and datatype.is_bytes:
        flat = bytes_tensors.from_base64(flat)
    return reshape(datatype.decode(datatype, flat), shape)


def from_raw(datatype: Datatype, raw: RawTensor, shape: Shape) -> Array:
    """Views raw tensor bytes as a read-only array, without a copy but for BYTES.

    Raises:
        TensorError: The byte count is not the shape's or not the stated one, or BYTES
            lengths run past the end.
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
    """Decodes what is neither a list nor raw: numbers in an array, or a JSON scalar.

    Raises:
        TensorError: As `from_list`.
    """
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
    """Casts finite JSON numbers; None where one does not fit, for the list to name it."""
    if datatype.dtype.kind == "f":
        with np.errstate(over="ignore"):
            cast = array.astype(datatype.dtype)
        return cast if np.isfinite(cast).all() else None
    if datatype.dtype.kind not in "iu" or array.dtype.kind == "f":
        return None
    info = np.iinfo(datatype.dtype)
    if array.size and (int(array.min()) < info.min or int(array.max()) > info.max):
        return None
    return array.astype(datatype.dtype, copy=False)


def reshape(array: Array, shape: Shape) -> Array:
    """Gives an array a shape of as many elements.

    Raises:
        TensorError: The element count differs.
    """
    if array.size != math.prod(shape):
        raise TensorError(_count(math.prod(shape), shape), str(array.size))
    try:
        return array.reshape(shape)
    except (ValueError, OverflowError):
        raise TensorError("a shape NumPy can hold", str(list(shape))) from None


def to_list(array: Array) -> list[Any]:
    """Encodes an array as a flat list in row-major order."""
    flat: list[Any] = array.ravel().tolist()
    return flat


def to_raw(datatype: Datatype, array: Array) -> bytes:
    """Encodes an array as raw tensor bytes, row-major and little-endian."""
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
    codes = array.view(np.uint8)
    if codes.size and np.max(codes) > 1:
        array = codes != 0
        array.flags.writeable = False
    return array


def _count(size: int, shape: Shape) -> str:
    return f"{size} elements for shape {list(shape)}"
