"""Serves functions by KServe's ModelServer: `python -m mlserver_pyfunc.hosts.kserve FOLDER`."""

from __future__ import annotations

import argparse
import logging
import math
import multiprocessing
import os
import socket
from pathlib import Path
from typing import Any, NoReturn

from kserve import model_server

from mlserver_pyfunc.errors import PyFuncError
from mlserver_pyfunc.hosts.common.tuning import KEEP_ALIVE
from mlserver_pyfunc.serving.runner import logger

from . import grpc_calls
from .models import FunctionModel, Functions

MOUNTED = "/mnt/models"


class Server(model_server.ModelServer):
    """KServe's ModelServer. It listens while the functions are loaded, and ends if one fails."""

    def __init__(self, functions: Functions, keep_alive: int = KEEP_ALIVE) -> None:
        models = [functions.get_model(name) for name in functions.models]
        longest = max(30, *(model.function.definition.serving.timeout for model in models))
        super().__init__(registered_models=functions, grace_period=math.ceil(longest))
        self.servers.append(self._load())
        self._functions, self._keep_alive = functions, keep_alive
        grpc_calls.install(functions)

    def stop(self, sig: int) -> None:
        super().stop(sig)
        self._functions.end.set()

    async def _load(self) -> None:
        # With --workers, the processes get a copy of it when they start.
        rest: Any = self._rest_server or self._rest_multiprocess_server
        getattr(rest, "_rest_server", rest).config.timeout_keep_alive = self._keep_alive
        try:
            async with self._functions.loaded(None):
                await self._functions.end.wait()
        except PyFuncError as error:
            _end(error)


def main() -> None:
    # KServe reads its own flags when it is imported. What it does not know ends the start here.
    parser = argparse.ArgumentParser(
        "python -m mlserver_pyfunc.hosts.kserve", parents=[model_server.parser]
    )
    about = f"the folder of a function; {MOUNTED} by default"
    parser.add_argument("folders", nargs="*", default=[MOUNTED], metavar="FOLDER", help=about)
    parser.set_defaults(model_name=None, timeout_keep_alive=KEEP_ALIVE)
    given = parser.parse_args()
    logger.parent = logging.getLogger("kserve")
    try:
        for port in (given.http_port, given.grpc_port)[: 1 + given.enable_grpc]:
            _require_free(port)
        name = given.model_name if len(given.folders) == 1 else None
        models = [FunctionModel(Path(folder), name) for folder in given.folders]
        Server(Functions(models), given.timeout_keep_alive).start([])
    except PyFuncError as error:
        _end(error)


def _require_free(port: int) -> None:
    # If it is taken, uvicorn's exit waits for gRPC, and gRPC takes a part of the other's calls.
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        text = f"port {port}: {error.strerror}: choose another by --http_port or --grpc_port"
        raise PyFuncError(text) from None


def _end(error: PyFuncError) -> NoReturn:
    logger.error("%s", error)
    for process in multiprocessing.active_children():
        process.terminate()
    logging.shutdown()
    # At Python's own exit, gRPC waits for ever for a server that was not stopped.
    os._exit(1)


if __name__ == "__main__":
    main()
