"""The form of messages: docs/design/worker-protocol.md has their layout."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from mlserver_pyfunc.protocol import bytes_tensors, tensors
from mlserver_pyfunc.protocol.contract import TensorSpec
from mlserver_pyfunc.protocol.tensors import Array, RawTensor
from mlserver_pyfunc.protocol.types import TensorError

from .messages import HEAD_BYTES, INLINE_BYTES, VERSION, Head, Kind, Message, View, WireError
from .shared_memory import Reader, Writer

_HEADER = struct.Struct("<BBBxIIIIQ")
_ALIGNMENT = 16
_HEAD_IN_MEMORY = 1
_IS_CACHED = 2
_NEEDS_TOKEN = 4
_ID_CHARS = 256
"""Longest id in bytes that has its own place. A longer id is part of the head."""

_KINDS = {int(kind): kind for kind in Kind}


_UNREADABLE = (
    LookupError, ValueError, TypeError, AttributeError, RecursionError, OverflowError,
    MemoryError, struct.error,
)  # fmt: skip

_KEPT_HEADS = 256
_MOST_MICROSECONDS = 2**32 - 1
_encode_json = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
_decode_json = json.JSONDecoder().raw_decode


class Codec:
    """Encodes and decodes the messages of one end of a connection. Safe for threads."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self.writer = writer
        self._reader = reader
        # Shapes that come again usually do so soon. Clients may send new shapes all the time.
        self._known_head = lru_cache(_KEPT_HEADS)(_read_head)

    def encode(
        self,
        kind: Kind,
        call: int = 0,
        head: Mapping[str, Any] | None = None,
        named: Sequence[tuple[TensorSpec, Array]] = (),
        *,
        request_id: str = "",
        seconds: float = 0,
        needs_token: bool = False,
    ) -> bytes:
        """Encodes a message, and writes big tensors to shared memory.

        The number is 0 without a call, `seconds` the handler's duration. A worker must take a token
        first if the call `needs_token`. Raises a MemoryError if the shared memory is full, else a
        TypeError, ValueError or RecursionError if the head is no JSON or a tensor's elements wrong.
        """
        identity = request_id.encode("utf-8", "surrogatepass")
        fields: dict[str, Any] = {}
        if len(identity) > _ID_CHARS:
            fields["id"], identity = request_id, b""
        parts, layout, end = _laid_out(named)
        body, flags = b"", 0
        released = self._reader.take_released()
        if released:
            fields["released"] = released
        try:
            if end <= INLINE_BYTES:
                body = _joined(layout, parts)
            else:
                fields["region"] = (self._write(layout, parts, end), end)
            if head or fields:
                text = _encode_json({**(head or {}), **fields, "tensors": layout}).encode()
            else:
                text, flags = _text_of(layout), _IS_CACHED
        except BaseException:
            self._reader.restore_released(released)
            if "region" in fields:
                self.writer.release(fields["region"][0])
            raise
        if len(text) > HEAD_BYTES:
            place = ("", (), 0, len(text))
            offset = self._write([place], [text], len(text))
            text, flags = _encode_json([offset, len(text)]).encode(), _HEAD_IN_MEMORY
        microseconds = min(int(seconds * 1e6), _MOST_MICROSECONDS)
        if needs_token:
            flags |= _NEEDS_TOKEN
        header = _HEADER.pack(
            VERSION, kind, flags, len(identity), len(text), len(body), microseconds, call
        )
        return b"".join((header, identity, text, body))

    def decode(self, packet: bytes) -> list[Message]:
        messages: list[Message] = []
        start = 0
        try:
            while start < len(packet):
                message, start = self._read(packet, start)
                messages.append(message)
        except _UNREADABLE as error:
            raise WireError(f"unreadable message: {error}") from None
        return messages

    def _read(self, packet: bytes, start: int) -> tuple[Message, int]:
        version, kind, flags, id_size, head_size, body_size, microseconds, call = (
            _HEADER.unpack_from(packet, start)
        )
        if version != VERSION:
            raise WireError(f"expected messages of version {VERSION}, got {version}")
        start += _HEADER.size
        id_end = start + id_size
        head_end = id_end + head_size
        end = head_end + body_size
        if end > len(packet):
            raise WireError(f"expected {end} bytes, got {len(packet)}")
        identity = packet[start:id_end].decode("utf-8", "surrogatepass") if id_size else ""
        text = packet[id_end:head_end]
        # A copy of these bytes alone: an array that user code keeps must not keep the packet.
        body: bytes | memoryview = packet[head_end:end]
        if flags & _IS_CACHED:
            head = self._known_head(text)
        else:
            if flags & _HEAD_IN_MEMORY:
                text = bytes(self._reader.read(*_decode_json(text.decode())[0]))
            head = _read_head(text)
            values = head.values
            identity = values.get("id", identity)
            released = values.get("released", ())
            # 0.0 and false are equal to 0, and would become an offset among the free ones.
            if type(identity) is not str or not {int}.issuperset(map(type, released)):
                raise WireError(f"expected an id and offsets, got {identity!r} and {released!r}")
            for offset in released:
                self.writer.release(offset)
            if "region" in values:
                body = self._reader.read(*values["region"])
        needs_token = bool(flags & _NEEDS_TOKEN)
        message = Message(_KINDS[kind], call, identity, head, body, microseconds / 1e6, needs_token)
        return message, end

    def _write(self, layout: Sequence[_Place], parts: Sequence[Array | bytes], end: int) -> int:
        offset = self.writer.allocate(end)
        view = self.writer.view(offset, end)
        for (_, shape, start, size), part in zip(layout, parts, strict=True):
            target = view[start : start + size]
            if isinstance(part, bytes):
                target[:] = np.frombuffer(part, dtype=np.uint8)
            else:
                np.copyto(target.view(part.dtype).reshape(shape), part)
        return offset


