"""The contract at its edges: axes that are alone, tensors that are absent, and exact messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlserver_pyfunc.errors import ContractError, ResponseError
from mlserver_pyfunc.protocol.contract import Contract, NamedArray, TensorSpec
from mlserver_pyfunc.protocol.request import RequestInput
from mlserver_pyfunc.protocol.response import json_output, response_body
from mlserver_pyfunc.protocol.tensors import DATATYPES


def spec(name: str, *shape: Any, datatype: str = "FP32", **keys: Any) -> TensorSpec:
    return TensorSpec.of({"name": name, "datatype": datatype, "shape": list(shape), **keys})


def tensor(name: str, *shape: int) -> RequestInput:
    return RequestInput(name, "FP32", list(shape), [0.0] * int(np.prod(shape)))


def refused(contract: Contract, *inputs: RequestInput) -> str:
    with pytest.raises(ContractError) as caught:
        contract.decode_inputs(inputs)
    return str(caught.value)


def test_a_specification_has_what_its_keys_say_and_no_more() -> None:
    plain = spec("x", 1)
    assert (plain.optional, plain.text, plain.datatype.nullable, plain.limits, plain.axes) == (
        False, False, False, None, (),
    )  # fmt: skip
    assert spec("x", 1, datatype="BYTES", content_type="str").text is True
    assert spec("x", 1, optional=True).optional is True
    assert spec("x", 1, nullable=True).datatype.nullable is True


def test_a_specification_says_whether_it_admits_a_shape() -> None:
    assert spec("x", -1, 2).admits([0, 2]) is True
    assert spec("x", -1, 2).admits([1, 3]) is False
    assert spec("x", -1, 2).admits([-1, 2]) is False
    assert spec("x", -1, 2).admits([1]) is False


def test_axes_without_a_name_may_differ() -> None:
    contract = Contract("m", [spec("x", "rows", -1), spec("y", "rows", -1)], [])
    assert contract.decode_inputs([tensor("x", 2, 3), tensor("y", 2, 5)]).keys() == {"x", "y"}
    assert refused(contract, tensor("x", 2, 3), tensor("y", 1, 3)) == (
        'input "y" of model "m": axis "rows": expected 2 as in input "x", got 1'
    )


def test_an_axis_that_two_tensors_share_is_compared() -> None:
    contract = Contract("m", [spec("x", "a")], [spec("y", "a"), spec("z", "b")])
    sizes = contract.axis_sizes(contract.decode_inputs([tensor("x", 2)]))
    contract.encode_outputs({"y": [1.0, 2.0], "z": [1.0]}, sizes)
    with pytest.raises(ResponseError, match='axis "a": expected 2 as in input "x", got 1'):
        contract.encode_outputs({"y": [1.0], "z": [1.0]}, sizes)


def test_an_absent_tensor_has_no_axes() -> None:
    inputs = [spec("x", "a", optional=True), spec("y", "a"), spec("z", "a")]
    contract = Contract("m", inputs, [])
    assert contract.decode_inputs([tensor("y", 2), tensor("z", 2)]).keys() == {"y", "z"}
    assert 'axis "a"' in refused(contract, tensor("y", 2), tensor("z", 3))


def test_a_contract_without_names_has_no_sizes() -> None:
    contract = Contract("m", [spec("x", -1)], [spec("y", "a"), spec("z", "a")])
    arrays = contract.decode_inputs([tensor("x", 2)])
    assert dict(contract.axis_sizes(arrays)) == {}
    assert contract.input_specs(arrays) == contract.inputs
    sizes = contract.axis_sizes(arrays)
    assert len(contract.encode_outputs({"y": [1.0], "z": [2.0]}, sizes)) == 2


@pytest.mark.parametrize(("inputs", "outputs"), [(1, 0), (0, 1), (1, 1), (0, 0)])
def test_tensors_are_declared_later_too(inputs: int, outputs: int) -> None:
    contract = Contract("m", [spec("x", "a")], [spec("y", "a")])
    contract.add([spec("x2", "a")] * inputs, [spec("y2", "a")] * outputs)
    assert list(contract.inputs) == ["x", "x2"][: 1 + inputs]
    assert list(contract.outputs) == ["y", "y2"][: 1 + outputs]
    if inputs:
        assert 'input "x2"' in refused(contract, tensor("x", 1))
        assert 'axis "a"' in refused(contract, tensor("x", 1), tensor("x2", 2))


def test_an_output_after_an_absent_one_is_sent() -> None:
    contract = Contract("m", [], [spec("x", -1, optional=True), spec("y", -1)])
    assert [named.spec.name for named in contract.encode_outputs({"y": [1.0]})] == ["y"]


@pytest.mark.parametrize(
    ("shape", "end"),
    [([0, 3], "got [0, 3]"), ([1], "got [1]"), ([-1, 2], "got [-1, 2] (a size is 0 or more)")],
)
def test_a_note_is_for_negative_sizes_alone(shape: list[int], end: str) -> None:
    contract = Contract("m", [spec("x", -1, 2)], [])
    message = refused(contract, RequestInput("x", "FP32", shape, []))
    assert message == f'input "x" of model "m": expected shape [-1, 2], {end}'


def test_a_list_becomes_a_read_only_array() -> None:
    contract = Contract("m", [spec("x", -1)], [])
    assert not contract.decode_inputs([tensor("x", 2)])["x"].flags.writeable


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_allowed_floats_are_those_of_the_datatype(datatype: str) -> None:
    x = spec("x", 1, datatype=datatype, enum=[0.1, 2])
    contract = Contract("m", [x], [])
    for value in (0.1, 2):
        assert contract.decode_inputs([RequestInput("x", datatype, [1], [value])])["x"] == value
    message = refused(contract, RequestInput("x", datatype, [1], [0.5]))
    assert message == 'input "x" of model "m": expected one of 0.1, 2, got 0.5 at index 0'


def test_limits_hold_for_both_sides() -> None:
    contract = Contract("m", [spec("x", -1, maximum=1)], [spec("y", -1, minimum=0)])
    assert "expected values of 1 or less, got 2.0 at index 0" in refused(
        contract, RequestInput("x", "FP32", [1], [2.0])
    )
    with pytest.raises(ResponseError, match="values of 0 or more, got -1"):
        contract.encode_outputs({"y": [0.0, -1.0]})


def test_a_response_has_what_there_is() -> None:
    output = json_output(NamedArray(spec("y", -1), np.array([[1.5]], "f4")))
    assert output == {"name": "y", "shape": [1, 1], "datatype": "FP32", "data": [1.5]}
    assert response_body("m", None, "7", {}, [output]) == {
        "model_name": "m", "id": "7", "outputs": [output],
    }  # fmt: skip
    assert response_body("m", "1", None, {"a": 1}, []) == {
        "model_name": "m", "model_version": "1", "id": None, "parameters": {"a": 1}, "outputs": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("element", "rest"),
    [(b"a", {"data": ["a"]}),
     (b"\xff", {"data": ["/w=="], "parameters": {"content_type": "base64"}})],
)  # fmt: skip
def test_bytes_of_a_response_are_text_or_marked(element: bytes, rest: dict[str, Any]) -> None:
    array = np.array([element], dtype=object)
    named = NamedArray(TensorSpec("y", DATATYPES["BYTES"], (1,)), array)
    assert json_output(named) == {"name": "y", "shape": [1], "datatype": "BYTES", **rest}
