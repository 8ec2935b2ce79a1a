"""Balancers over pods: of connections, as kube-proxy is one, or of requests, as a mesh is."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from mlserver_pyfunc.deployment.server_settings import Ports, free_ports

from .processes import wait_until_up

SLOTS = 16
KINDS = ("connections", "requests")
ROOT = Path(__file__).resolve().parents[1]

# Nothing is tried again: a call that fails is the client's, and counts as lost.
_CONFIG = """
global
  stats socket {socket} level admin
defaults
  retries 0
  http-reuse always
  timeout connect 5s
  timeout client 5m
  timeout server 5m
listen rest
  mode {mode}
  bind 127.0.0.1:{rest}
  balance roundrobin
  server-template slot {slots} 127.0.0.1:1 disabled
listen grpc
  mode tcp
  bind 127.0.0.1:{grpc}
  balance roundrobin
  server-template slot {slots} 127.0.0.1:1 disabled
"""


class Balancer:
    """HAProxy, whose servers change while it runs, and a proxy for calls over gRPC.

    A server that is removed keeps its connections if they are balanced, as with kube-proxy.

    Attributes:
        rest: Address for clients over REST.
        grpc: Address for clients over gRPC.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        path = f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"
        program = shutil.which("haproxy", path=path)
        if program is None:
            raise SystemExit("haproxy is needed: apt-get install haproxy")
        rest, grpc = free_ports(2)
        self.rest, self.grpc = f"127.0.0.1:{rest}", f"127.0.0.1:{grpc}"
        self._free = list(range(SLOTS, 0, -1))
        self._slots: dict[str, int] = {}
        self._grpc_ports: dict[str, int] = {}
        self._socket = folder / "haproxy.sock"
        config = folder / "haproxy.cfg"
        mode = "http" if kind == "requests" else "tcp"
        text = _CONFIG.format(socket=self._socket, mode=mode, rest=rest, grpc=grpc, slots=SLOTS)
        config.write_text(text)
        with (folder / "haproxy.log").open("wb") as log:
            self._process = subprocess.Popen(
                [program, "-db", "-f", config], stdout=log, stderr=subprocess.STDOUT
            )
        self._proxy: subprocess.Popen[str] | None = None
        if kind == "requests":
            self._proxy = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.grpc_proxy"],
                cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            assert self._proxy.stdout is not None
            self.grpc = f"127.0.0.1:{int(self._proxy.stdout.readline())}"

    def __enter__(self) -> Balancer:
        wait_until_up(self._process, self._is_up, self._socket.with_name("haproxy.log"))
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        if self._proxy is not None:
            self._proxy.kill()
            self._proxy.communicate()

    def _is_up(self) -> bool:
        with suppress(OSError):
            self._say("show info")
            return True
        return False

    def add(self, name: str, ports: Ports) -> None:
        """Sends new connections, or requests, to a server too."""
        slot = self._slots[name] = self._free.pop()
        for proxy, port in {"rest": ports.http, "grpc": ports.grpc}.items():
            self._say(f"set server {proxy}/slot{slot} addr 127.0.0.1 port {port}")
            self._say(f"set server {proxy}/slot{slot} state ready")
        self._grpc_ports[name] = ports.grpc
        self._tell_proxy()

    def remove(self, name: str) -> None:
        """Sends no new connection, or request, to a server."""
        slot = self._slots.pop(name)
        for proxy in ("rest", "grpc"):
            self._say(f"set server {proxy}/slot{slot} state maint")
        # Connections of the slot may last on, so the next pod gets another one while there are any.
        self._free.insert(0, slot)
        del self._grpc_ports[name]
        self._tell_proxy()

    def _tell_proxy(self) -> None:
        if self._proxy is not None:
            assert self._proxy.stdin is not None
            self._proxy.stdin.write(json.dumps(list(self._grpc_ports.values())) + "\n")
            self._proxy.stdin.flush()

    def _say(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(self._socket))
            client.sendall(f"{command}\n".encode())
            return client.makefile().read()
