"""The messages between the server and a worker: their kinds and size limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from mlserver_pyfunc.protocol.contract import TensorSpec

VERSION = 2
PACKET_BYTES = 64 * 1024
"""Largest packet in bytes. A socket's buffer of the kernel's default size takes it."""

INLINE_BYTES = 16 * 1024
"""Largest size in bytes, in all, of tensors that travel in the packet. Others use shared memory."""

HEAD_BYTES = 32 * 1024
"""Largest head in bytes that travels in the packet. A longer one uses shared memory."""


class Kind(IntEnum):
    """Kind of a message. `docs/design/worker-protocol.md` lists what each one carries.

    Numbers below 32 go to the worker, the others to the server.
    """

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
    DROPPED = 40
    BREACH = 41
    METRICS = 42
    SPANS = 43


class WireError(Exception):
    """A message cannot be read: the other side has another version, or is broken."""


@dataclass(slots=True)
class Head:
    """The JSON part of a message, whose values must not be changed: equal texts share one."""

    values: Mapping[str, Any]
    views: tuple[View, ...] | None = None


View = tuple[str, TensorSpec, tuple[int, ...], int, int, bool]
"""A tensor of a message: its name, specification, shape, start and size in the body, and whether
the body has the array's own bytes."""


@dataclass(slots=True)
class Message:
    """A message that has arrived."""

    kind: Kind
    call: int
    id: str
    head: Head
    body: bytes | memoryview  # the bytes of all tensors
    seconds: float  # duration of the handler, in a result
    needs_token: bool  # whether a worker must take a token before it begins the call

    @property
    def values(self) -> Mapping[str, Any]:
        return self.head.values
