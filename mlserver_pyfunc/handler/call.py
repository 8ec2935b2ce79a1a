"""One call of a handler, and the objects that a handler can ask for: request and event."""

from __future__ import annotations

import datetime
import threading
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mlserver_pyfunc.errors import HandlerError, describe
from mlserver_pyfunc.protocol.contract import NamedArray, TensorSpec
from mlserver_pyfunc.protocol.nulls import masked
from mlserver_pyfunc.protocol.request import RequestInput
from mlserver_pyfunc.protocol.response import json_output
from mlserver_pyfunc.protocol.tensors import Array

from .context import Context

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Id of the request that is being handled, for log records."""

_MAX_ID_CHARS = 80
ENCODINGS = ("content_type", "binary_data_size")
"""Parameters of a tensor that say how its data were sent."""


def printable_id(call_id: str) -> str:
    """Returns a client's request id in a form that is safe to log: short, on one line."""
    return "".join(c if c.isprintable() else "?" for c in call_id[:_MAX_ID_CHARS])


@dataclass(frozen=True)
class DecodedRequest:
    """The inference request that a handler gets for its parameter `request`."""

    id: str
    parameters: Mapping[str, Any]
    inputs: list[RequestInput]
    outputs: list[str]


@dataclass(frozen=True)
class Event:
    """An inference request in the form of a Nuclio event, for digitalhub handlers.

    The headers have X-Model-Name, X-Model-Version and X-Request-ID too, the time is in UTC. The
    body has tensors as flat lists, BYTES as strings.
    """

    id: str
    body: dict[str, Any]
    headers: Mapping[str, str]
    timestamp: datetime.datetime
    content_type: str = "application/json"
    method: str = "POST"
    path: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)

    def get_header(self, name: str, default: Any = None) -> Any:
        """Returns a header by its name, in any case."""
        wanted = name.lower()
        return next((v for k, v in self.headers.items() if k.lower() == wanted), default)


class InferenceCall:
    """One call of a handler, with everything that its parameters can ask for.

    What few handlers ask for is made when it is first read. Inputs and their specifications are by
    name. The request is an `InferenceRequest`, or has its attributes; a warm-up has None.
    """

    def __init__(
        self,
        context: Context,
        inputs: dict[str, Array],
        specs: Mapping[str, TensorSpec],
        request: Any = None,
    ) -> None:
        self.context = context
        self.inputs = inputs
        self.specs = specs
        self._request = request
        self.trace: Any = None  # `serving.spans.Trace` if the request is recorded

    @property
    def id(self) -> str:
        """Identifier of the request; empty if it has none."""
        return getattr(self._request, "id", None) or ""

    @property
    def label(self) -> str:
        """The request's id for log lines and errors, with that of its trace if it is recorded."""
        return str(self.trace.label(self.id)) if self.trace else self.id

    @property
    def cancelled(self) -> threading.Event:
        """Set if nobody waits for the call any more: its client has left, or its time is over."""
        # Atomic, since the handler's thread and the event loop's may ask at the same moment.
        event: threading.Event = vars(self).setdefault("cancelled", threading.Event())
        return event

    def cancel(self, error: BaseException) -> None:
        """Notes that the call has ended so, even if its handler still runs."""
        self.cancelled.set()
        if self.trace:
            self.trace.leave(error)

    @cached_property
    def parameters(self) -> Mapping[str, Any]:
        """Parameters of the request, without `headers`, which MLServer adds to them."""
        parameters = _mapping(getattr(self._request, "parameters", None))
        return {key: value for key, value in parameters.items() if key != "headers"}

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """HTTP headers, with names in lower case, or gRPC metadata."""
        headers = getattr(getattr(self._request, "parameters", None), "headers", None)
        return headers or {}

    @cached_property
    def outputs(self) -> list[str]:
        """Names of the requested outputs; empty if all are requested."""
        return [output.name for output in getattr(self._request, "outputs", None) or ()]

    @cached_property
    def tensor_parameters(self) -> Mapping[str, Mapping[str, Any]]:
        received = getattr(self._request, "inputs", ())
        return {tensor.name: _mapping(tensor.parameters) for tensor in received}

    @cached_property
    def request(self) -> DecodedRequest:
        parameters = self.tensor_parameters
        inputs = []
        for name, array in self.inputs.items():
            datatype = self.specs[name].datatype.name
            shape = list(array.shape)
            inputs.append(RequestInput(name, datatype, shape, array, parameters.get(name, {})))
        return DecodedRequest(self.id, self.parameters, inputs, self.outputs)

    def _json_input(self, name: str) -> dict[str, Any]:
        # How the tensor came says nothing about the form that it has here.
        given = self.tensor_parameters.get(name, {}).items()
        kept = {key: value for key, value in given if key not in ENCODINGS}
        named = NamedArray.of(self.specs[name], masked(self.inputs, name))
        return json_output(named, parameters=kept)

    @cached_property
    def event(self) -> Event:
        body: dict[str, Any] = {"id": self.id, "inputs": []}
        if self.parameters:
            body["parameters"] = dict(self.parameters)
        own = [name for name in self.inputs if not self.specs[name].is_nulls]
        body["inputs"] = [self._json_input(name) for name in own]
        if self.outputs:
            body["outputs"] = [{"name": name} for name in self.outputs]
        names = {
            "X-Model-Name": self.context.model_name,
            "X-Model-Version": self.context.model_version or "",
            "X-Request-ID": self.id,
        }
        return Event(
            self.id,
            body,
            {**self.headers, **names},
            datetime.datetime.now(tz=datetime.timezone.utc),
            path=f"/v2/models/{self.context.model_name}/infer",
            fields=self.parameters,
        )


def _mapping(parameters: Any) -> Mapping[str, Any]:
    """Converts parameters to a mapping; they may be a mapping, None or a pydantic model."""
    if parameters is None:
        return {}
    if isinstance(parameters, Mapping):
        return parameters
    dumped: Mapping[str, Any] = parameters.model_dump(exclude_none=True)
    return dumped


def handler_error(
    model_name: str, error: BaseException, call_id: str, note: str = ""
) -> HandlerError:
    """Words an exception of a handler for the client."""
    what = describe(error)
    # NumPy says so of the target of an assignment, of an operator such as += and of a sort.
    if isinstance(error, ValueError) and what.endswith("is read-only"):
        note = " (inputs are read-only, to change one copy it: x.copy())"
    shown = printable_id(call_id)
    request = f" (request {shown})" if shown else ""
    return HandlerError(f'handler of model "{model_name}" raised {what}{note}{request}')
