"""An inference request as plain data, made from Python values or from JSON.

Follows the Open Inference Protocol v2, "Inference Request JSON Object". The classes have the
names and attributes of MLServer's own types (`mlserver.types`), so that a function serves
either of them. Nothing here imports MLServer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlserver_pyfunc.errors import ContractError, RequestError

from . import tensors
from .contract import Contract, TensorSpec
from .datatypes import BY_DTYPE
from .tensors import RawTensor


class Parameters(dict[str, Any]):
    """Parameters that can also be read as attributes; a missing one reads as None."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.get(name)


@dataclass(frozen=True)
class RequestInput:
    """An input tensor of a request."""

    name: str
    datatype: str
    shape: Sequence[int]
    data: Any
    parameters: Mapping[str, Any] = field(default_factory=Parameters)


@dataclass(frozen=True)
class RequestOutput:
    """An output tensor that a request asks for."""

    name: str


@dataclass(frozen=True)
class InferenceRequest:
    """An inference request."""

    inputs: Sequence[RequestInput]
    outputs: Sequence[RequestOutput] = ()
    parameters: Parameters = field(default_factory=Parameters)
    id: str = ""

    @classmethod
    def from_values(
        cls,
        contract: Contract,
        values: Mapping[str, Any],
        *,
        outputs: Iterable[str] = (),
        parameters: Mapping[str, Any] | None = None,
    ) -> InferenceRequest:
        """Makes a request from Python values: arrays with their own datatypes, others as JSON.

        Raises:
            ContractError: The protocol has no datatype for a value.
        """
        inputs = [_request_input(contract, name, value) for name, value in values.items()]
        requested = [RequestOutput(name) for name in outputs]
        return cls(inputs, requested, Parameters(parameters or {}))

    @classmethod
    def from_json(cls, body: Any) -> InferenceRequest:
        """Makes a request from the protocol's JSON body, already parsed.

        Raises:
            RequestError: The body is not an inference request. Status 400.
        """
        try:
            inputs = [
                RequestInput(
                    name=tensor["name"],
                    datatype=tensor["datatype"],
                    shape=list(tensor["shape"]),
                    data=tensor["data"],
                    parameters=Parameters(tensor.get("parameters") or {}),
                )
                for tensor in body["inputs"]
            ]
            outputs = [RequestOutput(output["name"]) for output in body.get("outputs") or ()]
            parameters = Parameters(body.get("parameters") or {})
        except KeyError as error:
            raise RequestError(f"request: {error.args[0]} is missing", 400) from None
        except (TypeError, ValueError, AttributeError):
            raise RequestError('request: expected {"inputs": [{name, shape, ...}]}', 400) from None
        return cls(inputs, outputs, parameters, str(body.get("id") or ""))


def _request_input(contract: Contract, name: str, value: Any) -> RequestInput:
    spec = contract.inputs.get(name)
    if isinstance(value, list | tuple | int | float | bool | str | bytes) or value is None:
        return from_python(spec, name, value)
    return _from_array(contract, name, np.asarray(value))


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
