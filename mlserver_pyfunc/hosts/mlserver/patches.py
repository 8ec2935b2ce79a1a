"""What we need of MLServer beyond its public interface, whatever the fast path's setting."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import traceback
import weakref
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from mlserver import MLModel, registry
from mlserver.errors import MLServerError
from mlserver.grpc import converters
from mlserver.grpc import utils as grpc_utils
from mlserver.grpc.logging import logger as grpc_logger
from mlserver.grpc.server import GRPCServer
from mlserver.grpc.servicers import InferenceServicer
from mlserver.handlers import DataPlane
from mlserver.parallel.logging import logger as pool_logger
from mlserver.parallel.registry import InferencePoolRegistry
from mlserver.registry import SingleModelRegistry
from mlserver.rest import errors as rest_errors
from mlserver.rest.responses import Response
from mlserver.settings import ModelSettings
from mlserver.types import Datatype

from mlserver_pyfunc.errors import OverloadedError, RequestError

from .rest_response import ArrayData

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

_PACKAGE = __name__.partition(".")[0]
_registry_version = registry._get_version
_original_contents = converters.InferTensorContentsConverter._get_contents


_versions: defaultdict[str, list[str | None]] = defaultdict(list)
_mixed: dict[str, weakref.ref[SingleModelRegistry]] = {}
# Seconds.
_longest_call = 5.0


def add_model(name: str, version: str | None) -> None:
    """Notes a model of ours as loaded."""
    _versions[name].append(version)


def remove_model(name: str, version: str | None) -> None:
    """Notes a model of ours as unloaded."""
    _versions[name].remove(version)
    if not _versions[name]:
        del _versions[name]


def is_ours(name: str) -> bool:
    """Whether all versions of a model that are loaded are served by this runtime."""
    return name in _versions and (name not in _mixed or not _is_mixed(name))


def tell_other_runtimes() -> None:
    """Notes where one version of a name is served by us, and another by another runtime.

    Such a name goes MLServer's own way. Idempotent.
    """
    stock = SingleModelRegistry._register
    if getattr(stock, "tells_runtimes", False):
        return

    def register(self: SingleModelRegistry, model: MLModel) -> None:
        stock(self, model)
        if _has_others(self):
            _mixed[self._name] = weakref.ref(self)

    vars(register)["tells_runtimes"] = True
    setattr(SingleModelRegistry, "_register", register)  # noqa: B010


def _is_mixed(name: str) -> bool:
    """Whether a name that was mixed still is."""
    versions = _mixed[name]()
    if versions is not None and _has_others(versions):
        return True
    del _mixed[name]
    return False


def _has_others(versions: SingleModelRegistry) -> bool:
    models = [*versions._versions.values(), versions._default]
    return any(model is not None and not hasattr(model, "served") for model in models)


def loaded_versions(name: str) -> list[str]:
    """The versions of a model that are loaded, in order."""
    return sorted({version for version in _versions.get(name, ()) if version})


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


def give_grpc_calls_time() -> None:
    """Has calls in flight at SIGTERM answered over gRPC too, where MLServer cancels them after 5 s.

    Idempotent.
    """
    setattr(GRPCServer, "stop", _stop_grpc)  # noqa: B010


def expect_calls_of(seconds: float) -> None:
    """Notes how long calls of a model may take."""
    global _longest_call
    _longest_call = max(_longest_call, seconds)


async def _stop_grpc(self: Any, sig: int | None = None) -> None:
    grpc_logger.info("Waiting up to %g s for gRPC server shutdown", _longest_call)
    await self._server.stop(grace=_longest_call)
    grpc_logger.info("gRPC server shutdown complete")


def refuse_typed_fp16() -> None:
    """Says why FP16 cannot be sent typed, where MLServer would try the field for bytes.

    Idempotent.
    """
    converter: Any = converters.InferTensorContentsConverter
    converter._get_contents = staticmethod(_contents)


def _contents(data: Any, datatype: Datatype) -> dict[str, Any]:
    if datatype is Datatype.FP16 and isinstance(data, ArrayData) and len(data):
        raise MLServerError(
            f'output "{data.spec.name}": expected a request with raw_input_contents, got a '
            "typed one, and gRPC has no typed FP16",
            400,
        )
    contents: dict[str, Any] = _original_contents(data, datatype)
    return contents


def tell_versions(version_of: Callable[[ModelSettings], str | None]) -> None:
    """Tells MLServer the version of a model of ours where only its definition gives one.

    Without it, MLServer takes the second version of a model for a reload of the first and
    unloads that. Idempotent.

    Args:
        version_of: Reads the version from what the settings point to.
    """

    def get_version(settings: ModelSettings) -> str | None:
        version = _registry_version(settings)
        if version or not settings.implementation_.startswith(f"{_PACKAGE}."):
            return version
        return version_of(settings)

    vars(registry)["_get_version"] = get_version


def tell_up_from_ready() -> None:
    """Has the readiness endpoints ask a model's `up` too, where it has one.

    MLServer knows `ready` alone, and refuses requests where it is false: also those that
    need only wait until a worker is replaced. Idempotent.
    """
    if getattr(DataPlane.model_ready, "asks_up", False):
        return

    async def ready(self: DataPlane) -> bool:
        return all(map(is_up, await self._model_registry.get_models()))

    async def model_ready(self: DataPlane, name: str, version: str | None = None) -> bool:
        return is_up(await self._model_registry.get_model(name, version))

    vars(model_ready)["asks_up"] = True
    setattr(DataPlane, "ready", ready)  # noqa: B010
    setattr(DataPlane, "model_ready", model_ready)  # noqa: B010


def end_empty_streams_well() -> None:
    """Ends a gRPC stream without a request or without an answer as one that has come to its end.

    MLServer then reads a variable that it has not set, and answers INTERNAL. Its server holds
    the method before a model is there to replace it: what is replaced is the function that the
    method wraps. Idempotent.
    """
    for cell in getattr(InferenceServicer.ModelStreamInfer, "__closure__", None) or ():
        stock = cell.cell_contents
        if getattr(stock, "__name__", "") == "ModelStreamInfer":
            cell.cell_contents = _ending_well(stock)


def _ending_well(stock: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
    async def stream_infer(servicer: Any, requests: Any, context: Any) -> AsyncIterator[Any]:
        answered = False
        try:
            async for response in stock(servicer, requests, context):
                answered = True
                yield response
        except UnboundLocalError as error:
            *_, (frame, _) = traceback.walk_tb(error.__traceback__)
            if answered or frame.f_code is not getattr(stock, "__code__", None):
                raise

    return stream_infer


def leave_our_children_alone() -> None:
    """Has MLServer's pool wait for its own processes only.

    At each SIGCHLD it waits for any child, and so takes the exit status of our workers, in
    which stands what killed them. Idempotent.
    """
    if hasattr(InferencePoolRegistry, "_handle_worker_stop"):
        setattr(InferencePoolRegistry, "_handle_worker_stop", _handle_worker_stop)  # noqa: B010


async def _handle_worker_stop(self: Any, signum: int, frame: Any) -> None:
    for pool in [self._default_pool, *self._pools.values()]:
        for pid in list(pool._workers):
            try:
                stopped, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                continue
            if stopped and status:
                await pool.on_worker_stop(pid, status)


def is_up(model: MLModel) -> bool:
    """Whether a call of the model could run now."""
    return bool(model.ready and getattr(model, "up", True))


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


def show_prints_at_once() -> None:
    """Has what user code prints reach the log line by line, where that is a file or a pipe.

    Python else keeps up to 8 KiB of it back. Idempotent.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def keep_out_of_pool(settings: ModelSettings) -> None:
    """Makes MLServer run a model in its main process, whatever `parallel_workers` says."""
    if "parallel_workers" in type(settings).model_fields:
        settings.parallel_workers = 0
        pool_logger.addFilter(_is_not_the_deprecation)


def _is_not_the_deprecation(record: logging.LogRecord) -> bool:
    """Drops the warning that a user sees about a setting that is ours, not theirs."""
    return "`parallel_workers` setting at the model-level" not in str(record.msg)


async def served_model(app: Any, name: str, version: str | None) -> MLModel:
    """The model that the server's own routes would call.

    Raises:
        MLServerError: There is none: status 404.
    """
    model: MLModel = await _registry_of(app).get_model(name, version)
    return model


async def served_models(app: Any) -> list[MLModel]:
    """Every model that is registered, ready or not."""
    return list(await _registry_of(app).get_models())


def _registry_of(app: Any) -> Any:
    """The registry behind a server's REST routes: nothing public leads from one to it."""
    endpoints = next(r.endpoint.__self__ for r in app.routes if r.path == "/v2/models/{model_name}")
    return endpoints._data_plane._model_registry
