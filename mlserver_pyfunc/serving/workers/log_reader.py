"""Copies a worker's output to the server's log, line by line."""

from __future__ import annotations

import asyncio
import codecs
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress

LINE_CHARS = 8000
"""Longest line, in characters. A longer line is split."""

KEPT_LINES = 100
"""Number of last lines that are kept, to explain why a worker died."""

_CHUNK = 64 * 1024
_LAST_CHUNKS = 64
_PAUSE = 0.01
"""Pause in seconds after a full chunk. A flood of output blocks the worker, not the server."""


class OutputReader:
    """Reads the pipe that a worker's stdout and stderr go to, and closes the descriptor."""

    def __init__(self, descriptor: int, log: Callable[[str], None]) -> None:
        os.set_blocking(descriptor, False)
        self.last_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._descriptor = descriptor
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
        self._partial = ""
        self._resume: asyncio.TimerHandle | None = None
        self._loop.add_reader(descriptor, self._read)

    def close(self) -> None:
        """Logs the lines that are left in the pipe, and closes it."""
        with suppress(BlockingIOError):
            for _ in range(_LAST_CHUNKS):
                if not self._read_chunk():
                    break
        if self._resume is not None:
            self._resume.cancel()
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        if self._partial:
            self._line(self._partial)

    def _read(self) -> None:
        with suppress(BlockingIOError):
            size = self._read_chunk()
            if size in (0, _CHUNK):
                self._loop.remove_reader(self._descriptor)
            if size == _CHUNK:
                self._resume = self._loop.call_later(
                    _PAUSE, self._loop.add_reader, self._descriptor, self._read
                )

    def _read_chunk(self) -> int:
        """Logs the next lines. Returns how many bytes were read, 0 at the end."""
        chunk = os.read(self._descriptor, _CHUNK)
        lines = (self._partial + self._decoder.decode(chunk)).split("\n")
        self._partial = lines.pop()
        for line in lines:
            self._line(line)
        while len(self._partial) > LINE_CHARS:
            self._line(self._partial[:LINE_CHARS])
            self._partial = self._partial[LINE_CHARS:]
        return len(chunk)

    def _line(self, line: str) -> None:
        line = line.rstrip("\r")[:LINE_CHARS]
        self.last_lines.append(line)
        self._log(line)
