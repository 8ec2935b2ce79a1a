"""Values that a declared tensor admits."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import numpy as np

from .definition import TensorDefinition
from .tensors import DATATYPES, Array

_TEXTS = ["", "plain", "naïve", "日本語"]


def random_array(tensor: TensorDefinition, source: random.Random, most: int = 4) -> Array:
    """A random array that a declared tensor admits, with -1 axes of 1 to `most`."""
    shape = [source.randint(1, most) if size == -1 else size for size in tensor.shape]
    dtype = DATATYPES[tensor.datatype].dtype
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


def _random_bytes(tensor: TensorDefinition, shape: Sequence[int], source: random.Random) -> Array:
    array = np.empty(int(np.prod(shape, dtype=int)), dtype=object)
    array[:] = list(_words(tensor, len(array), source))
    return array.reshape(shape)


def _words(tensor: TensorDefinition, count: int, source: random.Random) -> Iterator[bytes]:
    for _ in range(count):
        if tensor.content_type == "str" or source.random() < 0.5:
            yield source.choice(_TEXTS).encode()
        else:
            yield source.randbytes(source.randint(0, 8))
