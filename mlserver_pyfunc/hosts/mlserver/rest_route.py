"""Routes for calls of models of this runtime, put before MLServer's.

FastAPI works out the parameters of a route for every request, which costs more than the rest of a
small request. These routes read the request and call the data plane themselves. Its tensors do not
become Python lists: numbers of JSON are arrays, and binary tensors view the body.

Follows the "Binary Tensor Data Extension" of Triton's HTTP protocol: a JSON header of
`Inference-Header-Content-Length` bytes, then the bytes of each binary tensor, in order.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from mlserver.errors import MLServerError
from mlserver.rest.endpoints import Endpoints
from mlserver.rest.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from mlserver_pyfunc.errors import RequestError, safe_message
from mlserver_pyfunc.protocol.request import InferenceRequest
from mlserver_pyfunc.protocol.tensors import RawTensor

from . import data_plane, json_body, models, text_generation
from .errors import to_host_error
from .rest_response import ArrayResponse, StreamError

CALLS = ("infer", "infer_stream")
"""Names of the endpoints of MLServer that call a model."""

LENGTH_HEADER = b"inference-header-content-length"
BINARY_EXTENSION = "binary_tensor_data"
model_parameters: dict[str, bool] = {}
"""What the metadata of each function says about the server's routes for it."""
Form = Callable[[ArrayResponse], bytes] | None
_MAX_DIGITS = 18
_WATCHED_AFTER = 0.05
"""Seconds after which a call looks whether its client is still there."""
_PREPARED = "_prepared_by_pyfunc"


def once_for_app(prepare: Callable[[Any], None]) -> Callable[[Any], Any]:
    """Makes a patch of `RESTServer.add_custom_handlers` that prepares the REST server once.

    MLServer builds its application before it loads a model, and so before this runtime is
    imported. It calls that method for each model before it loads it. All routes are there then.
    """

    def patch(stock: Any) -> Any:
        async def add_custom_handlers(self: Any, model: Any) -> Any:
            prepared = vars(self).setdefault(_PREPARED, set())
            if prepare.__name__ not in prepared:
                prepared.add(prepare.__name__)
                prepare(self)
            return await stock(self, model)

        return add_custom_handlers

    patch.__name__, patch.__doc__ = prepare.__name__, prepare.__doc__
    return patch


@once_for_app
def add_rest_routes(server: Any) -> None:
    """Puts our routes for calls before MLServer's, and announces that they read binary tensors.

    Without it, FastAPI works out the parameters of each REST request, tensors become Python
    lists, and binary tensors are refused.
    """
    routes = server._app.router.routes
    routes[:0] = [InferenceRoute(route) for route in routes if calls_model(route)]
    announce(server, BINARY_EXTENSION)
    model_parameters[BINARY_EXTENSION] = True


def announce(server: Any, *extensions: str) -> None:
    """Names extensions of the protocol in the server's metadata."""
    settings = server._data_plane._settings
    settings.extensions = list(dict.fromkeys([*settings.extensions, *extensions]))


def calls_model(route: Any) -> bool:
    """Returns whether a route is one of MLServer's own that call a model."""
    endpoint: Any = getattr(route, "endpoint", None)
    is_own = isinstance(getattr(endpoint, "__self__", None), Endpoints)
    return is_own and endpoint.__name__ in CALLS


class InferenceRoute(Route):
    """Serves the calls of one of MLServer's routes to models of this runtime, and no others."""

    def __init__(self, stock: Route) -> None:
        super().__init__(stock.path, stock.endpoint, methods=["POST"])
        self._data_plane = stock.endpoint.__self__._data_plane  # type: ignore[attr-defined]
        self._registry = self._data_plane._model_registry
        self._streams = stock.endpoint.__name__ == "infer_stream"

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Matches a call if its model is one of this runtime."""
        match, child_scope = super().matches(scope)
        if match is Match.FULL:
            name = child_scope["path_params"]["model_name"]
            if models.is_ours(self._registry, name):
                return match, child_scope
        return Match.NONE, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a call. Gives it up if its client leaves meanwhile."""
        request = Request(scope, receive)
        body = await _read(request)
        names = scope["path_params"].values()
        with Departure(receive) as departure:
            if text_generation.is_text_call(self.path, body):
                response = await self._generate(request, body, *names)
            else:
                response = await self._call(request, body, None, *names)
        if not departure.has_left:
            await response(scope, receive, send)

    async def _generate(self, request: Request, body: Any, *names: str) -> Any:
        try:
            _, definition = await models.function(self._registry, *names)
            body = text_generation.to_request(body, names[0], definition)
            return await self._call(request, body, text_generation.to_response, *names)
        except (MLServerError, RequestError) as error:
            host_error = to_host_error(error) if isinstance(error, RequestError) else error
            status = host_error.status_code
            host_error.status_code = text_generation.STATUSES.get(status, status)
            raise host_error from None

    async def _call(self, request: Request, body: Any, form: Form, *names: str) -> Any:
        try:
            specs = partial(models.declared_inputs, self._registry, *names)
            payload: Any = InferenceRequest.from_json(body, names[0], specs)
        except RequestError as error:
            raise to_host_error(error) from None
        payload.parameters = data_plane.RequestParameters(
            payload.parameters, lambda: request.headers
        )
        for name, value in request.scope["headers"]:
            if name == b"request-timeout":
                payload.seconds = _seconds(value)
        if self._streams:
            return await self._stream(payload, form, *names)
        response = await data_plane.infer(self._data_plane, payload, *names)
        response.form = form
        return response

    async def _stream(self, payload: Any, form: Form, *names: str) -> StreamingResponse:
        """Awaits the first item: the status of the response is that of an error in its place."""

        async def payloads() -> AsyncIterator[Any]:
            yield payload

        items: Any = self._data_plane.infer_stream(payloads(), *names)
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
            item = await anext(others, None)


