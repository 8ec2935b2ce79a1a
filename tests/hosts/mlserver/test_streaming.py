"""Generators over server-sent events and over gRPC."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from . import grpc_calls
from .conftest import GrpcCall
from .process import ServerProcess
from .wire import Request, Tensor, json_request, read_json, rest_infer

MODELS = ["count", "count-async"]
ISOLATED = ["count-isolated", "count-threads-isolated", "count-async-isolated"]


def _count(
    model: str, upto: int, *, fail_at: int | None = None, mark: Path | None = None
) -> Request:
    inputs = [Tensor("upto", "INT64", (1,), [upto])]
    if fail_at is not None:
        inputs.append(Tensor("fail_at", "INT64", (1,), [fail_at]))
    if mark is not None:
        inputs.append(Tensor("mark", "BYTES", (1,), [str(mark).encode()]))
    return Request(model, inputs, id="s-1")


def _events(server: ServerProcess, request: Request, route: str = "infer_stream") -> list[dict]:
    path = f"/v2/models/{request.model}/{route}"
    with server.client.stream("POST", path, json=json_request(request)) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        text = "".join(response.iter_text())
    assert not text or text.endswith("\n\n")
    return [json.loads(event.removeprefix("data: ")) for event in text.split("\n\n")[:-1]]


def _until(done: Path, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not done.is_file():
        assert time.monotonic() < deadline, "the generator was not closed"
        time.sleep(0.02)


@pytest.mark.parametrize("route", ["infer_stream", "generate_stream"])
@pytest.mark.parametrize("model", MODELS)
def test_each_item_is_an_event(model: str, route: str, either_server: ServerProcess) -> None:
    events = _events(either_server, _count(model, 5), route)
    assert [event["outputs"][0]["data"] for event in events] == [[0], [1], [2], [3], [4]]
    assert {event["id"] for event in events} == {"s-1"}
    assert {event["model_name"] for event in events} == {model}
    assert events[0]["outputs"][0] == {
        "name": "n", "datatype": "INT64", "shape": [1], "data": [0],
    }  # fmt: skip


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
@pytest.mark.parametrize("model", MODELS)
def test_each_item_is_a_grpc_response(
    model: str, raw: bool, either_server: ServerProcess, grpc_call: GrpcCall
) -> None:
    address = either_server.grpc_address
    items, end = grpc_call(grpc_calls.stream, address, [_count(model, 5)], raw)
    assert end.status == "OK", end
    assert [item.outputs["n"].values for item in items] == [[0], [1], [2], [3], [4]]


@pytest.mark.parametrize("model", MODELS)
def test_an_empty_generator_is_an_empty_stream(
    model: str, either_server: ServerProcess, grpc_call: GrpcCall
) -> None:
    assert _events(either_server, _count(model, 0)) == []
    address = either_server.grpc_address
    items, end = grpc_call(grpc_calls.stream, address, [_count(model, 0)], True)
    assert (items, end.status) == ([], "OK"), end


def test_a_grpc_stream_without_a_request_has_no_answer(
    server: ServerProcess, grpc_call: GrpcCall
) -> None:
    items, end = grpc_call(grpc_calls.stream, server.grpc_address, [], True)
    assert (items, end.status) == ([], "OK"), end


def test_items_arrive_while_the_generator_works(server: ServerProcess) -> None:
    path = "/v2/models/count/infer_stream"
    # All items together would take a quarter of an hour.
    request = json_request(_count("count", 1_000_000))
    with server.client.stream("POST", path, json=request) as response:
        assert next(response.iter_text())


def test_an_error_mid_stream_is_the_last_event(server: ServerProcess) -> None:
    events = _events(server, _count("count", 5, fail_at=2))
    assert [event["outputs"][0]["data"] for event in events[:-1]] == [[0], [1]]
    assert events[-1] == {"error": "no 2 today"}


def test_an_exception_mid_stream_is_the_last_event(server: ServerProcess) -> None:
    events = _events(server, _count("count-async", 5, fail_at=2))
    assert len(events) == 3
    assert events[-1] == {
        "error": 'handler of model "count-async" raised ValueError: no 2 today (request s-1)'
    }


@pytest.mark.parametrize(
    ("model", "status", "message"),
    [
        ("count", "ABORTED", "no 2 today"),
        (
            "count-async",
            "INTERNAL",
            'handler of model "count-async" raised ValueError: no 2 today (request s-1)',
        ),
    ],
)
def test_an_error_mid_stream_is_the_status_of_the_grpc_stream(
    model: str, status: str, message: str, either_server: ServerProcess, grpc_call: GrpcCall
) -> None:
    request = _count(model, 5, fail_at=2)
    items, end = grpc_call(grpc_calls.stream, either_server.grpc_address, [request], True)
    assert [item.outputs["n"].values for item in items] == [[0], [1]]
    assert (end.status, end.error) == (status, message)


@pytest.mark.parametrize("model", MODELS)
def test_a_request_that_breaks_the_contract_gets_its_status_before_the_stream_begins(
    model: str, server: ServerProcess, grpc_call: GrpcCall
) -> None:
    request = Request(model, [Tensor("upto", "INT64", (2,), [1, 2])])
    message = f'input "upto" of model "{model}": expected shape [1], got [2]'
    path = f"/v2/models/{model}/infer_stream"
    reply = server.client.post(path, json=json_request(request))
    assert (reply.status_code, reply.json()) == (400, {"error": message})
    items, end = grpc_call(grpc_calls.stream, server.grpc_address, [request], True)
    assert (items, end.status, end.error) == ([], "INVALID_ARGUMENT", message)


@pytest.mark.parametrize("model", [*MODELS, *ISOLATED])
def test_an_error_before_the_first_item_is_the_status_of_the_response(
    model: str, server: ServerProcess
) -> None:
    request = _count(model, 5, fail_at=0)
    reply = server.client.post(f"/v2/models/{model}/infer_stream", json=json_request(request))
    assert reply.status_code == (500 if "async" in model else 409), reply.text
    assert "no 0 today" in reply.json()["error"]


@pytest.mark.parametrize("model", [*MODELS, *ISOLATED])
def test_a_client_that_leaves_closes_the_generator(
    model: str, server: ServerProcess, tmp_path: Path
) -> None:
    mark = tmp_path / "closed"
    body = json_request(_count(model, 10**6, mark=mark))
    with server.client.stream("POST", f"/v2/models/{model}/infer_stream", json=body) as response:
        next(response.iter_text())
    _until(mark)
    assert "never retrieved" not in server.log


@pytest.mark.parametrize("model", [*MODELS, *ISOLATED])
def test_a_grpc_client_that_leaves_closes_the_generator(
    model: str, server: ServerProcess, grpc_call: GrpcCall, tmp_path: Path
) -> None:
    mark = tmp_path / "closed"
    request = _count(model, 10**6, mark=mark)
    items, _ = grpc_call(grpc_calls.stream, server.grpc_address, [request], True, take=3)
    assert [item.outputs["n"].values for item in items] == [[0], [1], [2]]
    _until(mark)
    assert "never retrieved" not in server.log


@pytest.mark.parametrize("model", [*MODELS, *ISOLATED])
def test_more_streams_than_slots_by_clients_that_leave_do_not_use_them_up(
    model: str, server: ServerProcess
) -> None:
    body = json_request(_count(model, 10**6))
    for _ in range(6):
        with server.client.stream("POST", f"/v2/models/{model}/infer_stream", json=body) as answer:
            next(answer.iter_text())
    assert len(_events(server, _count(model, 3))) == 3


@pytest.mark.parametrize("model", MODELS)
def test_infer_of_a_function_that_streams_says_what_to_call(
    model: str, server: ServerProcess, grpc_call: GrpcCall
) -> None:
    message = (
        f'model "{model}" streams its answers: call infer_stream or generate_stream (REST) '
        "or ModelStreamInfer (gRPC)"
    )
    reply = rest_infer(server.client, _count(model, 3))
    assert (reply.status, reply.error) == (400, message)
    over_grpc = grpc_call(grpc_calls.infer, server.grpc_address, _count(model, 3), True)
    assert (over_grpc.status, over_grpc.error) == ("INVALID_ARGUMENT", message)


def test_a_plain_function_streams_its_one_answer(
    server: ServerProcess, grpc_call: GrpcCall
) -> None:
    request = Request("upper", [Tensor("text", "BYTES", (1,), [b"word"])])
    events = _events(server, request)
    assert [event["outputs"][0]["data"] for event in events] == [["WORD"]]


def test_each_request_of_a_grpc_stream_is_answered(
    either_server: ServerProcess, grpc_call: GrpcCall
) -> None:
    words = [b"one", b"two", b"three"]
    requests = [Request("upper", [Tensor("text", "BYTES", (1,), [word])]) for word in words]
    items, end = grpc_call(grpc_calls.stream, either_server.grpc_address, requests, True)
    assert end.status == "OK", end
    assert [item.outputs["upper"].values for item in items] == [[b"ONE"], [b"TWO"], [b"THREE"]]


def test_streaming_an_unknown_model_is_not_found(
    server: ServerProcess, grpc_call: GrpcCall
) -> None:
    request = _count("no-such-model", 3)
    _, end = grpc_call(grpc_calls.stream, server.grpc_address, [request], True)
    assert end.status == "NOT_FOUND"


def test_the_streams_leave_a_healthy_server(server: ServerProcess) -> None:
    body = json_request(Request("upper", [Tensor("text", "BYTES", (1,), [b"word"])]))
    assert read_json(server.client.post("/v2/models/upper/infer", json=body)).status == 200
    assert server.client.get("/v2/health/ready").status_code == 200
