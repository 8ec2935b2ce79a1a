"""Credentials: from the environment or a URL, to the library that uses them and nowhere else."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass, field
from urllib.parse import unquote

from mlserver_pyfunc.errors import SourceError

from .uri import parts_of, split_user

DEFAULT_USERNAME = "oauth2"
"""GitHub and GitLab take any user beside a token; Bitbucket wants GIT_USERNAME=x-token-auth."""


@dataclass(frozen=True)
class Credentials:
    """A user and a password, which `repr` does not show."""

    username: str
    password: str = field(repr=False)


def for_git(url: str) -> tuple[str, Credentials | None]:
    """Splits a git URL into the part that may be shown, and what to log in with.

    A password in the URL comes before `GIT_TOKEN`, and that before `GIT_USERNAME` and
    `GIT_PASSWORD`. With none of them git reads `.netrc`.

    Raises:
        SourceError: A credential holds a control character.
    """
    plain, user = split_user(url)
    if parts_of(plain).scheme != "https":
        # SSH logs in by agent or key; the user is part of the address.
        name = user.partition(":")[0]
        return (plain.replace("://", f"://{name}@", 1) if name else plain), None
    return plain, _checked(_of_user(user) or _of_environment())


def for_http(url: str) -> tuple[str, Credentials | None]:
    """Splits an HTTP URL likewise; with no user in it the HTTP library reads `.netrc`."""
    plain, user = split_user(url)
    return plain, _checked(_of_user(user))


def _of_user(user: str) -> Credentials | None:
    if not user:
        return None
    name, _, password = user.partition(":")
    # A token may stand alone, in the user's place.
    return Credentials(unquote(name), unquote(password))


def _of_environment() -> Credentials | None:
    username = os.environ.get("GIT_USERNAME")
    token = os.environ.get("GIT_TOKEN")
    if token:
        return Credentials(username or DEFAULT_USERNAME, token)
    password = os.environ.get("GIT_PASSWORD")
    return Credentials(username, password) if username and password else None


def _checked(credentials: Credentials | None) -> Credentials | None:
    if credentials is None:
        return None
    for what, text in (("user", credentials.username), ("password", credentials.password)):
        if any(unicodedata.category(character) == "Cc" for character in text):
            raise SourceError(f"the {what} has a control character, a line end for example")
    return credentials
