"""Hypothesis strategies that draw requests. They need nothing but the function's definition."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, cast

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlserver_pyfunc.definition import FunctionDefinition, TensorDefinition
from mlserver_pyfunc.protocol import bytes_tensors
from mlserver_pyfunc.protocol.contract import NamedArray
from mlserver_pyfunc.protocol.limits import Limits
from mlserver_pyfunc.protocol.response import json_output
from mlserver_pyfunc.protocol.tensors import DATATYPES, Array, TensorError

_SIZES = st.integers(0, 5)
"""What is drawn for an axis of any size."""

Body = dict[str, Any]


def inputs_for(definition: FunctionDefinition) -> st.SearchStrategy[dict[str, Array]]:
    """Draws input arrays by name that keep the contract."""

    def drawn(sizes: Mapping[str, int]) -> st.SearchStrategy[dict[str, Array]]:
        by_name = {t.name: _arrays(t, sizes) for t in definition.inputs}
        optional = [t.name for t in definition.inputs if t.optional]
        return st.fixed_dictionaries(by_name, optional={n: by_name.pop(n) for n in optional})

    axes = {size for tensor in definition.inputs for size in tensor.shape if isinstance(size, str)}
    return st.fixed_dictionaries(dict.fromkeys(sorted(axes), _SIZES)).flatmap(drawn)


def requests_for(definition: FunctionDefinition) -> st.SearchStrategy[Body]:
    """Draws requests in the protocol's JSON form that keep the contract."""
    return inputs_for(definition).map(lambda arrays: body_of(definition, arrays))


def body_of(definition: FunctionDefinition, arrays: Mapping[str, Array]) -> Body:
    """Returns the request of some input arrays in the protocol's JSON form."""
    specs = {tensor.name: tensor.spec for tensor in definition.inputs}
    given = {
        name: np.ma.masked_invalid(array) if array.dtype.kind == "f" else array
        for name, array in arrays.items()
    }
    return {"inputs": [json_output(NamedArray.of(specs[n], each)) for n, each in given.items()]}


def _arrays(tensor: TensorDefinition, sizes: Mapping[str, int]) -> st.SearchStrategy[Array]:
    axes = [sizes[size] if isinstance(size, str) else size for size in tensor.shape]
    shapes = st.tuples(*[_SIZES if size == -1 else st.just(size) for size in axes])
    drawn = shapes.flatmap(lambda shape: _arrays_of_shape(tensor, shape))
    return drawn if tensor.spec.companion is None else drawn | drawn.flatmap(_with_nulls)


def _with_nulls(array: Array) -> st.SearchStrategy[Array]:
    return hnp.arrays(bool, array.shape).map(lambda nulls: np.ma.MaskedArray(array, nulls))


def _arrays_of_shape(tensor: TensorDefinition, shape: tuple[int, ...]) -> st.SearchStrategy[Array]:
    dtype = DATATYPES[tensor.datatype].dtype
    if dtype.kind == "O":
        text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
        elements = text if tensor.content_type == "str" else st.one_of(st.binary(max_size=12), text)
        if tensor.enum:
            elements = st.sampled_from([str(value) for value in tensor.enum])
        count = int(np.prod(shape, dtype=int))
        drawn = st.lists(elements, min_size=count, max_size=count)
        encode, array = bytes_tensors.encode_elements, bytes_tensors.object_array
        return drawn.map(lambda items: array(encode(items)).reshape(shape))
    if dtype.kind == "b" and not tensor.enum:
        return hnp.arrays(dtype, shape)
    return hnp.arrays(dtype, shape, elements=_numbers(tensor, dtype))


def _numbers(tensor: TensorDefinition, dtype: np.dtype[Any]) -> st.SearchStrategy[Any]:
    limits = tensor.spec.limits or Limits()
    if limits.enum:
        return st.sampled_from(limits.enum)
    lows = [each for each in (limits.minimum, limits.exclusive_minimum) if each is not None]
    highs = [each for each in (limits.maximum, limits.exclusive_maximum) if each is not None]
    drawn: st.SearchStrategy[Any]
    if dtype.kind == "f":
        # The contract compares floats of the datatype, and Hypothesis takes no other bounds.
        low = max(map(float, map(dtype.type, lows)), default=None)
        high = min(map(float, map(dtype.type, highs)), default=None)
        width = cast("Literal[16, 32, 64]", dtype.itemsize * 8)
        drawn = st.floats(low, high, width=width, allow_nan=False, allow_infinity=False)
        if tensor.nullable:
            drawn |= st.just(math.nan)
    else:
        info = np.iinfo(dtype)
        least, most = max([info.min, *lows]), min([info.max, *highs])
        drawn = st.integers(math.ceil(least), math.floor(most))
    return drawn.filter(lambda number: _keeps(limits, np.array([number], dtype)))


def _keeps(limits: Limits, array: Array) -> bool:
    try:
        limits.check(array)
    except TensorError:
        return False
    return True
