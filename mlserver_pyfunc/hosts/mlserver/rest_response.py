"""The response of a model, encoded when it is sent.

It is both MLServer's `InferenceResponse` and a Starlette `Response`. FastAPI sends a `Response` as
it is, without a copy in lists; gRPC writes its arrays. How BYTES and numbers that are not finite
are written depends on the route, so nothing is converted before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from functools import partial
from typing import Any, TypeGuard

import numpy as np
import orjson
from mlserver.errors import MLServerError
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput
from starlette.background import BackgroundTasks
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mlserver_pyfunc.protocol import bytes_tensors, tensors
from mlserver_pyfunc.protocol.contract import NamedArray, TensorSpec
from mlserver_pyfunc.protocol.response import (
    bytes_output,
    json_output,
    response_body,
    tensor_head,
)
from mlserver_pyfunc.protocol.tensors import Array

MAX_ID_CHARS = 256
"""Length of an id that is sent as a header. Many proxies take 4 KiB of headers, gRPC 8 KiB."""

GZIP_LIMIT = 64 * 1024
"""Length of a body from which it is sent with `Content-Encoding: identity`.

MLServer does not compress a response with that header. It compresses on the event loop: 0.5 s for
a MiB, in which no other request is answered.
"""


class UnvalidatedModel:
    """Makes a pydantic model take any attribute as it is, if it stands before it as a base.

    Pydantic checks and converts each value, which here would turn arrays into lists. Its
    `model_construct` does not, but makes an instance of the model only, not of a subclass with
    attributes of its own.
    """

    def _set_state(self, state: dict[str, Any], fields: Set[str] = frozenset()) -> None:
        """Sets all attributes at once. Pydantic takes those of `fields` for set."""
        object.__setattr__(self, "__dict__", state)
        object.__setattr__(self, "__pydantic_fields_set__", fields)
        object.__setattr__(self, "__pydantic_extra__", None)
        object.__setattr__(self, "__pydantic_private__", None)

    def __setattr__(self, name: str, value: Any) -> None:
        self.__dict__[name] = value


class ArrayData:
    """The elements of a tensor for MLServer's own gRPC code, converted when it reads them."""

    __slots__ = ("array", "spec")

    def __init__(self, spec: TensorSpec, array: Array) -> None:
        self.spec = spec
        self.array = array

    def __iter__(self) -> Iterator[Any]:
        elements = tensors.to_list(self.array)
        if self.spec.datatype.is_bytes:
            return map(bytes_tensors.encode_element, elements)
        return iter(elements)

    def __len__(self) -> int:
        return int(self.array.size)


class SendableHeaders(dict[str, str]):
    """Headers to which MLServer adds. Drops values that a header cannot hold.

    The values come from clients. With such a value, a call over gRPC would never end, and a
    connection over HTTP would be broken.
    """

    def update(self, headers: Mapping[str, str]) -> None:  # type: ignore[override]
        """Adds the headers whose values can be sent."""
        super().update({key: value for key, value in headers.items() if is_sendable(value)})


def is_sendable(request_id: str | None) -> TypeGuard[str]:
    """Returns whether there is an id that a header can hold. A client may send any text."""
    if not request_id or len(request_id) > MAX_ID_CHARS:
        return False
    return request_id.isascii() and request_id.isprintable()


