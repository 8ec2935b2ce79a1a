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
from .rest_response import ArrayResponse


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


def send_prepared_metadata(stock: Any) -> Any:
    """Sends the CloudEvents metadata that was prepared once for the model.

    Without it, MLServer makes the metadata of each gRPC response anew.
    """

    def _SetTrailingMetadata(self: Any, result: Any, context: Any) -> None:  # noqa: N802
        if isinstance(result, ArrayResponse) and result.cloud_events:
            metadata = result.cloud_events.metadata(result.id)
            if result.own_headers:
                metadata = [*metadata, *result.own_headers.items()]
            context.set_trailing_metadata(metadata)
        else:
            stock(self, result, context)

    return _SetTrailingMetadata


def patched_infer(stock: Any) -> Any:
    """Takes the short path for gRPC requests that were read for it.

    Without it, MLServer makes headers, metric labels and CloudEvents headers for each request.
    """

    # Not async: the tracebacks of the stock method then have no line of ours.
    def infer(self: Any, payload: Any, name: str, version: str | None = None) -> Any:
        is_short = type(payload.parameters) is data_plane.RequestParameters
        return (data_plane.infer if is_short else stock)(self, payload, name, version)

    return infer
