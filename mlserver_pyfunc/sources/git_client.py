"""Runs the git program by GitPython: no configuration but ours, no hooks, no filters, no prompts.

Commands that use the network have limits of time and size, and show their progress.
docs/design/cache-and-lock.md says what git must not do, and how it gets credentials.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import urlsplit

from git import Git, RemoteProgress
from git.cmd import handle_process_output
from git.exc import CommandError
from git.util import CallableRemoteProgress

from mlserver_pyfunc import settings
from mlserver_pyfunc.errors import SourceError

from .progress import Progress, TransientError, retrying
from .safe_tree import quoted
from .tree import size_of
from .uri import Credentials, redacted

MINIMUM_VERSION = (2, 32)

_END_SECONDS = 5
_HELPER = (
    '!f() { test "$1" = get && printf "username=%s\\npassword=%s\\n"'
    ' "$MLSERVER_PYFUNC_GIT_USERNAME" "$MLSERVER_PYFUNC_GIT_PASSWORD"; }; f'
)
_SSH = (
    "-o BatchMode=yes -o StrictHostKeyChecking=yes -o ConnectTimeout=15 "
    "-o ServerAliveInterval=15 -o ServerAliveCountMax=3"
)


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


class GitClient:
    """Runs git against one remote, in a bare repository of its own."""

    def __init__(
        self, url: str, credentials: Credentials | None, work: Path, seconds: float
    ) -> None:
        _check_version()
        self._url = url
        self._work = work
        self._deadline = time.monotonic() + seconds
        self._limit = seconds
        (work / "gitconfig").write_text(_configuration(url), encoding="utf-8")
        self._git = Git(str(work))
        self._git.update_environment(**_environment(url, credentials, work))
        self._use(work / "none")

    def init(self, name: str) -> None:
        """Makes an empty repository, and uses it from now on."""
        self._use(self._work / name)
        self.local("init", "--quiet", "--bare", "--template=", str(self._work / name))

    def refs(self) -> dict[str, str]:
        """Returns the remote's refs with their objects; `name^{}` is a tag's commit."""
        lines, _ = self._network(("ls-remote", "--", self._url))
        pairs = (line.rstrip("\n").split("\t", 1) for line in lines if "\t" in line)
        return {name: commit for commit, name in pairs}

    def fetch(self, *arguments: str, wanted: Sequence[str] = ()) -> str:
        """Fetches from the remote, and returns the messages of git."""
        command = (
            "fetch", "--progress", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance",
            "--recurse-submodules=no", *arguments,
        )  # fmt: skip
        return self._network(command, wanted)[1]

    def local(self, *arguments: str) -> bytes:
        """Runs a command that does not use the network, and returns its output."""
        options = {"stdout_as_string": False, "strip_newline_in_stdout": False}
        return cast(bytes, self._execute(arguments, **options))

    def blob(self, name: str) -> IO[bytes]:
        """Opens the content of an object, to be read before the next one: see `close`."""
        return cast(IO[bytes], self._git.stream_object_data(name)[3])

    def close(self) -> None:
        self._git.clear_cache()

    def _use(self, repository: Path) -> None:
        objects = str(repository / "objects")
        self._git.update_environment(GIT_DIR=str(repository), GIT_OBJECT_DIRECTORY=objects)

    def _execute(self, arguments: tuple[str, ...], **options: Any) -> Any:
        try:
            return self._git.execute(["git", *arguments], **options)
        except CommandError as error:
            raise _failure(str(error.stderr)) from None

    def _network(
        self, arguments: tuple[str, ...], wanted: Sequence[str] = ()
    ) -> tuple[list[str], str]:
        stdin = "".join(f"{name}\n" for name in wanted)
        (self._work / "stdin").write_text(stdin, encoding="ascii")
        return retrying(self._deadline)(self._attempt, arguments)

    def _attempt(self, arguments: tuple[str, ...]) -> tuple[list[str], str]:
        lines: list[str] = []
        stdin, what = self._work / "stdin", f"fetching {redacted(self._url)}"
        with Progress(what, unit="objects") as progress, stdin.open("rb") as istream:
            report = CallableRemoteProgress(partial(_show, progress))
            running = self._execute(
                arguments,
                istream=istream,
                as_process=True,
                universal_newlines=True,
                errors="replace",
                start_new_session=True,  # to kill git together with the programs that it starts
            )
            process = running.proc

            def read() -> None:
                show = report.new_message_handler()
                handle_process_output(running, lines.append, show, decode_streams=False)
                process.wait()

            pump = threading.Thread(target=read, daemon=True)
            pump.start()
            try:
                while pump.is_alive():
                    self._check_limits()
                    # A server can send messages without end.
                    del report.other_lines[:-50]
                    pump.join(min(0.5, max(0.01, self._deadline - time.monotonic())))
            finally:
                if pump.is_alive():
                    with suppress(OSError):
                        os.killpg(process.pid, signal.SIGKILL)
                    pump.join(_END_SECONDS)
        messages = "\n".join([*report.other_lines, *report.error_lines])
        if process.returncode != 0:
            raise _failure(messages)
        return lines, messages

    def _check_limits(self) -> None:
        limit = settings.max_source_size() * 2
        if time.monotonic() >= self._deadline:
            raise SourceError(f"expected to be fetched in {self._limit:g} s, gave up")
        if size_of(self._work) > limit:
            raise SourceError(f"expected at most {limit} bytes of git objects, got more")


def _show(
    progress: Progress, stage: int, count: float, total: float | None = None, message: str = ""
) -> None:
    if stage & RemoteProgress.RECEIVING:
        progress.expect(int(total or 0))
        progress.reach(int(count))


@cache
def _check_version() -> None:
    # GIT_CONFIG_COUNT needs git 2.31, GIT_CONFIG_GLOBAL needs 2.32.
    got = Git().version_info
    if got < MINIMUM_VERSION:
        raise SourceError(f"expected git 2.32 or later, got {'.'.join(map(str, got))}")


def _configuration(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "file":
        return ""
    path = parts.path.replace("\\", "\\\\").replace('"', '\\"')
    # git refuses other users' repositories for their hooks and configuration: we run neither.
    return f'[safe]\n\tdirectory = "{path}"\n\tdirectory = "{path.rstrip("/")}/.git"\n'


def _environment(url: str, credentials: Credentials | None, work: Path) -> dict[str, str]:
    parts = urlsplit(url)
    options = {
        "core.hooksPath": os.devnull,
        "credential.helper": "",
        "fetch.writeCommitGraph": "false",
        "gc.auto": "0",
        "http.lowSpeedLimit": "1000",
        "http.lowSpeedTime": "30",
        "protocol.version": "2",
        "remote.origin.url": url,
    }
    variables = {
        "GIT_ALLOW_PROTOCOL": parts.scheme,
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": "",
        "GIT_CONFIG_GLOBAL": str(work / "gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_PARAMETERS": "",
        "GIT_LITERAL_PATHSPECS": "1",
        "GIT_NAMESPACE": "",
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "SSH_ASKPASS": "",
        "GIT_SSH_COMMAND": f"{os.environ.get('GIT_SSH_COMMAND') or 'ssh'} {_SSH}",
        # Traces would write the headers that are sent, with the credentials.
        **{name: "0" for name in os.environ if name.startswith("GIT_TRACE")},
    }
    # One variable names the authorities for every kind of source.
    if bundle := settings.ca_file("GIT_SSL_CAINFO"):
        variables["GIT_SSL_CAINFO"] = bundle
    if credentials:
        variables["MLSERVER_PYFUNC_GIT_USERNAME"] = credentials.username
        variables["MLSERVER_PYFUNC_GIT_PASSWORD"] = credentials.password
        # For this host alone: after a redirect to another, git does not ask the helper.
        options[f"credential.{parts.scheme}://{parts.netloc}.helper"] = _HELPER
    variables["GIT_CONFIG_COUNT"] = str(len(options))
    for number, (name, value) in enumerate(options.items()):
        variables[f"GIT_CONFIG_KEY_{number}"] = name
        variables[f"GIT_CONFIG_VALUE_{number}"] = value
    return variables


def _failure(text: str) -> SourceError:
    lines = [line for line in text.splitlines() if re.match(r"(fatal|error|ssh|remote)", line)]
    last = (lines or text.strip().splitlines() or ["git failed"])[-1].strip()
    for pattern, (kind, meaning) in _CAUSES.items():
        if re.search(pattern, text, re.IGNORECASE):
            telling = [line for line in lines if re.search(pattern, line, re.IGNORECASE)]
            return kind(f"{meaning}; git says {quoted(telling[-1] if telling else last)}")
    return SourceError(f"git says {quoted(last)}")
