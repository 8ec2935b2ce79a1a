"""The server's end of the connection to a worker."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from mlserver_pyfunc.protocol.contract import TensorSpec
from mlserver_pyfunc.protocol.tensors import Array

from .wire.codec import Codec
from .wire.messages import PACKET_BYTES, Kind, Message, WireError
from .wire.shared_memory import Reader, Writer, create_arena


class Connection:
    """Messages to and from one worker. All methods are for the event loop's thread.

    Attributes:
        passed: Descriptors for the worker: socket, wakeup, tokens, and the shared memory that
            the server writes and reads. See `channel`.
        bursts: Several messages were sent together the last time.

    Args:
        on_message: Takes each message that comes.
        on_protocol_error: Takes what is wrong with one that cannot be understood.

    Raises:
        OSError: The system has no such connections, or no more of them.
    """

    def __init__(
        self, on_message: Callable[[Message], None], on_protocol_error: Callable[[WireError], None]
    ) -> None:
        self._on_message = on_message
        self._on_protocol_error = on_protocol_error
        self._loop = asyncio.get_running_loop()
        self._codec: Codec | None = None
        self._outbox: list[bytes] = []
        self._tokens_due = 0
        self._backlog: deque[bytes] = deque()
        self.bursts = False
        self._make()

    @property
    def memory_used(self) -> int:
        """Bytes of shared memory that hold tensors for the worker."""
        return self._codec.writer.used_bytes if self._codec is not None else 0

    def start(self) -> None:
        """Listens to the worker, which has its descriptors by now."""
        self._close_theirs()
        self._loop.add_reader(self._wakeup, self._on_wakeup)

    def send(
        self,
        kind: Kind,
        call: int = 0,
        head: Mapping[str, Any] | None = None,
        named: Sequence[tuple[TensorSpec, Array]] = (),
        *,
        request_id: str = "",
        coalesce: bool = False,
        needs_token: bool = False,
    ) -> None:
        """Sends a message. To a dead worker it goes nowhere.

        Args:
            kind: What it says.
            call: Number of the call that it is about.
            head: Its values.
            named: Its tensors.
            request_id: Of the inference request, of a call.
            soon: Send it with those of other requests that have come by now.
            needs_token: It is a call that `take_back` may take back.

        Raises:
            TypeError: The head holds what JSON has no form for.
            MemoryError: The tensors do not fit into the shared memory.
        """
        if self._codec is None:
            return
        self._outbox.append(
            self._codec.encode(
                kind, call, head, named, request_id=request_id, needs_token=needs_token
            )
        )
        self._tokens_due += needs_token
        if not coalesce:
            self._flush()
        elif len(self._outbox) == 1:
            self._loop.call_soon(self._flush)

    def take_back(self) -> int:
        """Takes back calls that need a permit and have not begun: how many, of the last sent.

        The worker tells of each that it has dropped, when it comes to it.
        """
        self._flush()
        taken = 0
        with suppress(BlockingIOError):
            while self._codec is not None:
                os.read(self._tokens, 8)
                taken += 1
        return taken

    def receive(self, most: int | None = None) -> None:
        """Takes messages that have come, also those for which the wakeup is not rung yet.

        Args:
            most: How many; None for all.
        """
        try:
            while most != 0 and self._receive():
                most = None if most is None else most - 1
        except WireError as error:
            self._on_protocol_error(error)

    def close(self) -> None:
        """Takes the last messages of a worker that is gone, and lets go of everything."""
        self._loop.remove_reader(self._wakeup)
        with suppress(WireError):
            while self._receive():
                pass
        self._loop.remove_writer(self._socket)
        self.abandon()

    def abandon(self) -> None:
        """Lets go of everything, where no worker could be started."""
        # With the last array on it, its memory goes at once.
        self._codec = None
        self._close_theirs()
        self._socket.close()
        os.close(self._wakeup)
        os.close(self._tokens)

    def _make(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        opened = []
        try:
            ours.setblocking(False)
            opened.append(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
            opened.append(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK | os.EFD_SEMAPHORE))
            opened.append(create_arena())
            opened.append(create_arena())
        except BaseException:
            ours.close()
            theirs.close()
            for descriptor in opened:
                os.close(descriptor)
            raise
        wakeup, tokens, inbound, outbound = opened
        self._socket, self._wakeup, self._tokens = ours, wakeup, tokens
        self._codec = Codec(Writer(inbound), Reader(outbound))
        self.passed = (theirs.detach(), wakeup, tokens, inbound, outbound)
        self._theirs = [self.passed[0], inbound, outbound]

    def _close_theirs(self) -> None:
        while self._theirs:
            os.close(self._theirs.pop())

    def _on_wakeup(self) -> None:
        with suppress(BlockingIOError):
            self.receive(int.from_bytes(os.read(self._wakeup, 8), sys.byteorder))

    def _receive(self) -> bool:
        """Takes one packet; False where there is none."""
        if self._codec is None:
            return False
        try:
            try:
                packet = self._socket.recv(PACKET_BYTES)
            except ConnectionResetError:
                # It died before it read all. Said once; then comes what it had sent.
                packet = self._socket.recv(PACKET_BYTES)
        except (BlockingIOError, ConnectionError):
            return False
        for message in self._codec.decode(packet):
            self._on_message(message)
        return bool(packet)

    def _flush(self) -> None:
        """Sends what is in the outbox, in as few packets as it takes."""
        outbox, self._outbox = self._outbox, []
        if not outbox or self._codec is None:
            return
        self.bursts = len(outbox) > 1
        packets = _joined(outbox) if self.bursts else outbox
        if self._tokens_due:
            os.write(self._tokens, self._tokens_due.to_bytes(8, sys.byteorder))
            self._tokens_due = 0
        if self._backlog:
            self._backlog.extend(packets)
            return
        for number, packet in enumerate(packets):
            try:
                self._socket.send(packet)
            except BlockingIOError:
                self._backlog.extend(packets[number:])
                self._loop.add_writer(self._socket, self._send_backlog)
                return
            except OSError:
                # It is gone: its exit is reported in a moment.
                return

    def _send_backlog(self) -> None:
        with suppress(BlockingIOError):
            while self._backlog:
                with suppress(BrokenPipeError, ConnectionError):
                    self._socket.send(self._backlog[0])
                self._backlog.popleft()
            self._loop.remove_writer(self._socket)


def _joined(messages: Sequence[bytes]) -> list[bytes]:
    """Packs messages into packets, in order."""
    packets: list[list[bytes]] = [[]]
    size = 0
    for message in messages:
        size += len(message)
        if size > PACKET_BYTES and packets[-1]:
            packets.append([])
            size = len(message)
        packets[-1].append(message)
    return [b"".join(packet) for packet in packets]
