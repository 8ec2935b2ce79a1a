"""MLServer's data plane for models of this runtime: the same steps of a request, made shorter."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from mlserver.context import model_name_var, model_version_var
from mlserver.handlers import DataPlane
from mlserver.settings import ModelSettings
from mlserver.utils import generate_uuid

from mlserver_pyfunc.hosts.common.rest_response import ArrayResponse, is_sendable
from mlserver_pyfunc.protocol.request import InferenceRequest

from .errors import ModelNotReadyError

_PROBE_ID = "id of a probe"


class CloudEvents:
    """The headers of the responses of one model, found by a response with a known id."""

    def __init__(self, add: Callable[[Any, ModelSettings], Any], settings: ModelSettings) -> None:
        probe: Any = SimpleNamespace(id=_PROBE_ID, headers={})
        probe.parameters = probe
        add(probe, settings)
        headers = [(key.lower(), value) for key, value in probe.headers.items()]
        self._metadata = [(key, value) for key, value in headers if value != _PROBE_ID]
        self._http = [(key.encode(), value.encode()) for key, value in self._metadata]
        self._id_metadata_keys = [key for key, value in headers if value == _PROBE_ID]
        self._id_http_keys = [key.encode() for key in self._id_metadata_keys]

    def metadata(self, request_id: str | None) -> list[tuple[str, str]]:
        if not is_sendable(request_id):
            return self._metadata
        return [*self._metadata, *[(key, request_id) for key in self._id_metadata_keys]]

    def http(self, request_id: str | None) -> list[tuple[bytes, bytes]]:
        """Returns the headers as ASGI sends them, in a list that the caller may change."""
        if not is_sendable(request_id):
            return self._http.copy()
        encoded = request_id.encode()
        return [*self._http, *[(key, encoded) for key in self._id_http_keys]]


class ModelMetrics:
    """Metrics and headers of a model, looked up once for each version that requests ask for."""

    def __init__(
        self, data_plane: DataPlane, settings: ModelSettings, name: str, version: str | None
    ) -> None:
        # For MLServer's context variables.
        self.name, self.version = settings.name, settings.version or ""
        middleware, labels = data_plane._inference_middleware, {"model": name, "version": version}
        self.cloud_events = CloudEvents(middleware.response_middleware, settings)
        self.duration = data_plane._ModelInferRequestDuration.labels(**labels)
        self.succeeded = data_plane._ModelInferRequestSuccess.labels(**labels)
        self.failed = data_plane._ModelInferRequestFailure.labels(**labels)


async def infer(
    data_plane: DataPlane, payload: InferenceRequest, name: str, version: str | None = None
) -> ArrayResponse:
    """Does what `DataPlane.infer` does, for a request with `RequestParameters`."""
    model: Any = await data_plane._model_registry.get_model(name, version)
    try:
        metrics = model.model_metrics[version]
    except KeyError:
        metrics = ModelMetrics(data_plane, model.settings, name, version)
        model.model_metrics[version] = metrics
    request_id = payload.id
    if request_id is None:
        request_id = payload.id = generate_uuid()
    name_token = model_name_var.set(metrics.name)
    version_token = model_version_var.set(metrics.version)
    started = time.perf_counter()
    try:
        if not model.ready:
            raise ModelNotReadyError(name, version)
        response: ArrayResponse = await model.predict(payload)
    except Exception:
        metrics.failed.inc()
        raise
    finally:
        metrics.duration.observe(time.perf_counter() - started)
        model_name_var.reset(name_token)
        model_version_var.reset(version_token)
    metrics.succeeded.inc()
    response.id = request_id
    response.cloud_events = metrics.cloud_events
    return response
