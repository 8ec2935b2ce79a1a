"""The datatypes of tensors: one row of `DATATYPES` each, and the decoding of their elements.

Follows the Open Inference Protocol v2, "Tensor Data Types".
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import bytes_tensors
from .types import ADMITS_NULL, Array, misfit


@dataclass(frozen=True)
class Datatype:
    """A tensor datatype and its representations."""

    name: str  # in the protocol, such as `FP32`
    dtype: np.dtype[Any]  # of a handler's array; little-endian, as in raw tensor data
    elements: str  # description of a valid JSON element, for error messages
    contents: str | None  # field of gRPC's `InferTensorContents`; None for FP16, which has no field
    code: str  # format character of the `struct` module; empty for BYTES
    decode: Callable[[Datatype, list[Any]], Array]  # of a flat list, to a one-dimensional array
    nullable: bool = False  # whether null is an element: NaN in floats, else a masked element

    def holds(self, numbers: Array) -> bool:
        """Returns whether all numbers of an array are in the range of this type of integers."""
        info = np.iinfo(self.dtype)
        return not numbers.size or (
            int(numbers.min()) >= info.min and int(numbers.max()) <= info.max
        )

    @property
    def is_bytes(self) -> bool:
        """Whether this is BYTES, the only datatype whose elements vary in length."""
        return self.dtype.hasobject


def _decode_packed(datatype: Datatype, flat: list[Any]) -> Array:
    """Decodes numbers strictly: no text, no booleans, no fractions for integers, no overflow.

    `np.array(flat, dtype)` is no alternative: it takes "1" and True for 1, and cuts 1.7 to 1
    and, in NumPy 1, 300 to 44. `struct.pack` checks type and range of each element in C and
    is faster. Only two cases remain for `_decode_slowly`: whole floats such as 1.0 are valid
    integers, and `struct` accepts booleans.
    """
    try:
        packed = struct.pack(f"<{len(flat)}{datatype.code}", *flat)
    except (struct.error, OverflowError, TypeError):
        return _decode_slowly(datatype, flat)
    array = np.frombuffer(bytearray(packed), dtype=datatype.dtype)
    if len(flat) <= 64:  # The fastest way for few elements.
        return _decode_slowly(datatype, flat) if bool in set(map(type, flat)) else array
    # A boolean became 0 or 1: only those elements have to be looked at.
    suspects = np.flatnonzero((array == 0) | (array == 1))
    if len(suspects) and _any_bool(flat, suspects):
        return _decode_slowly(datatype, flat)
    return array


def _decode_nullable(datatype: Datatype, flat: list[Any]) -> Array:
    decode, kind = DATATYPES[datatype.name].decode, datatype.dtype.kind
    if None not in flat:
        return decode(datatype, flat)
    empty = {"f": math.nan, "b": False, "O": b""}.get(kind, 0)
    array = decode(datatype, [empty if element is None else element for element in flat])
    nulls = [element is None for element in flat]
    return array if kind == "f" else np.ma.MaskedArray(array, nulls)


def _any_bool(flat: list[Any], suspects: NDArray[np.intp]) -> bool:
    # One pass over all types is faster than looking at more than a quarter of the elements.
    if len(suspects) > len(flat) // 4:
        return bool in set(map(type, flat))
    return any(type(flat[index]) is bool for index in suspects.tolist())


def _decode_slowly(datatype: Datatype, flat: list[Any]) -> Array:
    """Decodes numbers one by one, to accept whole floats or to name the first misfit."""
    code = datatype.code
    whole = datatype.dtype.kind in "iu"
    numbers: list[Any] = []
    for index, element in enumerate(flat):
        number = element
        if whole and isinstance(element, float) and element.is_integer():
            number = int(element)
        if isinstance(number, bool) or not isinstance(number, int | float):
            null = _NO_NAN if datatype.dtype.kind == "f" else ADMITS_NULL
            raise misfit(datatype.elements, element, index, null)
        try:
            struct.pack(f"<{code}", number)
        except (struct.error, OverflowError):
            raise misfit(datatype.elements, element, index) from None
        numbers.append(number)
    return np.frombuffer(
        bytearray(struct.pack(f"<{len(flat)}{code}", *numbers)), dtype=datatype.dtype
    )


_NO_NAN = "JSON has no NaN or infinity: send binary data or gRPC, or declare nullable: true"


def _decode_bools(datatype: Datatype, flat: list[Any]) -> Array:
    if set(map(type, flat)) - {bool}:
        index = next(i for i, element in enumerate(flat) if type(element) is not bool)
        raise misfit(datatype.elements, flat[index], index)
    return np.frombuffer(bytearray(flat), dtype=bool)


def _decode_bytes(datatype: Datatype, flat: list[Any]) -> Array:
    types = set(map(type, flat))
    if types <= {bytes, str}:
        return bytes_tensors.object_array(bytes_tensors.encode_elements(flat))
    index = next(i for i, element in enumerate(flat) if not isinstance(element, bytes | str))
    raise misfit(datatype.elements, flat[index], index)


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

BY_DTYPE = {datatype.dtype: datatype for datatype in DATATYPES.values()}

_NULLABLE = {
    datatype.name: replace(
        datatype, elements=f"{datatype.elements}, or null", decode=_decode_nullable, nullable=True
    )
    for datatype in DATATYPES.values()
}


def datatype_of(name: str, *, nullable: bool = False) -> Datatype:
    """Returns a row of `DATATYPES`, or its form for tensors whose elements may be null."""
    return (_NULLABLE if nullable else DATATYPES)[name]
