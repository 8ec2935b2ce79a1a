"""Source URIs: their parts, and how they are shown without secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import SplitResult, urlsplit

from mlserver_pyfunc.errors import SourceError

from .safe_tree import has_control_characters, printable, quoted


def checked_scheme(uri: str) -> str:
    """Returns the scheme in lower case; empty for a path."""
    if has_control_characters(uri):
        raise SourceError("has a control character")
    if uri.startswith("-"):
        raise SourceError('begins with "-"')
    if "::" in uri.partition("/")[0]:
        raise SourceError('transports of the form "name::address" are not allowed')
    scheme, separator, _ = uri.partition("://")
    return scheme.lower() if separator else ""


def parts_of(url: str) -> SplitResult:
    """Splits a URL into its parts."""
    try:
        parts = urlsplit(url)
        # urllib checks the port only when it is read.
        _ = parts.port
    except ValueError as error:
        raise SourceError(f"not a URL: {str(error).lower()}") from None
    return parts


def split_user(url: str) -> tuple[str, str]:
    """Splits a URL into the URL without `user:password`, and `user:password`.

    A password may hold `/`, `?` or `@` unquoted, and urllib would show what follows them. So the
    user reaches to the last `@` before the path, or of all if a `:` there has no port behind it.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url, ""
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    user, at, _ = host.rpartition("@")
    if not at and "@" in rest and ":" in host and not re.fullmatch(r"(\[.*\]|[^:]*):\d*", host):
        user, at, _ = rest.rpartition("@")
    return f"{scheme}://{rest[len(user) + len(at) :]}", user


def split_fragment(url: str) -> tuple[str, str]:
    """Splits a URL into what is before the `#`, and the fragment. A password may hold a `#`."""
    fragment = split_user(url)[0].partition("#")[2]
    return url.removesuffix(fragment).removesuffix("#"), fragment


def redacted(uri: str) -> str:
    """Returns the URI without possible secrets: user, password, and values of the query.

    The user of an SSH URL is part of the address and is kept.
    """
    plain, user = split_user(uri)
    scheme, separator, rest = plain.partition("://")
    if not separator:
        return uri
    if user:
        is_address = "ssh" in scheme.lower() and ":" not in user
        rest = f"{user if is_address else '***'}@{rest}"
    address, mark, ref = rest.partition("#")
    address, question, query = address.partition("?")
    if question:
        query = re.sub(r"=[^&]*", "=***", query) if "=" in query else "***"
    return f"{scheme}://{address}{question}{query}{mark}{ref}"


@contextmanager
def naming(uri: str) -> Iterator[None]:
    """Puts the source, without its secrets, in front of the message of any `SourceError`."""
    source = f"source {quoted(redacted(uri), 400)}"
    try:
        yield
    except SourceError as error:
        raise type(error)(printable(f"{source}: {error}")) from None
    except OSError as error:
        cause = (error.strerror or type(error).__name__).lower()
        raise SourceError(f"{source}: {cause}: {quoted(str(error.filename or ''))}") from None
