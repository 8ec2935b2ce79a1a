"""What Triton's clients ask for besides inference, by the clients themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from . import grpc_calls, triton_calls
from .conftest import GrpcCall
from .models import MODELS, inline, tensor, write_repository
from .process import ServerProcess, serving
from .wire import Request, Tensor, rest_infer

STREAM = {"triton-stream": "true"}
ROUTES = ("http", "grpc")
ADD = "def handler(INPUT0, INPUT1):\n    return INPUT0 + INPUT1, INPUT0 - INPUT1"
IDENTITY = "def handler(x):\n    return x"
STOCK = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Numbers(MLModel):
    async def predict(self, payload):
        x = self.decode(payload.inputs[0], default_codec=NumpyCodec)
        output = NumpyCodec.encode_output("y", x * 2)
        return InferenceResponse(model_name=self.name, outputs=[output])
"""
OWN = {
    "simple": inline(
        ADD,
        "handler",
        {
            "inputs": [tensor(f"INPUT{n}", "INT32", [1, 16]) for n in range(2)],
            "outputs": [tensor(f"OUTPUT{n}", "INT32", [1, 16]) for n in range(2)],
        },
    ),
    "batched": inline(
        IDENTITY,
        "handler",
        {
            "inputs": [tensor("x", "FP32", [-1, 2])],
            "outputs": [tensor("y", "FP32", [-1, 2])],
        },
        batch={"max_size": 8, "max_delay_ms": 1.5},
    ),
    "stats": inline(
        IDENTITY,
        "handler",
        {"inputs": [tensor("x", "FP32", [1])], "outputs": [tensor("y", "FP32", [1])]},
    ),
    "count": MODELS["count"],
}


@pytest.fixture(scope="module")
def triton_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server in Triton's form, with a model of another runtime and a function named "stats"."""
    folder = tmp_path_factory.mktemp("triton")
    write_repository(folder, OWN)
    (folder / "stock_numbers.py").write_text(STOCK)
    (folder / "numbers").mkdir()
    stock = {
        "name": "numbers",
        "implementation": "stock_numbers.Numbers",
        "platform": "other",
        "parallel_workers": 0,
        "inputs": [tensor("x", "BYTES", [-1])],
        "outputs": [tensor("y", "FP32", [-1])],
    }
    (folder / "numbers" / "model-settings.json").write_text(json.dumps(stock))
    work, switch = tmp_path_factory.mktemp("work"), {"MLSERVER_PYFUNC_TRITON": "1"}
    with serving(folder, work, *OWN, "numbers", env=switch) as server:
        yield server


def _read(route: str, server: ServerProcess, call: GrpcCall, *names: str) -> dict[str, Any]:
    if route == "http":
        return triton_calls.read_by_http(server.url, *names)
    read: dict[str, Any] = call(triton_calls.read_by_grpc, server.grpc_address, *names)
    return read


def _numbers(stats: dict[str, Any], name: str) -> tuple[int, int]:
    found = stats["model_stats"][0]["inference_stats"].get(name, {})
    return int(found.get("count", 0)), int(found.get("ns", 0))


def _words(*words: bytes) -> list[Request]:
    return [
        Request("upper", [Tensor("text", "BYTES", (1,), [word])], id=word.decode())
        for word in words
    ]


def _count(model: str, upto: int, *fail_at: int) -> Request:
    inputs = [Tensor("upto", "INT64", (1,), [upto])]
    inputs += [Tensor("fail_at", "INT64", (1,), [n]) for n in fail_at]
    return Request(model, inputs, id=f"c-{upto}")


