"""Names and amounts by the rules of Kubernetes, and what looks like a secret."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping

MAX_LABEL = 63
# More than a shell allows: engines and Kubernetes take a name such as `discovery.type` too.
VARIABLE = r"[-._a-zA-Z][-._a-zA-Z0-9]*"
"""Pattern of the name of an environment variable of an image or a pod."""

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


def check(pattern: str, expected: str, limit: int = 253) -> Callable[[str], str]:
    """Returns a check that returns the text it is given, or raises `ValueError`."""

    def checked(value: str) -> str:
        if len(value) > limit or not re.fullmatch(pattern, value):
            raise ValueError(f'expected {expected}, got "{value}"')
        return value

    return checked


subdomain = check(_SUBDOMAIN, 'a Kubernetes name (a-z, 0-9, "-" and ".")')
"""Of a secret, a claim or a config map."""
key = check(r"(?!\.\.?$)[-._a-zA-Z0-9]+", 'a key (letters, digits, "-", "_" and ".")')
"""Of a secret or a config map."""
env_name = check(VARIABLE, "the name of a variable")
quantity = check(
    r"(\d+(\.\d*)?|\.\d+)(([KMGTPE]i)|[numkMGTPE]|[eE][+-]?\d+)?",
    "an amount, for example 500m, 2 or 1Gi",
)
label_value = check(rf"({_WORD})?", "the value of a label", MAX_LABEL)
label_key = check(
    rf"((?=[^/]{{1,253}}/){_SUBDOMAIN}/)?(?=.{{1,{MAX_LABEL}}}$){_WORD}",
    "the key of a label, for example team or a.org/b",
    limit=253 + 1 + MAX_LABEL,
)


def label(value: str, limit: int = MAX_LABEL) -> str:
    """Returns a name that can be part of host names, or raises `ValueError`."""
    expected = f'a DNS label (a-z, 0-9 and "-", from a letter on, at most {limit} characters)'
    return check(rf"(?=[a-z]){_LABEL}", expected, limit)(value)


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
