from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlserver_pyfunc.errors import ContractError, ResponseError
from mlserver_pyfunc.protocol.contract import Contract, TensorSpec
from mlserver_pyfunc.protocol.request import RequestInput
from mlserver_pyfunc.protocol.tensors import DATATYPES, RawTensor


def tensor(
    name: str, datatype: str, shape: list[int], data: Any, parameters: Any = None
) -> RequestInput:
    """An input tensor without parameters, as MLServer has it: None."""
    return RequestInput(name, datatype, shape, data, parameters)


def spec(name: str, datatype: str, *shape: int, **more: bool) -> TensorSpec:
    return TensorSpec(name, DATATYPES[datatype], shape, **more)


CONTRACT = Contract(
    "iris",
    [
        spec("x", "FP32", -1, 2),
        spec("n", "INT64", optional=True),
        spec("note", "BYTES", -1, optional=True, text=True),
        spec("blob", "BYTES", -1, optional=True),
    ],
    [
        spec("y", "FP32", -1),
        spec("count", "INT32"),
        spec("first", "INT32", 1, optional=True),
    ],
)
X = tensor("x", "FP32", [1, 2], [1.5, 2.5])


def _refused(*inputs: RequestInput) -> str:
    with pytest.raises(ContractError) as caught:
        CONTRACT.decode_inputs(inputs)
    assert caught.value.status == 400
    return str(caught.value)


def _refused_result(values: dict[str, Any]) -> str:
    with pytest.raises(ResponseError) as caught:
        CONTRACT.encode_outputs(values)
    assert caught.value.status == 500
    return str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        [1.5, 2.5],
        [[1.5, 2.5]],
        RawTensor(np.array([1.5, 2.5], "<f4").tobytes()),
        np.array([1.5, 2.5], "<f4"),
        SimpleNamespace(root=[1.5, 2.5]),
    ],
    ids=["flat", "nested", "raw", "array", "host's own wrapper"],
)
def test_every_form_of_data_is_the_same_array(data: Any) -> None:
    arrays = CONTRACT.decode_inputs([tensor("x", "FP32", [1, 2], data)])
    assert arrays["x"].dtype == np.float32
    assert arrays["x"].tolist() == [[1.5, 2.5]]


def test_an_optional_input_may_be_left_out() -> None:
    assert list(CONTRACT.decode_inputs([X])) == ["x"]


@pytest.mark.parametrize("size", [0, 1, 5])
def test_minus_one_admits_any_size(size: int) -> None:
    sent = tensor("x", "FP32", [size, 2], [0.0] * 2 * size)
    assert CONTRACT.decode_inputs([sent])["x"].shape == (size, 2)


def test_text_is_str_and_other_bytes_are_bytes() -> None:
    arrays = CONTRACT.decode_inputs(
        [X, tensor("note", "BYTES", [1], ["a"]), tensor("blob", "BYTES", [1], ["a"])]
    )
    assert (arrays["note"].tolist(), arrays["blob"].tolist()) == (["a"], [b"a"])


def test_base64_is_a_matter_of_the_tensors_parameters() -> None:
    marked = SimpleNamespace(content_type="base64")
    sent = tensor("blob", "BYTES", [2], ["/w==", "YQ=="], marked)
    assert CONTRACT.decode_inputs([X, sent])["blob"].tolist() == [b"\xff", b"a"]
    unmarked = tensor("blob", "BYTES", [1], ["/w=="], SimpleNamespace(content_type="str"))
    assert CONTRACT.decode_inputs([X, unmarked])["blob"].tolist() == [b"/w=="]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (
            [X, tensor("y", "FP32", [1], [1.0])],
            'input "y" of model "iris": unknown, expected "x", "n", "note", "blob"',
        ),
        ([X, X], 'input "x" of model "iris": expected once, got it twice'),
        ([], 'input "x" of model "iris": missing from the request, which has none'),
        (
            [tensor("n", "INT64", [], [1])],
            'input "x" of model "iris": missing from the request, which has "n"',
        ),
        (
            [tensor("x", "FP64", [1, 2], [1.0, 2.0])],
            'input "x" of model "iris": expected datatype FP32, got FP64',
        ),
        (
            [tensor("x", "BF16", [1, 2], [1.0, 2.0])],
            'input "x" of model "iris": expected datatype FP32, got BF16',
        ),
        (
            [tensor("x", "FP32", [2], [1.0, 2.0])],
            'input "x" of model "iris": expected shape [-1, 2], got [2]',
        ),
        (
            [tensor("x", "FP32", [2, 1], [1.0, 2.0])],
            'input "x" of model "iris": expected shape [-1, 2], got [2, 1]',
        ),
        (
            [tensor("x", "FP32", [-1, 2], [1.0, 2.0])],
            'input "x" of model "iris": expected shape [-1, 2], got [-1, 2] (a size is 0 or more)',
        ),
        (
            [X, tensor("n", "INT64", [1], [1])],
            'input "n" of model "iris": expected shape [], got [1]',
        ),
        (
            [tensor("x", "FP32", [2, 2], [1.0, 2.0])],
            'input "x" of model "iris": expected 4 elements for shape [2, 2], got 2',
        ),
        (
            [tensor("x", "FP32", [1, 2], RawTensor(b"\0" * 7))],
            'input "x" of model "iris": expected 8 bytes for FP32 of shape [1, 2], got 7',
        ),
        (
            [X, tensor("note", "BYTES", [1], [b"\xff"])],
            'input "note" of model "iris": expected UTF-8 text, got bytes that are not '
            "(invalid start byte) at index 0",
        ),
    ],
)
def test_a_request_that_breaks_a_rule_is_refused(inputs: list[RequestInput], message: str) -> None:
    assert _refused(*inputs) == message


