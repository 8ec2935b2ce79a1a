"""Sends the same requests by every route of the protocol: the answers must be equal."""

from __future__ import annotations

import random
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import httpx
import numpy as np

from mlserver_pyfunc.client import CallError, InferResult, Inputs, Values
from mlserver_pyfunc.client.rest import BinaryRestClient, RestClient
from mlserver_pyfunc.definition import FunctionDefinition
from mlserver_pyfunc.definition.locate import open_folder
from mlserver_pyfunc.deployment.server_process import Server
from mlserver_pyfunc.protocol import bytes_tensors, tensors
from mlserver_pyfunc.protocol.contract import NamedArray, TensorSpec
from mlserver_pyfunc.protocol.samples import random_arrays
from mlserver_pyfunc.protocol.tensors import DATATYPES, Array

ROUTES = ("REST JSON", "REST binary", "gRPC typed", "gRPC raw")
"""All answers are compared to those of the last route."""


class ParityError(AssertionError):
    """Two routes answered differently."""


@dataclass(frozen=True)
class ParityReport:
    """What `assert_parity` compared."""

    routes: list[str]
    requests: int
    skipped: dict[str, str]


Answer = InferResult | CallError


def input_of(name: str, datatype: str, array: Array) -> NamedArray:
    """Returns an input to send."""
    return NamedArray(TensorSpec(name, DATATYPES[datatype], array.shape), array)


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
    """
    if definition is None or model is None:
        folder = open_folder(server.folder)
        definition, model = definition or folder.definition, model or folder.model_name
    drawn = [_draw(definition, random.Random(seed + i)) for i in range(requests)]
    skipped = _unavailable(server, definition)
    routes = [name for name in ROUTES if name not in skipped]
    answers = answers_by_route(server, model, drawn, routes)
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


def answers_by_route(
    server: Server,
    model: str,
    requests: Sequence[Inputs],
    routes: Sequence[str] = ROUTES,
) -> dict[str, list[Answer]]:
    """Sends all requests by each route, and returns the answers of each: results or errors."""
    # gRPC clients cannot run in a process that may have imported MLServer: see client.grpc.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return {
            route: pool.submit(
                _send_all,
                route,
                server.grpc_target if "gRPC" in route else server.url,
                model,
                requests,
            ).result()
            for route in routes
        }


def _send_all(route: str, address: str, model: str, requests: Sequence[Inputs]) -> list[Answer]:
    client = _client(route)(address)
    answers: list[Answer] = []
    for inputs in requests:
        try:
            answers.append(client.infer(model, inputs))
        except CallError as error:
            answers.append(error)
    client.close()
    return answers


def _client(route: str) -> Any:
    if "REST" in route:
        return BinaryRestClient if route == "REST binary" else RestClient
    from mlserver_pyfunc.client.grpc import GrpcClient

    class TypedGrpcClient(GrpcClient):
        """Sends tensors in typed fields."""

        def _request(self, model: str, inputs: Inputs, parameters: Values) -> Any:
            request = super()._request(model, inputs, parameters)
            request.ClearField("raw_input_contents")
            for message, tensor in zip(request.inputs, inputs, strict=True):
                datatype = tensor.spec.datatype
                elements = tensors.to_list(tensor.array)
                if datatype.is_bytes:
                    elements = bytes_tensors.encode_elements(elements)
                getattr(message.contents, datatype.contents or "").extend(elements)
            return request

    return TypedGrpcClient if route == "gRPC typed" else GrpcClient


def _unavailable(server: Server, definition: FunctionDefinition) -> dict[str, str]:
    skipped = {}
    if "binary_tensor_data" not in httpx.get(f"{server.url}/v2").json().get("extensions", []):
        skipped["REST binary"] = "the server does not offer the binary tensor extension"
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


def _shown(inputs: Inputs) -> str:
    return ", ".join(f"{item.spec.name}={item.array.tolist()}" for item in inputs)[:500]


def _draw(definition: FunctionDefinition, source: random.Random) -> list[NamedArray]:
    chosen = [t for t in definition.inputs if not t.optional or source.random() < 0.5]
    arrays = random_arrays([tensor.spec for tensor in chosen], source)
    return [NamedArray(t.spec, arrays[t.name]) for t in chosen]
