"""Source URIs: their parts, their logins, and how they are shown without secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from mlserver_pyfunc.errors import SourceError

from .safe_tree import has_control_characters, printable, quoted

DEFAULT_USERNAME = "oauth2"
"""User that goes with a token. GitHub and GitLab accept any; Bitbucket needs x-token-auth."""


@dataclass(frozen=True)
class Credentials:
    """A user and a password; `repr` does not show the password."""

    username: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        for what, text in (("user", self.username), ("password", self.password)):
            if has_control_characters(text):
                raise SourceError(f"the {what} has a control character, a line end for example")


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


def for_git(url: str) -> tuple[str, Credentials | None]:
    """Splits a git URL into a URL without secrets, and the credentials.

    A password in the URL wins over `GIT_TOKEN`, which wins over `GIT_USERNAME` and
    `GIT_PASSWORD`. Without any of them git reads `.netrc`.
    """
    plain, user = split_user(url)
    if parts_of(plain).scheme != "https":
        # SSH logs in with an agent or key; the user is part of the address.
        name = user.partition(":")[0]
        return (plain.replace("://", f"://{name}@", 1) if name else plain), None
    return plain, _of_user(user) or _of_environment()


def for_http(url: str) -> tuple[str, Credentials | None]:
    """Splits an HTTP URL into a URL without secrets, and the credentials that it holds."""
    plain, user = split_user(url)
    return plain, _of_user(user)


def _of_user(user: str) -> Credentials | None:
    if not user:
        return None
    name, _, password = user.partition(":")
    # A URL may hold a token alone, in the place of the user.
    return Credentials(unquote(name), unquote(password))


def _of_environment() -> Credentials | None:
    username = os.environ.get("GIT_USERNAME")
    token = os.environ.get("GIT_TOKEN")
    if token:
        return Credentials(username or DEFAULT_USERNAME, token)
    password = os.environ.get("GIT_PASSWORD")
    return Credentials(username, password) if username and password else None


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
