"""Many clients at once: every answer is right and is for its own request."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from . import grpc_calls
from .conftest import GrpcCall
from .mixture import KINDS, hammer, problem, question
from .models import MODELS, write_repository
from .process import ServerProcess, serving
from .wire import Reply, rest_infer

LOADS = pytest.mark.parametrize(
    ("clients", "seconds"), [(16, 3), pytest.param(32, 30, marks=pytest.mark.heavy)]
)


@LOADS
def test_many_clients_mixing_valid_invalid_and_failing_requests_each_get_their_own_answer(
    clients: int, seconds: float, server: ServerProcess, grpc_call: GrpcCall
) -> None:
    count, grpc_count = _mixed_load(server, grpc_call, clients, seconds)
    assert min(count, grpc_count) > clients, (count, grpc_count)


@LOADS
@pytest.mark.parametrize("workers", [1, 2])
def test_many_clients_of_isolated_functions_each_get_their_own_answer(
    workers: int, clients: int, seconds: float, grpc_call: GrpcCall, tmp_path: Path
) -> None:
    """Their calls are brief, so that some are sent ahead."""
    apart = {"isolation": "process", "workers": workers, "concurrency": 1, "max_queue": 256}
    models = {
        name: {**MODELS[name], "serving": apart}
        for name in ("echo", "upper", "flaky", "flaky-async")
    }
    write_repository(tmp_path / "models", models)
    with serving(tmp_path / "models", tmp_path, *models) as server:
        count, grpc_count = _mixed_load(server, grpc_call, clients, seconds)
    assert min(count, grpc_count) > clients, (count, grpc_count)


def _mixed_load(
    server: ServerProcess, grpc_call: GrpcCall, clients: int, seconds: float
) -> tuple[int, int]:
    """Sends the mixture over REST and gRPC at once; how many answers there were of each."""
    share = clients // 4
    with (
        httpx.Client(base_url=server.url, timeout=60, limits=httpx.Limits()) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        over_grpc = pool.submit(grpc_call, grpc_calls.hammer, server.grpc_address, share, seconds)
        count, problems = hammer(
            clients - share,
            seconds,
            0,
            lambda: lambda request: rest_infer(client, request),
        )
        grpc_count, grpc_problems = over_grpc.result()
    assert problems + grpc_problems == []
    assert server.client.get("/v2/health/ready").status_code == 200
    return count, grpc_count


@pytest.mark.parametrize("number", range(KINDS))
def test_a_wrong_answer_to_the_mixture_would_be_found(number: int) -> None:
    assert problem(number, Reply(200, outputs={}, error="another"))
    _, statuses, error, values = question(number)
    if values:
        tensor = question(number)[0].inputs[0]
        assert problem(number, Reply(statuses[0], error, {"y": tensor}, id="q-999"))
