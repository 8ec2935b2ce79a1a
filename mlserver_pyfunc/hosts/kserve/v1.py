"""Requests and responses of KServe's V1 protocol, as docs/modelserver.md describes their rows."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from mlserver_pyfunc.errors import ContractError
from mlserver_pyfunc.hosts.common import json_body
from mlserver_pyfunc.hosts.common.rest_response import ArrayResponse
from mlserver_pyfunc.protocol.contract import Contract, NamedArray
from mlserver_pyfunc.protocol.request import InferenceRequest, Parameters, RequestParameters
from mlserver_pyfunc.protocol.types import listed, short_repr

_BASE64 = {"b64"}


def to_request(contract: Contract, body: Any, headers: Mapping[str, str]) -> InferenceRequest:
    """Returns the request that instances of V1 stand for. Raises ContractError."""
    if isinstance(body, bytes):  # KServe parses only what calls itself JSON.
        with suppress(json.JSONDecodeError):
            body = json_body.parse_lists(body)
    rows = body.get("instances", body.get("inputs")) if isinstance(body, dict) else None
    if not isinstance(rows, list):
        raise _unfit(contract, "request", '{"instances": [...]}', body)
    given = body.get("parameters")
    request = InferenceRequest.from_values(contract, _columns(contract, rows))
    values = Parameters(given if isinstance(given, dict) else {})
    request.parameters = RequestParameters(values, lambda: headers)
    return request


def _columns(contract: Contract, rows: list[Any]) -> dict[str, Any]:
    if rows and isinstance(rows[0], dict) and rows[0].keys() != _BASE64:
        for index, row in enumerate(rows):
            if not isinstance(row, dict) or row.keys() != rows[0].keys():
                text = f"an object with {listed(rows[0])}, as instances[0] has"
                raise _unfit(contract, f"instances[{index}]", text, row)
        return {name: [_decoded(contract, row[name]) for row in rows] for name in rows[0]}
    inputs = contract.inputs
    needed = [name for name, spec in inputs.items() if not spec.optional] or [*inputs]
    if len(needed) != 1:
        raise _unfit(contract, "instances", f"objects with {listed(needed)}", rows)
    return {needed[0]: _decoded(contract, rows)}


def _decoded(contract: Contract, value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(contract, each) for each in value]
    if isinstance(value, dict) and value.keys() == _BASE64:
        try:
            return base64.b64decode(value["b64"], validate=True)
        except (TypeError, ValueError):
            raise _unfit(contract, "b64", "base64", value["b64"]) from None
    return value


def _unfit(contract: Contract, part: str, expected: str, got: Any) -> ContractError:
    model = contract.model_name
    return ContractError(f'{part} of model "{model}": expected {expected}, got {short_repr(got)}')


def to_body(response: ArrayResponse) -> dict[str, Any]:
    """Returns the predictions of V1 that have the outputs of a response."""
    columns = {named.spec.name: _values(named) for named in response.arrays}
    if len(columns) == 1:
        [values] = columns.values()
        return {"predictions": values if isinstance(values, list) else [values]}
    lengths = {named.array.shape[:1] for named in response.arrays}
    if len(lengths) != 1 or () in lengths:
        return {"predictions": columns}
    rows = zip(*columns.values(), strict=True)
    return {"predictions": [dict(zip(columns, row, strict=True)) for row in rows]}


def _values(named: NamedArray) -> Any:
    if not named.spec.datatype.is_bytes:
        return named.masked.tolist()
    values = np.empty(named.array.size, dtype=object)
    values[:] = [_text(element) for element in named.array.ravel().tolist()]
    if named.nulls is not None:
        values[named.nulls.ravel()] = None
    return values.reshape(named.array.shape).tolist()


def _text(element: Any) -> Any:
    try:
        return element if isinstance(element, str) else element.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(element).decode()}
