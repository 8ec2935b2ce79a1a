"""What we need of MLServer beyond its public interface, whatever the fast path's setting."""

from __future__ import annotations

from typing import Any

import grpc
from mlserver.errors import MLServerError
from mlserver.grpc import converters
from mlserver.grpc import utils as grpc_utils
from mlserver.rest import errors as rest_errors
from mlserver.rest.responses import Response
from mlserver.settings import ModelSettings
from mlserver.types import Datatype

from .errors import OverloadedError, RequestError
from .response import ArrayData

_GRPC_CODES = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    409: grpc.StatusCode.ABORTED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}

_original_contents = converters.InferTensorContentsConverter._get_contents


class _RetryStatus(int):
    """An HTTP status that says when to come back, through code that knows only a status."""

    retry_after: int


class _ErrorResponse(Response):
    """MLServer's error response, with Retry-After where the status carries one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(self.status_code, _RetryStatus):
            self.headers["Retry-After"] = str(self.status_code.retry_after)


def extend_error_mapping() -> None:
    """Gives statuses that MLServer answers as UNKNOWN their gRPC codes, and 503 its header.

    Idempotent: MLServer may import a runtime's module many times.
    """
    for status, code in _GRPC_CODES.items():
        grpc_utils.STATUS_CODE_MAPPING.setdefault(status, code)
    vars(rest_errors)["Response"] = _ErrorResponse


def refuse_typed_fp16() -> None:
    """Says why FP16 cannot be sent typed, where MLServer would try the field for bytes.

    Idempotent.
    """
    converter: Any = converters.InferTensorContentsConverter
    converter._get_contents = staticmethod(_contents)


def _contents(data: Any, datatype: Datatype) -> dict[str, Any]:
    if datatype is Datatype.FP16 and isinstance(data, ArrayData) and len(data):
        raise MLServerError(
            f'output "{data.spec.name}": expected a request with raw contents, got typed contents '
            "(the protocol has no typed field for FP16: send raw_input_contents)",
            400,
        )
    contents: dict[str, Any] = _original_contents(data, datatype)
    return contents


def to_host_error(error: RequestError) -> MLServerError:
    """Turns an error of ours into one that MLServer answers with its status."""
    cause = error.__cause__
    if isinstance(cause, MLServerError):
        return MLServerError(str(cause), cause.status_code)
    status = error.status
    if isinstance(error, OverloadedError):
        status = _RetryStatus(status)
        status.retry_after = error.retry_after
    return MLServerError(str(error), status)


def keep_out_of_pool(settings: ModelSettings) -> None:
    """Makes MLServer run a model in its main process, whatever `parallel_workers` says."""
    if "parallel_workers" in type(settings).model_fields:
        settings.parallel_workers = 0
