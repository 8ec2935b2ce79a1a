"""How errors of this package become answers of MLServer, over REST and gRPC."""

from __future__ import annotations

from typing import Any

import grpc
from mlserver.errors import MLServerError
from mlserver.rest.responses import Response

from mlserver_pyfunc.errors import OverloadedError, RequestError

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


class _RetryStatus(int):
    """An HTTP status with the value of `Retry-After`.

    MLServer copies only the status of an error to its error response. A subclass of int is the
    one thing that carries a second value through that code.

    Attributes:
        retry_after: Number of seconds after which the client may try again.
    """

    retry_after: int


class _StatusMapping(dict[int, Any]):
    """gRPC status codes by HTTP status."""


def to_host_error(error: RequestError) -> MLServerError:
    """Converts an error of this package into one that MLServer answers with the same status."""
    cause = error.__cause__
    if isinstance(cause, MLServerError):
        return MLServerError(str(cause), cause.status_code)
    status = error.status
    if isinstance(error, OverloadedError):
        status = _RetryStatus(status)
        status.retry_after = error.retry_after
    return MLServerError(str(error), status)


def extend_error_mapping(stock: dict[int, Any]) -> dict[int, Any]:
    """Adds gRPC status codes to MLServer's table of them.

    Without it, gRPC clients get UNKNOWN for nine HTTP statuses, 503 and 504 among them.
    """
    return _StatusMapping({**_GRPC_CODES, **stock})


class ErrorResponse(Response):
    """MLServer's error response, with `Retry-After` if the status carries a value for it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if isinstance(self.status_code, _RetryStatus):
            self.headers["Retry-After"] = str(self.status_code.retry_after)


def send_retry_after(stock: Any) -> Any:
    """Replaces the class of responses that MLServer's error handler creates.

    Without it, a REST response with status 503 has no `Retry-After`.
    """
    return ErrorResponse
