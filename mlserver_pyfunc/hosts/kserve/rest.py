"""Routes of the V2 protocol for functions, put before KServe's own.

KServe's read tensors by pydantic into Python lists, and know no versions and no streams.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from mlserver_pyfunc.errors import RequestError
from mlserver_pyfunc.hosts.common import text_generation
from mlserver_pyfunc.hosts.common.models import not_ready
from mlserver_pyfunc.hosts.common.rest_errors import refuse_route
from mlserver_pyfunc.hosts.common.rest_request import (
    BODY_TOO_LARGE,
    Departure,
    asks_for_ready,
    bounded,
    read_body,
    read_payload,
)
from mlserver_pyfunc.hosts.common.rest_response import Form, event_stream

if TYPE_CHECKING:
    from .models import FunctionModel, Functions

_LEFT = 499


def add_routes(app: FastAPI, functions: Functions) -> None:
    """Puts the routes of functions before all others of an application, and answers our errors."""
    routes = _Endpoints(functions)
    table = {
        "": routes.metadata,
        "/ready": routes.ready,
        "/infer": routes.infer,
        "/generate": routes.infer,
        "/infer_stream": routes.stream,
        "/generate_stream": routes.stream,
    }
    app.router.routes[:0] = [
        Route(f"/v2/models/{{model_name}}{version}{end}", endpoint, methods=[method])
        for version in ("", "/versions/{model_version}")
        for end, endpoint in table.items()
        for method in ["GET" if end in ("", "/ready") else "POST"]
    ]
    app.router.routes.insert(0, Route("/v1/models/{model_name}", routes.ready))
    app.router.routes.insert(0, Route("/v2/health/ready", routes.server_ready))
    app.router.routes.insert(0, Route("/v2/repository/index", routes.index, methods=["POST"]))
    app.add_exception_handler(RequestError, _refuse)
    app.add_exception_handler(HTTPException, refuse_route)
    app.add_middleware(_bounded)


def _bounded(app: ASGIApp) -> ASGIApp:
    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, bounded(receive, partial(RequestError, BODY_TOO_LARGE, 413)), send)

    return call


async def _refuse(_: Request, error: Any) -> Response:
    retry_after = getattr(error, "retry_after", None)
    headers = {"Retry-After": str(retry_after)} if retry_after else None
    return JSONResponse({"error": str(error)}, error.status, headers)


class _Endpoints:
    def __init__(self, functions: Functions) -> None:
        self._functions = functions

    async def server_ready(self, _: Request) -> Response:
        # KServe's own logs a traceback for each probe that comes while a function is loaded.
        is_ready = self._functions.ready
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)

    async def index(self, request: Request) -> Response:
        ready_only = asks_for_ready(await request.body())
        found = []
        for name in self._functions.models:
            if (is_ready := self._functions.get_model(name).function.ready) or not ready_only:
                state = "READY" if is_ready else "UNAVAILABLE"
                found.append({"name": name, "state": state, "reason": ""})
        return JSONResponse(found)

    async def metadata(self, request: Request) -> Response:
        return JSONResponse(self._functions.get_model(*request.path_params.values()).metadata())

    async def ready(self, request: Request) -> Response:
        names = request.path_params.values()
        model = self._functions.get_model(*names)
        if model.function.ready:
            return JSONResponse({"name": model.name, "ready": True})
        body = {"name": model.name, "ready": False, "error": not_ready(*names)}
        return JSONResponse(body, 503, {"Retry-After": "1"})

    async def infer(self, request: Request, streams: bool = False) -> Response:
        model = self._functions.get_model(*request.path_params.values())
        body = await read_body(request)
        with Departure(request.receive):
            if not text_generation.is_text_call(request.url.path, body):
                return await _answer(model, request, body, None, streams)
            try:
                body = text_generation.to_request(body, model.name, model.function.definition)
                return await _answer(model, request, body, text_generation.to_response, streams)
            except RequestError as error:
                status = text_generation.STATUSES.get(error.status, error.status)
                raise RequestError(str(error), status) from None
        return Response(status_code=_LEFT)  # The client has left.

    async def stream(self, request: Request) -> Response:
        return await self.infer(request, streams=True)


async def _answer(
    model: FunctionModel, request: Request, body: Any, form: Form, streams: bool
) -> Response:
    inputs = model.function.definition.inputs
    payload = read_payload(request, body, model.name, lambda: [each.spec for each in inputs])
    if streams:
        return await event_stream(model.stream(payload), form)
    response = await model.infer(payload)
    response.form = form
    return response
