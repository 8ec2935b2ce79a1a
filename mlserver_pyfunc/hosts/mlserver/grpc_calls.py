"""Calls of functions over gRPC: the patches that read requests and write responses."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc.utils import to_headers
from mlserver.types import Datatype, ResponseOutput

from mlserver_pyfunc.errors import RequestError
from mlserver_pyfunc.hosts.common.grpc_messages import read_request, write_response
from mlserver_pyfunc.hosts.common.rest_response import ArrayResponse
from mlserver_pyfunc.protocol import tensors
from mlserver_pyfunc.protocol.contract import companions
from mlserver_pyfunc.protocol.request import InferenceRequest
from mlserver_pyfunc.serving import tracing

from . import data_plane
from .errors import to_host_error
from .models import is_ours, require_ready

_METHOD = "inference.GRPCInferenceService/ModelInfer"


class ServerResponse(ArrayResponse):
    """A response that MLServer's own gRPC code can write, too."""

    @cached_property
    def outputs(self) -> list[Any]:
        """The outputs as MLServer's own gRPC code needs them, if it writes the response."""
        return [
            ResponseOutput.model_construct(
                name=named.spec.name,
                shape=list(named.array.shape),
                datatype=Datatype(named.spec.datatype.name),
                parameters=None,
                data=tensors.to_contents(named.spec.datatype, named.array),
            )
            for named in (*self.arrays, *companions(self.arrays))
        ]


def read_grpc_requests(stock: Any) -> Any:
    def insert_headers(self: Any, request: Any, context: Any) -> Any:
        registry = self._data_plane._model_registry
        if not is_ours(registry, request.model_name):
            require_ready(registry, request.model_name, request.model_version)
            return stock(self, request, context)
        return _read(request, context)

    return insert_headers


def answer_grpc_calls(stock: Any) -> Any:
    # Not async: the tracebacks of the stock method then have no line of ours.
    def f(self: Any, request: Any, context: Any) -> Any:
        is_short = is_ours(self._data_plane._model_registry, request.model_name)
        return (_infer if is_short else stock)(self, request, context)

    return f


async def _infer(servicer: Any, message: Any, context: Any) -> Any:
    use_raw = servicer._GetReturnRaw(message)
    begin, metadata = tracing.active and tracing.active.request, context.invocation_metadata
    with begin(_METHOD, metadata(), message.model_name) if begin else tracing.OFF as trace:
        request = _read(message, context)
        request.trace = trace
        response = await data_plane.infer(
            servicer._data_plane, request, message.model_name, message.model_version
        )
        context.set_trailing_metadata(
            [*response.cloud_events.metadata(response.id), *response.own_headers.items()]
        )
        with trace.below("encode") if trace else tracing.OFF:
            return _write(response, use_raw)


def _read(message: Any, context: Any) -> InferenceRequest:
    try:
        return read_request(message, lambda: to_headers(context), context.time_remaining())
    except RequestError as error:
        raise to_host_error(error) from None


def _write(response: ArrayResponse, use_raw: bool) -> Any:
    try:
        return write_response(response, pb.ModelInferResponse(), use_raw)
    except RequestError as error:
        raise to_host_error(error) from None


def write_grpc_responses(stock: Any) -> Any:
    def from_types(type_object: Any, use_raw: bool = False) -> Any:
        if not isinstance(type_object, ArrayResponse):
            return stock(type_object, use_raw=use_raw)
        return _write(type_object, use_raw)

    return from_types
