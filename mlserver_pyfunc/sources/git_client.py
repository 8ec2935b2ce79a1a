"""Runs the git program by GitPython, in an environment that ignores all configuration.

Commands that use the network have limits of time and size, and show their progress.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from git import Git, RemoteProgress
from git.exc import CommandError, GitCommandNotFound

from mlserver_pyfunc import settings
from mlserver_pyfunc.errors import SourceError

from .credentials import Credentials
from .digest import size_of
from .git_environment import configuration, environment
from .git_errors import failure
from .progress import Progress
from .retry import retrying

MINIMUM_VERSION = (2, 32)

_CHUNK = 2**20


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
        self._repository = work / "none"
        (work / "gitconfig").write_text(configuration(url), encoding="utf-8")
        self._environment = environment(url, credentials, work)

    def init(self, name: str) -> None:
        """Makes an empty repository, and uses it from now on."""
        self._repository = self._work / name
        self.local("init", "--quiet", "--bare", "--template=", str(self._repository))

    def refs(self, *patterns: str) -> dict[str, str]:
        """Returns the remote's refs that match, with their objects; `name^{}` is a tag's commit."""
        lines = self._network("ls-remote", "--", self._url, *patterns).splitlines()
        pairs = (line.split("\t", 1) for line in lines if "\t" in line)
        return {name: commit for commit, name in pairs}

    def fetch(self, what: str, *arguments: str, wanted: list[str] | None = None) -> str:
        """Fetches from the remote, and returns the messages of git."""
        return self._network(
            "fetch", "--progress", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance",
            "--recurse-submodules=no", *arguments, what=what, wanted=wanted,
        )  # fmt: skip

    def local(self, *arguments: str, wanted: list[str] | None = None) -> bytes:
        """Runs a command that does not use the network, and returns its output."""
        try:
            with self._stdin(wanted) as istream:
                return self._git().execute(
                    ["git", *arguments],
                    istream=istream,
                    env=self._all(),
                    stdout_as_string=False,
                    strip_newline_in_stdout=False,
                )
        except GitCommandNotFound:
            raise SourceError("the git program is not installed") from None
        except CommandError as error:
            raise failure(str(error.stderr)) from None

    def sizes(self, names: list[str]) -> list[int]:
        """Returns the sizes of objects in bytes."""
        lines = self.local("cat-file", "--batch-check=%(objectsize)", wanted=names).split()
        if not all(line.isdigit() for line in lines):
            raise SourceError("the server did not send all files of the commit")
        return [int(line) for line in lines]

    @contextmanager
    def blob(self, name: str) -> Iterator[IO[bytes]]:
        """Opens the content of an object."""
        _, _, _, stream = self._reader.stream_object_data(name)
        try:
            yield cast(IO[bytes], stream)
        finally:
            # All objects come through one pipe: an unread rest would look like the next object.
            while stream.read(_CHUNK):
                pass

    def open(self) -> None:
        """Starts the process that `blob` reads from."""
        self._reader = self._git()
        self._reader.update_environment(**self._all())

    def close(self) -> None:
        """Ends the process that `blob` reads from."""
        self._reader.clear_cache()

    def _stdin(self, names: list[str] | None) -> BinaryIO:
        path = self._work / "stdin"
        path.write_text("".join(f"{name}\n" for name in names or []), encoding="ascii")
        return path.open("rb")

    def _git(self) -> Git:
        return Git(str(self._work))

    def _all(self) -> dict[str, str]:
        objects = str(self._repository / "objects")
        return {
            **self._environment,
            "GIT_DIR": str(self._repository),
            "GIT_OBJECT_DIRECTORY": objects,
        }

    def _network(self, *arguments: str, what: str = "", wanted: list[str] | None = None) -> str:
        return retrying(self._deadline)(self._attempt, arguments, what, wanted)

    def _attempt(self, arguments: tuple[str, ...], what: str, wanted: list[str] | None) -> str:
        report = _Report(what)
        with self._stdin(wanted) as istream:
            try:
                process: Any = self._git().execute(
                    ["git", *arguments],
                    istream=istream,
                    as_process=True,
                    env=self._all(),
                    universal_newlines=True,
                    errors="replace",
                    # git starts git-remote-https or ssh, which keep the connection and our pipes
                    # open when git alone is killed. As a group they are killed together.
                    start_new_session=True,
                )
            except GitCommandNotFound:
                raise SourceError("the git program is not installed") from None
        reader = threading.Thread(target=report.read, args=(process.stderr,), daemon=True)
        reader.start()
        guard = _Guard(process.proc, self._work, self._deadline, self._limit)
        guard.start()
        try:
            output: str = process.stdout.read()
            reader.join()
            status = process.proc.wait()
        finally:
            guard.stop()
            report.close()
        if guard.verdict:
            raise SourceError(guard.verdict)
        if status != 0:
            raise failure(report.text())
        return output if arguments[0] != "fetch" else report.text()


class _Report(RemoteProgress):
    """Reads the messages and the progress on git's standard error."""

    __slots__ = ("_lines", "_progress")

    def __init__(self, what: str) -> None:
        super().__init__()
        self._progress = Progress(f"fetching {what}", unit="objects")
        self._lines: list[str] = []

    def read(self, stream: IO[str]) -> None:
        handle = self.new_message_handler()
        for line in stream:
            # A server can send messages without end, of which only the last ones matter.
            if not re.search(r"\d+% \(", line):
                self._lines = [*self._lines[-50:], line[:500].strip()]
            handle(line[:500])

    def update(
        self,
        op_code: int,
        cur_count: str | float,
        max_count: str | float | None = None,
        message: str = "",
    ) -> None:
        if op_code & self.RECEIVING:
            self._progress.total = int(float(max_count or 0))
            self._progress.reach(int(float(cur_count)))

    def text(self) -> str:
        return "\n".join(self._lines)

    def close(self) -> None:
        self._progress.__exit__(None, None, None)


class _Guard(threading.Thread):
    """Ends a process that takes too long or fetches too much.

    git has no limit for the size of a fetch, and `http.lowSpeedLimit` does not end a slow drip.
    So a thread looks at the clock and at the size of the folder twice a second.
    """

    def __init__(
        self, process: subprocess.Popen[str], work: Path, deadline: float, limit: float
    ) -> None:
        super().__init__(daemon=True)
        self.verdict = ""
        self._process = process
        self._work = work
        self._deadline = deadline
        self._limit = limit
        self._size = settings.max_source_size() * 2
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(min(0.5, max(0.01, self._deadline - time.monotonic()))):
            if time.monotonic() >= self._deadline:
                self.verdict = f"expected to be fetched in {self._limit:g} s, gave up"
            elif size_of(self._work) > self._size:
                self.verdict = f"expected at most {self._size} bytes of git objects, got more"
            if self.verdict:
                _end(self._process)
                return

    def stop(self) -> None:
        self._done.set()
        self.join()
        if self._process.poll() is None:
            _end(self._process)


@cache
def _check_version() -> None:
    # GIT_CONFIG_COUNT needs git 2.31, GIT_CONFIG_GLOBAL needs 2.32.
    got = Git().version_info
    if got < MINIMUM_VERSION:
        raise SourceError(f"expected git 2.32 or later, got {'.'.join(map(str, got))}")


def _end(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()
