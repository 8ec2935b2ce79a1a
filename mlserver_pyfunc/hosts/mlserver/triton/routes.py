"""Serves the configuration and the statistics of functions, over REST and gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any

import grpc
from mlserver.grpc.server import GRPCServer
from mlserver.grpc.utils import handle_mlserver_error
from mlserver.handlers import DataPlane
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Match, Route
from starlette.types import Scope

from mlserver_pyfunc.definition import BatchDefinition
from mlserver_pyfunc.hosts.mlserver import models
from mlserver_pyfunc.hosts.mlserver.rest_route import announce, once_for_app
from mlserver_pyfunc.protocol.contract import TensorSpec
from mlserver_pyfunc.serving.metrics import Measured, metrics_of

from . import messages
from .messages import DATA_TYPES, DURATIONS

EXTENSIONS = ("model_configuration", "statistics")
"""Triton's names of the extensions, for the server's metadata."""

SERVICE = "inference.GRPCInferenceService"
_MODEL = "/v2/models/{model_name}"
_VERSION = f"{_MODEL}/versions/{{model_version}}"
_ALL_NAME = "stats"
Document = dict[str, Any]


@once_for_app
def answer_triton_calls(server: Any) -> None:
    """Serves Triton's configuration and statistics of functions, over REST and gRPC.

    Without it, Triton's clients and `perf_analyzer` get 404 or UNIMPLEMENTED when they ask for
    the configuration or the statistics of a function.
    """
    data_plane = server._data_plane
    config = partial(_answer_rest, model_config, data_plane)
    statistics = partial(_answer_rest, model_statistics, data_plane)
    added: list[Route] = [_AllStatisticsRoute(statistics, data_plane)]
    for path in (_MODEL, _VERSION):
        added += [Route(f"{path}/stats", statistics), Route(f"{path}/config", config)]
    # Before MLServer's route of a model's metadata, which takes "stats" for a name too.
    routes = server._app.router.routes
    place = next(i for i, route in enumerate(routes) if getattr(route, "path", "") == _MODEL)
    routes[place:place] = added
    announce(server, *EXTENSIONS)
    for grpc_server in _grpc_servers(data_plane):
        _add_grpc_methods(grpc_server, data_plane)


class _AllStatisticsRoute(Route):
    """The statistics of all functions. Matches nothing if a model has that path."""

    def __init__(self, endpoint: Any, data_plane: DataPlane) -> None:
        super().__init__(f"/v2/models/{_ALL_NAME}", endpoint)
        self._registry = data_plane._model_registry

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Matches the path unless a model has the name that it ends with."""
        if _ALL_NAME in self._registry._models:
            return Match.NONE, {}
        return super().matches(scope)


async def _answer_rest(document: Any, data_plane: DataPlane, request: Request) -> JSONResponse:
    names = request.path_params
    name, version = names.get("model_name", ""), names.get("model_version")
    return JSONResponse(await document(data_plane, name, version))


def _grpc_servers(data_plane: DataPlane) -> Iterator[GRPCServer]:
    """Finds the gRPC server of a data plane: only the frame of its task leads there."""
    for task in asyncio.all_tasks():
        frame = getattr(task.get_coro(), "cr_frame", None)
        server = frame.f_locals.get("self") if frame is not None else None
        if isinstance(server, GRPCServer) and server._data_plane is data_plane:
            yield server


def _add_grpc_methods(server: Any, data_plane: DataPlane) -> None:
    @handle_mlserver_error
    async def config(self: Any, request: Any, context: Any) -> Any:
        found = await model_config(data_plane, request.name, request.version)
        return messages.message("ModelConfigResponse", {"config": found})

    @handle_mlserver_error
    async def statistics(self: Any, request: Any, context: Any) -> Any:
        found = await model_statistics(data_plane, request.name, request.version)
        return messages.message("ModelStatisticsResponse", found)

    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            partial(method, None),
            request_deserializer=messages.message_class(f"{name}Request").FromString,
            response_serializer=messages.message_class(f"{name}Response").SerializeToString,
        )
        for name, method in {"ModelConfig": config, "ModelStatistics": statistics}.items()
    }
    service = grpc.method_handlers_generic_handler(SERVICE, handlers)
    server._server.add_generic_rpc_handlers((service,))


async def model_config(data_plane: DataPlane, name: str, version: str | None) -> Document:
    """Returns the configuration of a model."""
    model, definition = await models.function(data_plane._model_registry, name, version)
    metadata = await model.metadata()
    batch: BatchDefinition | None = definition.serving.batch
    config: Document = {"name": name, "platform": metadata.platform, "max_batch_size": 0}
    config["model_transaction_policy"] = {"decoupled": model.streams}
    # Triton leaves the axis of the batch out of the dimensions, if it makes the batches.
    first = 1 if batch else 0
    config["input"] = [
        {**_tensor(tensor.spec, first), "optional": tensor.optional} for tensor in definition.inputs
    ]
    config["output"] = [_tensor(tensor.spec, first) for tensor in definition.outputs]
    if batch:
        config["max_batch_size"] = batch.max_size
        config["dynamic_batching"] = {
            "max_queue_delay_microseconds": round(batch.max_delay_ms * 1000)
        }
    return config


async def model_statistics(data_plane: DataPlane, name: str, version: str | None) -> Document:
    """Returns the statistics of a model, or of all functions if the name is empty."""
    registry = data_plane._model_registry
    if name:
        chosen = [(await models.function(registry, name, version))[0]]
    else:
        registered = filter(models.is_pyfunc, await registry.get_models())
        chosen = sorted(registered, key=lambda model: (model.name, model.version or ""))
    return {"model_stats": [_statistics(model) for model in chosen]}


def _tensor(spec: TensorSpec, first: int) -> Document:
    dims = list(spec.shape[first:])
    return {"name": spec.name, "data_type": DATA_TYPES[spec.datatype.name], "dims": dims}


def _statistics(model: Any) -> Document:
    measured = metrics_of(model.name, model.version).measured()
    succeeded, batches = measured["success"], measured.pop("batch")
    handled = max(succeeded.total - measured["queue"].total, 0.0)
    measured["compute_infer"] = Measured(succeeded.count, handled)
    return {
        "name": model.name,
        "version": model.version or "",
        "inference_count": int(batches.total) or succeeded.count,
        "execution_count": batches.count or succeeded.count,
        "inference_stats": {
            name: {"count": found.count, "ns": round(found.total * 1e9)}
            for name in DURATIONS
            for found in [measured.get(name, Measured())]
        },
    }
