"""What a definition says about a tensor besides its datatype, over REST and gRPC.

In the server's process and in a worker.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest

from . import grpc_calls
from .conftest import GrpcCall
from .models import Definition, inline, tensor, write_repository
from .process import ServerProcess, serving
from .wire import DTYPES, Reply, Request, Tensor, encode_raw, read_json, rest_infer

AXES = {
    "inputs": [tensor("a", "FP32", ["rows", 2]), tensor("b", "FP32", ["rows"])],
    "outputs": [tensor("y", "FP32", ["rows"])],
}
WARM = """
import json

SEEN = []


def f(text, numbers):
    SEEN.append("%d %s" % (json.loads(text[0])["a"], numbers.tolist()))
    return SEEN[:1]
"""
WARM_TENSORS = {
    "inputs": [
        tensor("text", "BYTES", [1], content_type="str", example='{"a": 1}'),
        tensor("numbers", "INT64", [-1, 2], example=[[1, 2], [3, 4]], labels=["low", "high"]),
    ],
    "outputs": [tensor("seen", "BYTES", [1])],
}
READ_ONLY = """
def f(inputs):
    for name, array in inputs.items():
        if array.flags.writeable:
            return f"{name} can be written"
    if "fp32" in inputs and inputs["fp32"].size == 1:
        inputs["fp32"] += 1
    return "none can be written"
"""
EVERY_KIND = {
    "inputs": [
        *(tensor(d.lower(), d, [-1], optional=True) for d in DTYPES),
        tensor("text", "BYTES", [-1], optional=True, content_type="str"),
    ],
    "outputs": [tensor("answer", "BYTES", [1])],
}
SAID = """
def f(text):
    return {"error": text[0]}
"""
HEADED = """
def f(text, context):
    form, _, value = text[0].partition(":")
    outputs = [{"name": "answer", "datatype": "BYTES", "shape": [1], "data": ["a"]}]
    headers = {"X-Form": form, "Cache-Control": value, "x-count": 3}
    if form == "nuclio":
        return context.Response(headers=headers, body={"outputs": outputs})
    if form == "bad":
        return context.Response(headers={value: "a"}, body={"outputs": outputs})
    return {"outputs": outputs, "parameters": {"note": "n", "headers": headers}}
