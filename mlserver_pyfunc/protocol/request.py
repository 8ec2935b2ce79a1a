"""An inference request as plain data, made from Python values or from JSON.

Follows the Open Inference Protocol v2, "Inference Request JSON Object". The classes have the
names and attributes of MLServer's own types (`mlserver.types`), so that a function serves
either of them. Nothing here imports MLServer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from mlserver_pyfunc.errors import ContractError, RequestError

from . import tensors
from .bytes_tensors import split_elements
from .contract import Contract, TensorSpec
from .datatypes import BY_DTYPE, DATATYPES
from .nulls import NULLS
from .tensors import RawTensor
from .types import listed, short_repr

_KINDS = {str: "string", int: "integer", list: "list", dict: "dictionary"}
_NEEDED = {"name": str, "shape": list, "datatype": object, "data": object}


class Parameters(dict[str, Any]):
    """Parameters that can also be read as attributes; a missing one reads as None."""

    headers: Any
    """Set by a host that keeps the headers beside the parameters."""

    def model_dump(self, *_: Any, **__: Any) -> dict[str, Any]:
        """Returns the parameters as a plain dict, as MLServer's own do."""
        return dict(self)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.get(name)


class RequestParameters(Parameters):
    """The parameters of a request. Headers are made at the first access."""

    def __init__(self, values: Parameters, headers: Callable[[], Mapping[str, str]]) -> None:
        super().__init__(values)
        self._make_headers = headers

    @cached_property
    def headers(self) -> dict[str, str]:
        """HTTP headers or gRPC metadata of the request."""
        return dict(self._make_headers())


@dataclass(slots=True)
class RequestInput:
    """An input tensor of a request."""

    name: str
    datatype: str
    shape: Sequence[int]
    data: Any
    parameters: Mapping[str, Any] = field(default_factory=Parameters)


@dataclass(slots=True)
class RequestOutput:
    """An output tensor that a request asks for."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=Parameters)


@dataclass(slots=True)
class InferenceRequest:
    """An inference request."""

    inputs: Sequence[RequestInput]
    outputs: Sequence[RequestOutput] = ()
    parameters: Parameters = field(default_factory=Parameters)
    id: str | None = None
    seconds: float | None = None  # for which the client waits, if it tells
    trace: Any = None  # `serving.spans.Trace` if the host has begun it; False if unrecorded

    @classmethod
    def from_values(cls, contract: Contract, values: Mapping[str, Any]) -> InferenceRequest:
        """Makes a request from Python values: arrays with their own datatypes, others as JSON."""
        return cls([_request_input(contract, name, value) for name, value in _split(values)])

    @classmethod
    def from_json(
        cls, body: Any, model: str = "", specs: Callable[[], Iterable[TensorSpec]] = tuple
    ) -> InferenceRequest:
        """Makes a request from the protocol's JSON body, already parsed.

        Errors, RequestErrors, name the model and show the declared inputs that `specs` returns.
        """
        try:
            if not isinstance(body, dict) or not isinstance(body.get("inputs"), list):
                from .samples import request_form

                raise MisfitError(f"expected {request_form([*specs()])}, got {_described(body)}")
            outputs = _value(body, "outputs", list) or ()
            return cls(
                [_read_input(tensor, index, specs) for index, tensor in enumerate(body["inputs"])],
                [_read_output(output, index) for index, output in enumerate(outputs)],
                read_parameters(_value(body, "parameters", dict) or {}),
                _value(body, "id", str),
            )
        except MisfitError as error:
            raise error.of_model(model) from None


class MisfitError(Exception):
    """A part of a request is not of the protocol's form."""

    def __init__(self, message: str, part: str = "request") -> None:
        super().__init__(message)
        self._part = part

    def of_model(self, model: str) -> RequestError:
        """Returns the answer to the request. Its status is 400."""
        where = f'{self._part} of model "{model}"' if model else self._part
        return RequestError(f"{where}: {self}", 400)


def _value(
    holder: Mapping[str, Any], key: str, kind: type, part: str = "request", *, needed: bool = False
) -> Any:
    """Returns the value of a key, which has to be of a type; None without it, unless needed."""
    if key not in holder:
        if needed:
            raise MisfitError(f'"{key}" is missing, got {listed(map(str, holder))}', part)
        return None
    value = holder[key]
    if not isinstance(value, kind) and (needed or value is not None):
        raise _wrong(key, kind, value, part)
    return value


def _wrong(key: str, kind: type, value: Any, part: str) -> MisfitError:
    got = short_repr(value)
    return MisfitError(f"{key}: Input should be a valid {_KINDS[kind]}, got {got}", part)


def read_parameters(values: Mapping[str, Any], part: str = "request") -> Parameters:
    """Checks the types of parameters that the protocol knows, or raises a MisfitError."""
    if not values:
        return Parameters()
    for key, kind in (("content_type", str), ("headers", dict)):
        value = values.get(key)
        if value is not None and not isinstance(value, kind):
            raise _wrong(f'parameter "{key}"', kind, value, part)
    return Parameters({key: value for key, value in values.items() if value is not None})


