"""Values that a declared tensor admits."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .contract import TensorSpec
from .tensors import Array

_TEXTS = ["", "plain", "naïve", "日本語"]


def random_array(tensor: TensorSpec, source: random.Random, most: int = 4) -> Array:
    """A random array that a declared tensor admits, with -1 axes of 1 to `most`."""
    shape = [source.randint(1, most) if size == -1 else size for size in tensor.shape]
    dtype = tensor.datatype.dtype
    generator = np.random.default_rng(source.getrandbits(32))
    if dtype.kind == "O":
        return _random_bytes(tensor, shape, source)
    if dtype.kind == "b":
        return generator.integers(0, 2, shape).astype(bool)
    if dtype.kind == "f":
        return generator.normal(size=shape).astype(dtype)
    info = np.iinfo(dtype)
    low, high = max(info.min, -100), min(info.max, 100)
    return generator.integers(low, high, shape, endpoint=True).astype(dtype)


def example(tensors: Sequence[TensorSpec], size: int = 1) -> list[dict[str, Any]]:
    """Protocol tensors that keep the contract, as JSON has them.

    Args:
        tensors: What is declared.
        size: Of each -1 axis.
    """
    return [_example(tensor, size) for tensor in tensors]


def _example(tensor: TensorSpec, size: int) -> dict[str, Any]:
    shape = [size if axis == -1 else axis for axis in tensor.shape]
    values = {"O": "text", "b": True, "f": 0.5}
    value = values.get(tensor.datatype.dtype.kind, 1)
    return {
        "name": tensor.name,
        "datatype": tensor.datatype.name,
        "shape": shape,
        "data": [value] * math.prod(shape),
    }


def _random_bytes(tensor: TensorSpec, shape: Sequence[int], source: random.Random) -> Array:
    array = np.empty(int(np.prod(shape, dtype=int)), dtype=object)
    array[:] = list(_words(tensor, len(array), source))
    return array.reshape(shape)


def _words(tensor: TensorSpec, count: int, source: random.Random) -> Iterator[bytes]:
    for _ in range(count):
        if tensor.text or source.random() < 0.5:
            yield source.choice(_TEXTS).encode()
        else:
            yield source.randbytes(source.randint(0, 8))
