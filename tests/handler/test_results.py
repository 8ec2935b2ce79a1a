from __future__ import annotations

import json
import types
from typing import Any

import numpy as np
import pytest

from mlserver_pyfunc.errors import InferenceError, ResponseError
from mlserver_pyfunc.handler.context import Response
from mlserver_pyfunc.handler.results import name_values
from mlserver_pyfunc.protocol.contract import Contract, TensorSpec
from mlserver_pyfunc.protocol.tensors import DATATYPES


def _contract(*outputs: str, datatype: str = "INT64") -> Contract:
    specs = [TensorSpec(name, DATATYPES[datatype], (-1,)) for name in outputs]
    return Contract("iris", [], specs)


ONE, TWO = _contract("y"), _contract("a", "b")
BYTES = _contract("y", datatype="BYTES")


def _refused(contract: Contract, result: Any) -> str:
    with pytest.raises(ResponseError) as caught:
        name_values(contract, result)
    return str(caught.value)


@pytest.mark.parametrize("result", [[1, 2], np.array([1]), 5, "text", b"bytes", {1, 2}, object()])
def test_a_bare_value_is_the_one_output(result: Any) -> None:
    assert name_values(ONE, result).values["y"] is result


def test_a_dict_is_by_output_name() -> None:
    assert name_values(TWO, {"b": 2, "a": 1}).values == {"a": 1, "b": 2}
    assert name_values(ONE, {"y": 1}).values == {"y": 1}


def test_a_tuple_is_in_declared_order() -> None:
    assert name_values(TWO, (1, 2)).values == {"a": 1, "b": 2}


def test_a_tuple_of_one_is_the_one_output() -> None:
    assert name_values(ONE, ([1, 2],)).values == {"y": [1, 2]}


def test_a_longer_tuple_is_the_value_of_the_one_output() -> None:
    assert name_values(ONE, (1, 2)).values == {"y": (1, 2)}


@pytest.mark.parametrize(
    ("contract", "result", "message"),
    [
        (ONE, None, "expected a value for y, or a dict, got None"),
        (TWO, None, "expected a dict of a, b, or a tuple in that order, got None"),
        (TWO, [1, 2], "expected a dict of a, b, or a tuple in that order, got list"),
        (TWO, (1, 2, 3), "expected a dict of a, b, or a tuple in that order, got a tuple of 3"),
        (TWO, 5, "expected a dict of a, b, or a tuple in that order, got int"),
        (ONE, (n for n in [1]), "expected a value for y, or a dict, got a generator"),
    ],
)
def test_another_form_is_the_handlers_error(contract: Contract, result: Any, message: str) -> None:
    assert _refused(contract, result) == f'handler of model "iris": {message}'


async def test_an_async_generator_is_the_handlers_error() -> None:
    async def generate() -> Any:
        yield 1

    assert "got a generator" in _refused(ONE, generate())


PROTOCOL = {
    "id": "r-1",
    "parameters": {"note": "n"},
    "outputs": [{"name": "y", "datatype": "INT64", "shape": [2], "data": [1, 2]}],
}


def test_the_protocols_own_form() -> None:
    named = name_values(ONE, PROTOCOL)
    assert named.values["y"].tolist() == [1, 2]
    assert named.parameters == {"note": "n"}


def test_the_protocols_form_as_objects() -> None:
    output = types.SimpleNamespace(
        name="y", datatype="INT64", shape=[2], data=types.SimpleNamespace(root=[1, 2])
    )
    response = types.SimpleNamespace(model_name="m", outputs=[output], parameters=None)
    assert name_values(ONE, response).values["y"].tolist() == [1, 2]


def test_mlservers_own_response() -> None:
    from mlserver.types import InferenceResponse, Parameters, ResponseOutput

    response = InferenceResponse(
        model_name="m",
        parameters=Parameters(note="n"),
        outputs=[ResponseOutput(name="y", datatype="INT64", shape=[2], data=[1, 2])],
    )
    named = name_values(ONE, response)
    assert named.values["y"].tolist() == [1, 2]
    assert named.parameters["note"] == "n"


def test_base64_in_the_protocols_form() -> None:
    output = {"name": "y", "datatype": "BYTES", "shape": [1], "data": ["/w=="]}
    marked = {**output, "parameters": {"content_type": "base64"}}
    assert name_values(BYTES, {"outputs": [marked]}).values["y"].tolist() == [b"\xff"]
    assert name_values(BYTES, {"outputs": [output]}).values["y"].tolist() == [b"/w=="]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"datatype": "FP32"}, "expected datatype INT64, got FP32"),
        ({"shape": [3]}, "expected 3 elements for shape [3], got 2"),
        ({"data": [1, 1.5]}, "got 1.5 at index 1"),
        ({"data": np.array([1, 2, 3])}, "expected 2 elements for shape [2], got 3"),
    ],
)
def test_the_protocols_form_is_held_to_the_contract(output: dict[str, Any], message: str) -> None:
    outputs = [{**PROTOCOL["outputs"][0], **output}]  # type: ignore[index]
    text = _refused(ONE, {"outputs": outputs})
    assert text.startswith('output "y" of model "iris": ')
    assert message in text


