"""Every datatype and shape, by every route, there and back."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from . import grpc_calls, triton_calls
from .conftest import GrpcCall
from .models import MODELS, tensor_name
from .process import ServerProcess
from .wire import DTYPES, Reply, Request, Tensor, rest_infer

CASES = [
    ("fixed", (2, 3)),
    ("any", (5,)),
    ("any", (0,)),
    ("batch", (3, 2)),
    ("batch", (0, 2)),
    ("scalar", ()),
    ("cube", (2, 1, 3)),
    ("cube", (2, 0, 3)),
]
JSON_ROUTES = ("json flat", "json nested", "triton json")
BINARY_ROUTE = "triton binary"
GRPC_ROUTES = ("grpc typed", "grpc raw", "triton grpc")
# Without typed FP16 over gRPC: the protocol has no field for it, see its own tests below.
ROUTED = [
    (route, datatype)
    for route in (*JSON_ROUTES, *GRPC_ROUTES)
    for datatype in DTYPES
    if (route, datatype) != ("grpc typed", "FP16")
]


def _ends(datatype: str) -> list[Any]:
    info = np.iinfo(DTYPES[datatype])
    return [info.max, info.min, 0, 1, info.max - 1]


def _floats(datatype: str, *, finite: bool) -> list[Any]:
    info = np.finfo(DTYPES[datatype])
    values = [info.max, info.min, -0.0, info.smallest_subnormal, 1.5]
    if not finite:
        values[3:] = [math.nan, math.inf, -math.inf]
    return [float(value) for value in values]


TEXT = [b"text", "h\u00e9llo \u2603 \U0001f600".encode(), b"", b"a\0b", b'"quoted\\"\n']
BINARY = [b"\xff\xfe\x00", b"", b"text", b"\x80", b"a\0b"]


def _values(datatype: str, route: str) -> list[Any]:
    if datatype == "BOOL":
        return [True, False, False, True, True]
    if datatype == "BYTES":
        return TEXT if route == "triton json" else BINARY
    if datatype.startswith("FP"):
        return _floats(datatype, finite=route in JSON_ROUTES)
    return _ends(datatype)


def _filled(datatype: str, kind: str, shape: tuple[int, ...], route: str) -> Tensor:
    values = _values(datatype, route)
    size = math.prod(shape)
    filled = [values[index % len(values)] for index in range(size)]
    return Tensor(tensor_name(datatype, kind), datatype, shape, filled)


def _send(
    route: str,
    request: Request,
    server: ServerProcess,
    grpc_call: GrpcCall,
    triton_call: GrpcCall,
) -> Reply:
    if route in ("json flat", "json nested"):
        return rest_infer(server.client, request, nested=route == "json nested")
    if route == "triton json":
        return triton_calls.infer_by_http(server.url, request, binary=False)
    if route == BINARY_ROUTE:
        return triton_calls.infer_by_http(server.url, request, binary=True)
    if route == "triton grpc":
        return triton_call(triton_calls.infer_by_grpc, server.grpc_address, request)
    return grpc_call(grpc_calls.infer, server.grpc_address, request, route == "grpc raw")


def _seen(sent: Tensor) -> str:
    if sent.datatype == "BYTES":
        bits = " ".join(f"bytes:{value.hex()}" for value in sent.values)
        return f"{sent.name} object {list(sent.shape)} {bits}"
    return f"{sent.name} {np.dtype(DTYPES[sent.datatype])} {list(sent.shape)} {sent.bits.hex()}"


@pytest.mark.parametrize(("kind", "shape"), CASES, ids=[f"{k}-{list(s)}" for k, s in CASES])
@pytest.mark.parametrize(("route", "datatype"), ROUTED)
def test_a_tensor_reaches_the_handler_and_comes_back_bit_for_bit(
    route: str,
    datatype: str,
    kind: str,
    shape: tuple[int, ...],
    either_server: ServerProcess,
    grpc_call: GrpcCall,
    triton_call: GrpcCall,
) -> None:
    sent = _filled(datatype, kind, shape, route)
    reply = _send(route, Request("echo", [sent]), either_server, grpc_call, triton_call).expect_ok()
    assert reply.outputs["seen"].values[0].decode() == _seen(sent)
    got = reply.outputs[sent.name]
    assert (got.datatype, got.shape) == (sent.datatype, sent.shape)
    assert got.bits == sent.bits
    assert set(reply.outputs) == {sent.name, "seen"}


@pytest.mark.parametrize(("kind", "shape"), CASES, ids=[f"{k}-{list(s)}" for k, s in CASES])
@pytest.mark.parametrize("datatype", DTYPES)
def test_a_tensor_travels_bit_for_bit_as_binary_data_over_rest(
    datatype: str, kind: str, shape: tuple[int, ...], server: ServerProcess
) -> None:
    sent = _filled(datatype, kind, shape, BINARY_ROUTE)
    request = Request("echo", [sent], outputs=[sent.name, "seen"])
    reply = triton_calls.infer_by_http(server.url, request, binary=True).expect_ok()
    assert reply.outputs["seen"].values[0].decode() == _seen(sent)
    got = reply.outputs[sent.name]
    assert (got.datatype, got.shape, got.bits) == (sent.datatype, sent.shape, sent.bits)


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_json_has_no_nan_or_infinity_so_they_are_sent_as_null(
    datatype: str, either_server: ServerProcess
) -> None:
    response = either_server.client.post(
        "/v2/models/nonfinite/infer",
        json={"inputs": [{"name": "n", "datatype": "INT64", "shape": [1], "data": [1]}]},
    )
    assert response.status_code == 200, response.text
    outputs = {output["name"]: output for output in response.json()["outputs"]}
    assert outputs[datatype.lower()]["data"] == [1.5, None, None, None]


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_nan_and_infinity_travel_exactly_over_raw_grpc(
    datatype: str, either_server: ServerProcess, grpc_call: GrpcCall
) -> None:
    request = Request("nonfinite", [Tensor("n", "INT64", (1,), [1])])
    reply = grpc_call(grpc_calls.infer, either_server.grpc_address, request, True).expect_ok()
    assert str(reply.outputs[datatype.lower()].values) == "[1.5, nan, inf, -inf]"


def test_a_typed_fp16_input_is_refused_because_the_protocol_has_no_field_for_it(
    either_server: ServerProcess, grpc_call: GrpcCall
) -> None:
    tensor = Tensor("fp16_any", "FP16", (1,), [b"\x00\x3e"], contents="bytes_contents")
    reply = grpc_call(
        grpc_calls.infer, either_server.grpc_address, Request("echo", [tensor]), False
    )
    assert (reply.status, reply.error) == (
        "INVALID_ARGUMENT",
        'input "fp16_any" of model "echo": expected numbers up to 65504, got '
        "b'\\x00>' at index 0",
    )


def test_an_fp16_output_of_a_typed_request_is_a_clean_error(
    either_server: ServerProcess, grpc_call: GrpcCall
) -> None:
    request = Request("nonfinite", [Tensor("n", "INT64", (1,), [1])], outputs=["fp16"])
    reply = grpc_call(grpc_calls.infer, either_server.grpc_address, request, False)
    assert reply.status == "INVALID_ARGUMENT", reply
    assert reply.error.startswith('output "fp16"'), reply
    assert reply.error.endswith(
        "expected a request with raw_input_contents, got a typed one, and gRPC has no typed FP16"
    )


def test_other_outputs_of_a_typed_request_are_sent_beside_an_fp16_one_not_asked_for(
    either_server: ServerProcess, grpc_call: GrpcCall
) -> None:
    request = Request("nonfinite", [Tensor("n", "INT64", (1,), [1])], outputs=["fp32"])
    reply = grpc_call(grpc_calls.infer, either_server.grpc_address, request, False).expect_ok()
    assert str(reply.outputs["fp32"].values) == "[1.5, nan, inf, -inf]"


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (["dGV4dA==", ""], {"data": ["text", ""]}),
        (
            ["dGV4dA==", "/w=="],
            {"parameters": {"content_type": "base64"}, "data": ["dGV4dA==", "/w=="]},
        ),
    ],
    ids=["text", "one element that is not text"],
)
def test_what_came_as_base64_is_answered_as_text_or_as_base64_as_a_whole(
    sent: list[str], answered: dict[str, Any], either_server: ServerProcess
) -> None:
    sent_tensor = {
        "name": "bytes_any",
        "datatype": "BYTES",
        "shape": [2],
        "parameters": {"content_type": "base64"},
        "data": sent,
    }
    answer = either_server.client.post("/v2/models/echo/infer", json={"inputs": [sent_tensor]})
    assert answer.json()["outputs"][0] == {
        "name": "bytes_any",
        "datatype": "BYTES",
        "shape": [2],
        **answered,
    }


@pytest.mark.parametrize("route", [*JSON_ROUTES, *GRPC_ROUTES])
def test_text_is_str_for_the_handler_on_every_route(
    route: str, either_server: ServerProcess, grpc_call: GrpcCall, triton_call: GrpcCall
) -> None:
    sent = Tensor("text", "BYTES", (len(TEXT),), TEXT)
    reply = _send(
        route, Request("upper", [sent]), either_server, grpc_call, triton_call
    ).expect_ok()
    assert [value.decode() for value in reply.outputs["upper"].values] == [
        "TEXT", "H\u00c9LLO \u2603 \U0001f600", "", "A\0B", '"QUOTED\\"\n',
    ]  # fmt: skip


@pytest.mark.parametrize("route", [*JSON_ROUTES, *GRPC_ROUTES])
@pytest.mark.parametrize("names", [["fp32"], ["fp64", "fp32"]])
def test_only_the_requested_outputs_are_sent(
    route: str,
    names: list[str],
    either_server: ServerProcess,
    grpc_call: GrpcCall,
    triton_call: GrpcCall,
) -> None:
    request = Request("nonfinite", [Tensor("n", "INT64", (1,), [0])], outputs=names)
    reply = _send(route, request, either_server, grpc_call, triton_call).expect_ok()
    assert list(reply.outputs) == names


@pytest.mark.parametrize("route", ["json flat", "grpc typed", "grpc raw"])
def test_the_response_has_the_id_of_its_request(
    route: str, either_server: ServerProcess, grpc_call: GrpcCall, triton_call: GrpcCall
) -> None:
    request = Request("nonfinite", [Tensor("n", "INT64", (1,), [0])], ["fp32"], id="request-7")
    reply = _send(route, request, either_server, grpc_call, triton_call).expect_ok()
    assert reply.id == "request-7"


@pytest.mark.parametrize("route", ["json flat", "grpc typed", "grpc raw"])
def test_the_handler_gets_the_requests_parameters_headers_and_id(
    route: str, either_server: ServerProcess, grpc_call: GrpcCall, triton_call: GrpcCall
) -> None:
    request = Request(
        "inspect",
        [Tensor("x", "INT64", (1,), [1], {"unit": "cm"})],
        id="seven",
        headers={"x-trace": "abc"},
        parameters={"temperature": 3, "mode": "fast", "dry": True},
    )
    reply = _send(route, request, either_server, grpc_call, triton_call).expect_ok()
    assert json.loads(reply.outputs["seen"].values[0]) == {
        "id": "seven",
        "parameters": {"temperature": 3, "mode": "fast", "dry": True},
        "trace": "abc",
        "unit": "cm",
        "requested": [],
    }


@pytest.mark.parametrize("route", ["json flat", "grpc typed", "grpc raw"])
def test_a_response_in_the_protocols_own_form_keeps_its_parameters(
    route: str, either_server: ServerProcess, grpc_call: GrpcCall, triton_call: GrpcCall
) -> None:
    request = Request("protocol-form", [Tensor("x", "INT64", (2,), [1, 2])])
    reply = _send(route, request, either_server, grpc_call, triton_call).expect_ok()
    assert reply.outputs["y"].values == [2, 4]
    assert reply.parameters["note"] == "doubled"


def test_metadata_shows_the_contract_on_both_protocols(
    either_server: ServerProcess, grpc_call: GrpcCall
) -> None:
    rest = either_server.client.get("/v2/models/strict").json()
    over_grpc = grpc_call(grpc_calls.metadata, either_server.grpc_address, "strict")
    declared = MODELS["strict"]
    for kind in ("inputs", "outputs"):
        expected = [(t["name"], t["datatype"], t["shape"]) for t in declared[kind]]
        assert [(t["name"], t["datatype"], t["shape"]) for t in rest[kind]] == expected
        assert over_grpc[kind] == expected
    assert rest["platform"] == over_grpc["platform"] == "mlserver_pyfunc"
    assert rest["parameters"]["source"] == "inline code"
    assert len(rest["parameters"]["sha256"]) == 64
    assert rest["inputs"][-2]["parameters"] == {"content_type": "str", "optional": True}


@pytest.mark.parametrize("text", ["\u00e5\u2603", "a\u0012b", "a\r\nX-Evil: 1", "\U0003f420\x00"])
def test_an_id_that_no_header_can_hold_is_answered_in_the_body_alone(
    text: str, server: ServerProcess
) -> None:
    request = Request("versioned", [Tensor("x", "FP32", (1,), [1.5])], id=text)
    reply = rest_infer(server.client, request).expect_ok()
    assert reply.id == text
    assert "x-evil" not in reply.headers