@pytest.mark.parametrize("route", ROUTES)
def test_the_configuration_is_that_of_the_contract(
    route: str, either_server: ServerProcess, triton_call: GrpcCall
) -> None:
    config = _read(route, either_server, triton_call, "strict")["config"]
    assert (config["name"], config["platform"]) == ("strict", "mlserver_pyfunc")
    assert config.get("max_batch_size", 0) == 0
    inputs = {each["name"]: each for each in config["input"]}
    assert (inputs["x"]["data_type"], [int(n) for n in inputs["x"]["dims"]]) == (
        "TYPE_FP32",
        [-1, 4],
    )
    assert not inputs["x"].get("optional", False)
    assert inputs["text"]["optional"]
    assert inputs["text"]["data_type"] == "TYPE_STRING"
    assert inputs["number"].get("dims", []) == []
    assert inputs["bool"]["data_type"] == "TYPE_BOOL"
    assert inputs["uint64"]["data_type"] == "TYPE_UINT64"
    assert [each["name"] for each in config["output"]] == ["sum", "rows"]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("model", ["count", "count-isolated"])
def test_a_function_that_streams_is_decoupled(
    model: str, route: str, server: ServerProcess, triton_call: GrpcCall
) -> None:
    config = _read(route, server, triton_call, model)["config"]
    assert config["model_transaction_policy"] == {"decoupled": True}


@pytest.mark.parametrize("route", ROUTES)
def test_the_statistics_count_what_succeeds_and_what_fails(
    route: str, either_server: ServerProcess, triton_call: GrpcCall
) -> None:
    def read() -> dict[str, Any]:
        found: dict[str, Any] = _read(route, either_server, triton_call, "flaky")["statistics"]
        return found

    before = read()
    for mode in (b"ok:a", b"ok:b", b"raise:no"):
        rest_infer(either_server.client, Request("flaky", [Tensor("mode", "BYTES", (1,), [mode])]))
    after = read()
    for name, more in (("success", 2), ("fail", 1), ("compute_infer", 2)):
        counts = _numbers(before, name)[0], _numbers(after, name)[0]
        assert counts[1] - counts[0] == more, name
        assert _numbers(after, name)[1] > _numbers(before, name)[1]
    assert int(after["model_stats"][0]["execution_count"]) == _numbers(after, "success")[0]


@pytest.mark.parametrize("route", ROUTES)
def test_the_statistics_of_all_models_and_the_extensions(
    route: str, server: ServerProcess, triton_call: GrpcCall
) -> None:
    read = _read(route, server, triton_call, "versioned", "1")
    assert read["statistics"]["model_stats"][0]["version"] == "1"
    assert sorted(each["name"] for each in read["all"]["model_stats"]) == sorted(MODELS)
    assert {"model_configuration", "statistics"} <= set(read["extensions"])


@pytest.mark.parametrize("names", [("absent",), ("versioned", "7")])
def test_an_unknown_model_is_not_found(
    names: tuple[str, ...], server: ServerProcess, triton_call: GrpcCall
) -> None:
    assert "[404]" in _read("http", server, triton_call, *names)["error"]
    assert "[StatusCode.NOT_FOUND]" in _read("grpc", server, triton_call, *names)["error"]
    for what in ("config", "stats"):
        assert server.client.get(f"/v2/models/absent/{what}").status_code == 404


@pytest.mark.parametrize("route", ROUTES)
def test_a_batch_is_an_axis_that_triton_adds(
    route: str, triton_server: ServerProcess, triton_call: GrpcCall
) -> None:
    x = Tensor("x", "FP32", (3, 2), [1.0] * 6)
    rest_infer(triton_server.client, Request("batched", [x]))
    read = _read(route, triton_server, triton_call, "batched")
    config = read["config"]
    assert config["max_batch_size"] == 8
    assert [int(n) for n in config["input"][0]["dims"]] == [2]
    assert int(config["dynamic_batching"]["max_queue_delay_microseconds"]) == 1500
    counted = read["statistics"]["model_stats"][0]
    assert int(counted["inference_count"]) == 3 * int(counted["execution_count"]) > 0


