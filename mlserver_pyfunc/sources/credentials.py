"""Credentials: read from the environment or a URL, and passed only to the client that uses them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import unquote

from mlserver_pyfunc.errors import SourceError

from .safe_tree import has_control_characters
from .uri import parts_of, split_user

DEFAULT_USERNAME = "oauth2"
"""User that goes with a token. GitHub and GitLab accept any; Bitbucket needs x-token-auth."""


@dataclass(frozen=True)
class Credentials:
    """A user and a password; `repr` does not show the password."""

    username: str
    password: str = field(repr=False)


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
    return plain, _checked(_of_user(user) or _of_environment())


def for_http(url: str) -> tuple[str, Credentials | None]:
    """Splits an HTTP URL into a URL without secrets, and the credentials that it holds."""
    plain, user = split_user(url)
    return plain, _checked(_of_user(user))


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


def _checked(credentials: Credentials | None) -> Credentials | None:
    if credentials is None:
        return None
    for what, text in (("user", credentials.username), ("password", credentials.password)):
        if has_control_characters(text):
            raise SourceError(f"the {what} has a control character, a line end for example")
    return credentials
