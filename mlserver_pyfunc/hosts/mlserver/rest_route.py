"""Inference routes for models of this runtime, put before MLServer's.

FastAPI works out the parameters of a route for every request, which costs more than the rest of a
small request. These routes read the request and call the data plane themselves.
"""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from mlserver.rest.responses import Response as JSONResponse
from mlserver.types import InferenceRequest
from pydantic import ValidationError
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Receive, Scope, Send

from . import data_plane
from .models import is_ours
from .rest_request import TensorRequest

PATHS = ("/v2/models/{model_name}/infer", "/v2/models/{model_name}/versions/{model_version}/infer")


class InferenceRoute(Route):
    """Serves inference requests to models of this runtime, and matches nothing else.

    Args:
        path: Path of MLServer's route.
        endpoint: Endpoint of MLServer's route.
    """

    def __init__(self, path: str, endpoint: Any) -> None:
        super().__init__(path, endpoint, methods=["POST"])
        self._infer = endpoint
        self._data_plane = endpoint.__self__._data_plane

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Matches an inference request if its model is one of this runtime."""
        match, child_scope = super().matches(scope)
        if match is not Match.FULL or not is_ours(child_scope["path_params"]["model_name"]):
            return Match.NONE, {}
        return match, child_scope

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers an inference request."""
        request = TensorRequest(scope, receive)
        payload = _validated(await _json(request))
        names = scope["path_params"]
        if data_plane.supports_short_path(self._data_plane):
            parameters: Any = data_plane.RequestParameters(
                payload.parameters, lambda: request.headers
            )
            payload.parameters = parameters
            response: Any = await data_plane.infer(self._data_plane, payload, *names.values())
        else:
            # MLServer sets headers on raw_response. Our responses carry their own.
            response = await self._infer(request, Response(), payload, *names.values())
        if not isinstance(response, Response):  # It comes from MLServer's response cache.
            response = JSONResponse(response.model_dump())
        await response(scope, receive, send)


def add_routes(app: FastAPI) -> None:
    """Puts our inference routes before MLServer's. Idempotent."""
    routes = app.router.routes
    if isinstance(routes[0], InferenceRoute):
        return
    endpoints = {route.path: route.endpoint for route in routes if isinstance(route, Route)}
    routes[:0] = [InferenceRoute(path, endpoints[path]) for path in PATHS]


async def _json(request: TensorRequest) -> Any:
    """Parses the body. Errors are FastAPI's, which clients of MLServer know."""
    try:
        body = await request.body()
        return await request.json() if body else None
    except json.JSONDecodeError as error:
        problem = {
            "type": "json_invalid",
            "loc": ("body", error.pos),
            "msg": "JSON decode error",
            "input": {},
            "ctx": {"error": error.msg},
        }
        raise RequestValidationError([problem], body=error.doc) from None


def _validated(body: Any) -> InferenceRequest:
    if body is None:
        problem = {"type": "missing", "loc": ("body",), "msg": "Field required", "input": None}
        raise RequestValidationError([problem])
    try:
        return InferenceRequest.model_validate(body, from_attributes=True)
    except ValidationError as error:
        problems = [
            {**problem, "loc": ("body", *problem["loc"])}
            for problem in error.errors(include_url=False)
        ]
        raise RequestValidationError(problems, body=body) from None
