"""Source URIs: their scheme, and how they may be shown."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import SourceError


def checked_scheme(uri: str) -> str:
    """The scheme in lower case; empty for a path.

    Raises:
        SourceError: It has control characters, or begins as an option does.
    """
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in uri):
        raise SourceError("has a control character")
    if uri.startswith("-"):
        raise SourceError('begins with "-"')
    if "::" in uri.partition("/")[0]:
        raise SourceError('transports of the form "name::address" are not allowed')
    scheme, separator, _ = uri.partition("://")
    return scheme.lower() if separator else ""


def redacted(uri: str) -> str:
    """The URI without what may be a secret: user, password, and the query's values.

    The user of an SSH URL is part of the address and stays.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    address, mark, ref = rest.partition("#")
    address, question, query = address.partition("?")
    host, slash, path = address.partition("/")
    user, at, name = host.rpartition("@")
    # A password may hold "/" or "@" where its owner did not quote them.
    if "@" in path and not at:
        before, _, after = path.rpartition("@")
        if ":" in host and not re.fullmatch(r"[^:]*:\d+|\[.*\](:\d+)?", host):
            user, at, name, slash, path = host + before, "@", after, "", ""
    if at and not ("ssh" in scheme.lower() and ":" not in user):
        user = "***"
    if question:
        query = re.sub(r"=[^&]*", "=***", query) if "=" in query else "***"
    return f"{scheme}://{user}{at}{name}{slash}{path}{question}{query}{mark}{ref}"


@contextmanager
def naming(uri: str) -> Iterator[None]:
    """Puts the source in front of any `SourceError`, without its secrets."""
    try:
        yield
    except SourceError as error:
        raise type(error)(f'source "{redacted(uri)}": {error}') from None
