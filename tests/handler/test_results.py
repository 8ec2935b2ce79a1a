from __future__ import annotations

import json
import types
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pydantic
import pytest

from mlserver_pyfunc.errors import InferenceError, ResponseError
from mlserver_pyfunc.handler.context import Response
from mlserver_pyfunc.handler.results import name_values
from mlserver_pyfunc.protocol.contract import Contract, NamedArray, TensorSpec
from mlserver_pyfunc.protocol.tensors import DATATYPES


def _contract(*outputs: str, datatype: str = "INT64") -> Contract:
    specs = [TensorSpec(name, DATATYPES[datatype], (-1,)) for name in outputs]
    return Contract("iris", [], specs)


ONE, TWO = _contract("y"), _contract("a", "b")
BYTES = _contract("y", datatype="BYTES")
WARNS = Contract("iris", [], [*ONE.outputs.values()], ["responses"])
BASE64 = {"content_type": "base64"}


def _refused(contract: Contract, result: Any) -> str:
    with pytest.raises(ResponseError) as caught:
        name_values(contract, result)
    return str(caught.value)


@pytest.mark.parametrize(
    "result",
    [
        *([1, 2], np.array([1]), 5, "text", b"bytes", {1, 2}, object()),
        *(types.SimpleNamespace(outputs=[1]), types.SimpleNamespace(model_name="m")),
    ],
)
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
        (TWO, np.array([1]), "expected a dict of a, b, or a tuple in that order, got ndarray"),
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


@pytest.mark.parametrize(("given", "status"), [(400, 400), (599, 599), (600, 599)])
def test_a_nuclio_response_has_a_status_of_http(given: int, status: int) -> None:
    with pytest.raises(InferenceError) as caught:
        name_values(ONE, Response(body="went wrong", status_code=given))
    assert caught.value.status == status
    assert name_values(ONE, Response(body=PROTOCOL, status_code=399)).values["y"].tolist() == [1, 2]
    assert "is not JSON" in _refused(ONE, Response(body="<html>", status_code=399))


def test_a_nuclio_response_that_is_not_json_is_the_handlers_error() -> None:
    assert "got a response whose body is not JSON" in _refused(ONE, Response(body="<html>"))


def test_no_parameters_are_an_empty_mapping() -> None:
    assert name_values(ONE, {**PROTOCOL, "parameters": None}).parameters == {}


def test_integers_of_64_bits_are_parameters() -> None:
    given = {"least": -(2**63), "most": 2**63 - 1, "text": "\u00fc"}
    assert name_values(ONE, {**PROTOCOL, "parameters": given}).parameters == given
    assert "beyond 64 bits" in _refused(ONE, {**PROTOCOL, "parameters": {"a": 2**63}})
    long = _refused(ONE, {**PROTOCOL, "parameters": {"a": 10**50}})
    assert long.endswith(f"got 1{'0' * 39}, beyond 64 bits")


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


@pytest.mark.parametrize(
    ("value", "sent"), [("a" * 4093, "a" * 4093), (" b ", "b"), (1.5, "1.5"), (True, "True")]
)
def test_headers_are_text_of_up_to_4096_characters(value: Any, sent: str) -> None:
    given = {**PROTOCOL, "parameters": {"headers": {"X-Y": value}, "n": 1}}
    assert name_values(ONE, given).parameters == {"headers": {"x-y": sent}, "n": 1}
    response = Response({"X-Z": "z"}, {**PROTOCOL, "parameters": {"n": 1}})
    assert name_values(ONE, response).parameters == {"headers": {"x-z": "z"}, "n": 1}


def test_headers_of_two_that_are_too_long_together_are_refused() -> None:
    headers = {"a": "x" * 2048, "b": "y" * 2047}
    message = "expected up to 4096 characters, got 4097"
    assert message in _refused(ONE, {**PROTOCOL, "parameters": {"headers": headers}})


class Row(NamedTuple):
    a: int
    b: int


@dataclass
class Object:
    a: int
    b: int


class Model(pydantic.BaseModel):
    a: int
    renamed: int = pydantic.Field(alias="b")


OBJECTS = [Row(1, 2), Object(1, 2), Model(a=1, b=2)]


@pytest.mark.parametrize("result", OBJECTS, ids=lambda each: type(each).__name__)
def test_the_fields_of_an_object_are_the_outputs(result: Any) -> None:
    assert name_values(TWO, result).values == {"a": 1, "b": 2}
    assert name_values(TWO, [result, result]).values == {"a": [1, 1], "b": [2, 2]}
    assert name_values(_contract("a", "b", "c"), result).values == {"a": 1, "b": 2}
    assert name_values(_contract("a", "b", "c"), [result]).values["c"] == [None]
    if not isinstance(result, tuple):
        assert "got a" not in _refused(_contract("a", "c"), result)
    assert name_values(ONE, [result]).values == {"y": [result]}
    assert name_values(ONE, result).values == {"y": result}


def test_a_table_is_its_columns() -> None:
    table = pd.DataFrame({"a": [1, 2], "b": [3, 4]})
    values = name_values(TWO, table).values
    assert {name: array.tolist() for name, array in values.items()} == {"a": [1, 2], "b": [3, 4]}
    assert name_values(ONE, table).values["y"] is table
    assert name_values(ONE, table["a"]).values["y"] is table["a"]
    named = types.SimpleNamespace(columns=["y"])
    assert name_values(ONE, named).values["y"] is named


