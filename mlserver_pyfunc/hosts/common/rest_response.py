"""The response of a model, encoded when it is sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence, Set
from contextlib import aclosing
from functools import partial
from typing import Any, TypeGuard

import orjson
from starlette.background import BackgroundTasks
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from mlserver_pyfunc.errors import RequestError
from mlserver_pyfunc.protocol import tensors
from mlserver_pyfunc.protocol.contract import NamedArray, companions
from mlserver_pyfunc.protocol.request import Parameters
from mlserver_pyfunc.protocol.response import flat_array, json_output, response_body, tensor_head

Form = Callable[["ArrayResponse"], bytes] | None
MAX_ID_CHARS = 256
"""Length of an id that is sent as a header. Many proxies take 4 KiB of headers, gRPC 8 KiB."""

GZIP_LIMIT = 64 * 1024
"""Length of a body that MLServer must not compress: see `gzip_enabled` in docs/performance.md."""


class SendableHeaders(dict[str, str]):
    """Headers to which MLServer adds. Drops values of clients that would break a connection."""

    def update(self, headers: Mapping[str, str]) -> None:  # type: ignore[override]
        """Adds the headers whose values can be sent."""
        super().update({key: value for key, value in headers.items() if is_sendable(value)})


class NoHeaders(SendableHeaders):
    """Headers of an item of a stream, which has none: nobody sends what MLServer adds."""

    def update(self, headers: Mapping[str, str]) -> None:  # type: ignore[override]
        """Adds nothing."""


def is_sendable(request_id: str | None) -> TypeGuard[str]:
    """Returns whether there is an id that a header can hold. A client may send any text."""
    if not request_id or len(request_id) > MAX_ID_CHARS:
        return False
    return request_id.isascii() and request_id.isprintable()


class ArrayResponse(Response):
    """A response of checked arrays, with the attributes of MLServer's `InferenceResponse`.

    `headers` among its parameters become its headers. `binary` has the names of the outputs that
    REST sends as binary tensors, or is None for all.
    """

    id: str | None = None
    # FastAPI sets its own background tasks on a response that has None.
    background = BackgroundTasks()
    cloud_events: Any = None
    """Set by `data_plane.infer`. MLServer's data plane fills `http_headers` instead."""
    form: Form = None
    """What writes it, if it is not in the protocol's form."""

    def __init__(
        self,
        model_name: str,
        model_version: str | None,
        arrays: list[NamedArray],
        parameters: Mapping[str, Any],
        binary: Set[str] | None = frozenset(),
        headers: type[SendableHeaders] = SendableHeaders,
    ) -> None:
        self.model_name = model_name
        self.model_version = model_version
        self.parameters = Parameters(parameters)
        self.own_headers: dict[str, str] = self.parameters.pop("headers", {})
        # MLServer adds to them, and sets None when it has sent them.
        self.http_headers = self.parameters.headers = headers(self.own_headers)
        self.arrays = arrays
        self.binary = binary

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the response over HTTP: JSON, then the binary tensors if there are any."""
        binary: list[bytes] = []
        head = self._as_json(self.binary, binary)
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

    def event(self) -> bytes:
        return _event(self._as_json(frozenset(), []))

    def model_dump(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Returns the response as JSON has it, with lists, for MLServer's own route of streams."""
        return self._body(json_output)

    def _as_json(self, names: Set[str] | None, binary: list[bytes]) -> bytes:
        if self.form is not None:
            return self.form(self)
        apart = (each for each in self.arrays if names is None or each.spec.name in names)
        write = partial(_http_tensor, names=names, binary=binary)
        body = self._body(write, companions(apart))
        return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)

    def _body(
        self, write: Callable[[NamedArray], dict[str, Any]], more: Sequence[NamedArray] = ()
    ) -> dict[str, Any]:
        outputs = [write(named) for named in (*self.arrays, *more)]
        return response_body(self.model_name, self.model_version, self.id, self.parameters, outputs)


def _event(body: bytes) -> bytes:
    return b"data: %b\n\n" % body


class StreamError:
    """The last item of a stream that failed: an event over REST, a status over gRPC.

    MLServer's REST code encodes it by `model_dump`. Its gRPC code reads `outputs`, which raises.
    """

    parameters = None

    def __init__(self, model_name: str, error: Exception) -> None:
        self.model_name = model_name
        self.error = error

    @property
    def outputs(self) -> Any:
        raise self.error

    def event(self) -> bytes:
        return _event(orjson.dumps(self.model_dump()))

    def model_dump(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {"error": str(self.error)}


async def event_stream(items: Any, form: Form) -> StreamingResponse:
    """Sends a stream as server-sent events. Raises an error in place of the first item."""
    first = await anext(items, None)
    if isinstance(first, StreamError):
        await items.aclose()
        raise first.error
    return StreamingResponse(_events(first, items, form), media_type="text/event-stream")


async def _events(item: Any, others: Any, form: Form) -> AsyncIterator[bytes]:
    async with aclosing(others):
        while item is not None:
            item.form = form
            yield item.event()
            try:
                item = await anext(others, None)
            except RequestError as error:
                item = StreamError(item.model_name, error)


def binary_outputs(payload: Any) -> Set[str] | None:
    """Returns the names of the outputs that a REST request wants as binary tensors; None for all.

    Follows the binary tensor data extension: `binary_data` of a requested output, or
    `binary_data_output` of the request for outputs without it.
    """
    by_default = bool(getattr(payload.parameters, "binary_data_output", False))
    if not payload.outputs:
        return None if by_default else frozenset()
    asked = {
        output.name: getattr(output.parameters, "binary_data", None) for output in payload.outputs
    }
    asked.setdefault("table", None)  # of Arrow
    return {name for name, flag in asked.items() if (by_default if flag is None else flag)}


def _http_tensor(
    named: NamedArray, *, names: Set[str] | None, binary: list[bytes]
) -> dict[str, Any]:
    """Returns the JSON of a tensor, with an array for its numbers."""
    spec, array = named.spec, named.array
    if names is None or spec.name in names or spec.is_nulls:
        binary.append(tensors.to_raw(spec.datatype, array))
        parameters = {"binary_data_size": len(binary[-1])}
        return {**tensor_head(named), "parameters": parameters}
    return json_output(named, flat_array)
