"""The MLSERVER_PYFUNC_* environment variables, sizes in bytes as people write them, and malloc."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from .errors import DefinitionError, SourceError

CACHE = "MLSERVER_PYFUNC_CACHE"
CACHE_SIZE = "MLSERVER_PYFUNC_CACHE_SIZE"
MAX_SOURCE_SIZE = "MLSERVER_PYFUNC_MAX_SOURCE_SIZE"
MAX_BODY = "MLSERVER_PYFUNC_MAX_BODY"
FETCH_TIMEOUT = "MLSERVER_PYFUNC_FETCH_TIMEOUT"
WRITE_TIMEOUT = "MLSERVER_PYFUNC_WRITE_TIMEOUT"
CONNECTION_AGE = "MLSERVER_PYFUNC_CONNECTION_AGE"
PYTHON_DOWNLOADS = "MLSERVER_PYFUNC_PYTHON_DOWNLOADS"
"""Switch: a Python that this machine lacks may be downloaded."""
CA_BUNDLE = "MLSERVER_PYFUNC_CA_BUNDLE"
"""PEM file of certificate authorities that replaces the default ones."""
ENVIRONMENT = "MLSERVER_PYFUNC_ENVIRONMENT"
INIT_PARAMETERS = "MLSERVER_PYFUNC_INIT_PARAMETERS"
REPOSITORY_API = "MLSERVER_PYFUNC_REPOSITORY_API"
TRITON = "MLSERVER_PYFUNC_TRITON"
"""Switch: the server answers as Triton does where the clients of Triton rely on it."""

ACCESS_LOG = "MLSERVER_PYFUNC_ACCESS_LOG"
"""Form of the line of each request under `mlserver start`: `text` or `json`; none without it."""
LOG = "MLSERVER_PYFUNC_LOG_"
"""Begin of the variables of payload events: URL, and others that are named as KServe names them."""

DEFAULT_MAX_BODY = 268435456
"""256 MiB, for REST and gRPC alike. A much higher limit, such as gRPC's largest of 2 GiB, would let
one client's message take all the memory of a container."""

MALLOC_MMAP_THRESHOLD = 32 << 20
"""glibc reuses freed blocks up to this size. Older glibc refuses more: see `man 3 mallopt`."""
MALLOC_TRIM_THRESHOLD = 128 << 20
"""Amount of free memory from which glibc returns it to the kernel."""

# How uv, git, OpenSSL and the build programs report a certificate that they do not trust.
_UNTRUSTED = (
    "UnknownIssuer|certificate.verify.failed|self.signed certificate|local issuer certificate|"
    "unknown authority"
)


def parse_bytes(text: str) -> int:
    """Parses a size in bytes such as `65536`, `512M` or `1.5 GiB`; K is 1024 bytes.

    Raises ValueError if the text is not a size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(f'expected bytes, for example 512M or 10G, got "{text}"')
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " "))


def _seconds(variable: str, default: str) -> float:
    text = os.environ.get(variable) or default
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < float("inf"):
        raise SourceError(f'{variable}: expected seconds above 0, got "{text}"')
    return seconds


def _size(variable: str, default: str) -> int:
    text = os.environ.get(variable) or default
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise SourceError(f"{variable}: {error}") from None


cache_size = partial(_size, CACHE_SIZE, "10G")
"""Returns the size in bytes above which the cache drops the least recently used entries."""

max_source_size = partial(_size, MAX_SOURCE_SIZE, "4G")
"""Returns the maximum size in bytes of one source, both fetched and unpacked."""

max_body = partial(_size, MAX_BODY, str(DEFAULT_MAX_BODY))
"""Returns the maximum size in bytes of a REST request's body, as it comes and inflated."""

fetch_timeout = partial(_seconds, FETCH_TIMEOUT, "600")
"""Returns the time limit of one fetch in seconds."""

write_timeout = partial(_seconds, WRITE_TIMEOUT, "30")
"""Returns how long in seconds a client may not read before its connection is closed."""

connection_age = partial(_seconds, CONNECTION_AGE, "30")
"""Returns the age in seconds at which a connection is ended after its calls."""


def log_setting(name: str, default: str = "") -> str:
    """Returns a setting of payload events, such as URL."""
    return os.environ.get(f"{LOG}{name}") or default


def cache_folder() -> Path:
    """Returns the folder of fetched sources and environments."""
    folder = os.environ.get(CACHE)
    if folder:
        return Path(folder).absolute()
    from platformdirs import user_cache_path

    return user_cache_path("mlserver-pyfunc", appauthor=False)


def repository_api() -> str:
    """Returns who may load and unload models: `open` for all, `loopback`, or `off` for nobody."""
    return os.environ.get(REPOSITORY_API, "").lower() or "open"


def is_enabled(variable: str) -> bool:
    """Returns whether a feature that is on by default is left on by its variable."""
    return os.environ.get(variable, "1").lower() not in ("0", "false", "off", "no")


def is_switched_on(variable: str) -> bool:
    """Returns whether a feature that is off by default is switched on by its variable."""
    return os.environ.get(variable, "").lower() in ("1", "true", "yes", "on")


def chosen_malloc(environment: Mapping[str, str]) -> str:
    """Returns the variable by which somebody has tuned malloc; empty if nobody has."""
    if "glibc.malloc." in environment.get("GLIBC_TUNABLES", ""):
        return "GLIBC_TUNABLES"
    return next((name for name in environment if name.startswith("MALLOC_")), "")


def ca_file(own: str = "") -> str | None:
    """Returns the PEM file of certificate authorities for a client; None for its default ones.

    The client's `own` variable goes before SSL_CERT_FILE. Raises SourceError without such a file.
    """
    for variable in (CA_BUNDLE, own, "SSL_CERT_FILE"):
        path = os.environ.get(variable)
        if path and not os.path.isfile(path):
            raise SourceError(f'{variable}: no such file: "{path}"')
        if path:
            return path
    return None


def trust_hint(text: str) -> str:
    """Returns the next step if a program's output reports an untrusted certificate, else ""."""
    if not re.search(_UNTRUSTED, text, re.IGNORECASE):
        return ""
    return (
        "where a proxy inspects TLS, give the PEM file of its authorities in "
        f"{CA_BUNDLE}, or to build by --ca-bundle"
    )


def init_parameters() -> dict[str, Any]:
    """Returns the init parameters of this run, which go before those of definitions.

    Raises DefinitionError if the variable is not a JSON object.
    """
    text = os.environ.get(INIT_PARAMETERS) or "{}"
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DefinitionError(f"{INIT_PARAMETERS}: not JSON: {error}") from None
    if not isinstance(found, dict):
        raise DefinitionError(f"{INIT_PARAMETERS}: expected a JSON object, got {text[:80]}")
    return found


def shipped_environment() -> Path | None:
    """Returns the folder of the environment that an image contains, if any."""
    folder = os.environ.get(ENVIRONMENT)
    return Path(folder) if folder else None
