"""An inference response that is encoded by the route that sends it.

It is both MLServer's `InferenceResponse` and a Starlette `Response`: REST sends it as it
is, gRPC reads its `outputs`. So it knows how BYTES and non-finite numbers are written.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from functools import partial
from typing import Any

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

from .cloud_events import SendableHeaders
from .unvalidated_model import BareModel

GZIP_LIMIT = 64 * 1024
"""Above this many bytes a body is marked as not to be compressed: MLServer would do that
on the event loop, at 0.5 s a MiB, while nothing else is answered."""


class ArrayData:
    """A tensor's data as MLServer's gRPC code takes it: a sequence, made when it is read."""

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


class ResponseParameters:
    """What MLServer asks of a response's parameters, at a tenth of the cost of its own.

    Attributes:
        headers: For MLServer to add to, and to take away when it has sent them.
    """

    __slots__ = ("_values", "headers")

    def __init__(self, values: Mapping[str, Any], headers: dict[str, str]) -> None:
        self._values = values
        self.headers: dict[str, str] | None = headers

    def model_dump(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return dict(self._values)


class ArrayResponse(BareModel, InferenceResponse, Response):
    """Checked arrays on their way out.

    Args:
        model_name: As served.
        model_version: As served; None without one.
        arrays: The outputs to send.
        parameters: The response's own parameters.
        binary: Names of the outputs that REST sends as binary data.
    """

    def __init__(
        self,
        model_name: str,
        model_version: str | None,
        arrays: list[NamedArray],
        parameters: Mapping[str, Any],
        binary: Container[str] = (),
    ) -> None:
        headers = SendableHeaders()
        self._set_state(
            {
                "model_name": model_name,
                "model_version": model_version,
                "id": None,
                "parameters": ResponseParameters(parameters, headers),
                # Not None, so that FastAPI does not hang its background tasks on it.
                "background": _NO_TASKS,
                "arrays": arrays,
                "binary": binary,
                "response_parameters": parameters,
                "http_headers": headers,
                # In their place where MLServer's data plane is passed by.
                "cloud_events": None,
            },
            _FIELDS,
        )

    def __getattr__(self, name: str) -> Any:
        # gRPC asks for `outputs`, REST never does.
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
        """Sends the response over HTTP: as JSON, or with binary tensors after the JSON."""
        binary: list[bytes] = []
        body = self._as_json(partial(_http_tensor, names=self.binary, binary=binary))
        head = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        chunks = [head, *binary]
        size = sum(map(len, chunks))
        headers = self.cloud_events.http(self.id) if self.cloud_events else self._host_headers()
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
        """The response as JSON has it, with lists for tensors: what server-sent events show."""
        return self._as_json(json_output)

    def model_dump_json(self, *args: Any, **kwargs: Any) -> str:
        """As `model_dump`, in JSON text."""
        return orjson.dumps(self.model_dump()).decode()

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


class ErrorResponse(BareModel, InferenceResponse):
    """The last item of a stream that failed: an error event over SSE, a status over gRPC."""

    def __init__(self, model_name: str, error: MLServerError) -> None:
        self._set_state({"model_name": model_name, "parameters": None, "error": error})

    def __getattr__(self, name: str) -> Any:
        if name == "outputs":
            raise self.__dict__["error"]
        raise AttributeError(name)

    def model_dump(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {"error": str(self.__dict__["error"])}


_NO_TASKS = BackgroundTasks()
_FIELDS = {"model_name", "model_version", "id", "parameters", "outputs"}


class _Everything:
    """Contains every name."""

    def __contains__(self, name: object) -> bool:
        return True


def binary_outputs(payload: InferenceRequest) -> Container[str]:
    """The outputs that a request asks to have as binary data, over REST.

    Follows the binary tensor data extension: `binary_data` of a requested output, else
    `binary_data_output` of the request.
    """
    by_default = bool(getattr(payload.parameters, "binary_data_output", False))
    if not payload.outputs:
        return _Everything() if by_default else ()
    return {
        output.name
        for output in payload.outputs
        if getattr(output.parameters, "binary_data", by_default)
    }


def _http_tensor(
    named: NamedArray, *, names: Container[str], binary: list[bytes]
) -> dict[str, Any]:
    """A tensor's JSON, where NumPy arrays stand for numbers; binary data goes to `binary`."""
    spec, array = named.spec, named.array
    if spec.name in names:
        binary.append(tensors.to_raw(spec.datatype, array))
        parameters = {"binary_data_size": len(binary[-1])}
        return {**tensor_head(named), "parameters": parameters}
    if spec.datatype.is_bytes:
        return bytes_output(named)
    return {**tensor_head(named), "data": np.ascontiguousarray(array.ravel())}
