"""Translates the messages of git into errors."""

from __future__ import annotations

import re

from mlserver_pyfunc.errors import SourceError

from .retry import TransientError
from .safe_tree import quoted


class UnsupportedError(SourceError):
    """The server refuses to send the object, or to send it in this way."""


# git's exit code is 128 for all. By the pattern of its message: what it means.
_UNSUPPORTED = {
    r"unadvertised object|not our ref|couldn't find remote ref|not support (shallow|filter)|"
    r"transport does not support|filtering not recognized|bad object|missing (blob|tree)":
        "the server does not send this commit",
}  # fmt: skip
_LASTING = {
    r"no space left|disk quota|file too large|unable to write|write error":
        "the disk of the cache folder is full",
    r"host key verification failed|no .* host key is known|host identification has changed":
        "the server's SSH host key is not the known one: see known_hosts",
    r"permission denied \((publickey|.*password)|sign_and_send_pubkey":
        "permission denied: no SSH agent or key that the server takes",
    r"terminal prompts disabled|could not read (username|password)":
        "authentication needed (401): set GIT_TOKEN, or GIT_USERNAME and GIT_PASSWORD",
    r"authentication failed|error: 401|access denied":
        "authentication failed (401): check GIT_TOKEN, or GIT_USERNAME and GIT_PASSWORD",
    r"error: 403|forbidden": "access forbidden (403)",
    r"error: 404|repository .*not found|not appear to be a git repository|does not exist":
        "no such repository (404)",
    r"protocol .* (not supported|disabled|not allowed)|transport .* not allowed":
        "the server redirects to a transport that is not allowed",
    r"unable to update url base from redirection":
        "the server redirects to something that is not this repository",
    r"dubious ownership": "the repository's folder belongs to another user",
    r"ssl|certificate|tls": "the TLS connection failed",
}  # fmt: skip
_TRANSIENT = {
    r"could not resolve host": "unknown host",
    r"connection refused|failed to connect|couldn't connect": "the connection was refused",
    r"timed out|timeout|operation too slow": "the connection timed out",
    r"error: (429|5\d\d)|early eof|reset|hung up|unexpected disconnect|curl \d+|broken pipe|"
    r"connection closed|network is unreachable|expected flush after": "the connection broke",
}

# In the order in which they are tried.
_CAUSES: list[tuple[type[SourceError], dict[str, str]]] = [
    (UnsupportedError, _UNSUPPORTED),
    (SourceError, _LASTING),
    (TransientError, _TRANSIENT),
]


def failure(text: str) -> SourceError:
    """Returns the error that a message of git means, in one line."""
    lines = [line for line in text.splitlines() if re.match(r"(fatal|error|ssh|remote)", line)]
    last = (lines or text.strip().splitlines() or ["git failed"])[-1].strip()
    for kind, meanings in _CAUSES:
        for pattern, meaning in meanings.items():
            if re.search(pattern, text, re.IGNORECASE):
                return kind(f"{meaning}; git says {quoted(last)}")
    return SourceError(f"git says {quoted(last)}")
