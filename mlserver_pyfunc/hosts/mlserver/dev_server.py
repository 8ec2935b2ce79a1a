"""Runs MLServer in this process: with lean settings, reload on change, and its failure."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import uvicorn.config
import uvloop
from mlserver import MLServer, Settings
from mlserver.errors import MLServerError
from mlserver.repository.factory import ModelRepositoryFactory
from mlserver.settings import ModelSettings
from pydantic import ValidationError

from mlserver_pyfunc.definition.locate import environment_model, split_function
from mlserver_pyfunc.definition.model_settings import (
    SERVER_SETTINGS,
    read_settings,
    settings_problems,
)
from mlserver_pyfunc.deployment.server_settings import LEAN, REPOSITORY_API_VARIABLES
from mlserver_pyfunc.errors import PyFuncError
from mlserver_pyfunc.handler.shadowing import pin_package
from mlserver_pyfunc.settings import is_enabled
from mlserver_pyfunc.sources.tree import LOCK_NAME

from . import access_log, models, patches
from .pages import SWITCH


class _Server(MLServer):
    """Reports each call, stops by one signal, and keeps why it stopped by itself."""

    failure: BaseException | None = None

    def __init__(self, settings: Settings, write: Callable[..., None]) -> None:
        self._write = write
        self._starting: asyncio.Task[None] | None = None
        self._names: Sequence[str] = ()
        self._is_stopping = False
        super().__init__(settings)

    async def run(self, listed: Sequence[ModelSettings], changed: asyncio.Queue[str]) -> None:
        self._names = sorted({model.name for model in listed})
        self._write("loading", f"loading {', '.join(self._names)}", models=self._names)
        self._starting = asyncio.create_task(self.start(list(listed)))
        beside = asyncio.create_task(self._attend(changed))
        with suppress(asyncio.CancelledError):
            await self._starting
        beside.cancel()

    async def _attend(self, changed: asyncio.Queue[str]) -> None:
        started = time.perf_counter()
        # Neither MLServer nor uvicorn has an event to wait for.
        while not self._has_loaded():
            await asyncio.sleep(0.05)
        found = list(await self._model_registry.get_models())
        seconds = round(time.perf_counter() - started, 3)
        contracts = {f"{m.name} {m.version or ''}".rstrip(): _contract(m) for m in found}
        links = _links(self._settings, self._names)
        lines = [f"serving after {seconds:.1f} s, Ctrl-C stops"]
        lines += [f"  {name}: {text}" for name, text in sorted(contracts.items())]
        lines += [f"  {name:10}  {link}" for name, link in links.items()]
        self._write("ready", "\n".join(lines), models=contracts, urls=links, seconds=seconds)
        while True:
            files = await changed.get()
            for name in self._names:
                await self._reload(name, files)

    def _has_loaded(self) -> bool:
        try:
            found = [models.find(self._model_registry, name) for name in self._names]
        except MLServerError:
            return False
        rest = getattr(self._rest_server, "_server", None)
        return rest is not None and rest.started and all(model.ready for model in found)

    async def _reload(self, name: str, files: str) -> None:
        started = time.perf_counter()
        try:
            await self._model_repository_handlers.load(name)
        except MLServerError as error:
            self._write("note", f"{error}; the code from before goes on serving")
        else:
            took = time.perf_counter() - started
            self._write("note", f"{files} changed, {name} reloaded in {took:.2f} s")

    async def stop(self, sig: int | None = None) -> None:
        """Stops the server. MLServer gives no signal if a model has failed to load."""
        if sig is None:
            self.failure = sys.exc_info()[1] or PyFuncError("a function failed to load")
        await super().stop(sig or signal.SIGTERM)

    def _add_signal_handlers(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
            loop.add_signal_handler(number, self._on_signal, number)

    def _on_signal(self, number: int) -> None:
        if self._is_stopping:
            # The guardian of each worker ends the worker.
            os._exit(128 + number)
        self._is_stopping = True
        if not self._has_loaded():
            self._write("note", "stopped while loading")
            self._last = asyncio.create_task(self._abandon(number))
            return
        count = access_log.log.in_flight if access_log.log else 0
        waits = f"stopping after {count} in flight, Ctrl-C stops at once"
        self._write("note", waits if count else "stopped")
        self._last = asyncio.create_task(self.stop(number))

    async def _abandon(self, number: int) -> None:
        """Ends the process while a model loads, without waiting for threads that load it."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting}, timeout=1)
        os._exit(128 + number)


