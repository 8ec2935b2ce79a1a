"""The caller's side of the protocol: sends arrays to a running server and reads its answers.

No module of this package imports MLServer: its gRPC stubs and those of a client register the
same messages, so that one process cannot hold both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from mlserver_pyfunc.protocol.tensors import Array


class CallError(Exception):
    """The server answered with an error, or did not answer.

    Attributes:
        status: HTTP status, or name of the gRPC status code; None if no answer came.
    """

    def __init__(self, message: str, status: int | str | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class InferInput:
    """An input tensor to send. The array of a BYTES tensor holds `bytes` or `str`."""

    name: str
    datatype: str
    array: Array


@dataclass(frozen=True)
class InferResult:
    """An answer of the server.

    Attributes:
        outputs: Arrays by output name.
        datatypes: Datatypes by output name.
        parameters: Parameters of the response.
    """

    outputs: dict[str, Array]
    datatypes: dict[str, str]
    parameters: Mapping[str, Any] = field(default_factory=dict)


class Client(Protocol):
    """A connection to one server: REST with JSON or binary tensors, gRPC with typed or raw ones.

    Every method raises `CallError` if the server answers with an error, or does not answer.
    """

    name: str

    def metadata(self, model: str) -> dict[str, Any]:
        """Fetches the metadata of a model, in the form that REST gives it."""

    def infer(
        self, model: str, inputs: Sequence[InferInput], parameters: Mapping[str, Any] | None = None
    ) -> InferResult:
        """Sends one request and returns its answer."""

    def stream(
        self, model: str, inputs: Sequence[InferInput], parameters: Mapping[str, Any] | None = None
    ) -> Iterator[InferResult]:
        """Sends one request and yields each of its answers as it arrives."""

    def close(self) -> None:
        """Closes the connection."""
