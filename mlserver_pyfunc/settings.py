"""The MLSERVER_PYFUNC_* variables, and amounts of bytes as people write them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from .errors import SourceError

CACHE = "MLSERVER_PYFUNC_CACHE"
CACHE_SIZE = "MLSERVER_PYFUNC_CACHE_SIZE"
MAX_SOURCE_SIZE = "MLSERVER_PYFUNC_MAX_SOURCE_SIZE"
FETCH_TIMEOUT = "MLSERVER_PYFUNC_FETCH_TIMEOUT"
PYTHON_DOWNLOADS = "MLSERVER_PYFUNC_PYTHON_DOWNLOADS"
CA_BUNDLE = "MLSERVER_PYFUNC_CA_BUNDLE"
ENVIRONMENT = "MLSERVER_PYFUNC_ENVIRONMENT"

_UNTRUSTED = (
    "UnknownIssuer|certificate.verify.failed|self.signed certificate|local issuer certificate|"
    "unknown authority"
)


def in_bytes(text: str) -> int:
    """Reads bytes, `512M` or `1.5 GiB`; each unit is 1024 of the one below.

    Raises:
        ValueError: The text is no such amount.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", text.strip(), re.IGNORECASE)
    if match is None:
        raise ValueError(f'expected bytes, for example 512M or 10G, got "{text}"')
    return int(float(match[1]) * 1024 ** " kmgt".index(match[2].lower() or " "))


def cache_folder() -> Path:
    """Where fetched sources are kept."""
    folder = os.environ.get(CACHE)
    if folder:
        return Path(folder).absolute()
    from platformdirs import user_cache_path

    return user_cache_path("mlserver-pyfunc", appauthor=False)


def cache_size() -> int:
    """Bytes beyond which the cache drops what was not used for longest."""
    return _size(CACHE_SIZE, "10G")


def max_source_size() -> int:
    """Bytes that one source may have, fetched or unpacked."""
    return _size(MAX_SOURCE_SIZE, "4G")


def fetch_timeout() -> float:
    """Seconds that one fetch may take."""
    text = os.environ.get(FETCH_TIMEOUT) or "600"
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < float("inf"):
        raise SourceError(f'{FETCH_TIMEOUT}: expected seconds above 0, got "{text}"')
    return seconds


def python_downloads() -> bool:
    """Whether a Python that this machine has not may be downloaded."""
    return os.environ.get(PYTHON_DOWNLOADS, "").lower() in ("1", "true", "yes", "on")


def is_on(variable: str) -> bool:
    """Whether a variable leaves on what is on without it."""
    return os.environ.get(variable, "1").lower() not in ("0", "false", "off", "no")


def ca_bundle() -> str | None:
    """A PEM file of authorities to trust in the place of the usual ones."""
    return os.environ.get(CA_BUNDLE) or None


def authorities(own: str = "") -> str | None:
    """The PEM file of authorities that a client is to trust; None for its usual ones.

    Args:
        own: The client's own variable for it, which goes before SSL_CERT_FILE.

    Raises:
        SourceError: There is no such file.
    """
    for variable in (CA_BUNDLE, own, "SSL_CERT_FILE"):
        path = os.environ.get(variable)
        if path and not os.path.isfile(path):
            raise SourceError(f'{variable}: no such file: "{path}"')
        if path:
            return path
    return None


def trust_hint(text: str) -> str:
    """What to do next where a program's words tell of an authority that it does not trust."""
    if not re.search(_UNTRUSTED, text, re.IGNORECASE):
        return ""
    return (
        "where a proxy inspects TLS, give the PEM file of its authorities in "
        f"{CA_BUNDLE}, or to build by --ca-bundle"
    )


def ready_environment() -> Path | None:
    """An environment that an image brings along."""
    folder = os.environ.get(ENVIRONMENT)
    return Path(folder) if folder else None


def _size(variable: str, default: str) -> int:
    text = os.environ.get(variable) or default
    try:
        return in_bytes(text)
    except ValueError as error:
        raise SourceError(f"{variable}: {error}") from None
