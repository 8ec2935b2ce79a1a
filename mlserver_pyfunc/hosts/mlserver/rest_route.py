"""Inference routes of our own, before MLServer's, for models of ours.

FastAPI works out a route's parameters anew for every request, which costs more than the
rest of a small one. These routes give MLServer's own endpoint the same arguments.
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

from .data_plane import RequestParameters, takes
from .patches import is_ours
from .rest_request import TensorRequest

PATHS = ("/v2/models/{model_name}/infer", "/v2/models/{model_name}/versions/{model_version}/infer")


class InferenceRoute(Route):
    """Serves inference requests for models of ours; matches nothing else.

    Args:
        path: As MLServer's route has it.
        endpoint: MLServer's endpoint for it.
    """

    def __init__(self, path: str, endpoint: Any) -> None:
        super().__init__(path, endpoint, methods=["POST"])
        self._infer = endpoint
        self._data_plane = endpoint.__self__._data_plane

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child_scope = super().matches(scope)
        if match is not Match.FULL or not is_ours(child_scope["path_params"]["model_name"]):
            return Match.NONE, {}
        return match, child_scope

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = TensorRequest(scope, receive)
        payload = _validated(await _json(request))
        names = scope["path_params"]
        if takes(self._data_plane, names["model_name"]):
            parameters: Any = RequestParameters(payload.parameters, lambda: request.headers)
            payload.parameters = parameters
            response: Any = await self._data_plane.infer(payload, *names.values())
        else:
            response = await self._infer(
                raw_request=request, raw_response=_Headers(), payload=payload, **names
            )
        if not isinstance(response, Response):  # from MLServer's response cache
            response = JSONResponse(response.model_dump())
        await response(scope, receive, send)


class _Headers:
    """Takes the response headers that MLServer sets; our responses carry them themselves."""

    __slots__ = ("headers",)

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}


def add_routes(app: FastAPI) -> None:
    """Puts our routes before MLServer's, once."""
    routes = app.router.routes
    if isinstance(routes[0], InferenceRoute):
        return
    endpoints = {route.path: route.endpoint for route in routes if isinstance(route, Route)}
    routes[:0] = [InferenceRoute(path, endpoints[path]) for path in PATHS]


async def _json(request: TensorRequest) -> Any:
    """Parses the body; errors are as FastAPI's, which MLServer's clients know."""
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
