"""A worker's end of the connection to the server: see docs/design/worker-protocol.md."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from mlserver_pyfunc.serving.workers.wire.codec import Codec
from mlserver_pyfunc.serving.workers.wire.messages import PACKET_BYTES, Kind, Message

COALESCE_SECONDS = 500e-6
"""Longest time in seconds between a message and its wakeup, while calls wait to be run."""

COALESCE_BYTES = 64 * 1024
"""Largest number of bytes to send without a wakeup: less than the socket's buffer takes."""


class Channel:
    """Sends and receives messages. All methods but `receive` are safe for threads."""

    def __init__(self, connection: socket.socket, wakeup: int, tokens: int, codec: Codec) -> None:
        self.codec = codec
        self._connection = connection
        self._wakeup = wakeup
        self._tokens = tokens
        self._received: deque[Message] = deque()
        self._lock = threading.Lock()
        self._unannounced = 0
        self._unannounced_bytes = 0
        self._unannounced_since = 0.0

    def receive(self, *, waits: bool = True) -> Message | None:
        while not self._received:
            if waits and self._unannounced:
                with self._lock:
                    self._wake_server()
            try:
                packet = self._connection.recv(PACKET_BYTES, 0 if waits else socket.MSG_DONTWAIT)
            except (BlockingIOError, ConnectionError):
                return None
            if not packet:
                return None
            self._received.extend(self.codec.decode(packet))
        return self._received.popleft()

    def claim(self, message: Message) -> bool:
        """Claims a call for this worker. Returns False if the server has taken it back."""
        if not message.needs_token:
            return True
        try:
            os.read(self._tokens, 8)
        except BlockingIOError:
            self.send(Kind.DROPPED, message.call)
            return False
        return True

    def send(self, kind: Kind, call: int = 0, head: Mapping[str, Any] | None = None) -> None:
        self.post(self.codec.encode(kind, call, head))

    def post(self, message: bytes, *, coalesce: bool = False) -> None:
        """Sends an encoded message. With `coalesce` its wakeup may wait while calls wait to run."""
        with self._lock:
            self._connection.send(message)
            if not self._unannounced:
                self._unannounced_since = time.perf_counter()
            self._unannounced += 1
            self._unannounced_bytes += len(message)
            if (
                coalesce
                and self._received
                and self._unannounced_bytes < COALESCE_BYTES
                and time.perf_counter() - self._unannounced_since < COALESCE_SECONDS
            ):
                return
            self._wake_server()

    def _wake_server(self) -> None:
        os.write(self._wakeup, self._unannounced.to_bytes(8, sys.byteorder))
        self._unannounced = self._unannounced_bytes = 0
