"""Which models of the server belong to this runtime, and which of them are available."""

from __future__ import annotations

import weakref
from collections import defaultdict
from pathlib import Path
from typing import Any

from mlserver import MLModel
from mlserver.registry import SingleModelRegistry
from mlserver.settings import ModelSettings

from mlserver_pyfunc.definition.locate import Located, find_definition
from mlserver_pyfunc.errors import PyFuncError

_PACKAGE = __name__.partition(".")[0]
_versions: defaultdict[str, list[str | None]] = defaultdict(list)
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
    _longest_call = max(_longest_call, call_seconds)


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
    """Returns the longest time limit of a call of any model, in seconds."""
    return _longest_call


def is_pyfunc(model: MLModel) -> bool:
    """Returns whether a model is one of this runtime."""
    return hasattr(model, "model_metrics")


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


def _has_others(versions: SingleModelRegistry) -> bool:
    models = [*versions._versions.values(), versions._default]
    return any(model is not None and not is_pyfunc(model) for model in models)


def separate_readiness_from_availability(stock: Any) -> Any:
    """Answers the readiness endpoints by a model's `available`, if it has that attribute.

    Without it, the endpoints say that a model is ready while all its workers are being replaced.

    `ready` has to be true meanwhile. MLServer refuses requests to a model whose `ready` is false,
    and these requests need only wait.
    """

    async def ready(self: Any) -> bool:
        return all(map(is_available, await self._model_registry.get_models()))

    async def model_ready(self: Any, name: str, version: str | None = None) -> bool:
        return is_available(await self._model_registry.get_model(name, version))

    return {"ready": ready, "model_ready": model_ready}[stock.__name__]


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


def read_version_from_definition(stock: Any) -> Any:
    """Gives MLServer the version of a model if only the definition says it.

    Without it, a second version that only function.yaml names replaces the first one: MLServer
    reads the version from the settings, before it creates the model, and takes it for a reload.
    """

    def _get_version(model_settings: ModelSettings) -> str | None:
        is_ours = model_settings.implementation_.startswith(f"{_PACKAGE}.")
        if is_ours and not stock(model_settings):
            read_definition(model_settings)
        version: str | None = stock(model_settings)
        return version

    return _get_version


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
