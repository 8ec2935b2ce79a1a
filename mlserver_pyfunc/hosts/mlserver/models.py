"""Which models of the server belong to this runtime, and which of them are available."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mlserver import MLModel
from mlserver.errors import ModelNotFound
from mlserver.registry import SingleModelRegistry
from mlserver.settings import ModelSettings

from mlserver_pyfunc.definition.locate import Located, find_definition
from mlserver_pyfunc.errors import PyFuncError

from .errors import ModelNotReadyError, UnknownModelError

_PACKAGE = __name__.partition(".")[0]
_versions: defaultdict[str, list[str | None]] = defaultdict(list)
_failures: dict[str, str] = {}
_MAX_NAMES = 20
_mixed: dict[str, weakref.ref[SingleModelRegistry]] = {}
# In seconds. The first value is what MLServer itself waits for calls at shutdown.
_longest_call = 5.0


def add_model(name: str, version: str | None, call_seconds: float) -> None:
    """Notes that a model of this runtime is loaded.

    Args:
        name: Name of the model.
        version: Version of the model; None without one.
        call_seconds: Time limit of its calls, in seconds.
    """
    global _longest_call
    _versions[name].append(version)
    _failures.pop(name, None)
    _longest_call = max(_longest_call, call_seconds)


def note_failure(name: str, message: str) -> None:
    """Notes why a model of this runtime did not load, for the answer to those who call it."""
    _failures[name] = message


def remove_model(name: str, version: str | None) -> None:
    """Notes that a model of this runtime is unloaded."""
    _versions[name].remove(version)
    if not _versions[name]:
        del _versions[name]


def is_ours(name: str) -> bool:
    """Returns whether this runtime serves all loaded versions of a model."""
    return name in _versions and (name not in _mixed or not _is_mixed(name))


def loaded_versions(name: str) -> list[str]:
    """Returns the loaded versions of a model of this runtime, sorted."""
    return sorted({version for version in _versions.get(name, ()) if version})


def longest_call() -> float:
    """Returns the longest time limit of a call, in seconds, of all models loaded so far."""
    return _longest_call


def is_pyfunc(model: MLModel) -> bool:
    """Returns whether a model is one of this runtime."""
    return hasattr(model, "model_metrics")


def is_for_pyfunc(settings: ModelSettings) -> bool:
    """Returns whether a model's settings ask for this runtime."""
    return settings.implementation_.startswith(f"{_PACKAGE}.")


def is_available(model: MLModel) -> bool:
    """Returns whether a model could run a call now."""
    return bool(model.ready and getattr(model, "available", True))


def note_mixed_models(stock: Any) -> Any:
    """Notes model names that have versions of this runtime and versions of another one.

    Without it, the other runtime gets requests in a form that it cannot read: `is_ours` would be
    true for the name. MLServer registers each model of any runtime by the method replaced here.
    """

    def _register(self: SingleModelRegistry, model: MLModel) -> None:
        stock(self, model)
        if _has_others(self):
            _mixed[self._name] = weakref.ref(self)

    return _register


def _is_mixed(name: str) -> bool:
    """Returns whether a name that was mixed still is. Forgets it if not."""
    versions = _mixed[name]()
    if versions is not None and _has_others(versions):
        return True
    del _mixed[name]
    return False


def has_others(registry: Any, name: str) -> bool:
    """Returns whether another runtime serves a model, or a version of it."""
    versions = registry._models.get(name)
    return versions is not None and _has_others(versions)


def _has_others(versions: SingleModelRegistry) -> bool:
    models = [*versions._versions.values(), versions._default]
    return any(model is not None and not is_pyfunc(model) for model in models)


def separate_readiness_from_availability(stock: Any) -> Any:
    """Answers the readiness endpoints by a model's `available`, if it has that attribute.

    Without it, the endpoints say that a model is ready while all its workers are being replaced,
    and `ModelReady` of an unknown model ends with UNKNOWN over gRPC.

    `ready` has to be true meanwhile. MLServer refuses requests to a model whose `ready` is false,
    and these requests need only wait.
    """

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
    """Says in the error about an unknown model which models there are, or why it did not load.

    Without it, the error says no more than that there is no such model.
    """

    def _get_model_registry(self: Any, name: str, version: str | None = None) -> Any:
        served = self._models.get(name)
        if served is not None:
            return served
        names = [name for name, versions in self._models.items() if not versions.empty()]
        expected = f", expected {listed(names)}" if names else ": no model is served"
        reason = f": {_failures[name]}" if name in _failures else expected
        raise UnknownModelError(f'model "{name}" not found{reason}')

    return _get_model_registry


def name_served_versions(stock: Any) -> Any:
    """Says in the error about an unknown version which versions there are.

    Without it, the error says no more than that there is no such version.
    """

    async def get_model(self: Any, version: str | None = None) -> Any:
        model = self._find_model(version)
        if model is not None:
            return model
        if self.empty():
            reason = _failures.get(self._name, "it is not loaded")
            raise UnknownModelError(f'model "{self._name}" not found: {reason}')
        expected = f", expected {listed(self._versions)}" if self._versions else ": it has none"
        raise UnknownModelError(f'version "{version}" of model "{self._name}" not found{expected}')

    return get_model


def find(registry: Any, name: str, version: str | None) -> Any:
    """Returns a model, loaded or not.

    Raises:
        UnknownModelError: There is no such model.
    """
    return registry._get_model_registry(name, version)._find_model(version)


def require_ready(registry: Any, name: str, version: str | None) -> None:
    """Checks that a model takes calls, before its request is read.

    Raises:
        MLServerError: It is unknown or not ready.
    """
    model = find(registry, name, version)
    if model is not None and not model.ready:
        raise ModelNotReadyError(name, version)


def listed(names: Iterable[str]) -> str:
    """Returns names in quotes, the first 20 of them."""
    quoted = [f'"{name}"' for name in names]
    more = [f"{len(quoted) - _MAX_NAMES} more"] if len(quoted) > _MAX_NAMES else []
    return ", ".join(quoted[:_MAX_NAMES] + more)


def read_definition(settings: ModelSettings) -> tuple[Located | None, str]:
    """Finds and reads the definition of a model.

    Adds the version to the settings if only the definition gives one.

    Returns:
        The definition, or None and the reason why it cannot be read.
    """
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


def keep_out_of_pool(settings: ModelSettings) -> None:
    """Runs a model in MLServer's main process, whatever `parallel_workers` says.

    This runtime has worker processes of its own. MLServer's pool pickles requests and responses,
    and neither streams nor stops a call.
    """
    if "parallel_workers" in type(settings).model_fields:
        settings.parallel_workers = 0


def registry_of(app: Any) -> Any:
    """Returns the registry of all models behind a server's REST routes.

    Nothing public leads from the application to it. But a route's endpoint is a bound method, and
    its object has the data plane.
    """
    endpoints = next(r.endpoint.__self__ for r in app.routes if r.path == "/v2/models/{model_name}")
    return endpoints._data_plane._model_registry
