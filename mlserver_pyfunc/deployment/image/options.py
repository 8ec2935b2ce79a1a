"""How to build an image: the options of `mlserver-pyfunc build`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlserver_pyfunc.deployment.names import BuildError

from .requirements import DEFAULT_PYTHON


def _epoch() -> int | None:
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    if not text.isdigit():
        raise BuildError(f'SOURCE_DATE_EPOCH: expected seconds since 1970, got "{text}"')
    return int(text)


@dataclass(frozen=True)
class Options:
    """How to build an image."""

    engine: str | None = None  # None: the first that answers
    platforms: str | None = None  # "linux/amd64,linux/arm64"; None: the platform of the engine
    push: bool = False
    no_cache: bool = False
    arguments: Sequence[str] = ()  # "NAME=VALUE", or "NAME" for a variable of this process
    secrets: Sequence[str] = ()  # "id=NAME,src=FILE"
    ca_bundle: Path | None = None  # PEM file of authorities that the programs of the build trust
    server_image: str = f"python:{DEFAULT_PYTHON}-slim"
    """Gives the server's Python, if MLServer cannot run on the function's."""
    extra: Sequence[str] = ()  # further options of the engine
    mounts: bool = True  # whether the Dockerfile may have secret and cache mounts
    epoch: int | None = field(default_factory=_epoch)  # the time of every file in the image
