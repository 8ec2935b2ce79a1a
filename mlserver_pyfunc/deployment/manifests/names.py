"""Checks names and sizes by the rules of Kubernetes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping

from mlserver_pyfunc.deployment.names import BASE, VARIABLE
from mlserver_pyfunc.errors import PyFuncError

MAX_LABEL = 63
MAX_ENV_BYTES = 128 * 1024
"""Linux's limit for one variable, with its name and the byte that ends it."""
MAX_CONFIG_MAP_BYTES = 1024 * 1024

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_WORD = r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?"

_UNITS = {
    **{unit: 1000.0**power for power, unit in zip(range(-3, 0), "num", strict=True)},
    **{unit: 1000.0**power for power, unit in enumerate(["", "k", *"MGTPE"])},
    **{f"{unit}i": 1024.0**power for power, unit in enumerate("KMGTPE", start=1)},
}

_SECRET_NAME = re.compile(
    r"passw(or)?d|(^|[_-])(secrets?|tokens?|credentials?|api_?key|access_?key|private_?key)($|[_-])",
    re.IGNORECASE,
)
# Names with such a word whose values are not secret.
_NOT_SECRET = re.compile(r"(^|_)(max|min|num|n)_|_(file|path|url|id)$", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"://[^/\s@]*:[^/\s@]+@")


class ManifestError(PyFuncError):
    """No manifest can be made from the function and the options."""


def _check(pattern: str, expected: str, limit: int = 253) -> Callable[[str], str]:
    """Returns a check that returns the text it is given, or raises `ValueError`."""

    def checked(value: str) -> str:
        if len(value) > limit or not re.fullmatch(pattern, value):
            raise ValueError(f'expected {expected}, got "{value}"')
        return value

    return checked


subdomain = _check(_SUBDOMAIN, 'a Kubernetes name (a-z, 0-9, "-" and ".")')
"""Of a secret, a claim or a config map."""
key = _check(r"(?!\.\.?$)[-._a-zA-Z0-9]+", 'a key (letters, digits, "-", "_" and ".")')
"""Of a secret or a config map."""
env_name = _check(VARIABLE, "the name of a variable")
quantity = _check(
    r"(\d+(\.\d*)?|\.\d+)(([KMGTPE]i)|[numkMGTPE]|[eE][+-]?\d+)?",
    "an amount, for example 500m, 2 or 1Gi",
)
label_value = _check(rf"({_WORD})?", "the value of a label", MAX_LABEL)
label_key = _check(
    rf"((?=[^/]{{1,253}}/){_SUBDOMAIN}/)?(?=.{{1,{MAX_LABEL}}}$){_WORD}",
    "the key of a label, for example team or a.org/b",
    limit=253 + 1 + MAX_LABEL,
)
image = _check(BASE, "registry/name:tag or name@digest", limit=512)


def label(value: str, limit: int = MAX_LABEL) -> str:
    """Returns a name that can be part of host names, or raises `ValueError`."""
    expected = f'a DNS label (a-z, 0-9 and "-", from a letter on, at most {limit} characters)'
    return _check(rf"(?=[a-z]){_LABEL}", expected, limit)(value)


def derived_label(name: str, limit: int = MAX_LABEL) -> str:
    """Returns a DNS label for any name, equal for equal names and different for different ones."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if plain == name and len(name) <= limit and name[0].isalpha():
        return name
    # A digest keeps the names apart that give one text, such as `a_b` and `a.b`.
    digest = hashlib.sha256(name.encode()).hexdigest()[:6]
    kept = plain if plain[:1].isalpha() else f"m-{plain}".strip("-")
    return f"{kept[: limit - 7].rstrip('-')}-{digest}"


def amount(value: str) -> float:
    """Returns the number that a valid quantity stands for: bytes, or CPUs."""
    found = re.fullmatch(r"([\d.]+(?:[eE][+-]?\d+)?)(\w*)", value)
    assert found is not None
    return float(found[1]) * _UNITS[found[2]]


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


def check_config_map(data: dict[str, str]) -> None:
    """Refuses a config map that the API server would refuse."""
    size = sum(len(name) + len(value.encode()) for name, value in data.items())
    if size > MAX_CONFIG_MAP_BYTES:
        raise ManifestError(
            f"ConfigMap: expected at most {MAX_CONFIG_MAP_BYTES} bytes, got {size}; "
            "put the code into an image: mlserver-pyfunc build"
        )
