"""What a definition says about a tensor besides its datatype, over REST and gRPC.

In the server's process and in a worker.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from . import grpc_calls
from .conftest import GrpcCall
from .models import Definition, inline, tensor, write_repository
from .process import ServerProcess, serving
from .wire import Reply, Request, Tensor, rest_infer

AXES = {
    "inputs": [tensor("a", "FP32", ["rows", 2]), tensor("b", "FP32", ["rows"])],
    "outputs": [tensor("y", "FP32", ["rows"])],
}


def _models(**serving: Any) -> dict[str, Definition]:
    return {
        "axes": inline(
            "def f(a, b):\n    return a.sum(axis=1) + b if len(b) < 4 else b[1:]",
            "f", AXES, **serving,
        ),
    }  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("repository")
    isolated = _models(isolation="process")
    models = {**_models(), **{f"{name}-isolated": isolated[name] for name in isolated}}
    write_repository(folder, models)
    with serving(folder, tmp_path_factory.mktemp("server"), *models) as server:
        yield server
        assert server.stop() == 0, server.log


ROUTES = ["REST", "gRPC typed", "gRPC raw"]


@pytest.fixture(params=["in process", "isolated"])
def suffix(request: pytest.FixtureRequest) -> str:
    return "" if request.param == "in process" else "-isolated"


@pytest.fixture(params=ROUTES)
def infer(request: pytest.FixtureRequest, server: ServerProcess, grpc_call: GrpcCall) -> Any:
    """Sends a request by one of the routes."""

    def sent(request_: Request) -> Reply:
        if request.param == "REST":
            return rest_infer(server.client, request_)
        raw = request.param == "gRPC raw"
        reply: Reply = grpc_call(grpc_calls.infer, server.grpc_address, request_, raw)
        return reply

    return sent


def _axes(model: str, rows: int, others: int) -> Request:
    a = Tensor("a", "FP32", (rows, 2), [1.0] * rows * 2)
    return Request(model, [a, Tensor("b", "FP32", (others,), [1.0] * others)])


def test_axes_of_one_name_have_equal_sizes(infer: Any, suffix: str) -> None:
    model = f"axes{suffix}"
    assert infer(_axes(model, 3, 3)).expect_ok().outputs["y"].values == [3.0] * 3
    refused = infer(_axes(model, 3, 2))
    assert refused.status in (400, "INVALID_ARGUMENT")
    assert refused.error == (
        f'input "b" of model "{model}": axis "rows": expected 3 as in input "a", got 2'
    )
    failed = infer(_axes(model, 4, 4))
    assert failed.status in (500, "INTERNAL")
    assert failed.error == (
        f'output "y" of model "{model}": axis "rows": expected 4 as in input "a", got 3'
    )


def test_metadata_have_minus_one_for_a_named_axis(
    server: ServerProcess, grpc_call: GrpcCall
) -> None:
    metadata = server.client.get("/v2/models/axes").json()
    assert [tensor["shape"] for tensor in metadata["inputs"]] == [[-1, 2], [-1]]
    assert metadata["inputs"][0]["parameters"] == {"axes": "[rows, 2]"}
    over_grpc = grpc_call(grpc_calls.metadata, server.grpc_address, "axes")
    assert over_grpc["inputs"] == [("a", "FP32", [-1, 2]), ("b", "FP32", [-1])]
