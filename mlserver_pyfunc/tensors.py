"""Wire values to NumPy arrays and back: one row of `DATATYPES` per tensor datatype.

Follows the Open Inference Protocol v2, "Tensor Data" (REST) and `InferTensorContents`
(gRPC). Needs only NumPy and the standard library.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import texts
from .tensor_types import Array as Array
from .tensor_types import Shape as Shape
from .tensor_types import TensorError as TensorError
from .tensor_types import shown


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


@dataclass(frozen=True)
class Datatype:
    """A tensor datatype and how its values travel.

    Attributes:
        name: As in the protocol, `FP32`.
        dtype: Of the array a handler sees; little-endian as on the wire.
        elements: What a JSON element must be, for error messages.
        contents: Field of `InferTensorContents`; None where the protocol has none (FP16).
        code: Of the `struct` module, for numbers.
        decode: A flat list of elements to a one-dimensional array.
    """

    name: str
    dtype: np.dtype[Any]
    elements: str
    contents: str | None
    code: str
    decode: Callable[[Datatype, list[Any]], Array]

    @property
    def is_bytes(self) -> bool:
        return self.dtype.hasobject


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
        flat = texts.from_base64(flat)
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
        return reshape(texts.objects(texts.split_elements(buffer)), shape)
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
        return texts.join_elements(array.ravel().tolist())
    return array.astype(datatype.dtype, copy=False).tobytes()


def _flatten(data: Any, shape: Shape) -> list[Any]:
    if not isinstance(data, list):
        if len(shape) == 0 and not isinstance(data, dict):
            return [data]
        raise TensorError(f"a list of elements for shape {list(shape)}", shown(data))
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
                f"nested lists of shape {list(shape)}", f"{shown(row)} on axis {axis - 1}"
            )
    return rows


def _decode_packed(datatype: Datatype, flat: list[Any]) -> Array:
    """Packs numbers by `struct`: the fastest conversion, and exact about type and range."""
    try:
        packed = struct.pack(f"<{len(flat)}{datatype.code}", *flat)
    except (struct.error, OverflowError, TypeError):
        return _decode_slowly(datatype, flat)
    array = np.frombuffer(bytearray(packed), dtype=datatype.dtype)
    # struct takes True for 1: only elements that became 0 or 1 need a look.
    suspects = np.flatnonzero((array == 0) | (array == 1))
    if len(suspects) and _any_bool(flat, suspects):
        return _decode_slowly(datatype, flat)
    return array


def _any_bool(flat: list[Any], suspects: NDArray[np.intp]) -> bool:
    if len(suspects) > len(flat) // 4:
        return bool in set(map(type, flat))
    return any(type(flat[index]) is bool for index in suspects.tolist())


def _decode_slowly(datatype: Datatype, flat: list[Any]) -> Array:
    """Takes whole floats as integers, or names the first element that does not fit."""
    code = datatype.code
    whole = datatype.dtype.kind in "iu"
    numbers: list[Any] = []
    for index, element in enumerate(flat):
        number = element
        if whole and isinstance(element, float) and element.is_integer():
            number = int(element)
        kinds = int if whole else (int, float)
        if isinstance(number, bool) or not isinstance(number, kinds):
            raise TensorError(
                datatype.elements, f"{shown(element)} at index {index}", _hint(datatype, element)
            )
        try:
            struct.pack(f"<{code}", number)
        except (struct.error, OverflowError):
            raise TensorError(datatype.elements, f"{shown(element)} at index {index}") from None
        numbers.append(number)
    return np.frombuffer(
        bytearray(struct.pack(f"<{len(flat)}{code}", *numbers)), dtype=datatype.dtype
    )


def _hint(datatype: Datatype, element: Any) -> str:
    if element is None and datatype.dtype.kind == "f":
        return "JSON has no NaN or infinity: send such tensors by gRPC or as binary data"
    return ""


def _decode_bools(datatype: Datatype, flat: list[Any]) -> Array:
    if set(map(type, flat)) - {bool}:
        index = next(i for i, element in enumerate(flat) if type(element) is not bool)
        raise TensorError(datatype.elements, f"{shown(flat[index])} at index {index}")
    return np.frombuffer(bytearray(flat), dtype=bool)


def _decode_bytes(datatype: Datatype, flat: list[Any]) -> Array:
    types = set(map(type, flat))
    if types <= {bytes}:
        return texts.objects(flat)
    if types <= {bytes, str}:
        return texts.objects(texts.encoded(flat))
    index = next(i for i, element in enumerate(flat) if not isinstance(element, bytes | str))
    raise TensorError(datatype.elements, f"{shown(flat[index])} at index {index}")


def _normal_bools(array: Array) -> Array:
    codes = array.view(np.uint8)
    if codes.size and np.max(codes) > 1:
        array = codes != 0
        array.flags.writeable = False
    return array


def _count(size: int, shape: Shape) -> str:
    return f"{size} elements for shape {list(shape)}"


def _integer(name: str, dtype: str, code: str, contents: str) -> Datatype:
    info = np.iinfo(dtype)
    words = f"whole numbers from {info.min} to {info.max}"
    return Datatype(name, np.dtype(dtype), words, contents, code, _decode_packed)


def _float(name: str, dtype: str, code: str, contents: str | None) -> Datatype:
    words = f"numbers up to {float(np.finfo(dtype).max):.5g}"
    return Datatype(name, np.dtype(dtype), words, contents, code, _decode_packed)


DATATYPES: dict[str, Datatype] = {
    datatype.name: datatype
    for datatype in (
        Datatype("BOOL", np.dtype("?"), "true or false", "bool_contents", "?", _decode_bools),
        _integer("UINT8", "<u1", "B", "uint_contents"),
        _integer("UINT16", "<u2", "H", "uint_contents"),
        _integer("UINT32", "<u4", "I", "uint_contents"),
        _integer("UINT64", "<u8", "Q", "uint64_contents"),
        _integer("INT8", "<i1", "b", "int_contents"),
        _integer("INT16", "<i2", "h", "int_contents"),
        _integer("INT32", "<i4", "i", "int_contents"),
        _integer("INT64", "<i8", "q", "int64_contents"),
        _float("FP16", "<f2", "e", None),
        _float("FP32", "<f4", "f", "fp32_contents"),
        _float("FP64", "<f8", "d", "fp64_contents"),
        Datatype("BYTES", np.dtype(object), "strings", "bytes_contents", "", _decode_bytes),
    )
}
