"""Which models of the server belong to this runtime, and which of them are available."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from mlserver import MLModel
from mlserver.errors import MLServerError, ModelNotFound
from mlserver.settings import ModelSettings

from mlserver_pyfunc.definition import FunctionDefinition
from mlserver_pyfunc.definition.locate import Located, find_definition
from mlserver_pyfunc.errors import PyFuncError
from mlserver_pyfunc.hosts.common.models import not_found
from mlserver_pyfunc.protocol.contract import TensorSpec
from mlserver_pyfunc.serving.runner import logger

from .errors import ModelNotReadyError, UnknownModelError

_PACKAGE = __name__.partition(".")[0]
_versions: defaultdict[str, list[str | None]] = defaultdict(list)
failures: dict[str, str] = {}
"""Why models of this runtime did not load, by name, for the answer to those who call them."""

running: set[int] = set()
"""Calls of functions that run, by the ids of their requests."""

last_call = 0.0
"""When the last call of a function began, by time.monotonic()."""

longest_call = 5.0
"""Longest time limit of a call, in seconds; at first what MLServer itself waits at shutdown."""


def add_model(name: str, version: str | None, call_seconds: float) -> None:
    global longest_call
    _versions[name].append(version)
    failures.pop(name, None)
    longest_call = max(longest_call, call_seconds)


def begin(call: int) -> None:
    global last_call
    last_call = time.monotonic()
    running.add(call)


def remove_model(name: str, version: str | None) -> None:
    _versions[name].remove(version)
    if not _versions[name]:
        del _versions[name]


def is_ours(registry: Any, name: str) -> bool:
    return name in _versions and not has_others(registry, name)


def has_others(registry: Any, name: str) -> bool:
    """Returns whether another runtime serves a model, or a version of it."""
    versions = registry._models.get(name)
    if versions is None:
        return False
    # Not any(): this is asked for each request.
    for model in versions._versions.values():
        if not is_pyfunc(model):
            return True
    default = versions._default
    return default is not None and not is_pyfunc(default)


def loaded_versions(name: str) -> list[str]:
    return sorted({version for version in _versions.get(name, ()) if version})


def is_pyfunc(model: MLModel) -> bool:
    return hasattr(model, "model_metrics")


def is_for_pyfunc(settings: ModelSettings) -> bool:
    return settings.implementation_.startswith(f"{_PACKAGE}.")


def is_available(model: Any) -> bool:
    return bool(model.ready and (not is_pyfunc(model) or model.available))


def separate_readiness_from_availability(stock: Any) -> Any:
    async def ready(self: Any) -> bool:
        return all(map(is_available, await self._model_registry.get_models()))

    async def model_ready(self: Any, name: str, version: str | None = None) -> bool:
        # Only gRPC asks here: the protocol has no error for a model that is unknown.
        try:
            return is_available(await self._model_registry.get_model(name, version))
        except ModelNotFound:
            return False

    return {"ready": ready, "model_ready": model_ready}[stock.__name__]


def name_served_models(stock: Any) -> Any:
    def _get_model_registry(self: Any, name: str, version: str | None = None) -> Any:
        served = self._models.get(name)
        if served is not None:
            return served
        names = [name for name, versions in self._models.items() if not versions.empty()]
        if name in failures:
            raise UnknownModelError(f'model "{name}" not found: {failures[name]}')
        raise UnknownModelError(not_found(f'model "{name}"', names, "no model is served"))

    return _get_model_registry


def name_served_versions(stock: Any) -> Any:
    async def get_model(self: Any, version: str | None = None) -> Any:
        return _find(self, version)

    return get_model


def _find(versions: Any, version: str | None) -> Any:
    model = versions._find_model(version)
    if model is not None:
        return model
    name = versions._name
    if versions.empty():
        reason = failures.get(name, "it is not loaded")
        raise UnknownModelError(f'model "{name}" not found: {reason}')
    what = f'version "{version}" of model "{name}"'
    raise UnknownModelError(not_found(what, versions._versions, "it has none"))


def find(registry: Any, name: str, version: str | None = None) -> Any:
    """Returns a model, loaded or not. Raises UnknownModelError if there is no such model."""
    return _find(registry._get_model_registry(name, version), version)


async def function(
    registry: Any, name: str, version: str | None = None
) -> tuple[Any, FunctionDefinition]:
    """Returns a loaded model and its definition. Status 404 if another runtime serves it."""
    model = await registry.get_model(name, version)
    if not is_pyfunc(model) or model.definition is None:
        raise MLServerError(f'model "{name}" is not served by mlserver-pyfunc', 404)
    return model, model.definition


def declared_inputs(registry: Any, name: str, version: str | None = None) -> list[TensorSpec]:
    """Returns the declared inputs of a model, for an error message; none if they are not known."""
    try:
        definition = getattr(find(registry, name, version), "definition", None)
    except ModelNotFound:
        return []
    return [tensor.spec for tensor in definition.inputs] if definition else []


def require_ready(registry: Any, name: str, version: str | None = None) -> Any:
    model = find(registry, name, version)
    if not model.ready:
        raise ModelNotReadyError(name, version)
    return model


def read_definition(settings: ModelSettings) -> tuple[Located | None, str]:
    """Returns a model's definition, whose version goes to settings without one, or why not."""
    source = Path(settings._source) if settings._source else None
    parameters = settings.parameters
    uri = parameters.uri if parameters else None
    extra = parameters.extra if parameters else None
    try:
        located = find_definition(source, uri, extra)
    except PyFuncError as error:
        return None, str(error)
    if parameters and not parameters.version:
        parameters.version = located.definition.model_version
    return located, ""


def keep_to_ourselves(settings: ModelSettings) -> None:
    """Keeps a model out of MLServer's pool and its response cache: see docs/architecture.md."""
    if "parallel_workers" in type(settings).model_fields:
        settings.parallel_workers = 0
    if settings.cache_enabled:
        logger.warning('model "%s": cache_enabled has no effect on functions', settings.name)
        settings.cache_enabled = False


def registry_of(app: Any) -> Any:
    """Returns the registry of all models, by the object that a route's endpoint is a method of."""
    endpoints = next(r.endpoint.__self__ for r in app.routes if r.path == "/v2/models/{model_name}")
    return endpoints._data_plane._model_registry
