"""REST answers that no runtime is asked for, such as status and errors: docs/design/edges.md."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from mlserver import MLModel
from mlserver.errors import MLServerError
from mlserver.rest import endpoints
from mlserver.rest.requests import Request
from mlserver.rest.responses import Response
from mlserver.types import RepositoryIndexRequest
from starlette.exceptions import HTTPException
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from mlserver_pyfunc.errors import RequestError, describe, safe_message
from mlserver_pyfunc.hosts.common.rest_errors import asked, refuse_route
from mlserver_pyfunc.hosts.common.rest_request import LENGTH_HEADER, asks_for_ready, unreadable
from mlserver_pyfunc.protocol.request import InferenceRequest
from mlserver_pyfunc.protocol.types import listed
from mlserver_pyfunc.serving import tracing

from . import models, pages
from .errors import ModelNotReadyError, to_host_error
from .rest_bounds import is_of_another_runtime
from .rest_route import calls_model, once_for_app

Handler = Callable[[Any, Any], Awaitable[Any]]
_JSON = (b"content-type", b"application/json")


@once_for_app
def answer_at_the_edges(server: Any) -> None:
    """Gives REST routes the bodies of the protocol, and one form of error to all under `/v2`."""
    tracing.start(server._data_plane._settings.tracing_server)
    app = server._app
    for index, route in enumerate(app.router.routes):
        owner: Any = getattr(getattr(route, "endpoint", None), "__self__", None)
        answer = _STATUS.get((type(owner), route.name))
        if calls_model(route):
            route.app = partial(_call, route.app, owner._data_plane)
        elif answer:
            methods = list(route.methods or ())
            app.router.routes[index] = Route(route.path, partial(answer, owner), methods=methods)
    _install_handlers(app)


async def _call(
    stock: ASGIApp, data_plane: Any, scope: Scope, receive: Receive, send: Send
) -> None:
    """Passes a call on if its model can take it, whatever its body is."""
    names = scope["path_params"].values()
    model = models.require_ready(data_plane._model_registry, *names)
    if models.is_pyfunc(model):
        headers = scope["headers"]
        if any(key == LENGTH_HEADER for key, _ in headers):
            raise MLServerError(
                f'request of model "{model.name}": expected JSON, got binary tensors '
                "(Inference-Header-Content-Length), which this server reads only with its fast "
                "path, and only for names that no other runtime serves",
                400,
            )
        # FastAPI parses a body only if its content type is JSON.
        scope = {**scope, "headers": [*(pair for pair in headers if pair[0] != _JSON[0]), _JSON]}
    await stock(scope, receive, send)


async def _live(owner: Any, request: Any) -> Response:
    return Response({"live": await owner._data_plane.live()})


async def _ready(owner: Any, request: Any) -> Response:
    registered = await owner._data_plane._model_registry.get_models()
    waiting = [model.name for model in registered if not models.is_available(model)]
    if not waiting:
        return Response({"ready": True})
    return _not_ready({"ready": False}, f"not ready: {listed(waiting)}")


async def _model_ready(owner: Any, request: Any) -> Response:
    names = request.path_params.values()
    model = models.find(owner._data_plane._model_registry, *names)
    if models.is_available(model):
        return Response({"name": model.name, "ready": True})
    return _not_ready({"name": model.name, "ready": False}, str(ModelNotReadyError(*names)))


def _not_ready(status: dict[str, Any], error: str) -> Response:
    return Response({**status, "error": error}, 503, headers={"Retry-After": "1"})


async def _docs(owner: Any, request: Any) -> Any:
    return await pages.show_docs(request, *request.path_params.values())


async def _index(owner: Any, request: Any) -> Response:
    body = await Request(request.scope, request.receive).body()
    try:
        wanted = RepositoryIndexRequest(ready=asks_for_ready(body))
    except RequestError as error:
        raise to_host_error(error) from None
    index = await owner._handlers.index(wanted)
    return Response(index.model_dump(mode="json", exclude_unset=True, exclude_none=True))


_STATUS: dict[tuple[Any, str], Handler] = {
    (endpoints.Endpoints, "live"): _live,
    (endpoints.Endpoints, "ready"): _ready,
    (endpoints.Endpoints, "model_ready"): _model_ready,
    (endpoints.Endpoints, "docs"): _docs,
    (endpoints.Endpoints, "model_docs"): _docs,
    (endpoints.ModelRepositoryEndpoints, "index"): _index,
}


def _install_handlers(app: FastAPI) -> None:
    handlers: dict[Any, Any] = app.exception_handlers
    # Starlette answers any other exception here, with a traceback if `debug` is true. So `debug`
    # is switched off, and MLServer's answer is made only for the models of other runtimes.
    middleware = ServerErrorMiddleware(app)
    traceback_or_text = middleware.debug_response if app.debug else middleware.error_response

    async def stock_failure(request: Any, error: Exception) -> Any:
        return traceback_or_text(request, error)

    app.debug = False
    stock: dict[Any, Handler] = {**handlers, Exception: stock_failure}
    for kind, answer in _ANSWERS.items():
        handlers[kind] = partial(_answer_error, answer, stock[kind])
    app.middleware_stack = None  # Starlette makes it again at the next request.


async def _answer_error(answer: Handler, stock: Handler, request: Any, error: Exception) -> Any:
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    is_ours = f"{path}/".startswith("/v2/") and not _is_of_another_runtime(request)
    return await (answer if is_ours else stock)(request, error)


def _is_of_another_runtime(request: Any) -> bool:
    owner = getattr(request.scope.get("endpoint"), "__self__", None)
    if isinstance(owner, MLModel):
        return not models.is_pyfunc(owner)
    is_call = request.method == "POST" and isinstance(owner, endpoints.Endpoints)
    return is_call and is_of_another_runtime(request.app, request.scope)


async def _refuse(request: Any, error: MLServerError) -> Response:
    retry_after = getattr(error, "retry_after", None)
    headers = {"Retry-After": str(retry_after)} if retry_after else None
    return Response({"error": str(error)}, error.status_code, headers=headers)


async def _refuse_body(request: Any, error: RequestValidationError) -> Response:
    problem, names = error.errors()[0], request.path_params
    if problem["type"] == "json_invalid":
        told = problem["ctx"]["error"]
        refusal = unreadable(names.get("model_name", ""), told, str(error.body))
        return await _refuse(request, to_host_error(refusal))
    specs = partial(models.declared_inputs, models.registry_of(request.app), *names.values())
    text = f"request: {problem['msg']}"
    try:
        InferenceRequest.from_json(error.body, names.get("model_name", ""), specs)
    except RequestError as found:
        text = str(found)
    return Response({"error": text}, 400)


async def _report_failure(request: Any, error: Exception) -> Response:
    text = f"{asked(request)} failed: {describe(error)} (the log has the traceback)"
    # uvicorn closes the connection after an exception, and says so only if it is told.
    return Response({"error": safe_message(text)}, 500, headers={"Connection": "close"})


_ANSWERS: dict[Any, Any] = {
    MLServerError: _refuse,
    RequestValidationError: _refuse_body,
    HTTPException: refuse_route,
    Exception: _report_failure,
}
