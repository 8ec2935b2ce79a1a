"""One call of the handler, and what user code may ask of it: the request and the event.

Needs only NumPy and the standard library.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from mlserver_pyfunc.protocol import bytes_tensors, tensors
from mlserver_pyfunc.protocol.contract import TensorSpec
from mlserver_pyfunc.protocol.request import RequestInput
from mlserver_pyfunc.protocol.tensors import Array

from .context import Context

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Of the call that runs, for the log."""

_SHOWN_ID_CHARS = 80


def printable_id(call_id: str) -> str:
    """A client's request id as it may stand in the log: short, and on one line."""
    return "".join(c if c.isprintable() else "?" for c in call_id[:_SHOWN_ID_CHARS])


@dataclass(frozen=True)
class DecodedRequest:
    """An inference request as the protocol has it."""

    id: str
    parameters: Mapping[str, Any]
    inputs: list[RequestInput]
    outputs: list[str]


@dataclass(frozen=True)
class Event:
    """An inference request as a Nuclio event, for digitalhub handlers.

    Attributes:
        body: The request as JSON has it: tensors as flat lists, BYTES as text.
        headers: HTTP headers or gRPC metadata, and X-Model-Name, X-Model-Version.
    """

    id: str
    body: dict[str, Any]
    headers: Mapping[str, str]
    timestamp: datetime.datetime
    content_type: str = "application/json"
    method: str = "POST"

    def get_header(self, name: str, default: Any = None) -> Any:
        """Looks up a header, whatever its case."""
        wanted = name.lower()
        return next((v for k, v in self.headers.items() if k.lower() == wanted), default)


class InferenceCall:
    """One call of the handler: what each of its parameters may ask for.

    Args:
        context: The function's.
        inputs: Decoded arrays by input name.
        specs: Declared inputs by name.
        payload: The host's inference request, for what is seldom asked for.
    """

    def __init__(
        self,
        context: Context,
        inputs: dict[str, Array],
        specs: Mapping[str, TensorSpec],
        payload: Any = None,
    ) -> None:
        self.context = context
        self.inputs = inputs
        self.specs = specs
        self._payload = payload

    @property
    def id(self) -> str:
        return getattr(self._payload, "id", None) or ""

    @cached_property
    def parameters(self) -> Mapping[str, Any]:
        """The request's parameters, without the host's `headers`."""
        parameters = _mapping(getattr(self._payload, "parameters", None))
        return {key: value for key, value in parameters.items() if key != "headers"}

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """HTTP headers (names in lower case) or gRPC metadata."""
        headers = getattr(getattr(self._payload, "parameters", None), "headers", None)
        return headers or {}

    @cached_property
    def outputs(self) -> list[str]:
        """Names of the outputs asked for; empty for all."""
        return [output.name for output in getattr(self._payload, "outputs", None) or ()]

    @cached_property
    def request(self) -> DecodedRequest:
        tensors_sent = getattr(self._payload, "inputs", ())
        parameters = {tensor.name: _mapping(tensor.parameters) for tensor in tensors_sent}
        return DecodedRequest(
            id=self.id,
            parameters=self.parameters,
            inputs=[
                RequestInput(
                    name=name,
                    shape=list(array.shape),
                    datatype=self.specs[name].datatype.name,
                    data=array,
                    parameters=parameters.get(name, {}),
                )
                for name, array in self.inputs.items()
            ],
            outputs=self.outputs,
        )

    @cached_property
    def event(self) -> Event:
        body: dict[str, Any] = {"id": self.id, "inputs": []}
        if self.parameters:
            body["parameters"] = dict(self.parameters)
        for tensor in self.request.inputs:
            is_bytes = tensor.datatype == "BYTES"
            data = (
                bytes_tensors.to_json_bytes(tensor.data)[0]
                if is_bytes
                else tensors.to_list(tensor.data)
            )
            body["inputs"].append(
                {
                    "name": tensor.name,
                    "shape": tensor.shape,
                    "datatype": tensor.datatype,
                    "data": data,
                }
            )
        if self.outputs:
            body["outputs"] = [{"name": name} for name in self.outputs]
        names = {
            "X-Model-Name": self.context.model_name,
            "X-Model-Version": self.context.model_version or "",
        }
        now = datetime.datetime.now(tz=datetime.timezone.utc)
        return Event(self.id, body, {**self.headers, **names}, now)


def _mapping(parameters: Any) -> Mapping[str, Any]:
    """The host's parameters object as a mapping of what was given."""
    if parameters is None:
        return {}
    if isinstance(parameters, Mapping):
        return parameters
    dumped: Mapping[str, Any] = parameters.model_dump(exclude_none=True)
    return dumped
