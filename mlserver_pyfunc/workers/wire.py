"""Messages between the server and a worker.

A message is one packet of a Unix socket: a fixed header, a JSON head, and the tensors'
bytes where they are few. Those of big tensors are in shared memory, written once by the
sender and read in place. Nothing is pickled. A packet arrives whole or not at all, so a
worker that dies leaves no half message.

    byte 0   version     byte 1   kind     byte 2   flags     byte 3   0
    4-7      size of the head, little-endian
    8-       the head; padding to 16 bytes; tensors

Needs only NumPy and the standard library.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from .. import tensors, texts
from ..contract import TensorSpec
from ..tensors import Array, RawTensor
from .memory import Reader, Writer

VERSION = 1
PACKET_BYTES = 64 * 1024
"""The longest packet. Less than a socket's buffer takes under the kernel's default."""

INLINE_BYTES = 16 * 1024
"""Tensors of a message that are no longer than this in all travel in the packet."""

HEAD_BYTES = 32 * 1024
"""A longer head goes through shared memory too."""

_HEADER = struct.Struct("<BBBxI")
_ALIGNMENT = 16
_HEAD_IN_MEMORY = 1
_encode_json = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_decode_json = json.JSONDecoder().raw_decode


class Kind(IntEnum):
    """What a message says. Those to the worker come first."""

    LOAD = 1
    CALL = 2
    NEXT = 3
    CLOSE = 4
    CANCEL = 5
    UNLOAD = 6
    PHASE = 32
    LOADED = 33
    FAILED = 34
    RESULT = 35
    ITEM = 36
    END = 37
    ERROR = 38
    LOG = 39


_KINDS = {int(kind): kind for kind in Kind}


class WireError(Exception):
    """A message that cannot be read: the other side is of another version, or broken."""


@dataclass(slots=True)
class Message:
    """A message as it arrived.

    Attributes:
        kind: What it says.
        head: Its values.
        body: The bytes of all its tensors.
    """

    kind: Kind
    head: dict[str, Any]
    body: memoryview


class Channel:
    """One end of the connection between the server and a worker.

    Args:
        connection: A `SOCK_SEQPACKET` socket.
        writer: Shared memory for tensors that this end sends.
        reader: Shared memory of the tensors that it gets.
    """

    def __init__(self, connection: socket.socket, writer: Writer, reader: Reader) -> None:
        self.connection = connection
        self.writer = writer
        self._reader = reader
        self._sending = threading.Lock()

    def receive(self) -> Message | None:
        """Reads the next message; None where the other side is gone.

        Raises:
            BlockingIOError: The socket does not block, and there is none.
            WireError: It cannot be understood.
        """
        try:
            packet = self.connection.recv(PACKET_BYTES)
        except ConnectionError:
            return None
        return self._decode(packet) if packet else None

    def send(
        self, kind: Kind, head: Mapping[str, Any], named: Sequence[tuple[TensorSpec, Array]] = ()
    ) -> None:
        """Sends a message on a blocking socket. Safe for threads."""
        self.send_packet(self.encode(kind, head, named))

    def send_packet(self, packet: bytes) -> None:
        """Sends what `encode` made, on a blocking socket. Safe for threads."""
        with self._sending:
            self.connection.send(packet)

    def encode(
        self, kind: Kind, head: Mapping[str, Any], named: Sequence[tuple[TensorSpec, Array]] = ()
    ) -> bytes:
        """Makes a packet, and writes big tensors to shared memory.

        Raises:
            TypeError: The head holds what JSON has no form for.
            MemoryError: The tensors do not fit into the shared memory.
        """
        fields = dict(head)
        body = self._write(fields, named) if named else b""
        unread = self._reader.take_unread()
        if unread:
            fields["unread"] = unread
        try:
            text = _encode_json(fields).encode()
        except BaseException:
            self._take_back(fields)
            raise
        flags = 0
        if len(text) > HEAD_BYTES:
            text, flags = self._spill(text), _HEAD_IN_MEMORY
        header = _HEADER.pack(VERSION, kind, flags, len(text))
        if not body:
            return header + text
        padding = -(len(header) + len(text)) % _ALIGNMENT
        return b"".join((header, text, bytes(padding), body))

    def _write(self, fields: dict[str, Any], named: Sequence[tuple[TensorSpec, Array]]) -> bytes:
        """Lays the tensors out, notes where in `fields`, and returns what goes inline."""
        parts: list[Array | bytes] = []
        layout = []
        end = 0
        for spec, array in named:
            part = tensors.to_raw(spec.datatype, array) if spec.datatype.is_bytes else array
            size = len(part) if isinstance(part, bytes) else part.nbytes
            start = end + -end % _ALIGNMENT
            end = start + size
            layout.append((spec.name, array.shape, start, size))
            parts.append(part)
        fields["tensors"] = layout
        if end <= INLINE_BYTES:
            return _joined(layout, parts)
        offset = self.writer.allocate(end)
        fields["region"] = (offset, end)
        view = self.writer.view(offset, end)
        for (_, shape, start, size), part in zip(layout, parts, strict=True):
            target = view[start : start + size]
            if isinstance(part, bytes):
                target[:] = np.frombuffer(part, dtype=np.uint8)
            else:
                np.copyto(target.view(part.dtype).reshape(shape), part)
        return b""

    def _take_back(self, fields: Mapping[str, Any]) -> None:
        """Undoes what a message that cannot be encoded has done."""
        self._reader.return_unread(fields.get("unread", ()))
        if "region" in fields:
            self.writer.release(fields["region"][0])

    def _spill(self, text: bytes) -> bytes:
        offset = self.writer.allocate(len(text))
        self.writer.view(offset, len(text))[:] = np.frombuffer(text, dtype=np.uint8)
        return _encode_json([offset, len(text)]).encode()

    def _decode(self, packet: bytes) -> Message:
        try:
            version, kind, flags, size = _HEADER.unpack_from(packet)
            if version != VERSION:
                raise WireError(f"expected messages of version {VERSION}, got {version}")
            end = _HEADER.size + size
            head, _ = _decode_json(packet[_HEADER.size : end].decode())
            if flags & _HEAD_IN_MEMORY:
                head = json.loads(bytes(self._reader.read(*head)))
            for offset in head.pop("unread", ()):
                self.writer.release(offset)
            region = head.get("region")
            body = (
                self._reader.read(*region)
                if region
                else memoryview(packet)[end + -end % _ALIGNMENT :]
            )
            return Message(_KINDS[kind], head, body)
        except (LookupError, ValueError, TypeError, AttributeError, struct.error) as error:
            raise WireError(f"unreadable message: {error}") from None


def read_tensors(message: Message, specs: Mapping[str, TensorSpec]) -> dict[str, Array]:
    """Views a message's tensors as arrays, read-only, by name.

    Raises:
        WireError: A tensor is not declared so.
        TensorError: Its bytes do not make its shape.
    """
    arrays = {}
    for name, shape, start, size in message.head.get("tensors", ()):
        spec = specs.get(name)
        if spec is None or not spec.admits(shape) or start + size > len(message.body):
            raise WireError(f'unexpected tensor "{name}" of shape {shape}')
        raw = RawTensor(message.body[start : start + size])
        array = tensors.from_raw(spec.datatype, raw, shape)
        arrays[name] = texts.as_text(array) if spec.text else array
    return arrays


def _joined(layout: Iterable[tuple[str, Any, int, int]], parts: Iterable[Array | bytes]) -> bytes:
    chunks: list[bytes] = []
    end = 0
    for (_, _, start, size), part in zip(layout, parts, strict=True):
        chunks.append(bytes(start - end))
        chunks.append(part if isinstance(part, bytes) else part.tobytes())
        end = start + size
    return b"".join(chunks)
