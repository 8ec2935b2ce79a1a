"""BYTES tensors: their elements as bytes and as text, in JSON and length-prefixed.

Needs only NumPy and the standard library.
"""

from __future__ import annotations

import base64
import binascii
import struct
from typing import Any

import numpy as np

from .types import Array, TensorError, short_repr_at


def split_elements(buffer: bytes | memoryview) -> list[bytes]:
    """Parts length-prefixed elements, as raw contents and binary data have them.

    Raises:
        TensorError: A length runs past the end, or is cut short.
    """
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


def join_elements(elements: list[Any]) -> bytes:
    """Puts each element's length before it."""
    elements = _as_all_bytes(elements)
    lengths = list(map(len, elements))
    prefixes = {length: length.to_bytes(4, "little") for length in set(lengths)}
    parts = [b""] * (2 * len(elements))
    parts[::2] = map(prefixes.__getitem__, lengths)
    parts[1::2] = elements
    return b"".join(parts)


def to_json_bytes(array: Array) -> tuple[list[str], bool]:
    """Encodes a BYTES array for JSON: UTF-8 text, or all of it base64 where any is not text.

    Returns:
        The flat list of strings, and whether they are base64.
    """
    elements = array.ravel().tolist()
    try:
        return [e if isinstance(e, str) else e.decode() for e in elements], False
    except UnicodeDecodeError:
        return [base64.b64encode(encode_element(element)).decode() for element in elements], True


def decode_text(array: Array) -> Array:
    """Decodes a BYTES array to `str` elements.

    Raises:
        TensorError: An element is not UTF-8.
    """
    elements = array.ravel().tolist()
    try:
        return object_array([element.decode() for element in elements]).reshape(array.shape)
    except UnicodeDecodeError as error:
        raise TensorError("UTF-8 text", f"bytes that are not ({error.reason})") from None


def from_value(value: Any) -> Array:
    """Turns a handler's text or bytes, nested as they may be, into an array of `bytes`.

    Raises:
        TensorError: An element is neither, or is text that UTF-8 cannot say.
    """
    if isinstance(value, bytes | str):
        return object_array(encode_elements([value])).reshape(())
    array = value if isinstance(value, np.ndarray) else _as_objects(value)
    elements = array.ravel().tolist()
    if not {bytes, str}.issuperset(map(type, elements)):
        for index, element in enumerate(elements):
            if not isinstance(element, bytes | str):
                raise TensorError("bytes or str", short_repr_at(element, index))
    return object_array(encode_elements(elements)).reshape(array.shape)


def encode_elements(elements: list[Any]) -> list[bytes]:
    """Encodes text; refuses a lone surrogate, which UTF-8 cannot say and no route send."""
    try:
        return _as_all_bytes(elements)
    except UnicodeEncodeError as error:
        index = elements.index(error.object)
        raise TensorError("UTF-8 text", short_repr_at(error.object, index)) from None


def from_base64(flat: list[Any]) -> list[Any]:
    """Decodes base64 strings; elements that are bytes came over gRPC, as themselves."""
    decoded = []
    for index, element in enumerate(flat):
        if not isinstance(element, str):
            decoded.append(element)
            continue
        try:
            decoded.append(base64.b64decode(element, validate=True))
        except (binascii.Error, ValueError):
            raise TensorError("base64 strings", short_repr_at(element, index)) from None
    return decoded


def encode_element(element: bytes | str) -> bytes:
    """An element as it travels."""
    return element.encode() if isinstance(element, str) else element


def _as_all_bytes(elements: list[Any]) -> list[bytes]:
    types = set(map(type, elements))
    if types <= {bytes}:
        return elements
    if types == {str}:
        return [element.encode() for element in elements]
    return [encode_element(element) for element in elements]


def object_array(elements: list[Any]) -> Array:
    """A one-dimensional array of the elements as they are."""
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array


def _as_objects(value: Any) -> Array:
    if hasattr(value, "__array__"):
        return np.asarray(value)
    try:
        return np.array(value, dtype=object)
    except ValueError as error:
        raise TensorError("an array", f"{type(value).__name__} ({error})") from None
