"""Runs a function's image instead of its source, which `serve` does if there is an image."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from mlserver_pyfunc.definition.folder import open_folder
from mlserver_pyfunc.deployment.server_settings import PORTS, Ports
from mlserver_pyfunc.errors import DefinitionError

from . import engines, record


def serve(folder: Path, host: str, ports: Ports, tell: Callable[[str], object]) -> int | None:
    """Runs the image of a folder in the foreground, and publishes its ports.

    `tell` is called with lines that say what runs, or why an existing image does not.

    Returns:
        The exit code of the image; None if the source is to be served.
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
        if engine := engines.holder(reference):
            url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{ports.http}"
            tell(f"running image {reference} by {engine.name}")
            tell(f"when it is ready, try {url}/v2/models/{opened.model_name}/playground")
            published = dict(zip(vars(PORTS).values(), vars(ports).values(), strict=True))
            return _run(engine.run_command(reference, published, host))
    tell(f"image {found.reference} is not on this machine: serving from source")
    return None


def _run(command: Sequence[str]) -> int:
    """Runs a command until it ends, or a signal ends it."""
    process = subprocess.Popen(command)
    previous = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        while True:
            # The terminal sends an interrupt to the engine too, which stops the container.
            with suppress(KeyboardInterrupt):
                return process.wait()
    finally:
        signal.signal(signal.SIGTERM, previous)
