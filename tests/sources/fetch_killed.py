"""Fetches a source in children that are killed at their n-th call to the system.

The URI comes by argument, each n as a line of standard input. A line of output answers it: how
many calls the child made, 0 where it was killed. The test's own process has threads, so a child
that it forks could hang; this one has none.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from mlserver_pyfunc.definition import SourceDefinition
from mlserver_pyfunc.sources import fetch

EVENTS = ("open", "os.", "subprocess.Popen", "shutil.", "tempfile.", "fcntl.", "socket.connect")


def fetch_source(uri: str) -> None:
    fetch(SourceDefinition(source=uri, handler="model:predict"), Path("."))


def fetch_in_a_fork(uri: str, kill_at: int) -> int:
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        os.waitpid(child, 0)
        with os.fdopen(reading) as said:
            return int(said.read() or 0)
    count = 0

    def hook(event: str, arguments: object) -> None:
        nonlocal count
        if event.startswith(EVENTS):
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    try:
        fetch_source(uri)
        os.write(writing, str(count).encode())
    finally:
        os._exit(0)


def main() -> None:
    # What is imported at the first fetch is no part of it.
    fetch_source(sys.argv[1])
    for line in sys.stdin:
        print(fetch_in_a_fork(sys.argv[1], int(line)), flush=True)


if __name__ == "__main__":
    main()
