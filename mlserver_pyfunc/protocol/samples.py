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
from .contract import TensorSpec, decode
from .request import RequestInput, from_python
from .tensors import Array, from_list

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

    Given arrays are returned as they are. Axes named like theirs get their sizes.
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
    array = _any_array(tensor, source, sizes)
    if tensor.limits is None:
        return array
    near = [tensor.limits.nearest(element) for element in array.ravel().tolist()]
    return from_list(tensor.datatype, near, array.shape)


def _any_array(tensor: TensorSpec, source: random.Random, sizes: dict[str, int]) -> Array:
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


def example_array(tensor: TensorSpec, value: Any) -> Array:
    """Returns a declared example as an array, or raises a TensorError."""
    return decode(tensor, from_python(tensor, tensor.name, value))


def examples(
    tensors: Iterable[TensorSpec], declared: Mapping[str, Any], sizes: dict[str, int] | None = None
) -> list[dict[str, Any]]:
    """Returns tensors in the protocol's JSON form that keep the contract.

    Named axes get the given sizes, to which those of declared examples are added, else 1.
    """
    specs = list(tensors)
    sizes = {} if sizes is None else sizes
    given = {s.name: from_python(s, s.name, declared[s.name]) for s in specs if s.name in declared}
    for spec in specs:
        if spec.name in given:
            pairs = zip(spec.axes, given[spec.name].shape, strict=False)
            sizes.update({name: size for name, size in pairs if name is not None})
    return [_example(spec, given.get(spec.name), sizes) for spec in specs]


def request_form(tensors: Sequence[TensorSpec]) -> str:
    """Returns the JSON of a request that keeps the contract, shortened for an error message."""
    required = [tensor for tensor in tensors if not tensor.optional] or list(tensors[:1])
    shown = [_short(tensor) for tensor in required[:_MAX_TENSORS]]
    shown += ["..."] if len(required) > _MAX_TENSORS else []
    return f'{{"inputs": [{", ".join(shown) or _ANY_TENSOR}]}}'


def _short(tensor: TensorSpec) -> str:
    shape = [1 if axis == -1 else axis for axis in tensor.shape]
    few = replace(tensor, shape=(min(math.prod(shape), _MAX_ELEMENTS),), axes=())
    text = json.dumps({**_example(few, None, {}), "shape": shape})
    return text if math.prod(shape) <= _MAX_ELEMENTS else f"{text[:-2]}, ...]}}"


def _example(
    spec: TensorSpec, given: RequestInput | None, sizes: Mapping[str, int]
) -> dict[str, Any]:
    if given is None:
        shape = smallest_shape(spec, sizes)
        kinds: dict[str, Any] = {"O": "text", "b": True, "f": 0.5}
        value = kinds.get(spec.datatype.dtype.kind, 1)
        data = [spec.limits.nearest(value) if spec.limits else value] * math.prod(shape)
    else:
        shape = list(given.shape)
        data = np.array(given.data, dtype=object).ravel().tolist()
    return {"name": spec.name, "datatype": spec.datatype.name, "shape": shape, "data": data}


def smallest_shape(tensor: TensorSpec, sizes: Mapping[str, int]) -> list[int]:
    """Returns a tensor's shape with 1 for -1, and the given sizes for named axes."""
    axes = tensor.axes or (None,) * len(tensor.shape)
    return [
        sizes.get(name or "", 1) if size == -1 else size
        for name, size in zip(axes, tensor.shape, strict=True)
    ]


def _random_bytes(source: random.Random, *, text: bool) -> bytes:
    if text or source.random() < 0.5:
        return source.choice(_TEXTS).encode()
    return source.randbytes(source.randint(0, 8))
