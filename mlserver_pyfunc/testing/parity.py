"""Sends the same requests by every route of the protocol: the answers must be equal."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context

import numpy as np

from mlserver_pyfunc.client import CallError, InferInput, InferResult
from mlserver_pyfunc.client.rest import RestClient
from mlserver_pyfunc.definition import FunctionDefinition
from mlserver_pyfunc.definition.folder import open_folder
from mlserver_pyfunc.deployment.server_process import Server
from mlserver_pyfunc.protocol.samples import random_arrays
from mlserver_pyfunc.protocol.tensors import Array

CLIENTS = {
    "REST JSON": ("rest", "RestClient"),
    "REST binary": ("rest", "BinaryRestClient"),
    "gRPC typed": ("grpc", "TypedGrpcClient"),
    "gRPC raw": ("grpc", "GrpcClient"),
}
"""Module and class of the client of each route. All answers are compared to those of the last."""


class ParityError(AssertionError):
    """Two routes answered differently."""


@dataclass(frozen=True)
class ParityReport:
    """What `assert_parity` compared."""

    routes: list[str]
    requests: int
    skipped: dict[str, str]


Answer = InferResult | CallError


def assert_parity(
    server: Server,
    definition: FunctionDefinition | None = None,
    *,
    model: str | None = None,
    requests: int = 20,
    seed: int = 0,
) -> ParityReport:
    """Sends generated requests by REST JSON, REST binary, gRPC typed and gRPC raw.

    Definition and model are by default those in the server's folder.

    Returns:
        Which routes were compared. A route is left out if it has no form for the contract (FP16
        in typed gRPC fields) or if the server does not offer it; `skipped` says why.

    Raises:
        ParityError: Two routes answered differently. Names the route, the output and the request.
        ImportError: tritonclient, which calls by gRPC need, is not installed.

    Example:
        >>> from mlserver_pyfunc.testing import Server, assert_parity
        >>> with Server("hello") as server:  # doctest: +SKIP
        ...     assert_parity(server, requests=5).skipped
        {}
    """
    if definition is None or model is None:
        folder = open_folder(server.folder)
        definition, model = definition or folder.definition, model or folder.model_name
    drawn = [_draw(definition, random.Random(seed + i)) for i in range(requests)]
    skipped = _unavailable(server, definition)
    routes = [name for name in CLIENTS if name not in skipped]
    try:
        # gRPC clients cannot run in a process that may have imported MLServer: see client.grpc.
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            answers = {
                name: pool.submit(_send_all, name, _address(server, name), model, drawn).result()
                for name in routes
            }
    except ImportError as error:
        # The traceback of the other process says no more than the message.
        raise ImportError(str(error)) from None
    reference = routes[-1]
    for name in routes[:-1]:
        for index, (ours, theirs) in enumerate(zip(answers[name], answers[reference], strict=True)):
            difference = _difference(ours, theirs, is_json=name == "REST JSON")
            if difference:
                raise ParityError(
                    f'model "{model}": {name} and {reference} differ on request {index}: '
                    f"{difference}; sent {_shown(drawn[index])}"
                )
    return ParityReport(routes, requests, skipped)


def _address(server: Server, route: str) -> str:
    return server.grpc_target if "gRPC" in route else server.url


def _send_all(
    route: str, address: str, model: str, requests: Sequence[Sequence[InferInput]]
) -> list[Answer]:
    module, attribute = CLIENTS[route]
    client = getattr(import_module(f"mlserver_pyfunc.client.{module}"), attribute)(address)
    answers: list[Answer] = []
    for inputs in requests:
        try:
            answers.append(client.infer(model, inputs))
        except CallError as error:
            answers.append(error)
    client.close()
    return answers


def _unavailable(server: Server, definition: FunctionDefinition) -> dict[str, str]:
    skipped = {}
    client = RestClient(server.url)
    if "binary_tensor_data" not in client.server_metadata().get("extensions", []):
        skipped["REST binary"] = "the server does not offer the binary tensor extension"
    client.close()
    if any(t.datatype == "FP16" for t in (*definition.inputs, *definition.outputs)):
        skipped["gRPC typed"] = "FP16 has no typed field"
    return skipped


def _difference(ours: Answer, theirs: Answer, *, is_json: bool) -> str:
    if isinstance(ours, CallError) or isinstance(theirs, CallError):
        words = [_worded(answer) for answer in (ours, theirs)]
        return "" if words[0] == words[1] else f"one answered {words[0]}, the other {words[1]}"
    if ours.datatypes != theirs.datatypes:
        return f"outputs {ours.datatypes}, not {theirs.datatypes}"
    for name, array in ours.outputs.items():
        other = theirs.outputs[name]
        if array.shape != other.shape:
            return f'output "{name}" has shape {array.shape}, not {other.shape}'
        if not _equal(array, other, is_json=is_json):
            return f'output "{name}" is {array.tolist()}, not {other.tolist()}'
    return ""


def _equal(array: Array, other: Array, *, is_json: bool) -> bool:
    if array.dtype.kind != "f":
        return bool(np.array_equal(array, other))
    if is_json:
        # JSON writes null for NaN and for both infinities.
        other = np.where(np.isfinite(other), other, np.nan).astype(other.dtype)
    return bool(np.array_equal(array, other, equal_nan=True))


def _worded(answer: Answer) -> str:
    """Returns an error without the id of its request, which differs."""
    if isinstance(answer, InferResult):
        return "a result"
    return f'error "{str(answer).partition(" (request ")[0]}"'


def _shown(inputs: Sequence[InferInput]) -> str:
    return ", ".join(f"{item.name}={item.array.tolist()}" for item in inputs)[:500]


def _draw(definition: FunctionDefinition, source: random.Random) -> list[InferInput]:
    chosen = [t for t in definition.inputs if not t.optional or source.random() < 0.5]
    arrays = random_arrays([tensor.spec for tensor in chosen], source)
    return [InferInput(t.name, t.datatype, arrays[t.name]) for t in chosen]
