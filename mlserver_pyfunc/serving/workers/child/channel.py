"""A worker's end of the connection to the server.

The socket carries the messages; a wakeup, which is an eventfd, tells the server how many
there are to read. Results of brief calls are sent one by one, so that none is lost with
the worker, but the wakeup is rung for some together, so that the server wakes once for all.
Permits are an eventfd too: of those for calls that have not begun, whoever takes one first,
the worker or the server, has the call.
Needs only NumPy and the standard library.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from mlserver_pyfunc.protocol.contract import TensorSpec
from mlserver_pyfunc.protocol.tensors import Array
from mlserver_pyfunc.serving.workers.wire.codec import Codec
from mlserver_pyfunc.serving.workers.wire.messages import PACKET_BYTES, Kind, Message

COALESCE_SECONDS = 500e-6
"""For how long the wakeup may not be rung after a message."""

COALESCE_BYTES = 64 * 1024
"""How much may be sent before: less than the socket's buffer takes."""


class Channel:
    """Sends and receives messages. All but `receive` is safe for threads.

    Args:
        connection: A `SOCK_SEQPACKET` socket, which blocks.
        wakeup: Descriptor of the wakeup.
        tokens: Of the tokens, which does not block.
        codec: Makes and reads messages.
    """

    def __init__(self, connection: socket.socket, wakeup: int, tokens: int, codec: Codec) -> None:
        self.codec = codec
        self._connection = connection
        self._wakeup = wakeup
        self._tokens = tokens
        self._received: deque[Message] = deque()
        self._sending = threading.Lock()
        self._unannounced = 0
        self._unannounced_bytes = 0
        self._unannounced_since = 0.0

    def receive(self) -> Message | None:
        """Waits for the next message; None where the server is gone.

        Raises:
            WireError: It cannot be understood.
        """
        while not self._received:
            if self._unannounced:
                with self._sending:
                    self._ring()
            try:
                packet = self._connection.recv(PACKET_BYTES)
            except ConnectionError:
                return None
            if not packet:
                return None
            self._received.extend(self.codec.decode(packet))
        return self._received.popleft()

    def takes(self, message: Message) -> bool:
        """Whether a call is this worker's to run. If not, the server has taken it back."""
        if not message.needs_token:
            return True
        try:
            os.read(self._tokens, 8)
        except BlockingIOError:
            self.send(Kind.DROPPED, message.call)
            return False
        return True

    def send(
        self,
        kind: Kind,
        call: int = 0,
        head: Mapping[str, Any] | None = None,
        named: Sequence[tuple[TensorSpec, Array]] = (),
    ) -> None:
        """Makes and sends a message."""
        self.post(self.codec.encode(kind, call, head, named))

    def post(self, message: bytes, *, coalesce: bool = False) -> None:
        """Sends a message that the codec made.

        Args:
            message: To send.
            coalesce: The wakeup need not be rung while other messages wait to be received.
        """
        with self._sending:
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
            self._ring()

    def _ring(self) -> None:
        os.write(self._wakeup, self._unannounced.to_bytes(8, sys.byteorder))
        self._unannounced = self._unannounced_bytes = 0
