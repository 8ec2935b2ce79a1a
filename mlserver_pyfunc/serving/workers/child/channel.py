"""A worker's end of the connection to the server.

The socket carries the messages; a bell, which is an eventfd, tells the server how many
there are to read. Results of brief calls are sent one by one, so that none is lost with
the worker, but the bell is rung for some together, so that the server wakes once for all.
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

HELD_SECONDS = 500e-6
"""For how long the bell may not be rung after a message."""

HELD_BYTES = 64 * 1024
"""How much may be sent before: less than the socket's buffer takes."""


class Channel:
    """Sends and receives messages. All but `receive` is safe for threads.

    Args:
        connection: A `SOCK_SEQPACKET` socket, which blocks.
        bell: Descriptor of the bell.
        permits: Of the permits, which does not block.
        codec: Makes and reads messages.
    """

    def __init__(self, connection: socket.socket, bell: int, permits: int, codec: Codec) -> None:
        self.codec = codec
        self._connection = connection
        self._bell = bell
        self._permits = permits
        self._received: deque[Message] = deque()
        self._sending = threading.Lock()
        self._held = 0
        self._held_bytes = 0
        self._held_since = 0.0

    def receive(self) -> Message | None:
        """Waits for the next message; None where the server is gone.

        Raises:
            WireError: It cannot be understood.
        """
        while not self._received:
            if self._held:
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
        if not message.needs_permit:
            return True
        try:
            os.read(self._permits, 8)
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

    def post(self, message: bytes, *, hold: bool = False) -> None:
        """Sends a message that the codec made.

        Args:
            message: To send.
            hold: The bell need not be rung while other messages wait to be received.
        """
        with self._sending:
            self._connection.send(message)
            if not self._held:
                self._held_since = time.perf_counter()
            self._held += 1
            self._held_bytes += len(message)
            if (
                hold
                and self._received
                and self._held_bytes < HELD_BYTES
                and time.perf_counter() - self._held_since < HELD_SECONDS
            ):
                return
            self._ring()

    def _ring(self) -> None:
        os.write(self._bell, self._held.to_bytes(8, sys.byteorder))
        self._held = self._held_bytes = 0
