"""What the server and a worker say to each other: the kinds of messages and their limits.

`codec` has their form. Needs only NumPy and the standard library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from mlserver_pyfunc.protocol.contract import TensorSpec

VERSION = 2
PACKET_BYTES = 64 * 1024
"""The longest packet. Less than a socket's buffer takes under the kernel's default."""

INLINE_BYTES = 16 * 1024
"""Tensors of a message that are no longer than this in all travel in the packet."""

HEAD_BYTES = 32 * 1024
"""A longer head goes through shared memory too."""

BRIEF_SECONDS = 100e-6
"""A handler that tends to take less is told of calls, and tells of results, some at a time:
to wake a process for each would take longer than the calls."""


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
    DROPPED = 40


class WireError(Exception):
    """A message that cannot be read: the other side is of another version, or broken."""


class Head:
    """The JSON part of a message, kept for messages that have the same.

    Attributes:
        values: What it says. Not to be changed.
        views: Its tensors, once they were checked.
    """

    __slots__ = ("values", "views")

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values
        self.views: tuple[View, ...] | None = None


View = tuple[str, TensorSpec, tuple[int, ...], int, int, bool]
"""A tensor of a message: name, specification, shape, start and size in the message's body,
and whether the bytes are the array's as they are."""


@dataclass(slots=True)
class Message:
    """A message as it arrived.

    Attributes:
        kind: What it says.
        call: Number of the call that it is about; 0 for none.
        id: Of the inference request, of a call.
        head: Its JSON part.
        body: The bytes of all its tensors.
        seconds: That the handler took, of a result.
        needs_token: Of a call, that it may have been given to another worker since.
    """

    kind: Kind
    call: int
    id: str
    head: Head
    body: bytes | memoryview
    seconds: float
    needs_token: bool

    @property
    def values(self) -> Mapping[str, Any]:
        return self.head.values
