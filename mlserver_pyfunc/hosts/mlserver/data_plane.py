"""MLServer's path of an inference request, for models of ours: the same steps, fewer of them.

Headers are made only where a handler asks for them, metrics are looked up once a model,
and what CloudEvents headers say of a model is worked out once.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from mlserver.context import model_name_var, model_version_var
from mlserver.errors import ModelNotReady
from mlserver.handlers import DataPlane
from mlserver.settings import ModelSettings
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver.utils import generate_uuid

from .cloud_events import CloudEvents
from .patches import is_ours
from .rest_response import ArrayResponse

Infer = Callable[..., Awaitable[InferenceResponse]]
Headers = Mapping[str, str]


class RequestParameters:
    """A request's parameters, whose headers are made when they are asked for.

    Args:
        values: The request's own, as the host has them; None without any.
        headers: Makes the HTTP headers or gRPC metadata.
    """

    __slots__ = ("_cloud_events", "_headers", "_make_headers", "_values")

    def __init__(self, values: Any, headers: Callable[[], Headers]) -> None:
        self._values = values
        self._make_headers = headers
        self._cloud_events: Callable[[], Headers] | None = None
        self._headers: dict[str, str] | None = None

    @property
    def headers(self) -> dict[str, str]:
        if self._headers is None:
            self._headers = dict(self._make_headers())
            if self._cloud_events is not None:
                self._headers.update(self._cloud_events())
        return self._headers

    def add_cloud_events(self, headers: Callable[[], Headers]) -> None:
        """Has the headers made by `headers` added."""
        self._cloud_events = headers

    def model_dump(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {} if self._values is None else self._values.model_dump(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if self._values is None:
            raise AttributeError(name)
        return getattr(self._values, name)


@dataclass(slots=True)
class Served:
    """What requests to a model have in common."""

    context: tuple[str, str]
    requests: CloudEvents
    responses: CloudEvents
    duration: Any
    succeeded: Any
    failed: Any


def faster(stock: Infer) -> Infer:
    """`DataPlane.infer` with a shorter way for the requests that our routes hand on."""

    # Not async, so that the stock method's tracebacks are its own.
    def infer(
        self: DataPlane, payload: InferenceRequest, name: str, version: str | None = None
    ) -> Awaitable[InferenceResponse]:
        shorter = type(cast(Any, payload.parameters)) is RequestParameters
        return (_infer if shorter else stock)(self, payload, name, version)

    return infer


def takes(data_plane: DataPlane, name: str) -> bool:
    """Whether a model's requests may come with `RequestParameters`."""
    return data_plane._response_cache is None and is_ours(name)


async def _infer(
    data_plane: DataPlane, payload: InferenceRequest, name: str, version: str | None
) -> InferenceResponse:
    model: Any = await data_plane._model_registry.get_model(name, version)
    try:
        served = model.served[version]
    except KeyError:
        served = model.served[version] = _served(data_plane, model.settings, name, version)
    started = time.perf_counter()
    try:
        response = await _predict(model, served, payload, name, version)
    except Exception:
        served.failed.inc()
        raise
    finally:
        served.duration.observe(time.perf_counter() - started)
    served.succeeded.inc()
    return response


async def _predict(
    model: Any, served: Served, payload: InferenceRequest, name: str, version: str | None
) -> InferenceResponse:
    if not model.ready:
        raise ModelNotReady(name, version)
    request_id = payload.id
    if request_id is None:
        request_id = payload.id = generate_uuid()
    parameters: Any = payload.parameters
    parameters.add_cloud_events(lambda: served.requests.headers(request_id))
    name_token = model_name_var.set(served.context[0])
    version_token = model_version_var.set(served.context[1])
    try:
        response: ArrayResponse = await model.predict(payload)
    finally:
        model_name_var.reset(name_token)
        model_version_var.reset(version_token)
    response.id = request_id
    response.cloud_events = served.responses
    return response


def _served(
    data_plane: DataPlane, settings: ModelSettings, name: str, version: str | None
) -> Served:
    middleware = data_plane._inference_middleware
    labels = {"model": name, "version": version}
    return Served(
        context=(settings.name, settings.version or ""),
        requests=CloudEvents(middleware.request_middleware, settings),
        responses=CloudEvents(middleware.response_middleware, settings),
        duration=data_plane._ModelInferRequestDuration.labels(**labels),
        succeeded=data_plane._ModelInferRequestSuccess.labels(**labels),
        failed=data_plane._ModelInferRequestFailure.labels(**labels),
    )
