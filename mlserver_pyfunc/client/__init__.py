"""The protocol from the client's side: arrays to a running server and back.

Nothing here imports MLServer, whose gRPC stubs and a client's cannot share a process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mlserver_pyfunc.protocol.tensors import Array


class CallError(Exception):
    """The server answered with an error, or not at all.

    Attributes:
        status: HTTP status or gRPC code name; None where no answer came.
    """

    def __init__(self, message: str, status: int | str | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class InferInput:
    """A tensor to send; BYTES arrays hold `bytes` or `str`."""

    name: str
    datatype: str
    array: Array


@dataclass(frozen=True)
class InferResult:
    """What the server sent: arrays by output name, their datatypes, the rest of the answer."""

    outputs: dict[str, Array]
    datatypes: dict[str, str]
    parameters: Mapping[str, Any] = field(default_factory=dict)


class Client(Protocol):
    """One way to a server: REST JSON, REST binary, gRPC typed or gRPC raw."""

    name: str

    def metadata(self, model: str) -> dict[str, Any]:
        """The model's metadata, as REST has it.

        Raises:
            CallError: The server does not answer, or with an error.
        """

    def infer(
        self, model: str, inputs: Sequence[InferInput], parameters: Mapping[str, Any] | None = None
    ) -> InferResult:
        """Sends one request.

        Raises:
            CallError: The server does not answer, or with an error.
        """

    def stream(
        self, model: str, inputs: Sequence[InferInput], parameters: Mapping[str, Any] | None = None
    ) -> Iterator[InferResult]:
        """Sends one request and gives its answers as they come.

        Raises:
            CallError: The server does not answer, or with an error.
        """

    def close(self) -> None:
        """Closes the connection."""
