"""How models get their names, and how they are loaded and unloaded: one at a time for each name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from mlserver import MLModel
from mlserver.errors import MLServerError
from mlserver.registry import MultiModelRegistry, SingleModelRegistry
from mlserver.settings import ModelSettings

from mlserver_pyfunc.definition.model_settings import explicit_settings, given_name, served_name
from mlserver_pyfunc.errors import LoadError

from . import models


class _Turn(asyncio.Lock):
    """The right to load or unload the models of one name.

    Attributes:
        holder: Task that has it.
    """

    holder: asyncio.Task[Any] | None = None


_turns: WeakValueDictionary[str, _Turn] = WeakValueDictionary()
_begun: set[asyncio.Task[Any]] = set()


def name_by_definition(stock: Any) -> Any:
    """Lists the models of this runtime under the names and versions of their definitions.

    Without it, a model whose model-settings.json has no name is served under the folder's name,
    whatever its definition says, and the index does not show versions of definitions.
    """

    async def list_models(self: Any) -> Any:
        found = await stock(self)
        for settings in found:
            if models.is_for_pyfunc(settings):
                _take_name(settings)
        return found

    return list_models


def accept_folder_names(stock: Any) -> Any:
    """Takes any name of a model of this runtime for its folder's.

    Without it, each look at the repository logs a warning for each model that is not named after
    its folder.
    """

    def _folder_matches(folder_name: str, model_settings: ModelSettings) -> bool:
        return models.is_for_pyfunc(model_settings) or stock(folder_name, model_settings)

    return _folder_matches


def load_in_turn(stock: Any) -> Any:
    """Loads the models of one name one after the other, those of this runtime by their definition.

    Without it, loads of one name at the same time leave all but one of their models running
    without a way to reach them, and a second version that only function.yaml names replaces the
    first one.
    """

    async def load(self: Any, model_settings: ModelSettings) -> Any:
        if models.is_for_pyfunc(model_settings):
            _take_name(model_settings)
        async with _turn(model_settings.name):
            return await stock(self, model_settings)

    return load


def serve_in_turn(stock: Any) -> Any:
    """Answers load and unload requests for one name one after the other, each to its end.

    Without it, an unload during a load leaves the workers of a model that nobody can reach, and a
    client that leaves breaks its load off.
    """

    async def turn(self: Any, name: str) -> Any:
        task = asyncio.create_task(_run_in_turn(stock, self, name))
        # The loop itself keeps only weak references to tasks.
        _begun.add(task)
        task.add_done_callback(_begun.discard)
        return await asyncio.shield(task)

    return turn


def begin_again_by_definition(stock: Any) -> Any:
    """Begins a load again that MLServer began before it knew these patches.

    Without it, the models that are loaded at start are named after their folders.

    Problem: at start MLServer lists the models and begins to load each under its name, before it
    imports a runtime and so applies these patches. A load of a model of this runtime comes here
    next. If it has no turn, it began so, and `load_in_turn` is to do it.
    """

    async def _load_model(self: Any, model: MLModel) -> None:
        if not await _begun_again(self, model):
            await stock(self, model)

    async def _reload_model(self: Any, old_model: MLModel, new_model: MLModel) -> None:
        if not await _begun_again(self, new_model):
            _require_one_folder(old_model, new_model)
            await stock(self, old_model, new_model)

    return {"_load_model": _load_model, "_reload_model": _reload_model}[stock.__name__]


def _take_name(settings: ModelSettings) -> None:
    """Names a model by its definition, unless its settings or the environment do."""
    located, _ = models.read_definition(settings)
    file = Path(settings._source) if settings._source else None
    filled_in = settings.name in ("", file.parent.name if file else "")
    if located is None or not filled_in or given_name(explicit_settings(file)):
        return
    folder = file.parent if file else located.folder
    settings.name = served_name({}, located.definition, folder)


@asynccontextmanager
async def _turn(name: str) -> AsyncIterator[None]:
    """Waits for the turn of a name. A task that has it goes on."""
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
    registry = _registry_of(versions)
    turn = _turns.get(model.name)
    has_turn = turn is not None and turn.holder is asyncio.current_task()
    if registry is None or has_turn or not models.is_pyfunc(model):
        return False
    if registry._models.get(versions._name) is versions and versions.empty():
        del registry._models[versions._name]
    await registry.load(model.settings)
    return True


def _registry_of(versions: SingleModelRegistry) -> MultiModelRegistry | None:
    """Returns the registry of all models that one of its parts belongs to.

    The part does not know it. But the server's method that adds routes is among its hooks.
    """
    for hook in versions._on_model_load:
        server = getattr(hook, "__self__", None)
        if isinstance(registry := getattr(server, "_model_registry", None), MultiModelRegistry):
            return registry
    return None


def _require_one_folder(old: MLModel, new: MLModel) -> None:
    """Checks that a model does not take the place of one from another folder.

    Raises:
        MLServerError: It would.
    """
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
