"""Runs a function's image instead of its source, which `serve` does if there is an image."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from mlserver_pyfunc.client.rest import RestClient
from mlserver_pyfunc.definition.folder import open_folder
from mlserver_pyfunc.errors import DefinitionError

from . import engines, record


@dataclass(frozen=True)
class Runnable:
    """An image, and the engine that has it."""

    engine: engines.Engine
    reference: str
    model_name: str


def find(folder: Path, tell: Callable[[str], None]) -> Runnable | None:
    """Finds the image to run for a folder; None if the source is to be served.

    `tell` is called with a line that says why an existing image cannot be used.
    """
    try:
        opened = open_folder(folder)
    except DefinitionError:
        # A folder of several functions, or a broken definition: the server reports which.
        return None
    found = record.recorded(opened.definition, opened.located.folder)
    if found is None:
        return None
    if found.why:
        tell(
            f"image {found.reference} is stale ({found.why}): serving from source; "
            "mlserver-pyfunc build renews it"
        )
        return None
    for reference in filter(None, (found.id, found.reference)):
        engine = engines.holder(reference)
        if engine:
            return Runnable(engine, reference, opened.model_name)
    tell(f"image {found.reference} is not on this machine: serving from source")
    return None


def run(
    runnable: Runnable,
    ports: Mapping[int, int],
    host: str,
    url: str,
    when_ready: Callable[[], None],
) -> int:
    """Runs an image in the foreground until it ends, or a signal ends it; returns its exit code.

    `ports` has the ports of the host by port of the container, published on the address `host`.
    `when_ready` is called as soon as the function can be called, at `url`.
    """
    command = runnable.engine.run_command(runnable.reference, ports, host)
    process = subprocess.Popen(command)
    ended = threading.Event()
    waiting = threading.Thread(target=_await_ready, args=(url, ended, when_ready))
    previous = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    waiting.start()
    try:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                # The terminal sends the interrupt to the engine too, which stops the container.
                continue
    finally:
        signal.signal(signal.SIGTERM, previous)
        ended.set()
        waiting.join()


def _await_ready(url: str, ended: threading.Event, when_ready: Callable[[], None]) -> None:
    with closing(RestClient(url, timeout=5)) as client:
        while not ended.wait(0.2):
            if client.ready_models():
                when_ready()
                return
