"""Requests that no client should send: each is answered in words, and harms nobody else."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from . import grpc_calls
from .conftest import GrpcCall
from .process import ServerProcess
from .wire import Request, Tensor, rest_infer

X = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1.0, 2.0, 3.0, 4.0]}
GOOD = Request("strict", [Tensor("x", "FP32", (1, 4), [1.0, 2.0, 3.0, 4.0])])
# More than Python's own recursion takes, less than the JSON parsers do.
DEEP = 1010


@pytest.fixture(autouse=True)
def still_serves(server: ServerProcess) -> Any:
    yield
    reply = rest_infer(server.client, GOOD)
    assert reply.expect_ok().outputs["sum"].values == [10.0]


def _post(
    server: ServerProcess, body: Any, model: str = "strict", **headers: str
) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return server.client.post(
        f"/v2/models/{model}/infer",
        content=content,
        headers={"Content-Type": "application/json", **headers},
    )


def _nested(text: str) -> bytes:
    opened, closed = ("[", "]") if "[" in text else ('{"a":', "}")
    hole = opened * DEEP + "1" + closed * DEEP
    return text.replace("HOLE", hole).encode()


@pytest.mark.parametrize("size", [0, 2000], ids=["small", "large"])
@pytest.mark.parametrize(
    "where",
    [
        '{"inputs": HOLE, "id": "["}',
        '{"inputs": HOLE}',
        '{"inputs": [], "parameters": {"a": HOLE}}',
        '{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4],'
        ' "parameters": {"a": HOLE}}]}',
        '{"inputs": [{"name": "x", "datatype": "FP32", "data": HOLE}]}',
    ],
)
def test_json_that_is_too_deep_is_refused(where: str, size: int, server: ServerProcess) -> None:
    body = _nested(where)[:-1] + f', "padding": "{"." * size}"}}'.encode()
    reply = _post(server, body)
    assert reply.status_code == 400, reply.text
    assert "expected up to 100 lists or objects in each other" in reply.text


@pytest.mark.parametrize("hole", ["[HOLE]", "HOLE"])
def test_data_that_are_too_deep_are_named(hole: str, server: ServerProcess) -> None:
    body = json.dumps({"inputs": [{**X, "data": ["HOLE"] * 4}]}).replace('"HOLE"', "HOLE", 1)
    reply = _post(server, _nested(body.replace("HOLE", hole, 1)))
    assert reply.status_code == 400
    assert 'input "x" of model "strict": expected' in reply.json()["error"]


@pytest.mark.parametrize("missing", ["name", "shape", "datatype"])
@pytest.mark.parametrize("stream", [False, True], ids=["infer", "infer_stream"])
def test_a_large_tensor_that_lacks_a_key_is_told_so(
    stream: bool, missing: str, server: ServerProcess
) -> None:
    tensor = {**X, "shape": [500, 4], "data": [1.5] * 2000}
    del tensor[missing]
    path = f"/v2/models/strict/infer{'_stream' if stream else ''}"
    reply = server.client.post(path, json={"inputs": [tensor]})
    assert reply.status_code == 400, reply.text
    assert f' of model "strict": "{missing}" is missing, got "' in reply.json()["error"]


@pytest.mark.parametrize("missing", ["name", "shape", "datatype"])
def test_a_binary_tensor_that_lacks_a_key_is_told_so(missing: str, server: ServerProcess) -> None:
    tensor = {**X, "parameters": {"binary_data_size": 16}}
    del tensor["data"], tensor[missing]
    head = json.dumps({"inputs": [tensor]}).encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    reply = _post(server, head + bytes(16), **length)
    assert reply.status_code == 400, reply.text
    assert f' of model "strict": "{missing}" is missing, got "' in reply.json()["error"]


@pytest.mark.parametrize("rows", [1, 1000], ids=["small", "large"])
def test_the_last_of_two_equal_keys_counts_in_a_request_of_any_size(
    rows: int, server: ServerProcess
) -> None:
    tensor = {**X, "shape": [rows, 4], "data": [1.5] * 4 * rows}
    text = json.dumps({"id": "first", "inputs": [tensor], "parameters": {}})
    reply = _post(server, (text[:-1] + ', "id": "last"}').encode())
    assert reply.status_code == 200, reply.text
    assert reply.json()["id"] == "last"


def test_a_head_length_of_many_digits_is_refused(server: ServerProcess) -> None:
    length = {"Inference-Header-Content-Length": "9" * 5000}
    reply = _post(server, b"{}", **length)
    assert reply.status_code == 400, reply.text
    assert "Inference-Header-Content-Length: expected a number up to 2" in reply.text


IDS = {"long": "x" * 20_000, "not ASCII": "naïve", "two lines": "a\r\nX-Evil: 1"}


@pytest.mark.parametrize("name", IDS)
def test_an_id_that_no_header_can_hold_comes_back_in_the_body_alone(
    name: str, either_server: ServerProcess, grpc_call: GrpcCall
) -> None:
    request = Request("strict", GOOD.inputs, id=IDS[name])
    items, end = grpc_call(grpc_calls.stream, either_server.grpc_address, [request], True)
    assert end.status == "OK"
    for reply in (
        rest_infer(either_server.client, request),
        grpc_call(grpc_calls.infer, either_server.grpc_address, request, True),
        *items,
    ):
        assert reply.expect_ok().id == IDS[name]
        assert "x-evil" not in reply.headers
        assert max(map(len, reply.headers.values()), default=0) < 1000


@pytest.mark.parametrize("item", [None, 5, "x", [1]])
def test_an_input_that_is_no_object_is_told_so_in_a_large_request(
    item: Any, server: ServerProcess
) -> None:
    tensor = {**X, "shape": [500, 4], "data": [1.5] * 2000}
    reply = _post(server, {"inputs": [tensor, item]})
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"].startswith('inputs[1] of model "strict": expected an object')


@pytest.mark.parametrize("letter", ["x", "é", "\n", "\U0001f600", "%"])
def test_an_error_fits_a_grpc_header_whatever_it_quotes(
    letter: str, server: ServerProcess, grpc_call: GrpcCall
) -> None:
    request = Request("strict", [Tensor(letter * 9000, "FP32", (1,), [1.0])])
    reply = grpc_call(grpc_calls.infer, server.grpc_address, request, False)
    assert reply.status == "INVALID_ARGUMENT"
    assert reply.error.startswith(f'input "{letter * 400}')
    assert rest_infer(server.client, request).error == reply.error


@pytest.mark.parametrize("raw", [False, True], ids=["typed", "raw"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"parameters": {"content_type": 4}},
            'request of model "strict": parameter "content_type": Input should be a valid string, '
            "got 4",
        ),
        (
            {"parameters": {"headers": "none"}},
            'request of model "strict": parameter "headers": Input should be a valid dictionary, '
            "got 'none'",
        ),
        (
            {"inputs": [Tensor("x", "FP32", (1, 4), [1.0] * 4, {"content_type": True})]},
            'input "x" of model "strict": parameter "content_type": Input should be a valid '
            "string, got true",
        ),
    ],
)
def test_a_parameter_of_another_type_is_named(
    changes: dict[str, Any], message: str, raw: bool, server: ServerProcess, grpc_call: GrpcCall
) -> None:
    request = Request(**{**vars(GOOD), **changes})
    reply = grpc_call(grpc_calls.infer, server.grpc_address, request, raw)
    assert (reply.status, reply.error) == ("INVALID_ARGUMENT", message)


def test_contents_in_two_fields_are_refused(server: ServerProcess, grpc_call: GrpcCall) -> None:
    tensor = Tensor("x", "FP32", (1, 4), [1, 2, 3, 4], second_contents="int_contents")
    request = Request("strict", [tensor])
    reply = grpc_call(grpc_calls.infer, server.grpc_address, request, False)
    assert (reply.status, reply.error) == (
        "INVALID_ARGUMENT",
        'input "x" of model "strict": expected contents in one field, '
        "got int_contents, fp32_contents",
    )