class Departure:
    """Cancels the code in a `with` block if the client of the request leaves.

    Problem: an ASGI server tells that a client has left only to who awaits `receive`. To await it
    in a task of its own for each request costs more than the handler of a small one.

    Solution: a timer. Only a request that still has no answer when it fires gets the task.
    """

    def __init__(self, receive: Receive) -> None:
        self.has_left = False
        self._receive = receive
        self._watch: asyncio.Task[None] | None = None

    def __enter__(self) -> Departure:
        loop = asyncio.get_running_loop()
        self._caller = asyncio.current_task(loop)
        self._timer = loop.call_later(_WATCHED_AFTER, self._start)
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()
        return self.has_left and isinstance(error, asyncio.CancelledError)

    def _start(self) -> None:
        self._watch = asyncio.ensure_future(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.has_left = True
        assert self._caller is not None
        self._caller.cancel()


async def _read(request: Request) -> Any:
    try:
        body = await request.body()
        if not body:
            return None
        length = dict(request.scope["headers"]).get(LENGTH_HEADER)
        return json_body.parse(body) if length is None else _parse_binary(body, length)
    except json.JSONDecodeError as error:
        raise unreadable(request.path_params["model_name"], error.msg) from None


def _seconds(header: bytes) -> float:
    with suppress(ValueError):
        if 0 <= (seconds := float(header)) < math.inf:
            return seconds
    got = header[:40].decode("latin-1")
    raise MLServerError(f'header "Request-Timeout": expected seconds, got {got!r}', 400)


def unreadable(model: str, problem: str) -> MLServerError:
    """Returns the answer to a body that is no JSON, or not of its encoding."""
    text = f'request of model "{model}": expected JSON, got a body that cannot be read: {problem}'
    return MLServerError(safe_message(text), 400)


def _parse_binary(body: bytes, header_length: bytes) -> Any:
    """Parses the JSON header, and gives each binary tensor a view of its bytes."""
    # int() refuses more than 4,300 digits by an error of its own.
    is_number = header_length.isdigit() and len(header_length) <= _MAX_DIGITS
    if not is_number or int(header_length) > len(body):
        got = header_length[:40].decode("latin-1")
        raise json.JSONDecodeError(
            f"Inference-Header-Content-Length: expected a number up to {len(body)}, got {got!r}",
            "",
            0,
        )
    view = memoryview(body)
    start = int(header_length)
    payload = json_body.parse_lists(view[:start])
    last: dict[str, Any] | None = None
    inputs = payload.get("inputs") if isinstance(payload, dict) else None
    for tensor in filter(_is_binary, inputs if isinstance(inputs, list) else ()):
        size = tensor["parameters"]["binary_data_size"]
        data = RawTensor(view[start : start + size], size)
        # The error about an input that lacks a key shows the input, and must not show bytes.
        tensor["data"] = data if tensor.keys() >= json_body.KEYS else []
        start = min(start + size, len(body))
        last = tensor
    if last is not None and start < len(body) and isinstance(last["data"], RawTensor):
        last["data"] = replace(last["data"], surplus=len(body) - start)
    return payload


def _is_binary(tensor: Any) -> bool:
    if not isinstance(tensor, dict) or not isinstance(tensor.get("parameters"), dict):
        return False
    size = tensor["parameters"].get("binary_data_size")
    return type(size) is int and size >= 0
