"""A contract that warns: what breaks it is reported and let through."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlserver_pyfunc.errors import ContractError, ResponseError
from mlserver_pyfunc.handler.results import name_values
from mlserver_pyfunc.protocol.contract import Contract, TensorSpec
from mlserver_pyfunc.protocol.datatypes import datatype_of
from mlserver_pyfunc.protocol.request import RequestInput
from mlserver_pyfunc.protocol.tensors import DATATYPES

BOTH = ("requests", "responses")


def spec(name: str, datatype: str, *shape: int, **more: Any) -> TensorSpec:
    return TensorSpec(name, DATATYPES[datatype], shape, **more)


X, T = spec("x", "FP32", -1, 2), spec("t", "BYTES", 1, optional=True)
Y, S = spec("y", "FP32", -1), spec("s", "BYTES", -1, -1, optional=True)


class Reports(list[tuple[str, str, str]]):
    def add(self, kind: str, tensor: str, message: str) -> None:
        self.append((kind, tensor, message))

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, _, _ in self]


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def contract(reports: Reports) -> Contract:
    return Contract("m", [X, T], [Y, S], BOTH, reports.add)


def sent(contract: Contract, result: Any) -> dict[str, tuple[str, list[int], list[Any]]]:
    named = contract.encode_outputs(name_values(contract, result).values)
    return {
        each.spec.name: (
            each.spec.datatype.name, list(each.array.shape), each.array.ravel().tolist()
        )
        for each in named
    }  # fmt: skip


def tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def test_what_keeps_the_contract_is_not_reported(contract: Contract, reports: Reports) -> None:
    arrays = contract.decode_inputs([RequestInput("x", "FP32", [1, 2], [1, 2])])
    assert contract.input_specs(arrays) == {"x": X}
    assert sent(contract, {"y": [1]}) == {"y": ("FP32", [1], [1.0])}
    assert sent(contract, {"outputs": [tensor("y", "FP32", [1], [1])]})["y"][2] == [1.0]
    assert reports == []


@pytest.mark.parametrize(
    ("given", "kinds", "dtype"),
    [
        (RequestInput("x", "FP32", [3], [1, 2, 3]), ["request_shape"], "float32"),
        (RequestInput("x", "INT64", [1, 2], [1, 2]), ["request_datatype"], "int64"),
        (RequestInput("z", "BOOL", [1], [True]), ["request_unknown", "request_missing"], "bool"),
    ],
)
def test_a_request_that_breaks_it_is_decoded_as_it_says(
    contract: Contract, reports: Reports, given: RequestInput, kinds: list[str], dtype: str
) -> None:
    arrays = contract.decode_inputs([given])
    assert arrays[given.name].dtype == dtype
    assert list(arrays[given.name].shape) == given.shape
    own = contract.input_specs(arrays)[given.name]
    assert (own.datatype.name, list(own.shape), own.undeclared) == (
        given.datatype, given.shape, True,
    )  # fmt: skip
    assert reports.kinds == kinds


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([RequestInput("x", "FP32", [2], [1, 2])] * 2, "expected once, got it twice"),
        ([RequestInput("x", "FP33", [2], [1, 2])], "a datatype of BOOL"),
        ([RequestInput("x", "FP32", [3], [1, 2])], "expected 3 elements"),
        ([RequestInput("x", "FP32", [-1], [1])], "sizes of 0 or more"),
        ([RequestInput("x", "INT8", [1], [300])], "from -128 to 127"),
    ],
)
def test_a_request_that_holds_no_tensors_is_refused_all_the_same(
    contract: Contract, given: list[RequestInput], message: str
) -> None:
    with pytest.raises(ContractError, match=message):
        contract.decode_inputs(given)


@pytest.mark.parametrize("given", [[""], ["four"]])
def test_data_that_do_not_fit_their_shape_go_out_with_their_own(
    contract: Contract, reports: Reports, given: list[str]
) -> None:
    result = {"outputs": [tensor("s", "BYTES", [1, len(given[0])], given)]}
    assert sent(contract, result) == {"s": ("BYTES", [1], [given[0].encode()])}
    assert reports.kinds == ["response_missing", "response_shape"]
    assert f"[1, {len(given[0])}]" in reports[1][2]


@pytest.mark.parametrize(
    ("result", "answer", "kinds"),
    [
        ({"y": [[1.5]]}, {"y": ("FP32", [1, 1], [1.5])}, ["response_shape"]),
        ({"y": ["a"]}, {"y": ("BYTES", [1], [b"a"])}, ["response_datatype"]),
        (
            {"y": [1], "z": 2},
            {"y": ("FP32", [1], [1]), "z": ("INT64", [], [2])},
            ["response_unknown"],
        ),
        ({}, {}, ["response_missing"]),
        (
            {"outputs": [tensor("y", "FP64", [1], [0.1])]},
            {"y": ("FP64", [1], [0.1])},
            ["response_datatype"],
        ),
        (
            {"outputs": [tensor("y", "FP32", [1, 1], [0.5])]},
            {"y": ("FP32", [1, 1], [0.5])},
            ["response_shape"],
        ),
        ({"outputs": [{"name": "y", "data": [0.5]}]}, {"y": ("FP32", [1], [0.5])}, []),
    ],
)  # fmt: skip
def test_a_result_that_breaks_it_goes_out_as_the_handler_gave_it(
    contract: Contract, reports: Reports, result: Any, answer: Any, kinds: list[str]
) -> None:
    assert sent(contract, result) == answer
    assert reports.kinds == kinds


@pytest.mark.parametrize(
    "result",
    [
        {"y": {"a": 1}},
        {"outputs": [tensor("y", "INT64", [1], [1.5])]},
        {"outputs": [tensor("y", "FP33", [1], [1.5])]},
    ],
)
def test_a_result_that_holds_no_tensors_is_an_error_all_the_same(
    contract: Contract, result: Any
) -> None:
    with pytest.raises(ResponseError, match='output "y" of model "m": expected'):
        sent(contract, result)


def test_one_side_may_enforce(reports: Reports) -> None:
    strict = Contract("m", [X], [Y], ["responses"], reports.add)
    with pytest.raises(ContractError, match=r"expected shape \[-1, 2\], got \[1\]"):
        strict.decode_inputs([RequestInput("x", "FP32", [1], [1])])
    with pytest.raises(ContractError, match='output "z" of model "m": unknown'):
        strict.requested_outputs(["z"])
    tolerant = Contract("m", [X], [Y], ["requests"], reports.add)
    assert tolerant.requested_outputs(["z", "z"]) == ["z"]
    with pytest.raises(ResponseError, match=r"expected shape \[-1\]"):
        tolerant.encode_outputs({"y": [[1]]})
    assert reports == []


def test_where_nothing_is_declared_there_is_no_breach(reports: Reports) -> None:
    free = Contract("m", [], [], BOTH, reports.add)
    arrays = free.decode_inputs([RequestInput("a", "INT8", [1], [1])])
    assert free.input_specs(arrays)["a"].datatype.name == "INT8"
    assert sent(free, {"b": np.array([True])}) == {"b": ("BOOL", [1], [True])}
    assert reports == []


def test_unequal_sizes_of_one_axis_are_reported(reports: Reports) -> None:
    a, b, c = (spec(name, "FP32", -1, axes=("rows",)) for name in "abc")
    contract = Contract("m", [a, b], [c], BOTH, reports.add)
    arrays = contract.decode_inputs(
        [RequestInput("a", "FP32", [1], [1]), RequestInput("b", "FP32", [2], [1, 2])]
    )
    sizes = contract.axis_sizes(arrays)
    assert [each.array.size for each in contract.encode_outputs({"c": [1, 2, 3]}, sizes)] == [3]
    assert reports.kinds == ["request_axes", "response_axes"]


def test_null_is_nan_in_a_nullable_tensor(reports: Reports) -> None:
    nullable = TensorSpec("x", datatype_of("FP32", nullable=True), (-1,))
    contract = Contract("m", [nullable], [nullable], BOTH, reports.add)
    arrays = contract.decode_inputs([RequestInput("x", "FP32", [2], [1, None])])
    assert np.isnan(arrays["x"]).tolist() == [False, True]
    assert np.isnan(contract.encode_outputs({"x": [1.0, None]})[0].array).tolist() == [False, True]
    assert reports == []


def test_an_enforced_request_has_the_declared_specifications_and_sizes(reports: Reports) -> None:
    a = spec("a", "FP32", -1, axes=("rows",))
    b = spec("b", "FP32", -1, axes=("rows",), optional=True)
    contract = Contract("m", [a, b], [], ["responses"], reports.add)
    arrays = contract.decode_inputs([RequestInput("a", "FP32", [2], [1, 2])])
    assert contract.input_specs(arrays) == {"a": a, "b": b}
    assert contract.axis_sizes(arrays)["rows"] == (2, 'input "a"')


@pytest.mark.parametrize(
    ("shape", "message"), [([0, 2], ""), ([1, -1], "0 or more"), ([-1, 1], "0 or more")]
)
def test_a_size_is_0_or_more(
    contract: Contract, reports: Reports, shape: list[int], message: str
) -> None:
    given = RequestInput("x", "FP32", shape, [])
    if message:
        with pytest.raises(ContractError, match=message):
            contract.decode_inputs([given])
    else:
        assert contract.decode_inputs([given])["x"].shape == (0, 2)
    assert reports == []


def test_an_output_that_breaks_its_shape_has_no_axes_to_compare(reports: Reports) -> None:
    y, z = (spec(name, "FP32", -1, axes=("rows",)) for name in "yz")
    contract = Contract("m", [], [y, z], BOTH, reports.add)
    contract.encode_outputs({"y": [[1.0], [2.0]], "z": [1.0]})
    assert reports.kinds == ["response_shape"]


def test_text_is_text_in_another_shape_too(reports: Reports) -> None:
    text = spec("t", "BYTES", 1, text=True)
    contract = Contract("m", [text], [], BOTH, reports.add)
    given = [RequestInput("t", "BYTES", [2], ["a", "b"]), RequestInput("u", "BYTES", [1], ["c"])]
    arrays = contract.decode_inputs(given)
    assert arrays["t"].tolist() == ["a", "b"]
    assert arrays["u"].tolist() == [b"c"]


def test_a_value_outside_its_limits_is_reported(reports: Reports) -> None:
    limited = TensorSpec.of({"name": "x", "datatype": "FP32", "shape": [-1], "maximum": 1})
    contract = Contract("m", [limited], [], BOTH, reports.add)
    arrays = contract.decode_inputs([RequestInput("x", "FP32", [2], [1, 2])])
    assert arrays["x"].tolist() == [1, 2]
    assert reports.kinds == ["request_value"]
    assert "expected values of 1 or less, got 2.0 at index 1" in reports[0][2]
