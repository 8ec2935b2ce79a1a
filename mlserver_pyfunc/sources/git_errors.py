"""Translates the messages of git into errors."""

from __future__ import annotations

import re

from mlserver_pyfunc.errors import SourceError

from .retry import TransientError
from .safe_tree import quoted


class UnsupportedError(SourceError):
    """The server refuses to send the object, or to send it in this way."""


# git's exit code is 128 for all. The first pattern that its message matches tells what it means.
_CAUSES: dict[str, tuple[type[SourceError], str]] = {
    r"unadvertised object|not our ref|couldn't find remote ref|not support (shallow|filter)|"
    r"transport does not support|filtering not recognized|bad object|missing (blob|tree)":
        (UnsupportedError, "the server does not send this commit"),
    r"no space left|disk quota|file too large|unable to write|write error":
        (SourceError, "the disk of the cache folder is full"),
    r"host key verification failed|no .* host key is known|host identification has changed":
        (SourceError, "the server's SSH host key is not the known one: see known_hosts"),
    r"permission denied \((publickey|.*password)|sign_and_send_pubkey":
        (SourceError, "permission denied: no SSH agent or key that the server takes"),
    r"terminal prompts disabled|could not read (username|password)":
        (SourceError,
         "authentication needed (401): set GIT_TOKEN, or GIT_USERNAME and GIT_PASSWORD"),
    r"authentication failed|error: 401|access denied":
        (SourceError,
         "authentication failed (401): check GIT_TOKEN, or GIT_USERNAME and GIT_PASSWORD"),
    r"error: 403|forbidden": (SourceError, "access forbidden (403)"),
    r"error: 404|repository .*not found|not appear to be a git repository|does not exist":
        (SourceError, "no such repository (404)"),
    r"protocol .* (not supported|disabled|not allowed)|transport .* not allowed":
        (SourceError, "the server redirects to a transport that is not allowed"),
    r"unable to update url base from redirection":
        (SourceError, "the server redirects to something that is not this repository"),
    r"dubious ownership": (SourceError, "the repository's folder belongs to another user"),
    r"could not resolve host": (TransientError, "unknown host"),
    r"connection refused|failed to connect|couldn't connect":
        (TransientError, "the connection was refused"),
    r"timed out|timeout|operation too slow": (TransientError, "the connection timed out"),
    # The libraries of TLS have words of their own for a connection that ends too early.
    r"error: (429|5\d\d)|unexpected eof|early eof|reset|hung up|unexpected disconnect|curl \d+|"
    r"broken pipe|connection closed|network is unreachable|expected flush after|"
    r"non-properly terminated|error in the (pull|push) function|ssl_error_syscall":
        (TransientError, "the connection broke"),
    r"ssl|certificate|tls": (SourceError, "the TLS connection failed"),
}  # fmt: skip


def failure(text: str) -> SourceError:
    """Returns the error that a message of git means, in one line."""
    lines = [line for line in text.splitlines() if re.match(r"(fatal|error|ssh|remote)", line)]
    last = (lines or text.strip().splitlines() or ["git failed"])[-1].strip()
    for pattern, (kind, meaning) in _CAUSES.items():
        if re.search(pattern, text, re.IGNORECASE):
            telling = [line for line in lines if re.search(pattern, line, re.IGNORECASE)]
            return kind(f"{meaning}; git says {quoted(telling[-1] if telling else last)}")
    return SourceError(f"git says {quoted(last)}")
