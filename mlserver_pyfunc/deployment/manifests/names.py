"""Checks names and sizes by the rules of Kubernetes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from mlserver_pyfunc.deployment.names import BuildError, checked_base, is_variable
from mlserver_pyfunc.errors import PyFuncError

MAX_LABEL = 63
MAX_ENV_BYTES = 128 * 1024
"""Linux's limit for one variable, with its name and the byte that ends it."""
MAX_CONFIG_MAP_BYTES = 1024 * 1024

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(\.{_LABEL.pattern})*")
_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_QUANTITY = re.compile(r"(\d+(\.\d*)?|\.\d+)(([KMGTPE]i)|[numkMGTPE]|[eE][+-]?\d+)?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")

_SECRET_NAME = re.compile(
    r"passw(or)?d|(^|[_-])(secrets?|tokens?|credentials?|api_?key|access_?key|private_?key)($|[_-])",
    re.IGNORECASE,
)
# Names with such a word whose values are not secret.
_NOT_SECRET = re.compile(r"(^|_)(max|min|num|n)_|_(file|path|url|id)$", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"://[^/\s@]*:[^/\s@]+@")


class ManifestError(PyFuncError):
    """No manifest can be made from the function and the options."""


def label(value: str, limit: int = MAX_LABEL) -> str:
    """Returns a name that can be part of host names: a DNS label that starts with a letter.

    Raises:
        ValueError: The name is not valid.
    """
    if len(value) > limit or not _LABEL.fullmatch(value) or not value[0].isalpha():
        raise ValueError(
            f'expected a DNS label (a-z, 0-9 and "-", from a letter on, at most {limit} '
            f'characters), got "{value}"'
        )
    return value


def derived_label(name: str, limit: int = MAX_LABEL) -> str:
    """Returns a DNS label for any name, equal for equal names and different for different ones."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if plain == name and len(name) <= limit and name[0].isalpha():
        return name
    # A digest keeps the names apart that give one text, such as `a_b` and `a.b`.
    digest = hashlib.sha256(name.encode()).hexdigest()[:6]
    kept = plain if plain[:1].isalpha() else f"m-{plain}".strip("-")
    return f"{kept[: limit - 7].rstrip('-')}-{digest}"


def subdomain(value: str) -> str:
    """Returns the name of a secret, a claim or a config map, if it is valid.

    Raises:
        ValueError: It is not valid.
    """
    if len(value) > 253 or not _SUBDOMAIN.fullmatch(value):
        raise ValueError(f'expected a Kubernetes name (a-z, 0-9, "-" and "."), got "{value}"')
    return value


def key(value: str) -> str:
    """Returns a key of a secret or a config map, if it is valid.

    Raises:
        ValueError: It is not valid.
    """
    if len(value) > 253 or not _KEY.fullmatch(value) or value in (".", ".."):
        raise ValueError(f'expected a key (letters, digits, "-", "_" and "."), got "{value}"')
    return value


def env_name(value: str) -> str:
    """Returns the name of an environment variable, if it is valid.

    Raises:
        ValueError: It is not valid.
    """
    if not is_variable(value):
        raise ValueError(f'expected the name of a variable, got "{value}"')
    return value


def quantity(value: str) -> str:
    """Returns an amount in Kubernetes' notation, if it is valid.

    Raises:
        ValueError: It is not valid.
    """
    if not _QUANTITY.fullmatch(value):
        raise ValueError(f'expected an amount, for example 500m, 2 or 1Gi, got "{value}"')
    return value


def label_value(value: str) -> str:
    """Returns the value of a label or a node selector, if it is valid.

    Raises:
        ValueError: It is not valid.
    """
    if len(value) > MAX_LABEL or not _LABEL_VALUE.fullmatch(value):
        raise ValueError(f'expected the value of a label, got "{value}"')
    return value


def label_key(value: str) -> str:
    """Returns the key of a label, an annotation or a node selector, if it is valid.

    Raises:
        ValueError: It is not valid.
    """
    prefix, slash, name = value.rpartition("/")
    is_prefix = not slash or (len(prefix) <= 253 and _SUBDOMAIN.fullmatch(prefix))
    if not is_prefix or not name or len(name) > MAX_LABEL or not _LABEL_VALUE.fullmatch(name):
        raise ValueError(f'expected the key of a label, for example team or a.org/b, got "{value}"')
    return value


def image(value: str) -> str:
    """Returns the name of an image, with a tag, a digest or both, if it is valid.

    Raises:
        ValueError: It is not valid.
    """
    try:
        return checked_base(value)
    except BuildError:
        raise ValueError(f'expected registry/name:tag or name@digest, got "{value}"') from None


def bytes_of(value: str) -> float:
    """Returns an amount of memory in bytes; 0 if Kubernetes could not read it."""
    match = re.fullmatch(r"([\d.]+)([KMGTPE]?)(i?)", value)
    if match is None:
        return 0
    base = 1024 if match[3] else 1000
    return float(match[1]) * float(base) ** " KMGTPE".index(match[2] or " ")


def shows_a_secret(name: str, value: object) -> bool:
    """Tells whether a value looks like a secret, judged by its name or by a password in a URL."""
    if isinstance(value, Mapping):
        return any(shows_a_secret(str(key), item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return any(shows_a_secret(name, item) for item in value)
    if not isinstance(value, str) or not value:
        return False
    is_named_so = _SECRET_NAME.search(name) and not _NOT_SECRET.search(name)
    return bool(is_named_so or _URL_PASSWORD.search(value))


def check_env(variables: dict[str, str]) -> None:
    """Refuses variables that are too long to start a process with.

    Raises:
        ManifestError: A variable is too long.
    """
    for name, value in variables.items():
        size = len(name) + len(value.encode()) + 2
        if size > MAX_ENV_BYTES:
            raise ManifestError(
                f"{name}: expected at most {MAX_ENV_BYTES} bytes, got {size}; put the code into "
                "an image (mlserver-pyfunc build) or give its folder by --storage-uri"
            )


def check_config_map(data: dict[str, str]) -> None:
    """Refuses a config map that the API server would refuse.

    Raises:
        ManifestError: The config map is too large.
    """
    size = sum(len(name) + len(value.encode()) for name, value in data.items())
    if size > MAX_CONFIG_MAP_BYTES:
        raise ManifestError(
            f"ConfigMap: expected at most {MAX_CONFIG_MAP_BYTES} bytes, got {size}; "
            "put the code into an image: mlserver-pyfunc build"
        )
