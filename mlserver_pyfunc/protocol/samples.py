"""Sample values for declared tensors: random arrays, and an example in JSON form."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from .bytes_tensors import object_array
from .contract import TensorSpec
from .tensors import Array

_MAX_TENSORS = _MAX_ELEMENTS = 4
_ANY_TENSOR = '{"name": ..., "shape": [...], "datatype": ..., "data": [...]}'
_TEXTS = ["", "plain", "naïve", "日本語"]


_MAX_SIZE = 4
"""Maximum size of a -1 axis. The minimum is 1."""


def random_arrays(
    tensors: Iterable[TensorSpec],
    source: random.Random,
    given: Mapping[str, Array] = MappingProxyType({}),
) -> dict[str, Array]:
    """Returns random arrays that keep the contract of declared tensors, by name.

    Args:
        tensors: Declared tensors.
        source: Source of randomness; the same seed gives the same arrays.
        given: Arrays to return as they are, by name. Axes named like theirs get their sizes.
    """
    specs = list(tensors)
    sizes: dict[str, int] = {}
    for spec in specs:
        if spec.name in given:
            named = zip(spec.axes, given[spec.name].shape, strict=False)
            sizes.update({name: size for name, size in named if name is not None})
    return {
        spec.name: given[spec.name] if spec.name in given else _random_array(spec, source, sizes)
        for spec in specs
    }


def _random_array(tensor: TensorSpec, source: random.Random, sizes: dict[str, int]) -> Array:
    shape = [source.randint(1, _MAX_SIZE) if size == -1 else size for size in tensor.shape]
    for axis, name in enumerate(tensor.axes):
        if name is not None:
            shape[axis] = sizes.setdefault(name, shape[axis])
    dtype = tensor.datatype.dtype
    generator = np.random.default_rng(source.getrandbits(32))
    if dtype.kind == "O":
        elements = [_random_bytes(source, text=tensor.text) for _ in range(math.prod(shape))]
        return object_array(elements).reshape(shape)
    if dtype.kind == "b":
        return generator.integers(0, 2, shape).astype(bool)
    if dtype.kind == "f":
        return generator.normal(size=shape).astype(dtype)
    info = np.iinfo(dtype)
    low, high = max(info.min, -100), min(info.max, 100)
    return generator.integers(low, high, shape, endpoint=True).astype(dtype)


def example(tensors: Sequence[TensorSpec], size: int = 1) -> list[dict[str, Any]]:
    """Returns tensors in the protocol's JSON form that keep the contract.

    Args:
        tensors: Declared tensors.
        size: Size of each -1 axis.
    """
    return [_example(tensor, size) for tensor in tensors]


def request_form(tensors: Sequence[TensorSpec]) -> str:
    """Returns the JSON of a request that keeps the contract, shortened for an error message.

    Args:
        tensors: Declared inputs; empty if they are not known.
    """
    required = [tensor for tensor in tensors if not tensor.optional] or list(tensors[:1])
    shown = [_short(tensor) for tensor in required[:_MAX_TENSORS]]
    shown += ["..."] if len(required) > _MAX_TENSORS else []
    return f'{{"inputs": [{", ".join(shown) or _ANY_TENSOR}]}}'


def _short(tensor: TensorSpec) -> str:
    shape = [1 if axis == -1 else axis for axis in tensor.shape]
    few = replace(tensor, shape=(min(math.prod(shape), _MAX_ELEMENTS),))
    text = json.dumps({**_example(few, 1), "shape": shape})
    return text if math.prod(shape) <= _MAX_ELEMENTS else f"{text[:-2]}, ...]}}"


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


def _random_bytes(source: random.Random, *, text: bool) -> bytes:
    if text or source.random() < 0.5:
        return source.choice(_TEXTS).encode()
    return source.randbytes(source.randint(0, 8))
