"""Serves the configuration and the statistics of models, over REST and gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from typing import Any

import grpc
from fastapi import FastAPI
from mlserver.grpc.server import GRPCServer
from mlserver.grpc.utils import handle_mlserver_error
from mlserver.handlers import DataPlane
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Match, Route
from starlette.types import Scope

from . import documents, messages

SERVICE = "inference.GRPCInferenceService"
_MODEL = "/v2/models/{model_name}"
_VERSION = f"{_MODEL}/versions/{{model_version}}"
_ALL_NAME = "stats"
_DONE = "_pyfunc_triton"


def answer_triton_calls(stock: Any) -> Any:
    """Serves Triton's configuration and statistics of models, over REST and gRPC.

    Without it, Triton's clients and `perf_analyzer` get 404 or UNIMPLEMENTED when they ask for
    the configuration or the statistics of a model.

    MLServer calls this method for each model before it loads it. Its servers are there by then,
    and both take more routes.
    """

    async def add_custom_handlers(self: Any, model: Any) -> Any:
        _add_rest_routes(self._app, self._data_plane)
        for server in _grpc_servers(self._data_plane):
            _add_grpc_methods(server)
        return await stock(self, model)

    return add_custom_handlers


class RestRoutes:
    """Endpoints of the REST routes."""

    def __init__(self, data_plane: DataPlane) -> None:
        self._data_plane = data_plane

    def model_names(self) -> Collection[str]:
        """Returns the names of all models."""
        names: Collection[str] = self._data_plane._model_registry._models
        return names

    async def config(self, request: Request) -> JSONResponse:
        """Answers with the configuration of a model."""
        return JSONResponse(await documents.model_config(self._data_plane, *_names(request)))

    async def statistics(self, request: Request) -> JSONResponse:
        """Answers with the statistics of a model, or of all models."""
        return JSONResponse(await documents.model_statistics(self._data_plane, *_names(request)))


class _AllStatisticsRoute(Route):
    """The statistics of all models. Matches nothing if the path is that of a model's metadata."""

    def __init__(self, endpoints: RestRoutes) -> None:
        super().__init__(f"/v2/models/{_ALL_NAME}", endpoints.statistics)
        self._models = endpoints.model_names

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Matches the path unless a model has the name that it ends with."""
        match, child_scope = super().matches(scope)
        if match is not Match.NONE and _ALL_NAME in self._models():
            return Match.NONE, {}
        return match, child_scope


class GrpcMethods:
    """Methods of the gRPC service that MLServer's servicer lacks."""

    def __init__(self, data_plane: DataPlane) -> None:
        self._data_plane = data_plane

    @handle_mlserver_error
    async def config(self, request: Any, context: Any) -> Any:
        """Answers with the configuration of a model."""
        config = await documents.model_config(self._data_plane, request.name, request.version)
        return messages.message("ModelConfigResponse", {"config": config})

    @handle_mlserver_error
    async def statistics(self, request: Any, context: Any) -> Any:
        """Answers with the statistics of a model, or of all models."""
        found = await documents.model_statistics(self._data_plane, request.name, request.version)
        return messages.message("ModelStatisticsResponse", found)


def _names(request: Request) -> tuple[str, str | None]:
    names = request.path_params
    return names.get("model_name", ""), names.get("model_version")


def _add_rest_routes(app: FastAPI, data_plane: DataPlane) -> None:
    if getattr(app.state, _DONE, False):
        return
    setattr(app.state, _DONE, True)
    endpoints = RestRoutes(data_plane)
    added = [
        _AllStatisticsRoute(endpoints),
        *(Route(f"{path}/stats", endpoints.statistics) for path in (_MODEL, _VERSION)),
        *(Route(f"{path}/config", endpoints.config) for path in (_MODEL, _VERSION)),
    ]
    # Before MLServer's route of a model's metadata, which takes "stats" for a name too.
    routes = app.router.routes
    place = next(i for i, route in enumerate(routes) if getattr(route, "path", "") == _MODEL)
    routes[place:place] = added
    settings = data_plane._settings
    settings.extensions = list(dict.fromkeys([*settings.extensions, *documents.EXTENSIONS]))


def _grpc_servers(data_plane: DataPlane) -> Iterator[GRPCServer]:
    """Finds the gRPC server of a data plane.

    No object that a model or the REST server has leads to it. But it runs as a task of the event
    loop, and the frame of the task's coroutine has the server as `self`.
    """
    for task in asyncio.all_tasks():
        frame = getattr(task.get_coro(), "cr_frame", None)
        server = frame.f_locals.get("self") if frame is not None else None
        if isinstance(server, GRPCServer) and server._data_plane is data_plane:
            yield server


def _add_grpc_methods(server: Any) -> None:
    if getattr(server, _DONE, False):
        return
    setattr(server, _DONE, True)
    methods = GrpcMethods(server._data_plane)
    handlers = {
        "ModelConfig": _handler(methods.config, "ModelConfig"),
        "ModelStatistics": _handler(methods.statistics, "ModelStatistics"),
    }
    service = grpc.method_handlers_generic_handler(SERVICE, handlers)
    server._server.add_generic_rpc_handlers((service,))


def _handler(method: Any, name: str) -> Any:
    return grpc.unary_unary_rpc_method_handler(
        method,
        request_deserializer=messages.message_class(f"{name}Request").FromString,
        response_serializer=messages.message_class(f"{name}Response").SerializeToString,
    )