"""
SAID_TENSORS = {
    "inputs": [tensor("text", "BYTES", [1], content_type="str")],
    "outputs": [tensor("answer", "BYTES", [1])],
}
_FLOATS = [
    tensor("x", "FP32", [-1], nullable=True),
    tensor("d", "FP64", [-1], nullable=True, optional=True),
    tensor("h", "FP16", [-1, 1], nullable=True, optional=True),
    tensor("strict", "FP32", [-1], optional=True),
]
NULLABLE = {"inputs": _FLOATS, "outputs": _FLOATS}


def _models(**serving: Any) -> dict[str, Definition]:
    return {
        "axes": inline(
            "def f(a, b):\n    return a.sum(axis=1) + b if len(b) < 4 else b[1:]",
            "f", AXES, **serving,
        ),
        "read-only": inline(READ_ONLY, "f", EVERY_KIND, **serving),
        "headed": inline(HEADED, "f", SAID_TENSORS, **serving),
        "said": inline(SAID, "f", SAID_TENSORS, **serving),
        "warm": inline(WARM, "f", WARM_TENSORS, warmup=True, **serving),
        "nullable": inline("def f(inputs):\n    return inputs", "f", NULLABLE, **serving),
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


def test_metadata_have_example_and_labels(server: ServerProcess, grpc_call: GrpcCall) -> None:
    metadata = server.client.get("/v2/models/warm").json()
    text, numbers = metadata["inputs"]
    assert text["parameters"] == {"content_type": "str", "example": '"{\\"a\\": 1}"'}
    assert json.loads(numbers["parameters"]["labels"]) == ["low", "high"]
    assert json.loads(numbers["parameters"]["example"]) == [[1, 2], [3, 4]]
    assert grpc_call(grpc_calls.metadata, server.grpc_address, "warm")["inputs"][1][0] == "numbers"


def test_a_warm_up_gets_the_examples(infer: Any, suffix: str) -> None:
    inputs = [
        Tensor("text", "BYTES", (1,), [b'{"a": 7}']),
        Tensor("numbers", "INT64", (1, 2), [1, 2]),
    ]
    reply = infer(Request(f"warm{suffix}", inputs)).expect_ok()
    assert reply.outputs["seen"].values[0] == b"1 [[1, 2], [3, 4]]"


def test_metadata_have_minus_one_for_a_named_axis(
    server: ServerProcess, grpc_call: GrpcCall
) -> None:
    metadata = server.client.get("/v2/models/axes").json()
    assert [tensor["shape"] for tensor in metadata["inputs"]] == [[-1, 2], [-1]]
    assert metadata["inputs"][0]["parameters"] == {"axes": "[rows, 2]"}
    over_grpc = grpc_call(grpc_calls.metadata, server.grpc_address, "axes")
    assert over_grpc["inputs"] == [("a", "FP32", [-1, 2]), ("b", "FP32", [-1])]


@pytest.mark.parametrize("count", [1, 2000], ids=["small", "large"])
def test_null_is_nan_both_ways_in_json(server: ServerProcess, suffix: str, count: int) -> None:
    data = {"x": [1.5, None] * count, "d": [None, 0.1] * count, "h": [[None], [2.0]] * count}
    datatypes = {"x": "FP32", "d": "FP64", "h": "FP16"}
    inputs = [
        {"name": n, "datatype": d, "shape": [2 * count, 1] if n == "h" else [2 * count]}
        for n, d in datatypes.items()
    ]
    body = {"inputs": [{**each, "data": data[each["name"]]} for each in inputs]}
    answer = server.client.post(f"/v2/models/nullable{suffix}/infer", json=body).json()
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    assert outputs == {"x": data["x"], "d": data["d"], "h": [None, 2.0] * count}


def test_nan_is_exact_by_grpc(server: ServerProcess, grpc_call: GrpcCall, suffix: str) -> None:
    x = Tensor("x", "FP32", (3,), [1.5, math.nan, -math.inf])
    request = Request(f"nullable{suffix}", [x])
    for raw in (False, True):
        reply = grpc_call(grpc_calls.infer, server.grpc_address, request, raw).expect_ok()
        assert reply.outputs["x"].bits == x.bits


def test_null_stays_an_error_without_nullable(server: ServerProcess, suffix: str) -> None:
    tensors = [Tensor("x", "FP32", (1,), [None]), Tensor("strict", "FP32", (1,), [None])]
    refused = rest_infer(server.client, Request(f"nullable{suffix}", tensors))
    assert refused.status == 400
    assert f'input "strict" of model "nullable{suffix}": expected numbers' in refused.error
    assert "got null at index 0 (JSON has no NaN" in refused.error
    text = Tensor("x", "FP32", (1,), ["1"])
    refused = rest_infer(server.client, Request(f"nullable{suffix}", [text]))
    assert "numbers up to 3.4028e+38, or null, got '1' at index 0" in refused.error


def _every_kind(model: str, count: int, *but: str) -> Request:
    values = {d: [b"a"] if d == "BYTES" else [True] if d == "BOOL" else [2] for d in DTYPES}
    inputs = [
        Tensor(d.lower(), d, (count,), each * count) for d, each in values.items() if d not in but
    ]
    return Request(model, [*inputs, Tensor("text", "BYTES", (count,), [b"a"] * count)])


@pytest.mark.parametrize("count", [2, 3000], ids=["small", "large"])
def test_inputs_are_read_only_on_every_route(infer: Any, suffix: str, count: int) -> None:
    for but in ("FP16", "BYTES"):
        reply = infer(_every_kind(f"read-only{suffix}", count, but, "FP16"))
        assert reply.expect_ok().outputs["answer"].values == [b"none can be written"]


def test_inputs_are_read_only_as_binary_tensors(server: ServerProcess, suffix: str) -> None:
    request = _every_kind(f"read-only{suffix}", 2)
    raw = [encode_raw(each.datatype, each.values) for each in request.inputs]
    inputs = [
        {
            "name": each.name, "datatype": each.datatype, "shape": list(each.shape),
            "parameters": {"binary_data_size": len(data)},
        }
        for each, data in zip(request.inputs, raw, strict=True)
    ]  # fmt: skip
    head = json.dumps({"inputs": inputs}).encode()
    reply = server.client.post(
        f"/v2/models/{request.model}/infer",
        content=b"".join([head, *raw]),
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    assert read_json(reply).expect_ok().outputs["answer"].values == [b"none can be written"]


def test_a_write_to_an_input_says_how_to_copy_it(infer: Any, suffix: str) -> None:
    x = Tensor("fp32", "FP32", (1,), [1.0])
    refused = infer(Request(f"read-only{suffix}", [x], id="r-1"))
    assert refused.status in (500, "INTERNAL")
    assert refused.error == (
        f'handler of model "read-only{suffix}" raised ValueError: output array is read-only '
        "(inputs are read-only, to change one copy it: x.copy()) (request r-1)"
    )


def test_an_error_that_a_handler_returns_keeps_its_text(infer: Any, suffix: str) -> None:
    said = "no model for \u00fc"
    reply = infer(Request(f"said{suffix}", [Tensor("text", "BYTES", (1,), [said.encode()])]))
    assert (reply.status, reply.error) in [(500, said), ("INTERNAL", said)]


@pytest.mark.parametrize("form", ["nuclio", "protocol"])
def test_a_handler_sets_headers(infer: Any, suffix: str, form: str) -> None:
    text = Tensor("text", "BYTES", (1,), [f"{form}:no-store".encode()])
    reply = infer(Request(f"headed{suffix}", [text], id="r-1")).expect_ok()
    assert reply.headers["x-form"] == form
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["x-count"] == "3"
    assert reply.headers["ce-id"] == "r-1"
    assert reply.parameters == ({} if form == "nuclio" else {"note": "n"})


def test_a_header_that_the_server_sets_is_an_error(infer: Any, suffix: str) -> None:
    text = Tensor("text", "BYTES", (1,), [b"bad:Content-Length"])
    reply = infer(Request(f"headed{suffix}", [text]))
    assert reply.status in (500, "INTERNAL")
    assert reply.error == (
        f'response headers of model "headed{suffix}": '
        "the server sets 'Content-Length' itself, leave it out"
    )