def _read_head(text: bytes) -> Head:
    values, _ = _decode_json(text.decode())
    if not isinstance(values, dict):
        raise WireError(f"expected a JSON object, got {type(values).__name__}")
    return Head(values)


@lru_cache(_KEPT_HEADS)
def _text_of(layout: tuple[_Place, ...]) -> bytes:
    return _encode_json({"tensors": layout}).encode()


def read_tensors(
    message: Message, specs: Mapping[str, TensorSpec], *, lenient: bool = False, text: bool = True
) -> dict[str, Array]:
    """Returns a message's tensors as read-only arrays by name. Numbers are not copied.

    The declared tensors must be the same for all messages of a connection: views are cached. With
    `lenient`, tensors may be other than declared. With `text`, BYTES declared so become `str`.
    Raises a WireError, or a TensorError if the bytes of one do not fit its shape.
    """
    head, body = message.head, message.body
    arrays: dict[str, Array] = {}
    try:
        if head.views is None:
            head.views = _views(head.values.get("tensors", ()), specs, lenient)
        for name, spec, shape, start, size, plain in head.views:
            if start + size > len(body):
                raise WireError(f'tensor "{name}" ends after its message')
            if plain:
                arrays[name] = np.ndarray(shape, spec.datatype.dtype, body, start)
                continue
            raw = RawTensor(memoryview(body)[start : start + size])
            array = tensors.from_raw(spec.datatype, raw, shape)
            arrays[name] = bytes_tensors.decode_text(array) if text and spec.text else array
            arrays[name].setflags(write=False)
    except TensorError:
        raise
    except _UNREADABLE as error:
        raise WireError(f"unreadable tensors: {error}") from None
    return arrays


_Place = tuple[str | tuple[str, str, bool], tuple[int, ...], int, int]
"""A tensor's name and shape, and its start and size in bytes.

With the name of a tensor that is not as declared come its datatype and whether it is text.
"""


def _laid_out(
    named: Sequence[tuple[TensorSpec, Array]],
) -> tuple[list[Array | bytes], tuple[_Place, ...], int]:
    parts: list[Array | bytes] = []
    layout: list[_Place] = []
    end = 0
    for spec, array in named:
        if spec.datatype.is_bytes:
            part: Array | bytes = tensors.to_raw(spec.datatype, array)
            size = len(part)
        else:
            part, size = array, array.nbytes
        start = end + -end % _ALIGNMENT
        end = start + size
        name = (spec.name, spec.datatype.name, spec.text) if spec.undeclared else spec.name
        layout.append((name, array.shape, start, size))
        parts.append(part)
    return parts, tuple(layout), end


def _joined(layout: Sequence[_Place], parts: Sequence[Array | bytes]) -> bytes:
    if len(parts) == 1:
        part = parts[0]
        return part if isinstance(part, bytes) else part.tobytes()
    chunks: list[bytes] = []
    end = 0
    for (_, _, start, size), part in zip(layout, parts, strict=True):
        if start > end:
            chunks.append(bytes(start - end))
        chunks.append(part if isinstance(part, bytes) else part.tobytes())
        end = start + size
    return b"".join(chunks)


def _views(
    layout: Sequence[Any], specs: Mapping[str, TensorSpec], lenient: bool
) -> tuple[View, ...]:
    views: list[View] = []
    for name, shape, start, size in layout:
        if isinstance(name, list):
            name, datatype, text = name
            spec = _undeclared(name, datatype, text, tuple(shape)) if lenient else None
        else:
            spec = specs.get(name)
        if spec is None or not spec.admits(shape) or start < 0:
            raise WireError(f'unexpected tensor "{name}" of shape {shape}')
        dtype = spec.datatype.dtype
        is_plain = dtype.kind not in "Ob" and size == math.prod(shape) * dtype.itemsize
        views.append((name, spec, tuple(shape), start, size, is_plain))
    return tuple(views)


def _undeclared(name: str, datatype: str, text: bool, shape: tuple[int, ...]) -> TensorSpec:
    if type(name) is not str or type(text) is not bool:
        raise WireError(f"expected a tensor's name and whether it is text, got {name!r}, {text!r}")
    return TensorSpec(name, tensors.DATATYPES[datatype], shape, text=text, undeclared=True)