def test_requested_outputs_keep_their_order() -> None:
    assert CONTRACT.requested_outputs(["count", "y"]) == ["count", "y"]
    assert CONTRACT.requested_outputs([]) == []


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["z"], 'output "z" of model "iris": unknown, expected "y", "count", "first"'),
        (["y", "y"], 'output "y" of model "iris": requested twice'),
    ],
)
def test_outputs_nobody_declared_cannot_be_requested(names: list[str], message: str) -> None:
    with pytest.raises(ContractError) as caught:
        CONTRACT.requested_outputs(names)
    assert str(caught.value) == message


def test_outputs_come_in_declared_order_and_datatype() -> None:
    checked = CONTRACT.encode_outputs({"first": 7, "count": [3], "y": np.array([1.5, 2.5])})
    assert [
        (named.spec.name, named.array.dtype.name, named.array.tolist()) for named in checked
    ] == [
        ("y", "float32", [1.5, 2.5]),
        ("count", "int32", 3),
        ("first", "int32", [7]),
    ]


@pytest.mark.parametrize("value", [3, [3], np.int32(3), np.array(3), np.array([3])])
def test_a_scalar_fits_a_shape_of_one_and_of_none(value: Any) -> None:
    checked = CONTRACT.encode_outputs({"y": [], "count": value, "first": value})
    assert [named.array.shape for named in checked] == [(0,), (), (1,)]


@pytest.mark.parametrize("absent", [{}, {"first": None}])
def test_an_optional_output_may_be_left_out(absent: dict[str, Any]) -> None:
    names = [n.spec.name for n in CONTRACT.encode_outputs({"y": [], "count": 1, **absent})]
    assert names == ["y", "count"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"y": [1.0], "count": 1, "z": 1},
            'output "z" of model "iris": the handler returned it, but the definition declares '
            '"y", "count", "first"',
        ),
        ({"y": [1.0]}, 'output "count" of model "iris": the handler returned no value for it'),
        (
            {"y": None, "count": 1},
            'output "y" of model "iris": the handler returned no value for it',
        ),
        (
            {"y": [[1.0]], "count": 1},
            'output "y" of model "iris": expected shape [-1], got [1, 1]',
        ),
        (
            {"y": [1.0], "count": [1, 2]},
            'output "count" of model "iris": expected shape [], got [2]',
        ),
        (
            {"y": [1.0], "count": 2**31},
            'output "count" of model "iris": expected whole numbers from -2147483648 to '
            "2147483647, got 2147483648 at index 0",
        ),
        (
            {"y": [1.0], "count": np.float64(1)},
            'output "count" of model "iris": expected INT32, got an array of float64 '
            "(cast it in the handler: .astype(np.int32))",
        ),
    ],
)
def test_a_result_that_breaks_a_rule_is_the_handlers_error(
    values: dict[str, Any], message: str
) -> None:
    assert _refused_result(values) == message


def test_a_message_is_bounded_however_many_tensors_there_are() -> None:
    contract = Contract("m", [spec(f"{i}" * 100, "FP32") for i in range(1000)], [])
    with pytest.raises(ContractError) as caught:
        contract.decode_inputs([X])
    assert len(str(caught.value)) == 2000


_DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=1), inner),
    max_leaves=6,
)


@given(
    st.lists(
        st.builds(
            RequestInput,
            st.sampled_from([*CONTRACT.inputs, "other", ""]),
            st.sampled_from([*DATATYPES, "BF16", ""]) | st.none(),
            st.lists(st.integers(-2, 3) | st.integers(), max_size=3),
            _DATA | st.builds(RawTensor, st.binary(max_size=20)),
            st.none() | st.just(SimpleNamespace(content_type="base64")),
        ),
        max_size=3,
    )
)
def test_no_request_raises_anything_but_a_contract_error(inputs: list[RequestInput]) -> None:
    with contextlib.suppress(ContractError):
        for name, array in CONTRACT.decode_inputs(inputs).items():
            assert CONTRACT.inputs[name].admits(array.shape)


@given(st.dictionaries(st.sampled_from([*CONTRACT.outputs, "other"]), _DATA))
def test_no_result_raises_anything_but_a_response_error(values: dict[str, Any]) -> None:
    with contextlib.suppress(ResponseError):
        for named in CONTRACT.encode_outputs(values):
            assert named.array.dtype == named.spec.datatype.dtype
            assert named.spec.admits(named.array.shape)
