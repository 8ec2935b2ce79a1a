"""Functions of digitalhub on a server: REST and gRPC, in the process and in workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from . import grpc_calls
from .models import Definition, tensor, write_repository
from .process import ServerProcess, serving
from .wire import Reply, Request, Tensor, rest_infer

GrpcCall = Callable[..., Any]

# Answers each tensor with its double, as an event's JSON.
DOUBLE = """
import json

def handler(context, event):
    request = event.body
    outputs = []
    for tensor in request["inputs"]:
        data = [x.upper() if isinstance(x, str) else not x if x is True or x is False else 2 * x
                for x in tensor["data"]]
        outputs.append({**tensor, "name": f"output_{tensor['name']}", "data": data})
    body = {"id": request["id"], "model_name": event.get_header("X-Model-Name"),
            "outputs": outputs}
    if "parameters" in request:
        body["parameters"] = request["parameters"]
    headers = {"Content-Type": "application/json"}
    return context.Response(body=json.dumps(body), headers=headers, status_code=200)
"""
CAPTION = """
def handler(context, request):
    if not request.inputs[0].data:
        return {"error": "the image is empty", "status": "error"}
    text = bytes(request.inputs[0].data).decode()
    caption = {"name": "caption", "datatype": "BYTES", "data": [text], "shape": [1, len(text)]}
    return {"outputs": [caption]}
"""
PICTURE = [1, 224, 224, 3]
DOUBLED = {
    "inputs": [tensor("input", "FP32", PICTURE), tensor("text_input", "BYTES", [1])],
    "outputs": [
        tensor("output_input", "FP32", PICTURE), tensor("output_text_input", "BYTES", [1]),
    ],
}  # fmt: skip
CAPTIONED = {
    "inputs": [tensor("image", "UINT8", [-1, -1])],
    "outputs": [tensor("caption", "BYTES", [-1, -1])],
    "contract": {"requests": "enforce"},
}


def function(name: str, code: str, isolation: str, tensors: Definition) -> Definition:
    return {
        "kind": "openinference",
        "name": name,
        "metadata": {"project": "demo", "description": "Doubles.", "labels": ["a", "b"]},
        "spec": {
            "model_version": "1.0",
            "source": {"code": code, "handler": "handler"},
            "serving": {"isolation": isolation},
            **tensors,
        },
    }


MODELS = {
    f"{name}-{isolation}": function(f"{name}-{isolation}", code, isolation, tensors)
    for name, code, tensors in (("double", DOUBLE, DOUBLED), ("caption", CAPTION, CAPTIONED))
    for isolation in ("none", "process")
}


@pytest.fixture(scope="module")
def digitalhub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("digitalhub")
    write_repository(folder, MODELS)
    with serving(folder, tmp_path_factory.mktemp("server"), *MODELS) as server:
        yield server


@pytest.fixture(params=["none", "process"])
def isolation(request: pytest.FixtureRequest) -> str:
    mode: str = request.param
    return mode


@pytest.fixture(params=["rest", "grpc", "grpc raw"])
def infer(
    request: pytest.FixtureRequest, digitalhub: ServerProcess, grpc_call: GrpcCall
) -> Callable[[Request], Reply]:
    if request.param == "rest":
        return lambda sent: rest_infer(digitalhub.client, sent)
    raw = request.param == "grpc raw"
    return lambda sent: grpc_call(grpc_calls.infer, digitalhub.grpc_address, sent, raw)


@pytest.mark.parametrize(
    ("given", "doubled"),
    [
        (Tensor("input", "FP32", (1, 3), [1.0, 2.0, 3.0]), [2.0, 4.0, 6.0]),
        (Tensor("input", "INT64", (1, 5), [1, 2, 3, 4, 5]), [2, 4, 6, 8, 10]),
        (Tensor("text_input", "BYTES", (1, 2), [b"one", "ß".encode()]), [b"ONE", b"SS"]),
        (Tensor("other", "BOOL", (1, 2), [True, False]), [False, True]),
    ],
    ids=["shape", "datatype", "text", "name"],
)
def test_tensors_other_than_declared_reach_the_handler_and_the_client(
    infer: Callable[[Request], Reply], isolation: str, given: Tensor, doubled: list[Any]
) -> None:
    reply = infer(Request(f"double-{isolation}", [given], id="r-1", version="1.0"))
    reply.expect_ok()
    [answer] = reply.outputs.values()
    assert answer == Tensor(f"output_{given.name}", given.datatype, given.shape, doubled)


def test_an_answer_goes_out_with_the_shape_of_its_data(
    infer: Callable[[Request], Reply], isolation: str
) -> None:
    image = Tensor("image", "UINT8", (1, 6), list(b"parrot"))
    reply = infer(Request(f"caption-{isolation}", [image]))
    reply.expect_ok()
    assert reply.outputs == {"caption": Tensor("caption", "BYTES", (1,), [b"parrot"])}


def test_a_spec_may_have_requests_checked_and_an_error_keeps_its_text(
    infer: Callable[[Request], Reply], isolation: str
) -> None:
    model = f"caption-{isolation}"
    wrong = infer(Request(model, [Tensor("picture", "UINT8", (1, 1), [1])]))
    assert wrong.status in (400, "INVALID_ARGUMENT")
    assert wrong.error == f'input "picture" of model "{model}": unknown, expected "image"'
    empty = infer(Request(model, [Tensor("image", "UINT8", (0, 0), [])]))
    assert empty.status in (500, "INTERNAL")
    assert empty.error == "the image is empty"


def test_breaches_are_counted_and_logged_once(digitalhub: ServerProcess, isolation: str) -> None:
    model = f"caption-{isolation}"
    for _ in range(3):
        image = Tensor("image", "UINT8", (1, 6), list(b"parrot"))
        rest_infer(digitalhub.client, Request(model, [image])).expect_ok()
    port = digitalhub._env["MLSERVER_METRICS_PORT"]
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    labels = f'{{kind="response_shape",model="{model}",version="1.0"}}'
    [line] = [
        line for line in text.splitlines()
        if line.startswith(f"pyfunc_contract_warnings_total{labels}")
    ]  # fmt: skip
    assert float(line.rpartition(" ")[2]) >= 3
    assert digitalhub.log.count(f'output "caption" of model "{model}": expected 6 elements') == 1


def test_the_metadata_describe_the_function(digitalhub: ServerProcess, isolation: str) -> None:
    shown = digitalhub.client.get(f"/v2/models/double-{isolation}").json()
    described = {key: shown["parameters"][key] for key in ("description", "labels", "project")}
    assert described == {"description": "Doubles.", "labels": "a, b", "project": "demo"}