def run(*args: Any, **options: Any) -> BaseException | None:
    return uvloop.run(serve(*args, **options))


async def serve(
    folder: Path, asked: Mapping[str, Any], write: Callable[..., None], *, reload: bool
) -> BaseException | None:
    """Serves a folder until a signal ends it.

    `asked` has settings of MLServer that win over all others. Returns the error if a function
    cannot be loaded, and None after a signal. Raises PyFuncError if there is nothing to serve.
    """
    pin_package()
    os.environ.update(environment_model(folder))
    os.environ.update({**REPOSITORY_API_VARIABLES, **os.environ})
    settings = _settings(folder, asked)
    # Before the models are listed: they get their names from their definitions.
    access_log.log = access_log.AccessLog(write)
    patches.install()
    listed = await ModelRepositoryFactory.resolve_model_repository(settings).list()
    if not listed:
        return PyFuncError(f"{folder}: no model-settings.json below could be read")
    # uvicorn sets up loggers of its own for each of its servers.
    uvicorn.config.LOGGING_CONFIG["loggers"].clear()

    changed: asyncio.Queue[str] = asyncio.Queue()
    if reload:
        # Before the code is read, so that no edit between reading and watching is missed.
        watch = asyncio.create_task(_watch(_base(folder), changed))
        await asyncio.sleep(0)
    server = _Server(settings, write)
    await server.run(listed, changed)
    if reload:
        watch.cancel()
    return server.failure


def _base(path: Path) -> Path:
    file, function = split_function(path)
    return file if function is None else file.parent


def _settings(folder: Path, asked: Mapping[str, Any]) -> Settings:
    file = _base(folder) / SERVER_SETTINGS
    given = read_settings(file) if file.is_file() else {}
    chosen = {*given, *(name.removeprefix("MLSERVER_").lower() for name in os.environ)}
    lean = {name: value for name, value in LEAN.items() if name not in chosen}
    root = str(folder.resolve())
    try:
        return Settings(**{**lean, **given, **asked, "model_repository_root": root})
    except ValidationError as error:
        where = f"{file} or MLSERVER_ variables" if given else "MLSERVER_ variables"
        raise PyFuncError(f"{where}: {settings_problems(error)}") from None


def _links(settings: Settings, names: Sequence[str]) -> dict[str, str]:
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    host = f"http://[{host}]" if ":" in host else f"http://{host}"
    url = f"{host}:{settings.http_port}"
    model = f"/models/{quote(names[0], safe='')}" if len(names) == 1 else ""
    links = {"playground": f"{url}/v2{model}/playground"} if is_enabled(SWITCH) else {}
    links |= {"docs": f"{url}/v2{model}/docs", "REST": f"{url}/v2{model}/infer" if model else url}
    links |= {"gRPC": f"{host.removeprefix('http://')}:{settings.grpc_port}"}
    if settings.metrics_endpoint:
        links["metrics"] = f"{host}:{settings.metrics_port}{settings.metrics_endpoint}"
    return links


def _contract(model: Any) -> str:
    definition = model.definition if models.is_pyfunc(model) else None
    if definition is None:
        return str(model.settings.implementation_)
    sides = [
        ", ".join(f"{tensor.name} {tensor.datatype} {tensor.shape_text}" for tensor in tensors)
        for tensors in (definition.inputs, definition.outputs)
    ]
    return " -> ".join(side or "nothing" for side in sides)


async def _watch(folder: Path, changed: asyncio.Queue[str]) -> None:
    from watchfiles import awatch

    async for changes in awatch(folder, debounce=200, step=50):
        names = {Path(path).name for _, path in changes} - {f".{LOCK_NAME}.new"}
        if names:
            changed.put_nowait(", ".join(sorted(names)))
