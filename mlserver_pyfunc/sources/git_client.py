"""Runs the git program by GitPython, in an environment that ignores all configuration.

Commands that use the network have limits of time and size, and show their progress.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import IO, Any, cast

from git import Git, RemoteProgress
from git.cmd import handle_process_output
from git.exc import CommandError
from git.util import CallableRemoteProgress

from mlserver_pyfunc import settings
from mlserver_pyfunc.errors import SourceError

from .credentials import Credentials
from .digest import size_of
from .git_environment import configuration, environment
from .git_errors import failure
from .progress import Progress
from .retry import retrying

MINIMUM_VERSION = (2, 32)

_END_SECONDS = 5


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
        (work / "gitconfig").write_text(configuration(url), encoding="utf-8")
        self._git = Git(str(work))
        self._git.update_environment(**environment(url, credentials, work))
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

    def fetch(self, what: str, *arguments: str, wanted: list[str] | None = None) -> str:
        """Fetches from the remote, and returns the messages of git."""
        command = (
            "fetch", "--progress", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance",
            "--recurse-submodules=no", *arguments,
        )  # fmt: skip
        return self._network(command, what, wanted)[1]

    def local(self, *arguments: str) -> bytes:
        """Runs a command that does not use the network, and returns its output."""
        output: bytes = self._execute(
            arguments, stdout_as_string=False, strip_newline_in_stdout=False
        )
        return output

    def blob(self, name: str) -> IO[bytes]:
        """Opens the content of an object, to be read before the next one: see `close`."""
        return cast(IO[bytes], self._git.stream_object_data(name)[3])

    def close(self) -> None:
        """Ends the process that `blob` reads from."""
        self._git.clear_cache()

    def _use(self, repository: Path) -> None:
        objects = str(repository / "objects")
        self._git.update_environment(GIT_DIR=str(repository), GIT_OBJECT_DIRECTORY=objects)

    def _execute(self, arguments: tuple[str, ...], **options: Any) -> Any:
        try:
            return self._git.execute(["git", *arguments], **options)
        except CommandError as error:
            raise failure(str(error.stderr)) from None

    def _network(
        self, arguments: tuple[str, ...], what: str = "", wanted: list[str] | None = None
    ) -> tuple[list[str], str]:
        """Returns the lines of git's output, and its messages."""
        stdin = "".join(f"{name}\n" for name in wanted or [])
        (self._work / "stdin").write_text(stdin, encoding="ascii")
        return retrying(self._deadline)(self._attempt, arguments, what)

    def _attempt(self, arguments: tuple[str, ...], what: str) -> tuple[list[str], str]:
        lines: list[str] = []
        stdin = self._work / "stdin"
        with Progress(f"fetching {what}", unit="objects") as progress, stdin.open("rb") as istream:
            report = CallableRemoteProgress(partial(_show, progress))
            running = self._execute(
                arguments,
                istream=istream,
                as_process=True,
                universal_newlines=True,
                errors="replace",
                # git starts git-remote-https or ssh, which keep the connection and our pipes
                # open when git alone is killed. As a group they are killed together.
                start_new_session=True,
            )
            process = running.proc
            pump = threading.Thread(
                target=handle_process_output,
                args=(
                    running,
                    lines.append,
                    report.new_message_handler(),
                    lambda _: process.wait(),
                    False,
                ),
                daemon=True,
            )
            pump.start()
            try:
                # git has no limit for the size of a fetch, and `http.lowSpeedLimit` does not end
                # a slow drip.
                while pump.is_alive():
                    self._check_limits()
                    # A server can send messages without end, of which only the last ones matter.
                    del report.other_lines[:-50]
                    pump.join(min(0.5, max(0.01, self._deadline - time.monotonic())))
            finally:
                if pump.is_alive():
                    with suppress(OSError):
                        os.killpg(process.pid, signal.SIGKILL)
                    pump.join(_END_SECONDS)
        messages = "\n".join([*report.other_lines, *report.error_lines])
        if process.returncode != 0:
            raise failure(messages)
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
        progress.total = int(total or 0)
        progress.reach(int(count))


@cache
def _check_version() -> None:
    # GIT_CONFIG_COUNT needs git 2.31, GIT_CONFIG_GLOBAL needs 2.32.
    got = Git().version_info
    if got < MINIMUM_VERSION:
        raise SourceError(f"expected git 2.32 or later, got {'.'.join(map(str, got))}")
