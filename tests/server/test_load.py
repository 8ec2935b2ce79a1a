"""Many clients at once: every answer is right and is for its own request."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from . import grpc_calls
from .conftest import GrpcCall
from .mixture import KINDS, hammer, problem, question
from .process import ServerProcess
from .wire import Reply, rest_infer


@pytest.mark.parametrize(
    ("clients", "seconds"), [(16, 3), pytest.param(32, 30, marks=pytest.mark.slow)]
)
def test_many_clients_mixing_valid_invalid_and_failing_requests_each_get_their_own_answer(
    clients: int, seconds: float, server: ServerProcess, grpc_call: GrpcCall
) -> None:
    share = clients // 4
    with (
        httpx.Client(base_url=server.url, timeout=30, limits=httpx.Limits()) as client,
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
    assert count > 20 * seconds, f"only {count} answers over REST"
    assert grpc_count > 20 * seconds, f"only {grpc_count} answers over gRPC"
    assert server.client.get("/v2/health/ready").status_code == 200


@pytest.mark.parametrize("number", range(KINDS))
def test_a_wrong_answer_to_the_mixture_would_be_found(number: int) -> None:
    assert problem(number, Reply(200, outputs={}, error="another"))
    _, statuses, error, values = question(number)
    if values:
        tensor = question(number)[0].inputs[0]
        assert problem(number, Reply(statuses[0], error, {"y": tensor}, id="q-999"))
