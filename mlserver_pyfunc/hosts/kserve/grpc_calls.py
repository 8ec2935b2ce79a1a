"""Methods of gRPC for functions, which go before those of KServe's servicer.

KServe's servicer makes Python lists of tensors, loses typed FP16, and has no streams.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import Any

import grpc
from grpc_interceptor.exceptions import GrpcException
from kserve.protocol.grpc import grpc_predict_v2_pb2 as pb
from kserve.protocol.grpc import grpc_predict_v2_pb2_grpc as stubs
from kserve.utils.utils import to_headers

from mlserver_pyfunc.errors import RequestError
from mlserver_pyfunc.hosts.common.grpc_messages import GRPC_CODES, read_request, write_response

from .models import Functions


def install(functions: Functions) -> None:
    """Gives our methods to each server of gRPC that KServe makes.

    KServe makes it in the function that starts it, and passes it to this function of its stubs,
    which takes the methods from the servicer. `ModelStreamInfer` is none that KServe knows.
    """
    stock: Any = stubs.add_GRPCInferenceServiceServicer_to_server
    methods = _Methods(functions)

    def add_to_server(servicer: Any, server: Any) -> None:
        servicer.ModelInfer = methods.infer
        servicer.ModelMetadata = methods.metadata
        servicer.ModelReady = methods.model_ready
        servicer.ServerReady = methods.ready
        stock(servicer, server)
        types = pb.ModelInferRequest.FromString, pb.ModelInferResponse.SerializeToString
        added = {"ModelStreamInfer": grpc.stream_stream_rpc_method_handler(methods.stream, *types)}
        name = "inference.GRPCInferenceService"
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, added),))

    stubs.add_GRPCInferenceServiceServicer_to_server = add_to_server


class _Methods:
    def __init__(self, functions: Functions) -> None:
        self._functions = functions

    async def infer(self, message: Any, context: Any) -> Any:
        with _refusals():
            model, request = self._read(message, context)
            response = await model.infer(request)
            context.set_trailing_metadata([*response.own_headers.items()])
            return _write(response, message)

    async def stream(self, messages: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        with _refusals():
            async for message in messages:
                model, request = self._read(message, context)
                async with aclosing(model.stream(request)) as responses:
                    async for response in responses:
                        yield _write(response, message)

    async def ready(self, message: Any, context: Any) -> Any:
        return pb.ServerReadyResponse(ready=self._functions.ready)

    async def model_ready(self, message: Any, context: Any) -> Any:
        is_ready = False
        with suppress(RequestError):
            is_ready = self._functions.get_model(message.name, message.version).function.ready
        return pb.ModelReadyResponse(ready=is_ready)

    async def metadata(self, message: Any, context: Any) -> Any:
        with _refusals():
            found = self._functions.get_model(message.name, message.version).metadata()
        # KServe's messages have no parameters there.
        del found["parameters"]
        for tensor in (*found["inputs"], *found["outputs"]):
            tensor.pop("parameters", None)
        return pb.ModelMetadataResponse(**found)

    def _read(self, message: Any, context: Any) -> tuple[Any, Any]:
        model = self._functions.get_model(message.model_name, message.model_version)
        seconds = context.time_remaining()
        return model, read_request(message, lambda: to_headers(context), seconds)


def _write(response: Any, message: Any) -> Any:
    return write_response(response, pb.ModelInferResponse(), bool(message.raw_input_contents))


@contextmanager
def _refusals() -> Iterator[None]:
    """Raises the errors that KServe's interceptor makes statuses of."""
    try:
        yield
    except RequestError as error:
        code = GRPC_CODES.get(error.status, grpc.StatusCode.UNKNOWN)
        raise GrpcException(str(error), code) from None
