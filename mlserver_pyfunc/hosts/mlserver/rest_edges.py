"""REST answers that MLServer gives before a runtime is asked: status, index and checks of the call.

MLServer builds its application before it loads a model. So its routes are changed when the first
model of this runtime comes: nothing here costs a request to such a model anything.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi import Request as FastAPIRequest
from mlserver.errors import MLServerError
from mlserver.rest.requests import Request
from mlserver.rest.responses import Response
from mlserver.types import RepositoryIndexRequest
from pydantic import ValidationError
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from . import models, rest_errors
from .errors import ModelNotReadyError
from .fast_path import BINARY_EXTENSION
from .rest_request import JSON_HEADER, LENGTH_HEADER

CALLS = ("infer", "infer_stream")
"""Names of the endpoints of MLServer that call a model."""


def answer_at_the_edges(stock: Any) -> Any:
    """Gives REST routes the bodies of the protocol, and one form of error to all under `/v2`.

    Without it, health and readiness have empty bodies, at which KServe's client fails, a model
    that is not ready answers 400, and a request that cannot be read gets 422 or 500 in a form that
    Triton's client cannot read.

    MLServer calls this method for each model before it loads it.
    """

    async def add_custom_handlers(self: Any, model: Any) -> Any:
        prepare(self._app)
        return await stock(self, model)

    return add_custom_handlers


def prepare(app: FastAPI) -> None:
    """Changes the routes and the error handlers of MLServer's application. Idempotent."""
    if getattr(app.state, "answers_at_the_edges", False):
        return
    app.state.answers_at_the_edges = True
    routes = app.router.routes
    for index, route in enumerate(routes):
        if not isinstance(route, Route):
            continue
        owner: Any = getattr(route.endpoint, "__self__", None)
        name = route.endpoint.__name__
        if name in CALLS:
            route.app = partial(_call, route.app, owner._data_plane)
        elif name in _ENDPOINTS:
            endpoint = partial(_ENDPOINTS[name], owner)
            routes[index] = Route(route.path, endpoint, methods=list(route.methods or ()))
    rest_errors.install(app)


async def _call(
    stock: ASGIApp, data_plane: Any, scope: Scope, receive: Receive, send: Send
) -> None:
    """Passes a call on if its model can take it, whatever its body is.

    Raises:
        MLServerError: There is no such model, it is not ready, or it reads no binary tensors.
    """
    names = scope["path_params"]
    name, version = names["model_name"], names.get("model_version")
    model = await data_plane._model_registry.get_model(name, version)
    if not model.ready:
        raise ModelNotReadyError(name, version)
    if models.is_pyfunc(model):
        headers = scope["headers"]
        if any(key == LENGTH_HEADER for key, _ in headers):
            await _require_binary(data_plane, name)
        # FastAPI parses a body only if its content type is JSON.
        others = [pair for pair in headers if pair[0] != JSON_HEADER[0]]
        scope = {**scope, "headers": [*others, JSON_HEADER]}
    await stock(scope, receive, send)


async def _require_binary(data_plane: Any, name: str) -> None:
    if BINARY_EXTENSION not in (await data_plane.metadata()).extensions:
        raise MLServerError(
            f'request of model "{name}": expected JSON, got binary tensors '
            "(Inference-Header-Content-Length), which this server reads only with its fast path",
            400,
        )


async def _live(endpoints: Any, request: FastAPIRequest) -> Response:
    return Response({"live": await endpoints._data_plane.live()})


async def _ready(endpoints: Any, request: FastAPIRequest) -> Response:
    registered = await endpoints._data_plane._model_registry.get_models()
    waiting = [model.name for model in registered if not models.is_available(model)]
    if not waiting:
        return Response({"ready": True})
    return _not_ready({"ready": False}, f"not ready: {models.listed(waiting)}")


async def _model_ready(endpoints: Any, request: FastAPIRequest) -> Response:
    names = request.path_params
    name, version = names["model_name"], names.get("model_version")
    model = await endpoints._data_plane._model_registry.get_model(name, version)
    if models.is_available(model):
        return Response({"name": name, "ready": True})
    return _not_ready({"name": name, "ready": False}, str(ModelNotReadyError(name, version)))


def _not_ready(status: dict[str, Any], error: str) -> Response:
    return Response({**status, "error": error}, 503, headers={"Retry-After": "1"})


async def _index(endpoints: Any, request: FastAPIRequest) -> Response:
    try:
        body = await Request(request.scope, request.receive).body()
        wanted = RepositoryIndexRequest.model_validate_json(body or b"{}")
    except ValueError as error:
        problem = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise MLServerError(
            f'repository index: expected no body or {{"ready": true}}: {problem}', 400
        ) from None
    index = await endpoints._handlers.index(wanted)
    return Response(index.model_dump(mode="json", exclude_unset=True, exclude_none=True))


_ENDPOINTS: dict[str, Callable[..., Awaitable[Response]]] = {
    "live": _live,
    "ready": _ready,
    "model_ready": _model_ready,
    "index": _index,
}
