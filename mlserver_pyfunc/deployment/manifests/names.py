"""Names and sizes as Kubernetes wants them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from mlserver_pyfunc.deployment.names import BuildError, checked_base, is_variable
from mlserver_pyfunc.errors import PyFuncError

MAX_LABEL = 63
MAX_ENV_BYTES = 128 * 1024
"""What Linux takes of one variable, its name and the byte that ends it included."""
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
# These have such a word in their names and are not secret.
_NOT_SECRET = re.compile(r"(^|_)(max|min|num|n)_|_(file|path|url|id)$", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"://[^/\s@]*:[^/\s@]+@")


class ManifestError(PyFuncError):
    """No manifest can be made of what was asked for."""


def label(value: str, limit: int = MAX_LABEL) -> str:
    """A name of an object that makes host names: a DNS label that starts with a letter.

    Raises:
        ValueError: It is none.
    """
    if len(value) > limit or not _LABEL.fullmatch(value) or not value[0].isalpha():
        raise ValueError(
            f'expected a DNS label (a-z, 0-9 and "-", from a letter on, at most {limit} '
            f'characters), got "{value}"'
        )
    return value


def derived_label(name: str, limit: int = MAX_LABEL) -> str:
    """A DNS label made of any name: equal names give equal labels, and others others."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if plain == name and len(name) <= limit and name[0].isalpha():
        return name
    # What is lost of the name stays in a digest: `a_b` and `a.b` must not meet.
    digest = hashlib.sha256(name.encode()).hexdigest()[:6]
    kept = plain if plain[:1].isalpha() else f"m-{plain}".strip("-")
    return f"{kept[: limit - 7].rstrip('-')}-{digest}"


def subdomain(value: str) -> str:
    """The name of a secret, a claim or a config map.

    Raises:
        ValueError: It is none.
    """
    if len(value) > 253 or not _SUBDOMAIN.fullmatch(value):
        raise ValueError(f'expected a Kubernetes name (a-z, 0-9, "-" and "."), got "{value}"')
    return value


def key(value: str) -> str:
    """A key of a secret or a config map.

    Raises:
        ValueError: It is none.
    """
    if len(value) > 253 or not _KEY.fullmatch(value) or value in (".", ".."):
        raise ValueError(f'expected a key (letters, digits, "-", "_" and "."), got "{value}"')
    return value


def env_name(value: str) -> str:
    """The name of an environment variable.

    Raises:
        ValueError: It is none.
    """
    if not is_variable(value):
        raise ValueError(f'expected the name of a variable, got "{value}"')
    return value


def quantity(value: str) -> str:
    """An amount as Kubernetes writes it.

    Raises:
        ValueError: It is none.
    """
    if not _QUANTITY.fullmatch(value):
        raise ValueError(f'expected an amount, for example 500m, 2 or 1Gi, got "{value}"')
    return value


def label_value(value: str) -> str:
    """The value of a label or a node selector.

    Raises:
        ValueError: It is none.
    """
    if len(value) > MAX_LABEL or not _LABEL_VALUE.fullmatch(value):
        raise ValueError(f'expected the value of a label, got "{value}"')
    return value


def label_key(value: str) -> str:
    """The key of a label, an annotation or a node selector, its prefix included.

    Raises:
        ValueError: It is none.
    """
    prefix, slash, name = value.rpartition("/")
    is_prefix = not slash or (len(prefix) <= 253 and _SUBDOMAIN.fullmatch(prefix))
    if not is_prefix or not name or len(name) > MAX_LABEL or not _LABEL_VALUE.fullmatch(name):
        raise ValueError(f'expected the key of a label, for example team or a.org/b, got "{value}"')
    return value


def image(value: str) -> str:
    """The reference of an image, with a tag, a digest or both.

    Raises:
        ValueError: It is none.
    """
    try:
        return checked_base(value)
    except BuildError:
        raise ValueError(f'expected registry/name:tag or name@digest, got "{value}"') from None


def bytes_of(value: str) -> float:
    """An amount of memory in bytes; one that Kubernetes would not read is 0."""
    match = re.fullmatch(r"([\d.]+)([KMGTPE]?)(i?)", value)
    if match is None:
        return 0
    base = 1024 if match[3] else 1000
    return float(match[1]) * float(base) ** " KMGTPE".index(match[2] or " ")


def shows_a_secret(name: str, value: object) -> bool:
    """Whether a manifest would show what nobody but the function should see, as far as a name or
    a URL tells."""
    if isinstance(value, Mapping):
        return any(shows_a_secret(str(key), item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return any(shows_a_secret(name, item) for item in value)
    if not isinstance(value, str) or not value:
        return False
    is_named_so = _SECRET_NAME.search(name) and not _NOT_SECRET.search(name)
    return bool(is_named_so or _URL_PASSWORD.search(value))


def check_env(variables: dict[str, str]) -> None:
    """Refuses variables that no process could be started with.

    Raises:
        ManifestError: One is too long.
    """
    for name, value in variables.items():
        size = len(name) + len(value.encode()) + 2
        if size > MAX_ENV_BYTES:
            raise ManifestError(
                f"{name}: expected at most {MAX_ENV_BYTES} bytes, got {size}; put the code into "
                "an image (mlserver-pyfunc build) or give its folder by --storage-uri"
            )


def check_config_map(data: dict[str, str]) -> None:
    """Refuses a config map that the API server would.

    Raises:
        ManifestError: It is too large.
    """
    size = sum(len(name) + len(value.encode()) for name, value in data.items())
    if size > MAX_CONFIG_MAP_BYTES:
        raise ManifestError(
            f"ConfigMap: expected at most {MAX_CONFIG_MAP_BYTES} bytes, got {size}; "
            "put the code into an image: mlserver-pyfunc build"
        )
