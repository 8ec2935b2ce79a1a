"""Reads a handler's result, whatever its form, as values by output name."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np

from mlserver_pyfunc.errors import InferenceError, ResponseError
from mlserver_pyfunc.protocol import casting, tensors
from mlserver_pyfunc.protocol.contract import Contract, NamedArray, TensorSpec
from mlserver_pyfunc.protocol.tensors import DATATYPES, Array, Datatype, TensorError
from mlserver_pyfunc.protocol.types import short_repr

from .context import Response
from .frames import columns_of


@dataclass(slots=True)
class NamedValues:
    """Values by output name, not yet checked, and the parameters of the response."""

    values: Mapping[str, Any]
    # Its `headers`, where MLServer has them too, are sent as HTTP headers or gRPC metadata.
    parameters: Mapping[str, Any] = field(default_factory=dict)


def name_values(contract: Contract, result: Any) -> NamedValues:
    """Recognises the form of a handler's result, or raises a ResponseError.

    It is a mapping by output name; a single value if one output is declared; a tuple in declared
    order; an object whose fields are the outputs, or a list of them; the protocol's response as a
    mapping or an object; or a Nuclio response. `{"error": text}` raises an InferenceError.
    """
    # The most frequent form first: all others take several times as long to recognise.
    if type(result) is np.ndarray and len(contract.outputs) == 1:
        return NamedValues({next(iter(contract.outputs)): result})
    if isinstance(result, Response):
        named = name_values(contract, _nuclio_body(contract, result))
        # Most handlers for Nuclio name the type of their body, which the server sets.
        headers = _headers(contract, result.headers or {}, dropped="content-type")
        if headers:
            named.parameters = {**named.parameters, "headers": headers}
        return named
    if isinstance(result, Mapping):
        outputs = result.get("outputs")
        if "outputs" not in contract.outputs and _are_protocol_tensors(outputs):
            return _from_protocol(contract, outputs, result.get("parameters"))
        error = result.get("error")
        if error is not None and contract.outputs.keys().isdisjoint(result):
            raise InferenceError(str(error), 500)
        return NamedValues(result)
    if hasattr(result, "outputs") and hasattr(result, "model_name"):
        parameters = result.parameters
        if hasattr(parameters, "model_dump"):
            parameters = parameters.model_dump()
        return _from_protocol(contract, result.outputs, parameters)
    if inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise _unexpected(contract, "a generator")
    if type(result).__module__ not in _PLAIN:
        try:
            columns = columns_of(result)
        except TensorError as error:
            raise ResponseError(f'handler of model "{contract.model_name}": {error}') from None
        index = getattr(result, "index", None) if columns is not None else None
        absent = contract.outputs.keys() - (columns or {}).keys()
        if lost := absent.intersection(getattr(index, "names", ())):
            where = f'output "{lost.pop()}" of model "{contract.model_name}"'
            raise ResponseError(f"{where}: it is the index of the frame, use reset_index()")
        if columns and (len(contract.outputs) != 1 or {*columns} == {*contract.outputs}):
            return NamedValues(columns)
        if (fields := _fields(contract, result)) is not None:
            return NamedValues(fields)
    if type(result) is list and all(_fields(contract, each) is not None for each in result[:1]):
        rows = [row for each in result if (row := _fields(contract, each)) is not None]
        if len(rows) == len(result):
            names = contract.outputs
            return NamedValues({name: [row.get(name) for row in rows] for name in names})
    if result is None and [spec.optional for spec in contract.outputs.values()] == [True]:
        return NamedValues({})
    if isinstance(result, tuple) and len(result) == len(contract.outputs):
        return NamedValues(dict(zip(contract.outputs, result, strict=True)))
    if len(contract.outputs) == 1 and result is not None:
        return NamedValues({next(iter(contract.outputs)): result})
    got = f"a tuple of {len(result)}" if isinstance(result, tuple) else type(result).__name__
    raise _unexpected(contract, "None" if result is None else got)


_PLAIN = ("builtins", "numpy")


def _fields(contract: Contract, result: Any) -> Mapping[str, Any] | None:
    """Returns the values of an object by field, if its fields are outputs; else None."""
    if isinstance(result, Mapping):
        found: dict[str, Any] = dict(result)
    elif isinstance(result, tuple) and hasattr(result, "_asdict"):
        found = result._asdict()
    elif models := getattr(type(result), "model_fields", None):
        found = {each.alias or name: getattr(result, name) for name, each in models.items()}
    elif dataclasses.is_dataclass(result):
        found = {each.name: getattr(result, each.name) for each in dataclasses.fields(result)}
    else:
        return None
    return found if found.keys() <= contract.outputs.keys() else None


def _unexpected(contract: Contract, got: str) -> ResponseError:
    names = ", ".join(contract.outputs) or "tensors by name"
    expected = f"a dict of {names}, or a tuple in that order"
    if len(contract.outputs) == 1:
        expected = f"a value for {names}, or a dict"
    return ResponseError(
        f'handler of model "{contract.model_name}": expected {expected}, got {got}'
    )


def _are_protocol_tensors(outputs: Any) -> TypeGuard[list[Mapping[str, Any]]]:
    return (
        isinstance(outputs, list)
        and bool(outputs)
        and all(isinstance(output, Mapping) and "name" in output for output in outputs)
    )


def _from_protocol(contract: Contract, outputs: Iterable[Any], parameters: Any) -> NamedValues:
    values: dict[str, Any] = {}
    for output in outputs:
        tensor = output
        if not isinstance(output, Mapping):
            tensor = {key: getattr(output, key, None) for key in _TENSOR_KEYS}
        name = tensor["name"]
        if name in values:
            raise ResponseError(f'output "{name}" of model "{contract.model_name}": given twice')
        spec = contract.outputs.get(name)
        try:
            if "responses" in contract.lenient:
                values[name] = _as_given(name, spec, tensor)
            else:
                values[name] = tensor.get("data") if spec is None else _value(spec, tensor)
        except TensorError as error:
            raise ResponseError(
                f'output "{name}" of model "{contract.model_name}": {error}'
            ) from None
    return NamedValues(values, _json_parameters(contract, parameters))


_TENSOR_KEYS = ("name", "datatype", "shape", "data", "parameters")


def _value(spec: TensorSpec, tensor: Mapping[str, Any]) -> Any:
    datatype, data, shape = _parts(tensor)
    if datatype not in (None, spec.datatype.name):
        raise TensorError(f"datatype {spec.datatype.name}", str(datatype))
    is_bare = shape is None or data is None
    return data if is_bare else _array(spec.datatype, tensor, data, shape)


def _as_given(name: str, spec: TensorSpec | None, tensor: Mapping[str, Any]) -> Any:
    """Returns a tensor as the handler gave it; data that do not fit their shape keep their own."""
    given, data, shape = _parts(tensor)
    datatype = spec.datatype if spec is not None else None
    if given is not None:
        datatype = DATATYPES.get(str(given).upper())
        if datatype is None:
            raise TensorError(f"a datatype of {', '.join(DATATYPES)}", str(given))
    if datatype is None or data is None:
        return data
    said = None if shape is None else tuple(shape)
    is_flat = isinstance(data, list) and not any(isinstance(element, list) for element in data[:1])
    own = [len(data)] if is_flat else None
    try:
        array = _array(datatype, tensor, data, own if said is None else said)
    except TensorError:
        if said is None:
            raise
        array = _array(datatype, tensor, data, own)
    shown = array.shape if said is None else said
    return NamedArray(TensorSpec(name, datatype, shown), array)


def _parts(tensor: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """Returns datatype, data and shape of a tensor, each None if it is not given."""
    datatype, data = tensor.get("datatype"), tensor.get("data")
    # MLServer's datatypes are members of an enumeration, its data are in a `root` attribute.
    return getattr(datatype, "value", datatype), getattr(data, "root", data), tensor.get("shape")


def _array(datatype: Datatype, tensor: Mapping[str, Any], data: Any, shape: Any) -> Array:
    if shape is None:
        return casting.from_value(datatype, data)
    if not isinstance(data, list):
        return tensors.reshape(casting.from_value(datatype, data), shape)
    given = tensor.get("parameters")
    told = given if isinstance(given, Mapping) else {**vars(given)} if given else {}
    is_base64 = datatype.is_bytes and told.get("content_type") == "base64"
    return tensors.from_list(datatype, data, shape, is_base64=is_base64)


def _json_parameters(contract: Contract, parameters: Any) -> Mapping[str, Any]:
    if not parameters:
        return {}
    where = f'response parameters of model "{contract.model_name}"'
    if not isinstance(parameters, Mapping):
        raise ResponseError(f"{where}: expected a mapping, got {type(parameters).__name__}")
    try:
        text = json.dumps(dict(parameters), default=_from_numpy, ensure_ascii=False)
        text.encode()  # lone surrogates fail here and not in the server
        checked: dict[str, Any] = json.loads(text, parse_int=_int64)
    except (TypeError, ValueError, RecursionError) as error:
        raise ResponseError(f"{where}: expected what JSON can carry: {error}") from None
    if (headers := checked.pop("headers", None)) is not None:
        checked["headers"] = _headers(contract, headers)
    return checked


_HEADER_NAME = re.compile(r"[a-z0-9_.-]+")
_OWN_HEADERS = re.compile(
    r"content-(length|type|encoding)|transfer-encoding|connection|keep-alive|upgrade|te|trailer"
    r"|inference-header-content-length|(grpc|ce)-.*|.*-bin"
)
_MAX_HEADERS_CHARS = 4096
"""Length of all headers. gRPC clients accept 8 KiB of metadata by default."""


def _headers(contract: Contract, headers: Any, dropped: str = "") -> dict[str, str]:
    """Checks headers that a handler sets, so that HTTP and gRPC can send them."""
    where = f'response headers of model "{contract.model_name}"'
    if not isinstance(headers, Mapping):
        raise ResponseError(f"{where}: expected a mapping, got {type(headers).__name__}")
    checked = {}
    for given, value in headers.items():
        name = str(given).lower()
        if name == dropped:
            continue
        shown = short_repr(given)
        if not _HEADER_NAME.fullmatch(name):
            raise ResponseError(
                f"{where}: expected a name of letters, digits, - and _, got {shown}"
            )
        if _OWN_HEADERS.fullmatch(name):
            raise ResponseError(f"{where}: the server sets {shown} itself, leave it out")
        text = str(value) if isinstance(value, int | float) else value
        if not isinstance(text, str) or not (text.isascii() and text.isprintable()):
            got = short_repr(value)
            raise ResponseError(f"{where}: expected printable ASCII text for {shown}, got {got}")
        checked[name] = text.strip()
    size = sum(len(name) + len(text) for name, text in checked.items())
    if size > _MAX_HEADERS_CHARS:
        raise ResponseError(f"{where}: expected up to {_MAX_HEADERS_CHARS} characters, got {size}")
    return checked


def _from_numpy(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"got a value of type {type(value).__name__}")


def _int64(digits: str) -> int:
    number = int(digits)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"got {digits[:40]}, beyond 64 bits")
    return number


def _nuclio_body(contract: Contract, response: Response) -> Any:
    body = response.body
    if isinstance(body, bytes | str):
        try:
            body = json.loads(body)
        except ValueError:
            if response.status_code < 400:
                raise _unexpected(contract, "a response whose body is not JSON") from None
    if response.status_code >= 400:
        message = body.get("error", body) if isinstance(body, Mapping) else body
        raise InferenceError(str(message), min(response.status_code, 599))
    return body
