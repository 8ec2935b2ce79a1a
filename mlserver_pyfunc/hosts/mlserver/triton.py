"""Triton's extensions of the protocol that its clients ask for, beside the protocol's own form."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from functools import cache, partial
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format, text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from mlserver.errors import MLServerError
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.server import GRPCServer
from mlserver.grpc.utils import handle_mlserver_error
from mlserver.handlers import DataPlane
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Match, Route
from starlette.types import Scope

from mlserver_pyfunc import settings
from mlserver_pyfunc.definition import BatchDefinition
from mlserver_pyfunc.protocol.contract import TensorSpec
from mlserver_pyfunc.protocol.datatypes import DATATYPES
from mlserver_pyfunc.serving.metrics import Measured, metrics_of

from . import models
from .rest_route import announce, once_for_app, stream_of

DATA_TYPES = {name: f"TYPE_{name}" for name in DATATYPES} | {"BYTES": "TYPE_STRING"}
"""Triton's names of the protocol's datatypes."""

DURATIONS = (
    "success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit",
    "cache_miss",
)  # fmt: skip
"""Triton's names of the times that it measures."""
METADATA_KEY = "triton-stream"
_MODEL = "/v2/models/{model_name}"
_VERSION = f"{_MODEL}/versions/{{model_version}}"
_ALL_NAME = "stats"
_WANTS_FINAL = "triton_enable_empty_final_response"
_IS_FINAL = "triton_final_response"

Document = dict[str, Any]
Answer = Callable[[Any, AsyncIterator[Any], Any], AsyncGenerator[Any, None]]

logger = logging.getLogger("mlserver.pyfunc")


@once_for_app
def answer_triton_calls(server: Any) -> None:
    """Serves Triton's configuration and statistics of functions, over REST and gRPC."""
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
    announce(server, "model_configuration", "statistics")
    for grpc_server in _grpc_servers(data_plane):
        _add_grpc_methods(grpc_server, data_plane)


class _AllStatisticsRoute(Route):
    """The statistics of all functions. Matches nothing if a model has that path."""

    def __init__(self, endpoint: Any, data_plane: DataPlane) -> None:
        super().__init__(f"/v2/models/{_ALL_NAME}", endpoint)
        self._registry = data_plane._model_registry

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
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
        return message("ModelConfigResponse", {"config": found})

    @handle_mlserver_error
    async def statistics(self: Any, request: Any, context: Any) -> Any:
        found = await model_statistics(data_plane, request.name, request.version)
        return message("ModelStatisticsResponse", found)

    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            partial(method, None),
            request_deserializer=message_class(f"{name}Request").FromString,
            response_serializer=message_class(f"{name}Response").SerializeToString,
        )
        for name, method in {"ModelConfig": config, "ModelStatistics": statistics}.items()
    }
    service = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)
    server._server.add_generic_rpc_handlers((service,))


async def model_config(data_plane: DataPlane, name: str, version: str | None) -> Document:
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


def answer_in_triton_form(stock: Any) -> Any:
    # Not async: streams in the protocol's own form then run through no code of ours.
    def f(self: Any, requests_stream: Any, context: Any) -> AsyncGenerator[Any, None]:
        answers: Answer = partial(_answers, stock) if _is_asked_for(context) else stock
        return answers(self, requests_stream, context)

    return f


def send_raw_outputs(stock: Any) -> Any:
    """Answers typed requests with raw contents too, if the server is switched to Triton's form."""
    if not settings.is_switched_on(settings.TRITON):
        return stock

    def _GetReturnRaw(request: Any) -> bool:  # noqa: N802
        return True

    return _GetReturnRaw


class _StreamContext:
    """The context of one request of a stream. Trailing metadata would go to the next request."""

    def __init__(self, context: Any) -> None:
        self.invocation_metadata = context.invocation_metadata
        self.time_remaining = context.time_remaining

    def set_trailing_metadata(self, metadata: Any) -> None:
        """Drops the metadata."""


def _is_asked_for(context: Any) -> bool:
    for key, value in context.invocation_metadata() or ():
        if key == METADATA_KEY:
            return bool(value.lower() == "true")
    return settings.is_switched_on(settings.TRITON)


async def _answers(
    stock: Answer, servicer: Any, requests: AsyncIterator[Any], context: Any
) -> AsyncGenerator[Any, None]:
    """Answers the requests of a stream, each as a stream of its own.

    MLServer gives all requests of a stream to the model of the first one, under the id of the
    first one, and ends the stream at an error. Triton's clients expect none of these.
    """
    new_response = message_class("ModelStreamInferResponse")
    async for request in requests:
        wants_final = _WANTS_FINAL in request.parameters and (
            request.parameters[_WANTS_FINAL].bool_param
        )
        try:
            stream = stock(servicer, stream_of(request), _StreamContext(context))
            async with aclosing(stream) as responses:
                async for response in responses:
                    if wants_final:
                        response.parameters[_IS_FINAL].bool_param = False
                    yield new_response(infer_response=response.SerializeToString())
        except Exception as error:
            level = logging.INFO if isinstance(error, MLServerError) else logging.ERROR
            logger.log(level, "stream: %s", error, exc_info=level == logging.ERROR)
            failed = pb.ModelInferResponse(id=request.id).SerializeToString()
            yield new_response(error_message=str(error) or repr(error), infer_response=failed)
            continue
        if wants_final:
            final = pb.ModelInferResponse(
                model_name=request.model_name, model_version=request.model_version, id=request.id
            )
            final.parameters[_IS_FINAL].bool_param = True
            yield new_response(infer_response=final.SerializeToString())


@cache
def message_class(name: str) -> Any:
    return GetMessageClass(_pool().FindMessageTypeByName(f"inference.{name}"))


def message(name: str, content: dict[str, Any]) -> Any:
    return json_format.ParseDict(content, message_class(name)())


@cache
def _pool() -> DescriptorPool:
    # protobuf allows each message name once in its default pool, and both MLServer's and Triton's
    # stubs use the package `inference` there. So these messages are in a pool of their own.
    text = Path(__file__).with_suffix(".textproto").read_text(encoding="utf-8")
    pool = DescriptorPool()
    pool.Add(text_format.Parse(text, FileDescriptorProto()))
    return pool
