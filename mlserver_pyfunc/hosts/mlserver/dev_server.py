"""Runs MLServer in this process: with lean settings, reload on change, and its failure."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import webbrowser
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

from mlserver import MLServer, Settings
from mlserver.repository.factory import ModelRepositoryFactory
from mlserver.settings import ModelSettings
from pydantic import ValidationError

from mlserver_pyfunc.client import CallError
from mlserver_pyfunc.client.rest import RestClient
from mlserver_pyfunc.definition.folder import environment_model
from mlserver_pyfunc.definition.locate import split_function
from mlserver_pyfunc.definition.model_settings import SERVER_SETTINGS, read_settings, worded
from mlserver_pyfunc.deployment.server_settings import LEAN, REPOSITORY_API_VARIABLES
from mlserver_pyfunc.errors import PyFuncError
from mlserver_pyfunc.handler.shadowing import pin_package

from . import patches

logger = logging.getLogger("mlserver.pyfunc")


@dataclass(frozen=True)
class Options:
    """The options of the command `serve`."""

    folder: Path
    host: str
    http_port: int
    grpc_port: int
    metrics_port: int
    reload: bool = False
    open_browser: bool = False

    @property
    def watched(self) -> Path:
        """The folder, or that of the function."""
        path, function = split_function(self.folder)
        return path.parent if function else path

    @property
    def url(self) -> str:
        """Address of REST on this machine."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        return f"http://{host}:{self.http_port}"


class _Server(MLServer):
    """Keeps why it stopped. MLServer stops by itself only if a model does not load."""

    failure: BaseException | None = None

    async def stop(self, sig: int | None = None) -> None:
        """Stops the server. MLServer gives no signal if a model has failed to load."""
        if sig is None:
            self.failure = sys.exc_info()[1] or PyFuncError("a function failed to load")
        await super().stop(sig)


def run(options: Options) -> BaseException | None:
    """Does `serve` on a loop of uvloop, as `mlserver start` does."""
    try:
        import uvloop
    except ImportError:
        return asyncio.run(serve(options))
    return uvloop.run(serve(options))


async def serve(options: Options) -> BaseException | None:
    """Serves a folder until a signal ends it.

    Returns the error if a function cannot be loaded, and None after a signal. Raises PyFuncError if
    the folder has neither model-settings.json nor a definition, or the server's settings are wrong.
    """
    pin_package()
    os.environ.update(environment_model(options.folder))
    os.environ.update({**REPOSITORY_API_VARIABLES, **os.environ})
    settings = _settings(options)
    # Before the models are listed: they get their names from their definitions.
    patches.install()
    models = await ModelRepositoryFactory.resolve_model_repository(settings).list()
    if not models:
        return PyFuncError(f"{options.folder}: no model-settings.json below could be read")
    changed: asyncio.Queue[str] = asyncio.Queue()
    beside = [asyncio.create_task(_when_ready(options, models, changed))]
    if options.reload:
        # Before the code is read, so that no edit between reading and watching is missed.
        beside.append(asyncio.create_task(_watch(options.watched, changed)))
        await asyncio.sleep(0)
    server = _Server(settings)
    try:
        await server.start(models)
    finally:
        for task in beside:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    return server.failure


def _settings(options: Options) -> Settings:
    file = options.watched / SERVER_SETTINGS
    given = read_settings(file) if file.is_file() else {}
    chosen = {*given, *(name.removeprefix("MLSERVER_").lower() for name in os.environ)}
    lean = {name: value for name, value in LEAN.items() if name not in chosen}
    names = ("host", "http_port", "grpc_port", "metrics_port")
    asked = {name: getattr(options, name) for name in names}
    asked["model_repository_root"] = str(options.folder.resolve())
    try:
        return Settings(**{**lean, **given, **asked})
    except ValidationError as error:
        where = f"{file} or MLSERVER_ variables" if given else "MLSERVER_ variables"
        raise PyFuncError(f"{where}: {worded(error)}") from None


async def _when_ready(
    options: Options, models: list[ModelSettings], changed: asyncio.Queue[str]
) -> None:
    names = sorted({model.name for model in models})
    while not await asyncio.to_thread(_are_ready, options.url, names):
        await asyncio.sleep(0.1)
    page = f"{options.url}/v2/models/{names[0]}/playground"
    if len(names) > 1:
        page = f"{options.url}/v2/playground"
    logger.info("serving %s, try %s", ", ".join(names), page)
    if options.open_browser:
        webbrowser.open(page)
    while True:
        logger.info("%s changed, reloading", await changed.get())
        for name in names:
            await asyncio.to_thread(_reload, options.url, name)


def _are_ready(url: str, names: list[str]) -> bool:
    with suppress(CallError), closing(RestClient(url, timeout=5)) as client:
        ready = {model["name"] for model in client.models() if model["state"] == "READY"}
        return ready.issuperset(names)
    return False


async def _watch(folder: Path, changed: asyncio.Queue[str]) -> None:
    from watchfiles import awatch

    async for changes in awatch(folder, debounce=200, step=50):
        changed.put_nowait(", ".join(sorted({Path(path).name for _, path in changes})))


def _reload(url: str, name: str) -> None:
    """Reloads a model by the server's repository API, which loses no request in flight."""
    with closing(RestClient(url, timeout=600)) as client:
        try:
            client.load(name)
        except CallError as error:
            logger.error("%s; the code from before goes on serving", error)
