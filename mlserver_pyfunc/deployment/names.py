"""Checks names of images, variables and secrets before they go into a command.

The functions named `checked_` raise `BuildError` if a name is not valid.
"""

from __future__ import annotations

import re

from mlserver_pyfunc.errors import PyFuncError

_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)"
_DOMAIN = rf"(?:{_HOST}(?:\.{_HOST})*(?::[0-9]+)?|\[[0-9a-fA-F:]+\](?::[0-9]+)?)"
_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_NAME = rf"(?:{_DOMAIN}/)?{_PART}(?:/{_PART})*"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"sha256:[0-9a-f]{64}"
BASE = rf"{_NAME}(?::{_TAG})?(?:@{_DIGEST})?"
"""Pattern of the name of an image that exists, with a tag, a digest or both."""


class BuildError(PyFuncError):
    """The image cannot be built."""


def checked_image(name: str) -> str:
    """Returns a name to tag an image with, `registry/name:tag`. The default tag is `latest`."""
    match = re.fullmatch(rf"({_NAME})(:{_TAG})?", name)
    if match is None or len(match[1]) > 255:
        hint = ", in lower case" if name != name.lower() else ""
        raise BuildError(f'image: expected "registry/name:tag"{hint}, got "{name}"')
    return name if match[2] else f"{name}:latest"


def checked_base(name: str) -> str:
    """Returns the name of an image to build on, with a tag, a digest or both."""
    if not re.fullmatch(BASE, name):
        raise BuildError(f'base image: expected "registry/name:tag" or "name@digest", got "{name}"')
    return name


def checked_secret(text: str) -> str:
    """Returns the id of a secret in the form of engines, `id=NAME,src=FILE`."""
    match = re.fullmatch(r"id=([\w.-]+)(?:,(?:type=\w+|(?:src|source|env)=[^,]+))*", text)
    if match is None:
        raise BuildError(f'secret: expected "id=NAME,src=FILE", got "{text}"')
    return match[1]


def checked_argument(text: str) -> str:
    """Returns the name of a build argument, `NAME=VALUE`, or `NAME` for one of this process."""
    name, _, _ = text.partition("=")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise BuildError(f'build argument: expected "NAME=VALUE", got "{text}"')
    return name
