from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator

import pytest

from mlserver_pyfunc.serving.workers.child import channel as channels
from mlserver_pyfunc.serving.workers.child.channel import Channel
from mlserver_pyfunc.serving.workers.wire.codec import Codec
from mlserver_pyfunc.serving.workers.wire.messages import PACKET_BYTES, Kind
from mlserver_pyfunc.serving.workers.wire.shared_memory import Reader, Writer, create_arena


class Server:
    """The server's end, and what it sees."""

    def __init__(self, connection: socket.socket, wakeup: int, tokens: int, codec: Codec) -> None:
        self.connection = connection
        self.codec = codec
        self.tokens = tokens
        self._wakeup = wakeup

    def send(self, *numbers: int, token: bool = False) -> None:
        """Sends calls in one packet."""
        calls = [self.codec.encode(Kind.CALL, n, needs_token=token) for n in numbers]
        self.connection.send(b"".join(calls))

    def receive(self) -> list[int]:
        """Numbers of the messages that have come, also those without a wakeup."""
        numbers = []
        while True:
            try:
                packet = self.connection.recv(PACKET_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return numbers
            numbers += [message.call for message in self.codec.decode(packet)]

    def announced(self) -> int:
        """Returns how many packets the worker has announced since the last call."""
        try:
            return int.from_bytes(os.read(self._wakeup, 8), sys.byteorder)
        except BlockingIOError:
            return 0


@pytest.fixture
def ends() -> Iterator[tuple[Server, Channel]]:
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    there, back, wakeup = create_arena(), create_arena(), os.eventfd(0, os.EFD_NONBLOCK)
    tokens = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_SEMAPHORE)
    with left, right:
        yield (
            Server(left, wakeup, tokens, Codec(Writer(there), Reader(back))),
            Channel(right, wakeup, tokens, Codec(Writer(back), Reader(there))),
        )
    for descriptor in (there, back, wakeup, tokens):
        os.close(descriptor)


def number(channel: Channel) -> int:
    message = channel.receive()
    assert message is not None
    return message.call


def test_one_wakeup_announces_several_results(ends: tuple[Server, Channel]) -> None:
    server, channel = ends
    server.send(1, 2, 3)
    for expected in (1, 2, 3):
        assert number(channel) == expected
        assert server.announced() == 0
        channel.post(channel.codec.encode(Kind.RESULT, expected), coalesce=True)
        assert server.receive() == [expected], "sent at once, so that it outlives the worker"
    assert server.announced() == 3


def test_the_server_is_woken_before_the_worker_waits(
    ends: tuple[Server, Channel], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, channel = ends
    server.send(1, 2)
    number(channel)
    channel.post(channel.codec.encode(Kind.RESULT, 1), coalesce=True)
    number(channel)
    assert server.announced() == 0
    server.send(3)
    number(channel)
    assert server.announced() == 1


def test_a_message_that_is_not_coalesced_announces_those_before(
    ends: tuple[Server, Channel],
) -> None:
    server, channel = ends
    server.send(1, 2, 3)
    number(channel)
    channel.post(channel.codec.encode(Kind.RESULT, 1), coalesce=True)
    channel.send(Kind.LOG, head={"text": "x"})
    assert server.announced() == 2


@pytest.mark.parametrize("limit", ["COALESCE_SECONDS", "COALESCE_BYTES"])
def test_nothing_stays_unannounced_for_long(
    ends: tuple[Server, Channel], monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(channels, limit, 0)
    server, channel = ends
    server.send(1, 2)
    number(channel)
    channel.post(channel.codec.encode(Kind.RESULT, 1), coalesce=True)
    assert server.announced() == 1


def test_the_end_of_the_connection_is_none(ends: tuple[Server, Channel]) -> None:
    server, channel = ends
    server.connection.close()
    assert channel.receive() is None


def test_a_call_without_a_token_is_dropped(ends: tuple[Server, Channel]) -> None:
    server, channel = ends
    server.send(1)
    server.send(2, 3, 4, token=True)
    os.write(server.tokens, (2).to_bytes(8, sys.byteorder))
    messages = [channel.receive() for _ in range(4)]
    assert [channel.claim(m) for m in messages if m is not None] == [True, True, True, False]
    [packet] = [server.connection.recv(PACKET_BYTES)]
    assert [(m.kind, m.call) for m in server.codec.decode(packet)] == [(Kind.DROPPED, 4)]
