"""Calls from inside a container's network namespace."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from tests.places import ROOT

Result = TypeVar("Result")

NEW_NETWORK = 0x40000000


class Network:
    """A network namespace, kept for as long as this is open.

    Args:
        pid: A process in it.
        ip: The address its servers are called at: that of the pod, not the loopback's.
    """

    def __init__(self, pid: int, ip: str) -> None:
        self.ip = ip
        self._file = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        # A namespace is a thread's: what these open is in the container's.
        self._threads = ThreadPoolExecutor(16, initializer=_enter, initargs=(self._file,))

    def submit(self, call: Callable[..., Result], *args: Any) -> Future[Result]:
        """Runs a function on a thread whose sockets are in the namespace."""
        return self._threads.submit(call, *args)

    def run(self, call: Callable[..., Result], *args: Any) -> Result:
        return self.submit(call, *args).result(120)

    def grpc(self, port: int, action: str, **arguments: Any) -> dict[str, Any]:
        """One gRPC call, by `grpc_client` in a process of its own, in the namespace."""
        request = json.dumps({"action": action, "address": f"{self.ip}:{port}", **arguments})
        done = subprocess.run(
            [
                "nsenter", f"--net=/proc/self/fd/{self._file}", "--",
                sys.executable, "-m", "tests.deployment.platforms.grpc_client", request,
            ],
            cwd=ROOT, pass_fds=[self._file], capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


def _enter(file: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(file, NEW_NETWORK):
        raise OSError(ctypes.get_errno(), "setns")
