"""Functions beside a model of another runtime that does odd things, and under odd settings."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from . import grpc_calls
from .conftest import GrpcCall
from .models import inline, tensor, write_model
from .process import START_SECONDS, ServerProcess, serving
from .wire import Request, Tensor, json_request, rest_infer

NEIGHBOUR = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.handlers import custom_handler
from mlserver.types import InferenceResponse


class Odd(MLModel):
    available = False
    up = False

    @custom_handler(rest_path="/v2/models/{model_name}/infer")
    async def infer(self, model_name: str) -> dict:
        return {"odd": model_name}

    @custom_handler(rest_path="/odd/live", rest_method="GET")
    async def live(self) -> dict:
        return {"odd": True}

    async def predict(self, payload):
        output = NumpyCodec.encode_output("y", NumpyCodec.decode_input(payload.inputs[0]))
        return InferenceResponse(model_name=self.name, outputs=[output])
"""
HANDLER = """
def handler(x):
    if x[0] == 13:
        raise ValueError('"unlucky"')
    return x * FACTOR
"""
TENSORS = {"inputs": [tensor("x", "FP32", [-1])], "outputs": [tensor("y", "FP32", [-1])]}
X = Tensor("x", "FP32", (2,), [1.0, 2.0])


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Two functions and a neighbour, on a server that caches."""
    folder, work = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("work")
    for name, factor in (("double", 2), ("triple", 3)):
        code = HANDLER.replace("FACTOR", str(factor))
        write_model(folder / name, inline(code, "handler", TENSORS), cache_enabled=True)
    (folder / "odd").mkdir()
    (folder / "odd_neighbour.py").write_text(NEIGHBOUR)
    settings = {"name": "odd", "implementation": "odd_neighbour.Odd", "parallel_workers": 0}
    (folder / "odd" / "model-settings.json").write_text(json.dumps(settings))
    env = {
        "MLSERVER_CACHE_ENABLED": "true",
        "MLSERVER_CACHE_SIZE": "100",
        "MLSERVER_USE_STRUCTURED_LOGGING": "true",
    }
    with serving(folder, work, "double", "triple", "odd", env=env) as server:
        yield server
        assert server.stop() == 0, server.log


def test_a_cache_never_answers_for_another_function(
    mixed: ServerProcess, grpc_call: GrpcCall
) -> None:
    for _ in range(2):
        for model, factor in (("double", 2), ("triple", 3)):
            wanted = [factor * value for value in X.values]
            by_rest = rest_infer(mixed.client, Request(model, [X]))
            assert by_rest.expect_ok().outputs["y"].values == wanted
            assert by_rest.headers["ce-type"], "the headers of CloudEvents are missing"
            by_grpc = grpc_call(grpc_calls.infer, mixed.grpc_address, Request(model, [X]), True)
            assert by_grpc.expect_ok().outputs["y"].values == wanted
    assert 'model "double": cache_enabled has no effect on functions' in _messages(mixed)


def _messages(server: ServerProcess) -> list[str]:
    """The messages of the structured log, each line of which has to be JSON."""
    lines = [line for line in server.log.splitlines() if line.startswith('{"time": ')]
    return [json.loads(line)["message"] for line in lines]


def test_a_structured_log_line_with_a_traceback_is_json(mixed: ServerProcess) -> None:
    x = Tensor("x", "FP32", (2,), [13.0, 0.0])
    assert "unlucky" in rest_infer(mixed.client, Request("double", [x])).error
    (message,) = [text for text in _messages(mixed) if "raise ValueError" in text]
    assert message.splitlines()[-1] == 'ValueError: "unlucky"'


def test_binary_tensors_are_read_beside_a_cache(mixed: ServerProcess) -> None:
    body = json_request(Request("double", [X]))
    del body["inputs"][0]["data"]
    body["inputs"][0]["parameters"] = {"binary_data_size": len(X.bits)}
    head = json.dumps(body).encode()
    headers = {"Inference-Header-Content-Length": str(len(head))}
    answer = mixed.client.post("/v2/models/double/infer", content=head + X.bits, headers=headers)
    assert answer.json()["outputs"][0]["data"] == [2.0, 4.0]


def test_a_neighbours_own_routes_and_attributes_change_nothing(mixed: ServerProcess) -> None:
    assert mixed.client.get("/v2/models/odd/ready").json() == {"name": "odd", "ready": True}
    assert mixed.client.get("/v2/health/ready").json() == {"ready": True}
    assert mixed.client.get("/odd/live").json() == {"odd": True}
    assert rest_infer(mixed.client, Request("odd", [X])).expect_ok().outputs["y"].values == X.values


def test_a_bad_gzip_body_to_a_neighbour_is_refused_as_mlserver_does(mixed: ServerProcess) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    answer = mixed.client.post("/v2/models/odd/infer", content=b"not gzip", headers=headers)
    stock = {"detail": "There was an error parsing the body"}
    assert (answer.status_code, answer.json()) == (400, stock)


def test_a_stream_without_requests_does_not_hold_up_the_shutdown(
    tmp_path: Path, grpc_call: GrpcCall
) -> None:
    # Its calls would be waited for longer than the server is here.
    limits = {"timeout": 10 * START_SECONDS}
    code = "def handler(x):\n    return x\n"
    write_model(tmp_path / "models" / "echo", inline(code, "handler", TENSORS, **limits))
    with (
        serving(tmp_path / "models", tmp_path, "echo") as server,
        ThreadPoolExecutor(1) as pool,
    ):
        until = tmp_path / "until"
        held = pool.submit(grpc_call, grpc_calls.hold, server.grpc_address, str(until))
        while not until.with_suffix(".open").exists():
            time.sleep(0.05)
        rest_infer(server.client, Request("echo", [X])).expect_ok()
        assert server.stop() == 0, server.log
        assert held.result() == "UNAVAILABLE"
