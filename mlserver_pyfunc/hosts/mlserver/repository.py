"""How models get their names, are loaded and unloaded in turn by name, and who may ask for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from weakref import WeakValueDictionary

from mlserver import MLModel
from mlserver.errors import MLServerError
from mlserver.handlers import ModelRepositoryHandlers
from mlserver.registry import MultiModelRegistry, SingleModelRegistry
from mlserver.rest.endpoints import ModelRepositoryEndpoints
from mlserver.settings import ModelSettings
from starlette.types import ASGIApp, Receive, Scope, Send

from mlserver_pyfunc.definition.model_settings import explicit_settings, given_name, served_name
from mlserver_pyfunc.errors import LoadError
from mlserver_pyfunc.settings import REPOSITORY_API, repository_api

from . import models
from .rest_route import once_for_app

_FORWARDED = ("x-forwarded-for", "forwarded")


class _Turn(asyncio.Lock):
    """The right to load or unload the models of one name, and the task that has it."""

    holder: asyncio.Task[Any] | None = None


_turns: WeakValueDictionary[str, _Turn] = WeakValueDictionary()
_begun: set[asyncio.Task[Any]] = set()


def name_by_definition(stock: Any) -> Any:
    async def list_models(self: Any) -> Any:
        found = await stock(self)
        for settings in found:
            if models.is_for_pyfunc(settings):
                _take_name(settings)
        return found

    return list_models


def accept_folder_names(stock: Any) -> Any:
    def _folder_matches(folder_name: str, model_settings: ModelSettings) -> bool:
        return models.is_for_pyfunc(model_settings) or stock(folder_name, model_settings)

    return _folder_matches


def load_in_turn(stock: Any) -> Any:
    async def load(self: Any, model_settings: ModelSettings) -> Any:
        if models.is_for_pyfunc(model_settings):
            _take_name(model_settings)
        async with _turn(model_settings.name):
            return await stock(self, model_settings)

    return load


def serve_in_turn(stock: Any) -> Any:
    async def turn(self: Any, name: str) -> Any:
        task = asyncio.create_task(_run_in_turn(stock, self, name))
        # The loop itself keeps only weak references to tasks.
        _begun.add(task)
        task.add_done_callback(_begun.discard)
        return await asyncio.shield(task)

    return turn


def begin_again_by_definition(stock: Any) -> Any:
    """Begins a load again that MLServer began before it knew these patches."""

    async def _load_model(self: Any, model: MLModel) -> None:
        if not await _begun_again(self, model):
            await stock(self, model)

    async def _reload_model(self: Any, old_model: MLModel, new_model: MLModel) -> None:
        if not await _begun_again(self, new_model):
            _require_one_folder(old_model, new_model)
            await stock(self, old_model, new_model)

    return {"_load_model": _load_model, "_reload_model": _reload_model}[stock.__name__]


def guard_grpc(stock: Any) -> Any:
    async def f(self: Any, request: Any, context: Any) -> Any:
        kind, _, address = unquote(context.peer()).partition(":")
        host = None if kind == "unix" else address.rpartition(":")[0].strip("[]")
        headers = (key for key, _ in context.invocation_metadata() or ())
        handlers = getattr(self, "_handlers", None) or self._model_repository_handlers
        _require_allowed(handlers, host, headers)
        return await stock(self, request, context)

    return f


@once_for_app
def guard_rest(server: Any) -> None:
    for route in server._app.routes:
        owner = getattr(getattr(route, "endpoint", None), "__self__", None)
        if isinstance(owner, ModelRepositoryEndpoints) and route.name in ("load", "unload"):
            route.app = partial(_guarded, route.app, owner._handlers)


def _take_name(settings: ModelSettings) -> None:
    located, _ = models.read_definition(settings)
    file = Path(settings._source) if settings._source else None
    filled_in = settings.name in ("", file.parent.name if file else "")
    if located is None or not filled_in or given_name(explicit_settings(file)):
        return
    folder = file.parent if file else located.folder
    settings.name = served_name({}, located.definition, folder)


@asynccontextmanager
async def _turn(name: str) -> AsyncIterator[None]:
    turn = _turns.setdefault(name, _Turn())
    if turn.holder is asyncio.current_task():
        yield
        return
    async with turn:
        turn.holder = asyncio.current_task()
        try:
            yield
        finally:
            turn.holder = None


async def _run_in_turn(stock: Any, handlers: Any, name: str) -> Any:
    async with _turn(name):
        return await stock(handlers, name)


async def _begun_again(versions: SingleModelRegistry, model: MLModel) -> bool:
    """Loads a model by the patched `load`, unless that is what runs. Returns whether it did."""
    server = _server_of(versions)
    turn = _turns.get(model.name)
    has_turn = turn is not None and turn.holder is asyncio.current_task()
    if server is None or has_turn or not models.is_pyfunc(model):
        return False
    registry: MultiModelRegistry = server._model_registry
    if registry._models.get(versions._name) is versions and versions.empty():
        del registry._models[versions._name]
    await registry.load(model.settings)
    return True


def _server_of(registry: MultiModelRegistry | SingleModelRegistry) -> Any:
    """Returns MLServer's server, or None. A registry does not know it, but has its methods."""
    owners = [getattr(hook, "__self__", None) for hook in registry._on_model_load]
    return next((owner for owner in owners if hasattr(owner, "_model_registry")), None)


def _require_one_folder(old: MLModel, new: MLModel) -> None:
    theirs, ours = (model.settings._source for model in (old, new))
    if not models.is_pyfunc(old) or not models.is_pyfunc(new) or theirs == ours:
        return
    if not theirs or not ours or not Path(theirs).is_file():
        return
    cause = (
        f"expected one folder for each name and version, got {Path(theirs).parent} and "
        f"{Path(ours).parent}; give each its own model_name or model_version"
    )
    raise MLServerError(str(LoadError(new.name, "definition", cause)), 500)


async def _guarded(
    stock: ASGIApp, handlers: ModelRepositoryHandlers, scope: Scope, receive: Receive, send: Send
) -> None:
    host = (scope.get("client") or (None,))[0]
    _require_allowed(handlers, host, (key.decode("latin-1") for key, _ in scope["headers"]))
    await stock(scope, receive, send)


def _require_allowed(
    handlers: ModelRepositoryHandlers, host: str | None, headers: Iterable[str]
) -> None:
    """Checks that a client may load and unload models. A Unix socket has no `host`."""
    mode = repository_api()
    if mode == "open":
        return
    server = _server_of(handlers._model_registry)
    # Whoever starts a server without models, as Seldon's agent does, loads them all from outside.
    if mode == "loopback" and server and not server._settings.load_models_at_startup:
        return
    # A proxy on this machine passes on requests of others.
    is_forwarded = not set(headers).isdisjoint(_FORWARDED)
    if mode == "loopback" and not is_forwarded and (host is None or _is_loopback(host)):
        return
    shown = "a forwarded request" if is_forwarded else f"one from {host}"
    expected = {
        "loopback": "expected a request from this machine (127.0.0.1 or ::1)",
        "off": "expected no request",
    }.get(mode, "expected open, loopback or off there")
    raise MLServerError(
        f"loading and unloading models is restricted ({REPOSITORY_API}={mode}): {expected}, got "
        f"{shown}; set {REPOSITORY_API}=open to allow it to all who reach the port",
        403,
    )


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