def _read_input(tensor: Any, index: int, specs: Callable[[], Iterable[TensorSpec]]) -> RequestInput:
    if not isinstance(tensor, dict):
        text = f"expected an object with name, shape, datatype and data, got {short_repr(tensor)}"
        raise MisfitError(text, f"inputs[{index}]")
    get: Any = tensor.get
    name, shape, datatype = get("name"), get("shape"), get("datatype")
    part = f'input "{name}"' if isinstance(name, str) else f"inputs[{index}]"
    if not (isinstance(name, str) and isinstance(shape, list) and tensor.keys() >= _NEEDED.keys()):
        for key, kind in _NEEDED.items():
            _value(tensor, key, kind, part, needed=True)
    shape = [
        size if type(size) is int else _size(size, axis, part) for axis, size in enumerate(shape)
    ]
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        declared = [spec.datatype.name for spec in specs() if spec.name == name]
        text = f"expected datatype {', '.join(declared or DATATYPES)}, got {datatype}"
        raise MisfitError(text, part)
    parameters = read_parameters(_value(tensor, "parameters", dict, part) or {}, part)
    return RequestInput(name, datatype, shape, tensor["data"], parameters)


def _read_output(output: Any, index: int) -> RequestOutput:
    part = f"outputs[{index}]"
    if not isinstance(output, dict):
        raise MisfitError(f"expected an object with a name, got {short_repr(output)}", part)
    name = _value(output, "name", str, part, needed=True)
    parameters = _value(output, "parameters", dict, part)
    return RequestOutput(name, read_parameters(parameters or {}, part))


def _size(size: Any, axis: int, part: str) -> int:
    """Returns a size that is no integer of JSON, but a whole number such as 2.0."""
    if isinstance(size, float) and size.is_integer():
        return int(size)
    raise _wrong(f"shape[{axis}]", int, size, part)


def _described(body: Any) -> str:
    if body is None:
        return "an empty body, or null"
    if not isinstance(body, dict):
        return short_repr(body)
    if "inputs" in body:
        return f'"inputs": {short_repr(body["inputs"])}'
    if "instances" in body:
        return '"instances", which is a request of the V1 protocol'
    return f"an object with {listed(map(str, body))}" if body else "an empty object"


def _split(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Returns values by name, and the masks of masked arrays as their companions."""
    for name, value in values.items():
        if type(value).__name__ != "MaskedArray":  # importing numpy.ma takes time
            yield name, value
            continue
        yield name, value.filled("" if value.dtype.kind in "OSU" else 0)
        if value.mask.any():
            yield name + NULLS, np.ma.getmaskarray(value)


def _request_input(contract: Contract, name: str, value: Any) -> RequestInput:
    spec = contract.inputs.get(name)
    if isinstance(value, list | tuple | int | float | bool | str | bytes) or value is None:
        return from_python(spec, name, value)
    return _from_array(contract, name, np.asarray(value))


def pandas_column(spec: TensorSpec | None, tensor: Any) -> RequestInput:
    """Reads what MLServer's PandasCodec makes of a column: of shape [N, 1], or of JSON."""
    shape, datatype = list(tensor.shape), tensor.datatype
    data = getattr(tensor.data, "root", tensor.data)
    if spec is not None and len(spec.shape) == 1 and shape[1:] == [1]:
        shape = shape[:1]
    if spec is not None and getattr(tensor.parameters, "content_type", None) == "pd_json":
        # What is no JSON stays as it is, which the contract refuses.
        with suppress(ValueError, TypeError, RecursionError):
            elements = split_elements(data.buffer) if isinstance(data, RawTensor) else data
            values = [json.loads(element) for element in elements]
            if spec.datatype.is_bytes:
                values = [x if isinstance(x, str | None) else json.dumps(x) for x in values]
            data, datatype = values, spec.datatype.name
    return RequestInput(tensor.name, datatype, shape, data, tensor.parameters)


def from_python(spec: TensorSpec | None, name: str, value: Any) -> RequestInput:
    """Makes an input tensor from a list or scalar, as JSON would carry it."""
    data = _as_lists(value)
    shape = _shape(data)
    # A scalar becomes a tensor of shape [1], unless shape [] is declared.
    if not shape and not (spec is not None and spec.shape == ()):
        data, shape = [data], [1]
    return RequestInput(name, spec.datatype.name if spec else "BYTES", shape, data)


def _from_array(contract: Contract, name: str, array: tensors.Array) -> RequestInput:
    if array.dtype.kind in "OSU":
        return RequestInput(name, "BYTES", list(array.shape), array.ravel().tolist())
    datatype = BY_DTYPE.get(array.dtype.newbyteorder("<"))
    if datatype is None:
        raise ContractError(
            f'input "{name}" of model "{contract.model_name}": expected an array of a protocol '
            f"datatype, got {array.dtype}"
        )
    raw = RawTensor(tensors.to_raw(datatype, array))
    return RequestInput(name, datatype.name, list(array.shape), raw)


def _as_lists(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_as_lists(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _shape(data: Any) -> list[int]:
    shape = []
    while isinstance(data, list):
        shape.append(len(data))
        if not data:
            break
        data = data[0]
    return shape
