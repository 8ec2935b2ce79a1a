"""Runs a function's image instead of its source, which `serve` does if there is an image."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

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


def run(runnable: Runnable, ports: Mapping[int, int], host: str) -> int:
    """Runs an image in the foreground until it ends, or a signal ends it; returns its exit code.

    `ports` has the ports of the host by port of the container, published on the address `host`.
    """
    process = subprocess.Popen(runnable.engine.run_command(runnable.reference, ports, host))
    previous = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        while True:
            # The terminal sends an interrupt to the engine too, which stops the container.
            with suppress(KeyboardInterrupt):
                return process.wait()
    finally:
        signal.signal(signal.SIGTERM, previous)
