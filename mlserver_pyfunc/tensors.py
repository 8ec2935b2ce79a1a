"""Wire values to NumPy arrays and back: one row of `DATATYPES` per tensor datatype.

Follows the Open Inference Protocol v2, "Tensor Data" (REST) and `InferTensorContents`
(gRPC). Needs only NumPy and the standard library.
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Shape: TypeAlias = Sequence[int]


class TensorError(ValueError):
    """A value that is not a tensor of its datatype: what was expected and what came."""

    def __init__(self, expected: str, got: str, note: str = "") -> None:
        super().__init__(f"expected {expected}, got {got}" + (f" ({note})" if note else ""))


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
        flat = _from_base64(flat)
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
        return reshape(_objects(_split_elements(buffer)), shape)
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
        return _join_elements(_as_all_bytes(array.ravel().tolist()))
    return array.astype(datatype.dtype, copy=False).tobytes()


def to_json_bytes(array: Array) -> tuple[list[str], bool]:
    """Encodes a BYTES array for JSON: UTF-8 text, or all of it base64 where any is not text.

    Returns:
        The flat list of strings, and whether they are base64.
    """
    elements = array.ravel().tolist()
    try:
        return [e if isinstance(e, str) else e.decode() for e in elements], False
    except UnicodeDecodeError:
        return [base64.b64encode(as_bytes(element)).decode() for element in elements], True


def as_bytes(element: bytes | str) -> bytes:
    return element.encode() if isinstance(element, str) else element


def as_text(array: Array) -> Array:
    """Decodes a BYTES array to `str` elements.

    Raises:
        TensorError: An element is not UTF-8.
    """
    elements = array.ravel().tolist()
    try:
        return _objects([element.decode() for element in elements]).reshape(array.shape)
    except UnicodeDecodeError as error:
        raise TensorError("UTF-8 text", f"bytes that are not ({error.reason})") from None


def from_value(datatype: Datatype, value: Any) -> Array:
    """Turns a handler's value into an array of the datatype, if it fits.

    NumPy values are cast where the cast is safe or of the same kind; Python values are
    held to the same rules as JSON data.

    Raises:
        TensorError: The value is of another kind, out of range or ragged.
    """
    if type(value) is np.ndarray and value.dtype == datatype.dtype and not datatype.is_bytes:
        return value
    if datatype.is_bytes:
        return _bytes_from_value(value)
    array = _as_array(value)
    if array.dtype == datatype.dtype:
        return array
    if array.dtype.kind in "OUSV":
        return _from_python(datatype, array, value)
    if not isinstance(value, np.ndarray | np.generic) and not hasattr(value, "__array__"):
        return _from_python(datatype, array, value)
    return _cast(datatype, array)


def _cast(datatype: Datatype, array: Array) -> Array:
    if not np.can_cast(array.dtype, datatype.dtype, "same_kind"):
        raise TensorError(
            datatype.name,
            f"an array of {array.dtype}",
            f"cast it in the handler: .astype(np.{datatype.dtype.name})",
        )
    with np.errstate(over="ignore"):
        cast = array.astype(datatype.dtype)
    if datatype.dtype.kind in "iu":
        info = np.iinfo(datatype.dtype)
        if array.size and (int(array.min()) < info.min or int(array.max()) > info.max):
            misfit = array[(array < info.min) | (array > info.max)].ravel()[0]
            raise TensorError(datatype.elements, str(misfit.item()))
    elif (lost := np.isinf(cast) & np.isfinite(array)).any():
        raise TensorError(datatype.elements, str(array[lost].ravel()[0].item()))
    return cast


def _from_python(datatype: Datatype, array: Array, value: Any) -> Array:
    if array.dtype.kind != "O" or array.ndim:
        value = array.tolist()
    return from_list(datatype, value, array.shape)


def _bytes_from_value(value: Any) -> Array:
    if isinstance(value, bytes | str):
        return _objects(_encoded([value])).reshape(())
    array = value if isinstance(value, np.ndarray) else _as_objects(value)
    elements = array.ravel().tolist()
    if not {bytes, str}.issuperset(map(type, elements)):
        for index, element in enumerate(elements):
            if not isinstance(element, bytes | str):
                raise TensorError("bytes or str", f"{_show(element)} at index {index}")
    return _objects(_encoded(elements)).reshape(array.shape)


def _as_array(value: Any) -> Array:
    try:
        return np.asarray(value)
    except OverflowError:
        return np.asarray(value, dtype=object)
    except Exception as error:
        raise TensorError("an array", f"{type(value).__name__} ({error})") from None


def _as_objects(value: Any) -> Array:
    if hasattr(value, "__array__"):
        return np.asarray(value)
    try:
        return np.array(value, dtype=object)
    except ValueError as error:
        raise TensorError("an array", f"{type(value).__name__} ({error})") from None


def _objects(elements: list[Any]) -> Array:
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array


def _flatten(data: Any, shape: Shape) -> list[Any]:
    if not isinstance(data, list):
        if len(shape) == 0 and not isinstance(data, dict):
            return [data]
        raise TensorError(f"a list of elements for shape {list(shape)}", _show(data))
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
                f"nested lists of shape {list(shape)}", f"{_show(row)} on axis {axis - 1}"
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
                datatype.elements, f"{_show(element)} at index {index}", _hint(datatype, element)
            )
        try:
            struct.pack(f"<{code}", number)
        except (struct.error, OverflowError):
            raise TensorError(datatype.elements, f"{_show(element)} at index {index}") from None
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
        raise TensorError(datatype.elements, f"{_show(flat[index])} at index {index}")
    return np.frombuffer(bytearray(flat), dtype=bool)


def _decode_bytes(datatype: Datatype, flat: list[Any]) -> Array:
    types = set(map(type, flat))
    if types <= {bytes}:
        return _objects(flat)
    if types <= {bytes, str}:
        return _objects(_encoded(flat))
    index = next(i for i, element in enumerate(flat) if not isinstance(element, bytes | str))
    raise TensorError(datatype.elements, f"{_show(flat[index])} at index {index}")


def _encoded(elements: list[Any]) -> list[bytes]:
    """Encodes text; refuses a lone surrogate, which UTF-8 cannot say and no route send."""
    try:
        return _as_all_bytes(elements)
    except UnicodeEncodeError as error:
        index = elements.index(error.object)
        raise TensorError("UTF-8 text", f"{_show(error.object)} at index {index}") from None


def _from_base64(flat: list[Any]) -> list[Any]:
    """Decodes base64 strings; elements that are bytes came over gRPC, as themselves."""
    decoded = []
    for index, element in enumerate(flat):
        if not isinstance(element, str):
            decoded.append(element)
            continue
        try:
            decoded.append(base64.b64decode(element, validate=True))
        except (binascii.Error, ValueError):
            raise TensorError("base64 strings", f"{_show(element)} at index {index}") from None
    return decoded


def _as_all_bytes(elements: list[Any]) -> list[bytes]:
    types = set(map(type, elements))
    if types <= {bytes}:
        return elements
    if types == {str}:
        return [element.encode() for element in elements]
    return [as_bytes(element) for element in elements]


def _split_elements(buffer: bytes | memoryview) -> list[bytes]:
    data = bytes(buffer)
    read_length = struct.Struct("<I").unpack_from
    elements: list[bytes] = []
    start = position = 0
    end = len(data)
    try:
        while position < end:
            start = position + 4
            position = start + read_length(data, position)[0]
            elements.append(data[start:position])
    except struct.error:
        raise TensorError(
            "a 4-byte length before each element", f"{end - position} bytes"
        ) from None
    # Only the last element can be cut short.
    if position > end:
        raise TensorError(f"{position - start} bytes in an element", f"{end - start}")
    return elements


def _join_elements(elements: list[bytes]) -> bytes:
    lengths = list(map(len, elements))
    prefixes = {length: length.to_bytes(4, "little") for length in set(lengths)}
    parts = [b""] * (2 * len(elements))
    parts[::2] = map(prefixes.__getitem__, lengths)
    parts[1::2] = elements
    return b"".join(parts)


def _normal_bools(array: Array) -> Array:
    codes = array.view(np.uint8)
    if codes.size and np.max(codes) > 1:
        array = codes != 0
        array.flags.writeable = False
    return array


def _count(size: int, shape: Shape) -> str:
    return f"{size} elements for shape {list(shape)}"


def _show(value: Any) -> str:
    text = repr(value)
    if value is None:
        text = "null"
    elif isinstance(value, bool):
        text = str(value).lower()
    return text if len(text) <= 40 else f"{text[:37]}..."


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
