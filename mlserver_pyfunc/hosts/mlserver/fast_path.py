"""Replacements for speed: a request reaches a model of this runtime without Python lists.

They concern gRPC messages and the data plane; `rest_route` is that for REST. Each function takes
what MLServer has and returns what takes its place; requests to models of other runtimes still get
what MLServer has. `patches.TABLE` says where each one belongs.
"""

from __future__ import annotations

from typing import Any

from mlserver.grpc.utils import to_headers

from . import data_plane, grpc_messages
from .models import is_ours, require_ready


def read_grpc_requests(stock: Any) -> Any:
    """Reads gRPC requests into arrays that view the message.

    Without it, the tensors of a gRPC request become Python lists, and the error for raw contents
    of the wrong size is MLServer's INTERNAL.

    MLServer calls this method for each message, of `ModelInfer` and `ModelStreamInfer` alike. It
    is the one place that has both the message and its metadata.
    """

    def _InsertHeaders(self: Any, request: Any, context: Any) -> Any:  # noqa: N802
        registry = self._data_plane._model_registry
        if not is_ours(registry, request.model_name):
            require_ready(registry, request.model_name, request.model_version)
            return stock(self, request, context)
        return grpc_messages.read_request(request, lambda: to_headers(context))

    return _InsertHeaders


def answer_grpc_calls(stock: Any) -> Any:
    """Answers calls of functions over gRPC with what was prepared once for the model.

    Without it, MLServer makes headers, metric labels and CloudEvents metadata for each request.

    The patch sets a variable of MLServer's decorator, as `end_grpc_streams` does.
    """

    # Not async: the tracebacks of the stock method then have no line of ours.
    def f(self: Any, request: Any, context: Any) -> Any:
        is_short = is_ours(self._data_plane._model_registry, request.model_name)
        return (_infer if is_short else stock)(self, request, context)

    return f


async def _infer(servicer: Any, message: Any, context: Any) -> Any:
    use_raw = servicer._GetReturnRaw(message)
    request = grpc_messages.read_request(message, lambda: to_headers(context))
    response = await data_plane.infer(
        servicer._data_plane, request, message.model_name, message.model_version
    )
    context.set_trailing_metadata(
        [*response.cloud_events.metadata(response.id), *response.own_headers.items()]
    )
    return grpc_messages.write_response(response, use_raw)