def test_an_output_given_twice_in_the_protocols_form_is_an_error() -> None:
    outputs = PROTOCOL["outputs"] * 2  # type: ignore[operator]
    assert _refused(ONE, {"outputs": outputs}) == 'output "y" of model "iris": given twice'


def test_an_output_of_the_name_outputs_is_a_value_like_another() -> None:
    contract = _contract("outputs")
    assert name_values(contract, {"outputs": [1, 2]}).values == {"outputs": [1, 2]}


@pytest.mark.parametrize("body", [PROTOCOL, json.dumps(PROTOCOL), json.dumps(PROTOCOL).encode()])
def test_a_nuclio_response(body: Any) -> None:
    assert name_values(ONE, Response(body=body)).values["y"].tolist() == [1, 2]


def test_a_nuclio_response_with_an_error_status_is_that_error() -> None:
    for body, message in [
        ("went wrong", "went wrong"),
        (b'{"error": "went wrong"}', "went wrong"),
        ({"error": "went wrong"}, "went wrong"),
    ]:
        with pytest.raises(InferenceError) as caught:
            name_values(ONE, Response(body=body, status_code=418))
        assert (str(caught.value), caught.value.status) == (message, 418)


def test_a_nuclio_response_that_is_not_json_is_the_handlers_error() -> None:
    assert "got a response whose body is not JSON" in _refused(ONE, Response(body="<html>"))


def test_parameters_of_numpys_types_become_pythons() -> None:
    output = {"name": "y", "datatype": "INT64", "shape": [1], "data": [1]}
    given = {"score": np.float32(0.5), "ids": np.array([1, 2]), "ok": np.bool_(True)}
    named = name_values(ONE, {"outputs": [output], "parameters": given})
    assert named.parameters == {"score": 0.5, "ids": [1, 2], "ok": True}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ([1], "expected a mapping, got list"),
        ({"a": {1}}, "expected what JSON can carry: got a value of type set"),
        ({"a": -(2**63) - 1}, "got -9223372036854775809, beyond 64 bits"),
        ({"a": "\udcff"}, "surrogates not allowed"),
    ],
)
def test_parameters_that_no_route_can_send_are_refused(parameters: Any, message: str) -> None:
    output = {"name": "y", "datatype": "INT64", "shape": [1], "data": [1]}
    said = _refused(ONE, {"outputs": [output], "parameters": parameters})
    assert said.startswith('response parameters of model "iris": ')
    assert message in said


@pytest.mark.parametrize("more", [{}, {"status": "error"}])
def test_a_dict_with_an_error_and_no_output_is_that_error(more: dict[str, str]) -> None:
    with pytest.raises(InferenceError, match=r"^no face$") as caught:
        name_values(ONE, {"error": "no face", **more})
    assert caught.value.status == 500
    assert name_values(ONE, {"y": 1, "error": "no face"}).values == {"y": 1, "error": "no face"}


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        (["a"], "expected a mapping, got list"),
        ({"a b": "c"}, "expected a name of letters, digits, - and _, got 'a b'"),
        ({"X-Y": "line\r\nbreak"}, "expected printable ASCII text for 'X-Y'"),
        ({"X-Y": "\u00fc"}, "expected printable ASCII text for 'X-Y'"),
        ({"X-Y": None}, "expected printable ASCII text for 'X-Y', got null"),
        ({"grpc-status": "0"}, "the server sets 'grpc-status' itself"),
        ({"trace-bin": "0"}, "the server sets 'trace-bin' itself"),
        ({"X-Y": "a" * 5000}, "expected up to 4096 characters, got 5003"),
    ],
)
def test_headers_that_no_route_can_send_are_refused(headers: Any, message: str) -> None:
    for result in ({**PROTOCOL, "parameters": {"headers": headers}}, Response(headers, PROTOCOL)):
        with pytest.raises(ResponseError) as caught:
            name_values(ONE, result)
        assert message in str(caught.value)


def test_a_nuclio_response_may_name_its_content_type() -> None:
    result = Response({"Content-Type": "application/json"}, PROTOCOL)
    assert "headers" not in name_values(ONE, result).parameters
    with pytest.raises(ResponseError, match="the server sets 'Content-Type' itself"):
        name_values(ONE, {**PROTOCOL, "parameters": {"headers": result.headers}})


def test_headers_are_among_the_parameters() -> None:
    for result in (
        {**PROTOCOL, "parameters": {"headers": {"X-Y": 1}}},
        Response({"X-Y": 1}, PROTOCOL),
    ):
        assert name_values(ONE, result).parameters["headers"] == {"x-y": "1"}
