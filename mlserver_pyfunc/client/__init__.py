"""The caller's side of the protocol: sends arrays to a running server and reads its answers.

No module of this package imports MLServer: its gRPC stubs and those of a client register the
same messages, so that one process cannot hold both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from mlserver_pyfunc.protocol.contract import NamedArray
from mlserver_pyfunc.protocol.nulls import NULLS, masked
from mlserver_pyfunc.protocol.tensors import Array

if TYPE_CHECKING:
    from .grpc import GrpcClient
    from .rest import RestClient

    Client: TypeAlias = RestClient | GrpcClient


class CallError(Exception):
    """The server answered with an error, or did not answer.

    The status is that of HTTP or the name of gRPC's code; None if no answer came.
    """

    def __init__(self, message: str, status: int | str | None = None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class InferResult:
    """An answer of the server. Null elements are masked."""

    outputs: dict[str, Array]
    datatypes: dict[str, str]
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.outputs.keys() & {name + NULLS for name in self.outputs}:
            masked_name = name.removesuffix(NULLS)
            self.outputs[masked_name] = masked(self.outputs, masked_name)
            del self.outputs[name], self.datatypes[name]


Values: TypeAlias = Mapping[str, Any] | None
"""Values of tensors or parameters by name."""
Inputs: TypeAlias = Sequence[NamedArray]
Results: TypeAlias = Iterator[InferResult]
