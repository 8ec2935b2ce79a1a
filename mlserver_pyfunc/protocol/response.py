"""An inference response in its JSON form.

Follows the Open Inference Protocol v2, "Inference Response JSON Object".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from . import bytes_tensors, tensors
from .contract import NamedArray
from .types import Array


def response_body(
    model_name: str,
    model_version: str | None,
    request_id: str | None,
    parameters: Mapping[str, Any],
    outputs: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Builds the response around output tensors that are already in JSON form."""
    body: dict[str, Any] = {"model_name": model_name}
    if model_version:
        body["model_version"] = model_version
    body["id"] = request_id
    if parameters:
        body["parameters"] = parameters
    body["outputs"] = outputs
    return body


def json_output(
    named: NamedArray,
    numbers: Callable[[Array], Any] = tensors.to_list,
    parameters: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """Returns a tensor and its parameters, with its numbers as a function makes them: a flat list.

    BYTES are text, or base64 if any element is not UTF-8, marked by `content_type: base64`.
    """
    head = tensor_head(named)
    data: list[Any]
    if named.spec.datatype.is_bytes:
        data, is_base64 = bytes_tensors.to_json_bytes(named.array)
        if is_base64:
            parameters = {**parameters, "content_type": "base64"}
        if named.nulls is not None:
            pairs = zip(data, named.nulls.flat, strict=True)
            data = [None if null else each for each, null in pairs]
    else:
        data = numbers(named.array) if named.nulls is None else named.masked.ravel().tolist()
    if parameters:
        head["parameters"] = parameters
    return {**head, "data": data}


def flat_array(array: Array) -> Array:
    """Returns the numbers of an array as orjson writes a flat list of them."""
    return np.ascontiguousarray(array.ravel())


def tensor_head(named: NamedArray) -> dict[str, Any]:
    """Returns name, shape and datatype of a tensor, without its data."""
    return {
        "name": named.spec.name,
        "shape": list(named.array.shape),
        "datatype": named.spec.datatype.name,
    }