def test_a_model_of_another_runtime_is_not_described(
    triton_server: ServerProcess, triton_call: GrpcCall
) -> None:
    for what in ("config", "stats"):
        answer = triton_server.client.get(f"/v2/models/numbers/{what}")
        assert answer.status_code == 404
        assert "not served by mlserver-pyfunc" in answer.json()["error"]
    assert "NOT_FOUND" in _read("grpc", triton_server, triton_call, "numbers")["error"]
    every = triton_server.client.get("/v2/models/stats/stats").json()["model_stats"]
    assert "numbers" not in [each["name"] for each in every]


def test_a_model_named_stats_keeps_its_metadata(triton_server: ServerProcess) -> None:
    assert triton_server.client.get("/v2/models/stats").json()["name"] == "stats"
    found = triton_server.client.get("/v2/models/stats/stats").json()
    assert [each["name"] for each in found["model_stats"]] == ["stats"]


@pytest.mark.parametrize("model", ["count", "count-async", "count-isolated"])
def test_a_stream_in_tritons_form(
    model: str, either_server: ServerProcess, triton_call: GrpcCall
) -> None:
    address = either_server.grpc_address
    items = triton_call(triton_calls.stream_by_grpc, address, [_count(model, 3)], STREAM)
    assert items == [{"model": model, "id": "c-3", "n": [n]} for n in range(3)]


def test_each_request_of_a_stream_has_its_own_model_id_and_error(
    either_server: ServerProcess, triton_call: GrpcCall
) -> None:
    requests = [*_words(b"one"), _count("count", 9, 1), _count("absent", 1), *_words(b"two")]
    address = either_server.grpc_address
    items = triton_call(triton_calls.stream_by_grpc, address, requests, STREAM)
    assert [item.get("id") or item["error"] for item in items[:3]] == ["one", "c-9", "no 1 today"]
    assert "absent" in items[3]["error"]
    assert items[4] == {"model": "upper", "id": "two", "upper": [b"TWO"]}
    assert len(items) == 5


def test_a_client_may_ask_for_an_empty_final_response(
    server: ServerProcess, triton_call: GrpcCall
) -> None:
    requests = [_count("count", 2)]
    items = triton_call(triton_calls.stream_by_grpc, server.grpc_address, requests, STREAM, True)
    same = {"model": "count", "id": "c-2"}
    assert items == [
        {**same, "n": [0], "final": False},
        {**same, "n": [1], "final": False},
        {**same, "final": True},
    ]


def test_a_stream_without_the_key_is_in_the_protocols_form(
    server: ServerProcess, triton_server: ServerProcess, triton_call: GrpcCall, grpc_call: GrpcCall
) -> None:
    requests = [_count("count", 1)]
    stream = triton_calls.stream_by_grpc
    assert triton_call(stream, server.grpc_address, requests) == [{"error": "count"}]
    # The switch turns the default around, and the key still decides.
    assert triton_call(stream, triton_server.grpc_address, requests)[0]["n"] == [0]
    declined = {"triton-stream": "false"}
    items = triton_call(stream, triton_server.grpc_address, requests, declined)
    assert items == [{"error": "count"}]


def test_the_switch_makes_typed_answers_raw(
    triton_server: ServerProcess, grpc_call: GrpcCall
) -> None:
    inputs = [Tensor(f"INPUT{n}", "INT32", (1, 16), [n] * 16) for n in range(2)]
    request = Request("simple", inputs)
    reply = grpc_call(grpc_calls.infer, triton_server.grpc_address, request, False)
    assert reply.outputs["OUTPUT0"].values == [1] * 16


@pytest.mark.parametrize("route", ROUTES)
def test_the_switch_words_the_error_about_an_unknown_model(
    route: str, triton_server: ServerProcess, triton_call: GrpcCall
) -> None:
    error = _read(route, triton_server, triton_call, "absent")["error"]
    assert '] Request for unknown model: model "absent" not found, expected' in error
