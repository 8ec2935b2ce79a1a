"""How errors of this package become answers of MLServer, over REST and gRPC."""

from __future__ import annotations

from typing import Any

from mlserver.errors import MLServerError, ModelNotFound, ModelNotReady
from mlserver.grpc.utils import STATUS_CODE_MAPPING

from mlserver_pyfunc import settings
from mlserver_pyfunc.errors import OverloadedError, RequestError, safe_message
from mlserver_pyfunc.hosts.common.grpc_messages import GRPC_CODES
from mlserver_pyfunc.hosts.common.models import not_ready


class UnknownModelError(ModelNotFound):
    """There is no such model or version: status 404, and the words that clients of Triton know."""

    def __init__(self, message: str) -> None:
        start = "Request for unknown model: " if settings.is_switched_on(settings.TRITON) else ""
        MLServerError.__init__(self, safe_message(f"{start}{message}"), 404)


class ModelNotReadyError(ModelNotReady):
    """A model is loading, or cannot run a call now. Status 503."""

    retry_after = 1

    def __init__(self, name: str, version: str | None = None) -> None:
        MLServerError.__init__(self, safe_message(not_ready(name, version)), 503)


def to_host_error(error: RequestError) -> MLServerError:
    """Converts an error of this package into one that MLServer answers with the same status."""
    cause = error.__cause__
    if isinstance(cause, MLServerError):
        return MLServerError(str(cause), cause.status_code)
    host_error = MLServerError(str(error), error.status)
    if isinstance(error, OverloadedError):
        # rest_edges writes it.
        vars(host_error)["retry_after"] = error.retry_after
    return host_error


def answer_not_ready_with_503(stock: Any) -> Any:
    return ModelNotReadyError


def extend_error_mapping() -> None:
    for status, code in GRPC_CODES.items():
        STATUS_CODE_MAPPING.setdefault(status, code)
