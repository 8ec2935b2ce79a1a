"""BYTES tensors: conversion of their elements to and from JSON, text and raw bytes.

An element is `bytes` or `str`. In raw tensor data each element follows its length, a 4-byte
little-endian integer ("Tensor Data Types" and the binary tensor data extension of the Open
Inference Protocol v2).
"""

from __future__ import annotations

import base64
import binascii
import struct
from typing import Any

import numpy as np

from .types import Array, TensorError, misfit


def split_elements(buffer: bytes | memoryview) -> list[bytes]:
    """Splits raw tensor data into its elements, or raises a TensorError."""
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
    # A slice beyond the end is cut short without an error. Only the last element can be.
    if position > end:
        raise TensorError(f"{position - start} bytes in an element", f"{end - start}")
    return elements


def join_elements(elements: list[Any]) -> bytes:
    """Joins elements to raw tensor data."""
    elements = encode_elements(elements)
    lengths = list(map(len, elements))
    prefixes = {length: length.to_bytes(4, "little") for length in set(lengths)}
    parts = [b""] * (2 * len(elements))
    parts[::2] = map(prefixes.__getitem__, lengths)
    parts[1::2] = elements
    return b"".join(parts)


def to_json_bytes(array: Array) -> tuple[list[str], bool]:
    """Converts a BYTES array to JSON strings: text, or base64 if any element is not UTF-8."""
    elements = array.ravel().tolist()
    try:
        return [e if isinstance(e, str) else e.decode() for e in elements], False
    except UnicodeDecodeError:
        return [base64.b64encode(e).decode() for e in encode_elements(elements)], True


def decode_text(array: Array) -> Array:
    """Decodes an array of `bytes` to an array of `str`, or raises a TensorError."""
    elements = np.asarray(array).ravel().tolist()
    try:
        text = object_array([element.decode() for element in elements]).reshape(array.shape)
        return text if type(array) is np.ndarray else np.ma.MaskedArray(text, np.ma.getmask(array))
    except UnicodeDecodeError as error:
        index = elements.index(error.object)
        got = f"bytes that are not ({error.reason}) at index {index}"
        raise TensorError("UTF-8 text", got) from None


def from_value(value: Any) -> Array:
    """Converts a handler's value to an array of `bytes`, or raises a TensorError."""
    array = as_objects(value)
    elements = array.ravel().tolist()
    if not {bytes, str}.issuperset(map(type, elements)):
        for index, element in enumerate(elements):
            if not isinstance(element, bytes | str):
                raise misfit("bytes or str", element, index)
    return object_array(encode_elements(elements)).reshape(array.shape)


def encode_elements(elements: list[Any]) -> list[bytes]:
    """Encodes all `str` elements as UTF-8, or raises a TensorError."""
    if set(map(type, elements)) <= {bytes}:
        return elements
    try:
        return [each.encode() if isinstance(each, str) else each for each in elements]
    except UnicodeEncodeError as error:
        index = elements.index(error.object)
        raise misfit("UTF-8 text", error.object, index) from None


def from_base64(elements: list[Any]) -> list[Any]:
    """Decodes base64 strings, or raises a TensorError. Elements that are `bytes` came over gRPC."""
    decoded = []
    for index, element in enumerate(elements):
        if not isinstance(element, str):
            decoded.append(element)
            continue
        try:
            decoded.append(base64.b64decode(element, validate=True))
        except (binascii.Error, ValueError):
            raise misfit("base64 strings", element, index) from None
    return decoded


def object_array(elements: list[Any]) -> Array:
    """Returns a one-dimensional array of the elements as they are."""
    # np.array(elements, dtype=object) would make an axis of elements that are sequences.
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array


def as_objects(value: Any) -> Array:
    """Returns a handler's value as an array of objects, or the array that it is."""
    if hasattr(value, "__array__"):
        return np.asarray(value)
    try:
        return np.array(value, dtype=object)
    except ValueError as error:
        raise TensorError("an array", f"{type(value).__name__} ({error})") from None
