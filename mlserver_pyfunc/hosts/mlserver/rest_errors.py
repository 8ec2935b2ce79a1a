"""Errors of REST routes under `/v2`: one form, `{"error": ...}`, with what was expected and got.

What a model of another runtime answers to an inference request stays as MLServer writes it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from mlserver import MLModel
from mlserver.errors import ModelNotFound
from mlserver.rest.responses import Response
from starlette.exceptions import HTTPException
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.requests import Request

from mlserver_pyfunc.errors import describe, safe_message
from mlserver_pyfunc.protocol.contract import TensorSpec
from mlserver_pyfunc.protocol.datatypes import DATATYPES
from mlserver_pyfunc.protocol.samples import request_form
from mlserver_pyfunc.protocol.types import short_repr

from . import models

Handler = Callable[[Request, Any], Awaitable[Any]]
_KEYS = "name, shape, datatype and data"
_MAX_PATH_CHARS = 200


def install(app: FastAPI) -> None:
    """Registers the error handlers with MLServer's application."""
    handlers: dict[Any, Any] = app.exception_handlers
    # Starlette answers any other exception here, with a traceback if `debug` is true. So `debug`
    # is switched off, and MLServer's answer is made only for the models of other runtimes.
    middleware = ServerErrorMiddleware(app)
    traceback_or_text = middleware.debug_response if app.debug else middleware.error_response

    async def stock_failure(request: Request, error: Exception) -> Any:
        return traceback_or_text(request, error)

    app.debug = False
    stock: dict[Any, Handler] = {**handlers, Exception: stock_failure}
    for kind, answer in _ANSWERS.items():
        handlers[kind] = _choosing(answer, stock[kind])
    app.middleware_stack = None  # Starlette makes it again at the next request.


def _choosing(answer: Handler, stock: Handler) -> Handler:
    async def handler(request: Request, error: Exception) -> Any:
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        if not f"{path}/".startswith("/v2/") or _is_of_another_runtime(request):
            return await stock(request, error)
        return await answer(request, error)

    return handler


def _is_of_another_runtime(request: Request) -> bool:
    """Returns whether a model of another runtime was called."""
    endpoint = request.scope.get("endpoint")
    owner = getattr(endpoint, "__self__", None)
    if isinstance(owner, MLModel):
        return not models.is_pyfunc(owner)
    if request.method != "POST" or not hasattr(owner, "infer"):
        return False
    model = _model(request)
    return model is not None and not models.is_pyfunc(model)


def _model(request: Request) -> Any:
    names = request.path_params
    registry = models.registry_of(request.app)
    try:
        return models.find(registry, names.get("model_name", ""), names.get("model_version"))
    except ModelNotFound:
        return None


async def _refuse_body(request: Request, error: RequestValidationError) -> Response:
    name, model = request.path_params.get("model_name"), _model(request)
    definition = getattr(model, "definition", None)
    specs = [tensor.spec for tensor in definition.inputs] if definition else []
    where = f'request of model "{name}"' if name else "request"
    text = explain(error.errors()[0], error.body, where, specs)
    return Response({"error": safe_message(text)}, 400)


async def _refuse_route(request: Request, error: HTTPException) -> Response:
    asked = f"{request.method} {request.url.path[:_MAX_PATH_CHARS]}"
    allowed = (error.headers or {}).get("Allow")
    text = f"{asked}: {error.detail}"
    if "endpoint" not in request.scope:
        text = (
            f"{asked}: no such path, expected one of the Open Inference Protocol, such as "
            "/v2/models/NAME/infer, /v2/models/NAME or /v2/health/ready"
        )
    elif allowed:
        text = f"{asked}: expected {allowed}, got {request.method}"
    return Response({"error": safe_message(text)}, error.status_code, headers=error.headers)


async def _report_failure(request: Request, error: Exception) -> Response:
    asked = f"{request.method} {request.url.path[:_MAX_PATH_CHARS]}"
    text = f"{asked} failed: {describe(error)} (the log has the traceback)"
    # uvicorn closes the connection after an exception, and says so only if it is told.
    return Response({"error": safe_message(text)}, 500, headers={"Connection": "close"})


_ANSWERS: dict[Any, Any] = {
    RequestValidationError: _refuse_body,
    HTTPException: _refuse_route,
    Exception: _report_failure,
}


def explain(problem: Any, body: Any, where: str, specs: list[TensorSpec]) -> str:
    """Says what a body that is no inference request should have been, and what it was.

    Args:
        problem: First error of FastAPI's or pydantic's.
        body: The body, parsed if it is JSON.
        where: Names the request.
        specs: Declared inputs; empty if they are not known.
    """
    kind, path = problem["type"], tuple(problem["loc"][1:])
    if kind == "json_invalid":
        return f"{where}: expected JSON, got a body that cannot be read: {problem['ctx']['error']}"
    if not path or path == ("inputs",):
        return f"{where}: expected {request_form(specs)}, got {_described(body)}"
    if path[0] == "inputs" and isinstance(path[1], int):
        return _explain_input(problem, body["inputs"][path[1]], where, path[1:], specs)
    return f"{where}: {_dotted(path)}: {problem['msg']}, got {short_repr(problem['input'])}"


def _explain_input(
    problem: Any, tensor: Any, where: str, path: tuple[Any, ...], specs: list[TensorSpec]
) -> str:
    model = where.removeprefix("request ")
    if not isinstance(tensor, dict):
        got = short_repr(tensor)
        return f"inputs[{path[0]}] {model}: expected an object with {_KEYS}, got {got}"
    name = tensor.get("name")
    named = f'input "{name}" {model}' if isinstance(name, str) else f"inputs[{path[0]}] {model}"
    if problem["type"] == "missing" and len(path) == 2:
        return f'{named}: "{path[1]}" is missing, got {models.listed(map(str, tensor))}'
    if path[1:] == ("datatype",):
        declared = [spec.datatype.name for spec in specs if spec.name == name]
        expected = ", ".join(declared or DATATYPES)
        return f"{named}: expected datatype {expected}, got {tensor['datatype']}"
    return f"{named}: {_dotted(path[1:])}: {problem['msg']}, got {short_repr(problem['input'])}"


def _described(body: Any) -> str:
    if body is None:
        return "an empty body, or null"
    if not isinstance(body, dict):
        return short_repr(body)
    if "inputs" in body:
        return f'"inputs": {short_repr(body["inputs"])}'
    if "instances" in body:
        return '"instances", which is a request of the V1 protocol'
    return f"an object with {models.listed(map(str, body))}" if body else "an empty object"


def _dotted(path: tuple[Any, ...]) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).lstrip(".")
