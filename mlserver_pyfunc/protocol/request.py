"""An inference request as plain data, made from Python values or from JSON.

What MLServer hands the runtime has the same attributes, so a function cannot tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlserver_pyfunc.errors import ContractError, RequestError

from . import tensors
from .contract import Contract, TensorSpec
from .tensors import DATATYPES, RawTensor


class Parameters(dict[str, Any]):
    """Parameters whose values are also attributes; one that was not given is None."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.get(name)


@dataclass(frozen=True)
class InputTensor:
    """A tensor on its way in: `data` is a list, flat or nested, or a `RawTensor`."""

    name: str
    datatype: str
    shape: Sequence[int]
    data: Any
    parameters: Parameters = field(default_factory=Parameters)


@dataclass(frozen=True)
class OutputName:
    """An output that a request asks for."""

    name: str


@dataclass(frozen=True)
class Payload:
    """An inference request."""

    inputs: Sequence[InputTensor]
    outputs: Sequence[OutputName] = ()
    parameters: Parameters = field(default_factory=Parameters)
    id: str = ""


def from_values(
    contract: Contract,
    values: Mapping[str, Any],
    *,
    outputs: Iterable[str] = (),
    parameters: Mapping[str, Any] | None = None,
) -> Payload:
    """Makes a request of Python values.

    Args:
        contract: Names the inputs.
        values: By input name. A NumPy array travels as it is, with the datatype it has;
            lists and scalars as JSON would carry them.
        outputs: Names of the outputs to ask for; none for all.
        parameters: The request's own.

    Raises:
        ContractError: A value has no form in the protocol.
    """
    inputs = [_tensor(contract, name, value) for name, value in values.items()]
    asked = [OutputName(name) for name in outputs]
    return Payload(inputs, asked, Parameters(parameters or {}))


def from_json(body: Any) -> Payload:
    """Makes a request of the protocol's JSON body.

    Raises:
        RequestError: It is not one: status 422, as MLServer answers.
    """
    try:
        inputs = [
            InputTensor(
                name=tensor["name"],
                datatype=tensor["datatype"],
                shape=list(tensor["shape"]),
                data=tensor["data"],
                parameters=Parameters(tensor.get("parameters") or {}),
            )
            for tensor in body["inputs"]
        ]
        outputs = [OutputName(output["name"]) for output in body.get("outputs") or ()]
        parameters = Parameters(body.get("parameters") or {})
    except KeyError as error:
        raise RequestError(f"request: {error.args[0]} is missing", 422) from None
    except (TypeError, ValueError, AttributeError):
        raise RequestError('request: expected {"inputs": [{name, shape, ...}]}', 422) from None
    return Payload(inputs, outputs, parameters, str(body.get("id") or ""))


def _tensor(contract: Contract, name: str, value: Any) -> InputTensor:
    spec = contract.inputs.get(name)
    if isinstance(value, list | tuple | int | float | bool | str | bytes) or value is None:
        return _from_python(spec, name, value)
    return _from_array(contract, name, np.asarray(value))


def _from_python(spec: TensorSpec | None, name: str, value: Any) -> InputTensor:
    data = _as_lists(value)
    shape = _shape(data)
    # A scalar is the one element of a tensor of rank 1, unless rank 0 is declared.
    if not shape and not (spec is not None and spec.shape == ()):
        data, shape = [data], [1]
    return InputTensor(name, spec.datatype.name if spec else "BYTES", shape, data)


def _from_array(contract: Contract, name: str, array: tensors.Array) -> InputTensor:
    if array.dtype.kind in "OSU":
        return InputTensor(name, "BYTES", list(array.shape), array.ravel().tolist())
    datatype = _BY_DTYPE.get(array.dtype.newbyteorder("<"))
    if datatype is None:
        raise ContractError(
            f'input "{name}" of model "{contract.model_name}": expected an array of a protocol '
            f"datatype, got {array.dtype}"
        )
    raw = RawTensor(tensors.to_raw(datatype, array))
    return InputTensor(name, datatype.name, list(array.shape), raw)


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


_BY_DTYPE = {d.dtype: d for d in DATATYPES.values() if not d.is_bytes}
