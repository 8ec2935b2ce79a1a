"""The seams of MLServer that are replaced for speed, and nothing else.

gRPC messages to requests, responses to gRPC messages, the routes and the body of a REST
request, and the data plane between them. Each applies to models of ours only; every other
runtime in the server gets what MLServer does. `install` is applied to versions of MLServer it
was tested with, and not where `MLSERVER_PYFUNC_FASTPATH=0`.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import platform
from collections.abc import Awaitable, Callable
from typing import Any

import mlserver
from mlserver.grpc import converters
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.servicers import InferenceServicer
from mlserver.grpc.utils import to_headers
from mlserver.handlers import DataPlane
from mlserver.rest import app as rest_app
from mlserver.types import InferenceRequest, InferenceResponse, MetadataServerResponse
from starlette.types import Receive, Scope

from mlserver_pyfunc import settings

from . import data_plane, grpc_messages
from .patches import is_ours
from .rest_request import TensorRequest
from .rest_response import ArrayResponse
from .rest_route import add_routes

SWITCH = "MLSERVER_PYFUNC_FASTPATH"
TESTED_VERSIONS = frozenset({"1.7.1"})
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_STOCK_COLLECTIONS = (700, 2000)
_NEW_OBJECTS = 20_000
BINARY_EXTENSION = "binary_tensor_data"

logger = logging.getLogger("mlserver.pyfunc")


def install() -> bool:
    """Replaces the seams, once; True where they are in place."""
    if not settings.is_enabled(SWITCH):
        return False
    if mlserver.__version__ not in TESTED_VERSIONS:
        logger.info("fast path off: not tested with MLServer %s", mlserver.__version__)
        return False
    if getattr(rest_app, "Request") is FirstRequest:  # noqa: B009
        return True
    seams: list[tuple[Any, str, Callable[[Any], Any]]] = [
        (converters.ModelInferRequestConverter, "to_types", _request_seam),
        (converters.ModelInferResponseConverter, "from_types", _response_seam),
        (InferenceServicer, "_InsertHeaders", _headers_seam),
        (InferenceServicer, "_SetTrailingMetadata", _trailing_metadata_seam),
        (DataPlane, "infer", data_plane.faster),
        (DataPlane, "metadata", _metadata_seam),
        (rest_app, "Request", lambda _: FirstRequest),
    ]
    for owner, name, seam in seams:
        setattr(owner, name, seam(getattr(owner, name)))
    _keep_freed_memory()
    _collect_less_often()
    return True


def _keep_freed_memory() -> None:
    """Has glibc keep blocks of up to 32 MiB it would hand back and fetch again, page by page.

    That halves the time of a 4 MiB tensor over gRPC in a process that has got into the
    habit. A variable of glibc's own has precedence.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_THRESHOLD, 32 << 20)
    mallopt(_M_TRIM_THRESHOLD, 128 << 20)


def _collect_less_often() -> None:
    """Has Python look for cycles after more new objects than some requests at once are made of.

    Requests that wait for a worker together are, at Python's 700 (2000 from 3.13), looked
    through again and again while they wait, and none of it is garbage: a tenth of the time of
    16 small ones. Limits that were set otherwise, and a collector that is off, stay as they are.
    """
    youngest, *older = gc.get_threshold()
    if gc.isenabled() and youngest in _STOCK_COLLECTIONS:
        gc.set_threshold(_NEW_OBJECTS, *older)


class FirstRequest(TensorRequest):
    """What MLServer's routes make of each request. The first puts our routes before them:
    no model can reach the application earlier."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        add_routes(scope["app"])
        super().__init__(scope, receive)


def _request_seam(
    stock: Callable[[pb.ModelInferRequest], InferenceRequest],
) -> Callable[[pb.ModelInferRequest], InferenceRequest]:
    def to_types(pb_object: pb.ModelInferRequest) -> InferenceRequest:
        if not is_ours(pb_object.model_name):
            return stock(pb_object)
        return grpc_messages.read_request(pb_object)

    return to_types


def _headers_seam(
    stock: Callable[[Any, pb.ModelInferRequest, Any], InferenceRequest],
) -> Callable[[Any, pb.ModelInferRequest, Any], InferenceRequest]:
    def insert_headers(
        servicer: Any, request: pb.ModelInferRequest, context: Any
    ) -> InferenceRequest:
        if not data_plane.takes(servicer._data_plane, request.model_name):
            return stock(servicer, request, context)
        return grpc_messages.read_request(request, lambda: to_headers(context))

    return insert_headers


def _trailing_metadata_seam(
    stock: Callable[[Any, InferenceResponse, Any], None],
) -> Callable[[Any, InferenceResponse, Any], None]:
    def set_trailing_metadata(servicer: Any, response: InferenceResponse, context: Any) -> None:
        if isinstance(response, ArrayResponse) and response.cloud_events:
            context.set_trailing_metadata(response.cloud_events.metadata(response.id))
        else:
            stock(servicer, response, context)

    return set_trailing_metadata


def _response_seam(
    stock: Callable[..., pb.ModelInferResponse],
) -> Callable[..., pb.ModelInferResponse]:
    def from_types(type_object: InferenceResponse, use_raw: bool = False) -> pb.ModelInferResponse:
        if not isinstance(type_object, ArrayResponse):
            return stock(type_object, use_raw=use_raw)
        return grpc_messages.write_response(type_object, use_raw)

    return from_types


def _metadata_seam(
    stock: Callable[[DataPlane], Awaitable[MetadataServerResponse]],
) -> Callable[[DataPlane], Awaitable[MetadataServerResponse]]:
    async def metadata(plane: DataPlane) -> MetadataServerResponse:
        response = await stock(plane)
        if BINARY_EXTENSION not in response.extensions:
            response.extensions = [*response.extensions, BINARY_EXTENSION]
        return response

    return metadata
