"""Calls one model of any server of the protocol, with Python values by tensor name."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np

from mlserver_pyfunc.handler.frames import as_inputs, like
from mlserver_pyfunc.protocol import bytes_tensors
from mlserver_pyfunc.protocol.contract import Contract, NamedArray, TensorSpec, companions, decode
from mlserver_pyfunc.protocol.datatypes import datatype_of
from mlserver_pyfunc.protocol.nulls import NULLS
from mlserver_pyfunc.protocol.request import InferenceRequest, RequestInput

from . import InferResult, Values
from .rest import BinaryRestClient, RestClient

if TYPE_CHECKING:
    from . import Client

PARALLEL = 64
"""Number of calls of `infer_async` that run at a time."""


class Model(AbstractContextManager["Model"]):
    """A model on a server. `connect` makes one. Any thread may use it."""

    def __init__(self, name: str, connect: Callable[[], Client]) -> None:
        self.name = name
        self._connect = connect
        self._idle: list[Client] = []

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The model's metadata, in the form that REST gives it. Fetched once."""
        with self.client() as client:
            return client.metadata(self.name)

    @cached_property
    def contract(self) -> Contract:
        """The tensors that the metadata declare."""
        declared = [self.metadata.get(kind) or () for kind in ("inputs", "outputs")]
        # Metadata over gRPC have no parameters, but they list what tells the null elements.
        names = {tensor["name"] for tensors in declared for tensor in tensors}
        inputs, outputs = ([_spec(tensor, names) for tensor in tensors] for tensors in declared)
        return Contract(self.name, inputs, outputs)

    def infer(self, inputs: Any = None, /, *, parameters: Values = None, **named: Any) -> Any:
        """Calls the model with inputs by tensor name, and returns its outputs by name.

        An array keeps its own datatype; lists and scalars get the one that the model declares.
        `inputs` is for names that are not Python identifiers, or for a frame: the answer is a
        frame then.

        Raises:
            CallError: The server answers with an error, or does not answer.
        """
        sent = self.inputs(as_inputs(self.contract, inputs, named))
        with self.client() as client:
            return self._values(client.infer(self.name, sent, parameters), inputs)

    async def infer_async(
        self, inputs: Any = None, /, *, parameters: Values = None, **named: Any
    ) -> Any:
        """Calls the model on a thread, so that the event loop goes on; otherwise like `infer`."""
        call = partial(self.infer, inputs, parameters=parameters, **named)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def stream(
        self, inputs: Any = None, /, *, parameters: Values = None, **named: Any
    ) -> Iterator[Any]:
        """Calls the model and yields its answers as they arrive; otherwise like `infer`."""
        sent = self.inputs(as_inputs(self.contract, inputs, named))
        with self.client() as client:
            for result in client.stream(self.name, sent, parameters):
                yield self._values(result, inputs)

    def close(self) -> None:
        """Closes the connections."""
        while self._idle:
            self._idle.pop().close()
        if "_threads" in vars(self):
            self._threads.shutdown()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Model({self.name!r})"

    @contextmanager
    def client(self) -> Iterator[Client]:
        """Lends a connection that no other thread uses. One that failed is not used again."""
        client = self._idle.pop() if self._idle else self._connect()
        try:
            yield client
        except BaseException:
            client.close()
            raise
        self._idle.append(client)

    def inputs(self, values: Mapping[str, Any]) -> list[NamedArray]:
        """Converts values to tensors. The server checks them, not this."""
        declared = self.contract.inputs
        known = {
            name: value if name in declared else np.asarray(value) for name, value in values.items()
        }
        request = InferenceRequest.from_values(self.contract, known)
        named = [_decoded(tensor, declared.get(tensor.name)) for tensor in request.inputs]
        return [*named, *companions(named)]

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(PARALLEL, thread_name_prefix=f"pyfunc-{self.name}")

    def _values(self, result: InferResult, inputs: Any) -> Any:
        specs = self.contract.outputs
        texts = {name for name, spec in specs.items() if spec.text}
        outputs = {
            name: bytes_tensors.decode_text(array) if name in texts else array
            for name, array in result.outputs.items()
        }
        return like(inputs, outputs, specs)


def connect(
    url: str,
    model: str | None = None,
    *,
    version: str = "",
    grpc: bool = False,
    binary: bool = False,
    headers: Mapping[str, str] | None = None,
    timeout: float = 60,
) -> Model:
    """Connects to a model of any server of the Open Inference Protocol v2.

    Args:
        url: `http://HOST:PORT` for REST, `grpc://HOST:PORT` for gRPC, or the URL of a model.
        model: Name of the model. Over REST, not needed if there is only one.
        version: Version of the model; empty for the default one.
        grpc: Call by gRPC, which needs the extra `client`.
        binary: Call by REST with binary tensors.
        headers: REST headers or gRPC metadata to send with every call.
        timeout: Seconds to wait for an answer.

    Raises:
        CallError: The URL has another form, or the server does not list its models.
        LookupError: No model is named, and the server has not exactly one.
    """
    is_grpc = grpc or url.startswith("grpc://")
    base, named, of_version = _parts(url)
    if is_grpc:
        base = base.removeprefix("grpc://").removeprefix("http://")
    kind: Callable[..., Client] = BinaryRestClient if binary else RestClient
    if is_grpc:
        from .grpc import GrpcClient

        kind = GrpcClient
    opened = partial(kind, base, timeout, headers, version or of_version)
    # Opens no connection, but checks the URL.
    first = opened()
    connected = Model(model or named or _only_model(first), opened)
    connected._idle.append(first)
    return connected


def _parts(url: str) -> tuple[str, str, str]:
    base, separator, rest = url.partition("/v2/models/")
    if not separator:
        return url.removesuffix("/v2"), "", ""
    model, _, more = rest.partition("/")
    versions, _, version = more.partition("/")
    found = unquote(version.partition("/")[0]) if versions == "versions" else ""
    return base, unquote(model), found


def _only_model(client: Any) -> str:
    if not hasattr(client, "models"):
        raise LookupError("no model named, and gRPC cannot list the server's models")
    names = sorted({model["name"] for model in client.models()})
    if len(names) != 1:
        raise LookupError(f"expected one model on the server, got {', '.join(names) or 'none'}")
    return str(names[0])


def _spec(tensor: Mapping[str, Any], listed: Set[str]) -> TensorSpec:
    """Reads a tensor of the metadata, whose `axes` are the text of its shape: `[rows, 4]`."""
    parameters = tensor.get("parameters") or {}
    sizes = tensor.get("shape") or ()
    names = [name.strip() for name in parameters.get("axes", "").strip("[]").split(",")]
    if len(names) == len(sizes):
        sizes = [
            name if name.isidentifier() else size for name, size in zip(names, sizes, strict=True)
        ]
    told = {key: parameters[key] for key in ("nullable", "content_type") if key in parameters}
    named = {"name": tensor["name"], "datatype": tensor["datatype"]}
    nullable = tensor["name"] + NULLS in listed or tensor["datatype"].startswith("FP")
    return TensorSpec.of({**named, "shape": sizes, "nullable": nullable, **told})


def _decoded(tensor: RequestInput, declared: TensorSpec | None) -> NamedArray:
    is_nullable = declared is not None and declared.datatype.nullable
    datatype = datatype_of(tensor.datatype, nullable=is_nullable)
    spec = TensorSpec(tensor.name, datatype, tuple(tensor.shape))
    return NamedArray.of(spec, decode(spec, tensor))
