"""The server's end of the connection to a worker: see docs/design/worker-protocol.md."""

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
    """Sends messages to one worker and receives its messages. For the event loop's thread.

    A message of a kind that `on_message` has not is ignored. An OSError means that the system does
    not support such a connection, or has no descriptors left.
    """

    def __init__(
        self,
        on_message: Mapping[Kind, Callable[[Message], None]],
        on_protocol_error: Callable[[WireError], None],
    ) -> None:
        self._on_message = on_message
        self._on_protocol_error = on_protocol_error
        self._loop = asyncio.get_running_loop()
        self._codec: Codec | None = None
        self._outbox: list[bytes] = []
        self._tokens_due = 0
        self._backlog: deque[bytes] = deque()
        self.sent_several = False  # whether the last flush sent several messages together
        self._open()

    @property
    def memory_used(self) -> int:
        return self._codec.writer.used_bytes if self._codec is not None else 0

    def start(self) -> None:
        """Starts to receive. The worker's process must have its descriptors by now."""
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
        """Sends a message as `Codec.encode` describes it. A message to a dead worker is lost.

        With `coalesce` it is sent together with those of requests that have already arrived.
        One that `needs_token` is a call that `take_back` may take back.
        """
        if self._codec is None:
            return
        message = self._codec.encode(
            kind, call, head, named, request_id=request_id, needs_token=needs_token
        )
        self._outbox.append(message)
        self._tokens_due += needs_token
        if not coalesce:
            self._flush()
        elif len(self._outbox) == 1:
            # Requests that arrived together have put their calls into the outbox by then.
            self._loop.call_soon(self._flush)

    def take_back(self) -> int:
        """Takes back the last calls that the worker got and has not begun. Returns how many."""
        self._flush()
        taken = 0
        with suppress(BlockingIOError):
            while self._codec is not None:
                os.read(self._tokens, 8)
                taken += 1
        return taken

    def receive(self, limit: int | None = None) -> None:
        """Receives messages, also those that the worker has not announced by a wakeup yet."""
        try:
            while limit != 0 and self._receive():
                limit = None if limit is None else limit - 1
        except WireError as error:
            self._on_protocol_error(error)

    def close(self) -> None:
        """Receives the last messages of a worker that is gone, and closes everything."""
        self._loop.remove_reader(self._wakeup)
        with suppress(WireError):
            while self._receive():
                pass
        self._loop.remove_writer(self._socket)
        self.abandon()

    def abandon(self) -> None:
        """Closes everything. For a connection whose worker could not be started."""
        # The memory is unmapped when the last array on it is gone.
        self._codec = None
        self._close_theirs()
        self._socket.close()
        os.close(self._wakeup)
        os.close(self._tokens)

    def _open(self) -> None:
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
        # Of the last two, the server writes to the first and the worker to the second.
        self.passed = (theirs.detach(), wakeup, tokens, inbound, outbound)
        self._theirs = [self.passed[0], inbound, outbound]

    def _close_theirs(self) -> None:
        while self._theirs:
            os.close(self._theirs.pop())

    def _on_wakeup(self) -> None:
        with suppress(BlockingIOError):
            self.receive(int.from_bytes(os.read(self._wakeup, 8), sys.byteorder))

    def _receive(self) -> bool:
        if self._codec is None:
            return False
        try:
            try:
                packet = self._socket.recv(PACKET_BYTES)
            except ConnectionResetError:
                # Reported once, before the results of a worker that died with calls unread.
                packet = self._socket.recv(PACKET_BYTES)
        except (BlockingIOError, ConnectionError):
            return False
        for message in self._codec.decode(packet):
            on_message = self._on_message.get(message.kind)
            if on_message is None:
                continue
            try:
                on_message(message)
            except Exception as error:
                # The event loop would only log it, and the call would never end.
                raise WireError(f"message {message.kind.name}: {error!r}") from error
        return bool(packet)

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, []
        if not outbox or self._codec is None:
            return
        self.sent_several = len(outbox) > 1
        packets = _joined(outbox) if self.sent_several else outbox
        # Tokens first: a worker that reads a call before its token would drop the call.
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
                # The worker is gone. The process reports its exit in a moment.
                return

    def _send_backlog(self) -> None:
        with suppress(BlockingIOError):
            while self._backlog:
                with suppress(BrokenPipeError, ConnectionError):
                    self._socket.send(self._backlog[0])
                self._backlog.popleft()
            self._loop.remove_writer(self._socket)


def _joined(messages: Sequence[bytes]) -> list[bytes]:
    packets: list[list[bytes]] = [[]]
    size = 0
    for message in messages:
        size += len(message)
        if size > PACKET_BYTES and packets[-1]:
            packets.append([])
            size = len(message)
        packets[-1].append(message)
    return [b"".join(packet) for packet in packets]
