"""An inference response as JSON has it. Needs neither MLServer nor pydantic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import bytes_tensors, tensors
from .contract import NamedArray


def response_body(
    model_name: str,
    model_version: str | None,
    request_id: str | None,
    parameters: Mapping[str, Any],
    outputs: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The response around its tensors."""
    body: dict[str, Any] = {"model_name": model_name}
    if model_version:
        body["model_version"] = model_version
    body["id"] = request_id
    if parameters:
        body["parameters"] = parameters
    body["outputs"] = outputs
    return body


def json_output(named: NamedArray) -> dict[str, Any]:
    """An output with its elements as a flat list."""
    if named.spec.datatype.is_bytes:
        return bytes_output(named)
    return {**output_head(named), "data": tensors.to_list(named.array)}


def bytes_output(named: NamedArray) -> dict[str, Any]:
    """A BYTES output: as text, or all of it as base64 where any element is not text."""
    data, is_base64 = bytes_tensors.to_json_bytes(named.array)
    if not is_base64:
        return {**output_head(named), "data": data}
    return {**output_head(named), "parameters": {"content_type": "base64"}, "data": data}


def output_head(named: NamedArray) -> dict[str, Any]:
    """An output without its data."""
    return {
        "name": named.spec.name,
        "shape": list(named.array.shape),
        "datatype": named.spec.datatype.name,
    }