def test_dicts_in_a_list_are_rows() -> None:
    rows = [{"a": 1, "b": 2}, {"a": 3}]
    assert name_values(TWO, rows).values == {"a": [1, 3], "b": [2, None]}
    assert name_values(ONE, rows).values == {"y": rows}
    assert name_values(ONE, [{"y": 1}, {"y": 2}]).values == {"y": [1, 2]}
    assert name_values(TWO, [{"a": 1, "b": 2}, {}]).values == {"a": [1, None], "b": [2, None]}
    assert name_values(TWO, []).values == {"a": [], "b": []}
    assert "got list" in _refused(TWO, [{"a": 1, "z": 2}])
    assert "got list" in _refused(TWO, [{"a": 1, "b": 2}, 5])
    assert "got list" in _refused(TWO, [(1, 2)])


def test_an_optional_output_may_be_none_if_it_is_the_only_one() -> None:
    optional = [TensorSpec(name, DATATYPES["INT64"], (-1,), optional=True) for name in "ab"]
    assert name_values(Contract("iris", [], optional[:1]), None).values == {}
    assert "got None" in _refused(Contract("iris", [], optional), None)


def test_a_result_of_a_function_without_outputs() -> None:
    contract = _contract()
    assert _refused(contract, 5).endswith(
        "expected a dict of tensors by name, or a tuple in that order, got int"
    )


@pytest.mark.parametrize(
    ("output", "kind", "value"),
    [
        ({"shape": None}, list, [1, 2]),
        ({"data": None}, type(None), None),
        ({"datatype": None, "data": [3, 4]}, np.ndarray, [3, 4]),
        ({"datatype": types.SimpleNamespace(value="INT64")}, np.ndarray, [1, 2]),
        ({"data": np.array([[1], [2]], np.int64)}, np.ndarray, [1, 2]),
    ],
)
def test_the_protocols_form_may_leave_out_what_is_declared(
    output: dict[str, Any], kind: type, value: Any
) -> None:
    outputs = [{**PROTOCOL["outputs"][0], **output}]  # type: ignore[index]
    got = name_values(ONE, {"outputs": outputs}).values["y"]
    assert type(got) is kind
    assert (got.tolist() if kind is np.ndarray else got) == value


def test_an_output_in_the_protocols_form_that_is_not_declared_is_left_to_the_contract() -> None:
    outputs = [*PROTOCOL["outputs"], {"name": "z", "data": [9]}]  # type: ignore[misc]
    assert name_values(ONE, {"outputs": outputs}).values["z"] == [9]


@pytest.mark.parametrize(
    ("name", "output", "datatype", "elements"),
    [
        ("z", {"data": [1]}, "", [1]),
        ("z", {"datatype": "INT64"}, "", None),
        ("z", {"datatype": "INT64", "data": [1, 2]}, "INT64", [1, 2]),
        ("z", {"datatype": "INT64", "data": [[1, 2], [3, 4]]}, "INT64", [[1, 2], [3, 4]]),
        ("z", {"datatype": "BYTES", "data": ["/w=="], "parameters": BASE64}, "BYTES", [b"\xff"]),
        ("y", {"data": [1, 2]}, "INT64", [1, 2]),
        ("y", {"datatype": "FP32", "shape": [2], "data": [1, 2]}, "FP32", [1, 2]),
    ],
)
def test_a_contract_that_warns_takes_tensors_as_they_are_given(
    name: str, output: Any, datatype: str, elements: Any
) -> None:
    got = name_values(WARNS, {"outputs": [{"name": name, **output}]}).values[name]
    if not datatype:
        assert got == elements
        return
    assert isinstance(got, NamedArray)
    assert (got.spec.datatype.name, got.array.tolist()) == (datatype, elements)


@pytest.mark.parametrize(
    "output", [{"datatype": "INT64", "data": [[1, 2], [3]]}, {"datatype": "INT", "data": [1]}]
)
def test_a_contract_that_warns_refuses_what_is_no_tensor(output: Any) -> None:
    said = _refused(WARNS, {"outputs": [{"name": "z", **output}]})
    assert said.startswith('output "z" of model "iris": ')


@pytest.mark.parametrize(
    "outputs",
    [[], [1], [{"name": "y"}, 1], [{"data": [1]}], ({"name": "y"},), None, {"name": 1}],
)
def test_what_is_not_in_the_protocols_form_is_by_output_name(outputs: Any) -> None:
    assert name_values(ONE, {"outputs": outputs}).values == {"outputs": outputs}


def test_base64_of_an_object_in_the_protocols_form() -> None:
    marked = types.SimpleNamespace(content_type="base64")
    output = {
        "name": "y",
        "datatype": "BYTES",
        "shape": [1],
        "data": ["/w=="],
        "parameters": marked,
    }
    assert name_values(BYTES, {"outputs": [output]}).values["y"].tolist() == [b"\xff"]
    number = {"name": "y", "datatype": "INT64", "shape": [1], "data": [1], "parameters": marked}
    assert name_values(ONE, {"outputs": [number]}).values["y"].tolist() == [1]


def test_a_nuclio_response_may_name_its_content_type() -> None:
    result = Response({"Content-Type": "application/json"}, PROTOCOL)
    assert "headers" not in name_values(ONE, result).parameters
    more = Response({"content-type": "text/plain", "X-Y": "z"}, PROTOCOL)
    assert name_values(ONE, more).parameters["headers"] == {"x-y": "z"}
    with pytest.raises(ResponseError, match="the server sets 'Content-Type' itself"):
        name_values(ONE, {**PROTOCOL, "parameters": {"headers": result.headers}})


def test_headers_are_among_the_parameters() -> None:
    for result in (
        {**PROTOCOL, "parameters": {"headers": {"X-Y": 1}}},
        Response({"X-Y": 1}, PROTOCOL),
    ):
        assert name_values(ONE, result).parameters["headers"] == {"x-y": "1"}