class ResponseParameters:
    """The parameters of a response. Takes a tenth of the time of MLServer's pydantic model.

    MLServer adds to `headers`, and sets None when it has sent them.
    """

    __slots__ = ("_values", "headers")

    def __init__(self, values: Mapping[str, Any], headers: dict[str, str]) -> None:
        self._values = values
        self.headers: dict[str, str] | None = headers

    def model_dump(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Returns the parameters as JSON has them."""
        return dict(self._values)


class ArrayResponse(UnvalidatedModel, InferenceResponse, Response):
    """A response of checked arrays.

    `headers` among its parameters become its headers. `binary` has the names of the outputs that
    REST sends as binary tensors, or is None for all.
    """

    def __init__(
        self,
        model_name: str,
        model_version: str | None,
        arrays: list[NamedArray],
        parameters: Mapping[str, Any],
        binary: Set[str] | None = frozenset(),
    ) -> None:
        headers = SendableHeaders()
        own: dict[str, str] = {}
        if "headers" in parameters:
            parameters = dict(parameters)
            own = parameters.pop("headers")
            headers |= own
        self._set_state(
            {
                "model_name": model_name,
                "model_version": model_version,
                "id": None,
                "parameters": ResponseParameters(parameters, headers),
                # FastAPI sets its own background tasks on a response that has None.
                "background": _NO_TASKS,
                "arrays": arrays,
                "binary": binary,
                "response_parameters": parameters,
                "http_headers": headers,
                # Set by data_plane.infer. MLServer's data plane fills http_headers instead.
                "cloud_events": None,
                # Set by the handler. They are in http_headers too.
                "own_headers": own,
            },
            _FIELDS,
        )

    def __getattr__(self, name: str) -> Any:
        # Made at the first access: MLServer's own gRPC code needs `outputs`, REST never does.
        if name != "outputs":
            raise AttributeError(name)
        outputs = [
            ResponseOutput.model_construct(
                name=named.spec.name,
                shape=list(named.array.shape),
                datatype=named.spec.datatype.name,
                parameters=None,
                data=ArrayData(named.spec, named.array),
            )
            for named in self.__dict__["arrays"]
        ]
        self.__dict__["outputs"] = outputs
        return outputs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the response over HTTP: JSON, then the binary tensors if there are any."""
        binary: list[bytes] = []
        body = self._as_json(partial(_http_tensor, names=self.binary, binary=binary))
        head = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        chunks = [head, *binary]
        size = sum(map(len, chunks))
        headers = self.cloud_events.http(self.id) if self.cloud_events else self._host_headers()
        if self.own_headers and self.cloud_events:
            headers += [(name.encode(), text.encode()) for name, text in self.own_headers.items()]
        headers.append((b"content-length", b"%d" % size))
        if binary:
            headers.append((b"content-type", b"application/octet-stream"))
            headers.append((b"inference-header-content-length", b"%d" % len(head)))
        else:
            headers.append((b"content-type", b"application/json"))
        if size > GZIP_LIMIT:
            headers.append((b"content-encoding", b"identity"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for chunk in binary and chunks[:-1]:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": chunks[-1]})

    def _host_headers(self) -> list[tuple[bytes, bytes]]:
        return [(k.lower().encode(), v.encode()) for k, v in self.http_headers.items()]

    def model_dump(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Returns the response as JSON has it, with lists. Server-sent events show that."""
        return self._as_json(json_output)

    def _as_json(self, write: Callable[[NamedArray], dict[str, Any]]) -> dict[str, Any]:
        state = self.__dict__
        tensors_sent = [write(named) for named in state["arrays"]]
        return response_body(
            state["model_name"],
            state["model_version"],
            state["id"],
            state["response_parameters"],
            tensors_sent,
        )


class StreamError(UnvalidatedModel, InferenceResponse):
    """The last item of a stream that failed: an event over REST, a status over gRPC.

    MLServer's REST code encodes it by `model_dump`. Its gRPC code reads `outputs`, which raises.
    """

    def __init__(self, model_name: str, error: MLServerError) -> None:
        self._set_state({"model_name": model_name, "parameters": None, "error": error})

    def __getattr__(self, name: str) -> Any:
        if name == "outputs":
            raise self.__dict__["error"]
        raise AttributeError(name)

    def model_dump(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Returns the error as JSON has it."""
        return {"error": str(self.__dict__["error"])}


_NO_TASKS = BackgroundTasks()
_FIELDS = {"model_name", "model_version", "id", "parameters", "outputs"}


def binary_outputs(payload: InferenceRequest) -> Set[str] | None:
    """Returns the names of the outputs that a REST request wants as binary tensors; None for all.

    Follows the binary tensor data extension: `binary_data` of a requested output, or
    `binary_data_output` of the request for outputs without it.
    """
    by_default = bool(getattr(payload.parameters, "binary_data_output", False))
    if not payload.outputs:
        return None if by_default else frozenset()
    return {
        output.name
        for output in payload.outputs
        if getattr(output.parameters, "binary_data", by_default)
    }


def _http_tensor(
    named: NamedArray, *, names: Set[str] | None, binary: list[bytes]
) -> dict[str, Any]:
    """Returns the JSON of a tensor, with an array for its numbers.

    If the tensor is one of `names`, its bytes are added to `binary`.
    """
    spec, array = named.spec, named.array
    if names is None or spec.name in names:
        binary.append(tensors.to_raw(spec.datatype, array))
        parameters = {"binary_data_size": len(binary[-1])}
        return {**tensor_head(named), "parameters": parameters}
    if spec.datatype.is_bytes:
        return bytes_output(named)
    return {**tensor_head(named), "data": np.ascontiguousarray(array.ravel())}
