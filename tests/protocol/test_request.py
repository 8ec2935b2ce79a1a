"""Requests that are made from Python values or from JSON."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from mlserver_pyfunc.errors import ContractError, RequestError
from mlserver_pyfunc.protocol.contract import Contract, TensorSpec
from mlserver_pyfunc.protocol.request import InferenceRequest, Parameters, RequestInput
from mlserver_pyfunc.protocol.tensors import DATATYPES, RawTensor

CONTRACT = Contract(
    "m",
    [
        TensorSpec("x", DATATYPES["FP32"], (-1,), optional=True),
        TensorSpec("pair", DATATYPES["FP32"], (-1, 2), optional=True),
        TensorSpec("one", DATATYPES["INT64"], (), optional=True),
        TensorSpec("t", DATATYPES["BYTES"], (-1,), optional=True),
    ],
    [],
)


def made(name: str, value: Any) -> RequestInput:
    [tensor] = InferenceRequest.from_values(CONTRACT, {name: value}).inputs
    return tensor


@pytest.mark.parametrize(
    ("name", "value", "datatype", "shape", "data"),
    [
        ("x", [1.5, 2], "FP32", [2], [1.5, 2]),
        ("x", (1.5, 2), "FP32", [2], [1.5, 2]),
        ("x", 1.5, "FP32", [1], [1.5]),
        ("x", None, "FP32", [1], [None]),
        ("x", [np.float32(1.5), np.int8(2)], "FP32", [2], [1.5, 2]),
        ("x", [], "FP32", [0], []),
        ("pair", ((1, 2), (3, 4)), "FP32", [2, 2], [[1, 2], [3, 4]]),
        ("pair", [[], []], "FP32", [2, 0], [[], []]),
        ("one", 7, "INT64", [], 7),
        ("t", "a", "BYTES", [1], ["a"]),
        ("t", b"a", "BYTES", [1], [b"a"]),
        ("t", np.array(["a", "b"]), "BYTES", [2], ["a", "b"]),
        ("t", np.array([[b"a"]]), "BYTES", [1, 1], [b"a"]),
        ("t", np.array(["a", b"b"], dtype=object), "BYTES", [2], ["a", b"b"]),
        ("other", [1], "BYTES", [1], [1]),
        ("other", 1, "BYTES", [1], [1]),
    ],
)
def test_a_value_is_sent_as_json_has_it(
    name: str, value: Any, datatype: str, shape: list[int], data: Any
) -> None:
    tensor = made(name, value)
    assert (tensor.name, tensor.datatype, tensor.shape) == (name, datatype, shape)
    assert tensor.data == data
    assert repr(tensor.data) == repr(data)  # No scalars of NumPy are left in lists.


@pytest.mark.parametrize("dtype", ["?", "u1", "i8", "f2", ">f4"])
def test_an_array_keeps_its_datatype(dtype: str) -> None:
    array = np.array([[0, 1, 1]], dtype)
    tensor = made("x", array)
    assert isinstance(tensor.data, RawTensor)
    assert DATATYPES[tensor.datatype].dtype == array.dtype.newbyteorder("<")
    assert tensor.shape == [1, 3]
    assert tensor.data.buffer == array.astype(array.dtype.newbyteorder("<")).tobytes()


def test_an_array_without_a_datatype_of_the_protocol_is_an_error() -> None:
    with pytest.raises(ContractError) as caught:
        made("x", np.array([1j]))
    assert str(caught.value) == (
        'input "x" of model "m": expected an array of a protocol datatype, got complex128'
    )


TENSOR = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}


def test_json_becomes_a_request() -> None:
    body = {
        "id": "7",
        "inputs": [{**TENSOR, "parameters": {"content_type": "np"}}],
        "outputs": [{"name": "y"}],
        "parameters": {"a": 1},
    }
    request = InferenceRequest.from_json(body)
    assert request.id == "7"
    assert request.inputs[0].parameters == {"content_type": "np"}
    assert [output.name for output in request.outputs] == ["y"]
    assert request.parameters.a == 1
    plain = InferenceRequest.from_json({"inputs": [TENSOR], "parameters": None})
    assert (plain.id, plain.outputs, plain.parameters) == (None, [], {})
    assert plain.inputs[0].parameters == {}


@pytest.mark.parametrize("missing", ["name", "datatype", "shape", "data"])
def test_json_that_lacks_a_key_is_told_so(missing: str) -> None:
    tensor = {key: value for key, value in TENSOR.items() if key != missing}
    where = "inputs\\[0\\]" if missing == "name" else 'input "x"'
    with pytest.raises(RequestError, match=f'^{where}: "{missing}" is missing, got') as caught:
        InferenceRequest.from_json({"inputs": [tensor]})
    assert caught.value.status == 400


@pytest.mark.parametrize("body", [[], None, {"inputs": 7}, {}, {"inputs": None}])
def test_json_that_is_no_request_is_told_the_form_of_one(body: Any) -> None:
    with pytest.raises(RequestError, match=r'^request: expected {"inputs": \[') as caught:
        InferenceRequest.from_json(body)
    assert caught.value.status == 400


def _with(**changes: Any) -> dict[str, Any]:
    return {"inputs": [{**TENSOR, **changes}]}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"inputs": [7]}, 'inputs[0] of model "m": expected an object with name, shape, '),
        (_with(name=None), 'inputs[0] of model "m": name: Input should be a valid string, '),
        (_with(shape=2), 'input "x" of model "m": shape: Input should be a valid list, got 2'),
        (_with(shape=[1, "a"]), 'input "x" of model "m": shape[1]: Input should be a valid '),
        (_with(shape=["1"]), 'input "x" of model "m": shape[0]: Input should be a valid integer'),
        (_with(shape=[True]), 'input "x" of model "m": shape[0]: Input should be a valid integer'),
        (_with(shape=[1.5]), 'input "x" of model "m": shape[0]: Input should be a valid integer'),
        (_with(datatype=["FP32"]), 'input "x" of model "m": expected datatype BOOL, '),
        (_with(parameters=1), 'input "x" of model "m": parameters: Input should be a valid dict'),
        (
            _with(parameters={"content_type": 1}),
            'input "x" of model "m": parameter "content_type": Input should be a valid string',
        ),
        ({**_with(), "outputs": 1}, 'request of model "m": outputs: Input should be a valid list'),
        ({**_with(), "outputs": [1]}, 'outputs[0] of model "m": expected an object with a name, '),
        ({**_with(), "outputs": [{}]}, 'outputs[0] of model "m": "name" is missing, got'),
        ({**_with(), "id": 7}, 'request of model "m": id: Input should be a valid string, got 7'),
    ],
)  # fmt: skip
def test_a_part_of_another_form_is_named(body: Any, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        InferenceRequest.from_json(body, "m")
    assert str(caught.value).startswith(message)
    assert caught.value.status == 400


def test_sizes_may_be_whole_floats() -> None:
    assert InferenceRequest.from_json(_with(shape=[2.0, 3])).inputs[0].shape == [2, 3]


def test_parameters_are_attributes_too() -> None:
    parameters = Parameters(a=1)
    assert parameters.a == 1
    assert parameters.b is None
    assert not hasattr(parameters, "__wrapped__")
    assert copy.copy(parameters) == parameters
