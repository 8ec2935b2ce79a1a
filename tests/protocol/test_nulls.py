"""Elements that are null: of any datatype, in requests and in what a handler returns."""

from __future__ import annotations

import enum
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mlserver_pyfunc.errors import ContractError, ResponseError
from mlserver_pyfunc.protocol.contract import Contract, NamedArray, TensorSpec, companions
from mlserver_pyfunc.protocol.datatypes import DATATYPES, datatype_of
from mlserver_pyfunc.protocol.nulls import NULLS, masked
from mlserver_pyfunc.protocol.request import InferenceRequest, RequestInput, pandas_column
from mlserver_pyfunc.protocol.response import json_output
from mlserver_pyfunc.protocol.tensors import Array, RawTensor, from_list, to_raw

NAMES = [name for name in DATATYPES if not name.startswith("FP")]


def spec(name: str, datatype: str, **keys: Any) -> TensorSpec:
    return TensorSpec.of(
        {"name": name, "datatype": datatype, "shape": [-1], "nullable": True, **keys}
    )


def contract(datatype: str = "INT64", **keys: Any) -> Contract:
    x = spec("x", datatype, **keys)
    return Contract("m", [x], [x])


def decoded(model: Contract, data: Any, *more: RequestInput) -> list[Any]:
    x = RequestInput("x", model.inputs["x"].datatype.name, [len(data)], data)
    return listed(masked(model.decode_inputs([x, *more]), "x"))


def listed(array: Array) -> list[Any]:
    values: list[Any] = array.tolist()
    return values


def mask(*nulls: bool, shape: list[int] | None = None) -> RequestInput:
    return RequestInput("x.nulls", "BOOL", shape or [len(nulls)], list(nulls))


@st.composite
def nullable_arrays(draw: st.DrawFn) -> tuple[TensorSpec, Array]:
    """Draws an array of any datatype but floats, some of whose elements may be masked."""
    name = draw(st.sampled_from(NAMES))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    dtype = DATATYPES[name].dtype
    elements = (
        st.binary(max_size=4) | st.text(max_size=4).map(str.encode) if name == "BYTES" else None
    )
    array = draw(hnp.arrays(dtype, shape, elements=elements))
    nulls = draw(hnp.arrays(bool, shape))
    array[nulls] = b"" if name == "BYTES" else 0
    declared = spec("x", name)
    return TensorSpec("x", declared.datatype, (-1,) * len(shape)), np.ma.MaskedArray(array, nulls)


@given(nullable_arrays())
def test_json_carries_nulls_exactly(drawn: tuple[TensorSpec, Array]) -> None:
    declared, array = drawn
    model = Contract("m", [declared], [declared])
    [named] = model.encode_outputs({"x": array})
    body = {"inputs": [json.loads(json.dumps(json_output(named)))]}
    got = masked(model.decode_inputs(InferenceRequest.from_json(body).inputs), "x")
    assert got.dtype == array.dtype
    assert got.shape == array.shape
    assert listed(got) == listed(array)


@given(nullable_arrays())
def test_the_companion_carries_nulls_exactly(drawn: tuple[TensorSpec, Array]) -> None:
    declared, array = drawn
    model = Contract("m", [declared], [declared])
    outputs = model.encode_outputs({"x": array})
    sent = [*outputs, *companions(outputs)]
    assert (len(sent) == 2) == bool(np.ma.getmaskarray(array).any())
    inputs = [
        RequestInput(
            each.spec.name,
            each.spec.datatype.name,
            each.array.shape,
            RawTensor(to_raw(each.spec.datatype, each.array)),
        )
        for each in sent
    ]
    arrays = model.decode_inputs(inputs)
    assert listed(masked(arrays, "x")) == listed(array)
    assert not any(each.flags.writeable for each in arrays.values())


@given(nullable_arrays(), st.booleans())
def test_what_a_handler_returns_may_have_none(
    drawn: tuple[TensorSpec, Array], as_list: bool
) -> None:
    declared, array = drawn
    model = Contract("m", [], [declared])
    value = np.array(listed(array), object).reshape(array.shape)
    [named] = model.encode_outputs({"x": value.tolist() if as_list and array.size else value})
    assert listed(named.masked) == listed(array)
    assert type(named.array) is np.ndarray


@given(nullable_arrays())
def test_a_handler_may_return_its_inputs(drawn: tuple[TensorSpec, Array]) -> None:
    declared, array = drawn
    model = Contract("m", [declared], [declared])
    request = InferenceRequest.from_values(model, {"x": array})
    [named] = model.encode_outputs(model.decode_inputs(request.inputs))
    assert listed(named.masked) == listed(array)


@pytest.mark.parametrize("name", NAMES)
def test_the_companion_is_there_only_if_something_is_null(name: str) -> None:
    value = {"BOOL": True, "BYTES": "a"}.get(name, 1)
    model = contract(name)
    arrays = model.decode_inputs([RequestInput("x", name, [2], [value, value])])
    assert list(arrays) == ["x"]
    arrays = model.decode_inputs([RequestInput("x", name, [1], [value]), mask(False)])
    assert list(arrays) == ["x"]
    arrays = model.decode_inputs([RequestInput("x", name, [2], [value, None])])
    assert list(arrays) == ["x", "x" + NULLS]
    assert arrays["x"].dtype == DATATYPES[name].dtype
    assert listed(arrays["x"])[1] in (0, b"")


def test_nulls_in_the_data_and_in_the_companion_are_joined() -> None:
    assert decoded(contract(), [1, None, 3], mask(False, False, True)) == [1, None, None]
    inputs = [mask(True, False), RequestInput("x", "INT64", [2], [1, None])]
    assert listed(masked(contract().decode_inputs(inputs), "x")) == [None, None]


def test_text_has_nulls() -> None:
    arrays = contract("BYTES", content_type="str").decode_inputs(
        [RequestInput("x", "BYTES", [3], ["é", None, ""])]
    )
    assert listed(arrays["x"]) == ["é", "", ""]
    assert listed(masked(arrays, "x")) == ["é", None, ""]


def test_base64_has_nulls() -> None:
    x = RequestInput("x", "BYTES", [2], ["/w==", None])
    x.parameters = InferenceRequest.from_json(
        {"inputs": [{"name": "x", "shape": [0], "datatype": "BYTES", "data": [],
                     "parameters": {"content_type": "base64"}}]}
    ).inputs[0].parameters  # fmt: skip
    assert listed(masked(contract("BYTES").decode_inputs([x]), "x")) == [b"\xff", None]


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_scalar_may_be_null(shape: tuple[int, ...]) -> None:
    declared = TensorSpec("x", datatype_of("INT8", nullable=True), shape)
    model = Contract("m", [declared], [declared])
    data: Any = None if shape == () else [None]
    arrays = model.decode_inputs([RequestInput("x", "INT8", shape, data)])
    assert listed(arrays["x.nulls"]) in (True, [True])
    [named] = model.encode_outputs({"x": None})
    assert json_output(named)["data"] == [None]


@pytest.mark.parametrize(
    ("keys", "data", "says"),
    [
        ({"minimum": 1}, [None, 1, 0], "values of 1 or more, got 0 at index 2"),
        ({"maximum": -1}, [None, -1, 0], "values of -1 or less, got 0 at index 2"),
        ({"exclusive_minimum": 0}, [None, 1, 0], "values of more than 0, got 0 at index 2"),
        ({"exclusive_maximum": 0}, [None, -1, 0], "values of less than 0, got 0 at index 2"),
        ({"enum": [1, 2]}, [None, 1, 0], "one of 1, 2, got 0 at index 2"),
    ],
)
def test_limits_hold_for_what_is_not_null(keys: Any, data: list[Any], says: str) -> None:
    model = contract(**keys)
    assert decoded(model, data[:2]) == data[:2]
    assert decoded(model, [0, data[1]], mask(True, False)) == data[:2]
    assert listed(model.encode_outputs({"x": data[:2]})[0].masked) == data[:2]
    with pytest.raises(ContractError, match=says):
        decoded(model, data)
    with pytest.raises(ContractError, match="got 0 at index 0"):
        decoded(model, [0, data[1]])
    with pytest.raises(ContractError, match="got 0 at index 1"):
        decoded(model, [0, 0], mask(True, False))
    with pytest.raises(ResponseError, match=says):
        model.encode_outputs({"x": data})


def test_a_text_of_a_choice_may_be_null() -> None:
    model = contract("BYTES", content_type="str", enum=["a", "b"])
    assert decoded(model, ["a", None]) == ["a", None]
    with pytest.raises(ContractError, match='one of "a", "b", got \'\' at index 1'):
        decoded(model, ["a", "", None])


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ([mask(True, False)], 'input "x" of model "m": missing'),
        (
            [RequestInput("x", "INT64", [1], [1]), mask(True, False)],
            r'input "x.nulls" of model "m": expected shape \[1\], got \[2\]',
        ),
        (
            [RequestInput("x", "INT64", [1], [1]), mask(True, shape=[1, 1])],
            r'input "x.nulls" of model "m": expected shape \[-1\], got \[1, 1\]',
        ),
        (
            [RequestInput("x", "INT64", [1], [1]), RequestInput("x.nulls", "INT8", [1], [1])],
            'input "x.nulls" of model "m": expected datatype BOOL, got INT8',
        ),
        (
            [RequestInput("x", "INT64", [1], [None]), mask(True), mask(True)],
            'input "x.nulls" of model "m": expected once, got it twice',
        ),
        (
            [RequestInput("x", "INT64", [3], [None, "1", 2])],
            "whole numbers from -9223372036854775808 to 9223372036854775807, or null, "
            "got '1' at index 1",
        ),
        ([RequestInput("x", "INT64", [3], [None, 1])], "3 elements for shape"),
    ],
)
def test_what_is_wrong_with_nulls_is_told(inputs: list[RequestInput], says: str) -> None:
    with pytest.raises(ContractError, match=says):
        contract().decode_inputs(inputs)


def test_a_companion_needs_its_tensor() -> None:
    with pytest.raises(ContractError, match=r'"x.nulls" of model "m": expected "x" beside it'):
        contract(optional=True).decode_inputs([mask(True)])


@pytest.mark.parametrize("name", NAMES)
def test_null_is_an_error_without_nullable(name: str) -> None:
    value = {"BOOL": True, "BYTES": "a"}.get(name, 1)
    plain = TensorSpec("x", DATATYPES[name], (-1,))
    model = Contract("m", [plain], [plain])
    with pytest.raises(ContractError, match=r"got null at index 1 \(.*nullable: true"):
        model.decode_inputs([RequestInput("x", name, [2], [value, None])])
    with pytest.raises(ContractError, match=r'input "x.nulls" of model "m": unknown, expected "x"'):
        model.decode_inputs([RequestInput("x", name, [1], [value]), mask(False)])
    with pytest.raises(ResponseError, match=r"got (None|null) at index 1"):
        model.encode_outputs({"x": [value, None]})
    with pytest.raises(ResponseError, match="got null at index 0"):
        model.encode_outputs({"x": np.ma.array([value, value], mask=[True, False])})


def test_floats_have_no_companion() -> None:
    model = contract("FP32")
    assert list(model.all_inputs) == ["x"]
    [array] = model.decode_inputs([RequestInput("x", "FP32", [2], [None, 1])]).values()
    assert np.isnan(array[0])
    for dtype in (np.float32, np.float64, np.int8):
        for value in ([None, 2], np.ma.array([1, 2], mask=[True, False], dtype=dtype)):
            [named] = model.encode_outputs({"x": value})
            assert type(named.array) is np.ndarray
            assert named.array.dtype == np.float32
            assert str(named.array.tolist()) == "[nan, 2.0]"
            assert named.nulls is None


class Colour(enum.Enum):
    RED = "red"


class NAType:
    """Looks like pandas' NA, which is equal to nothing and neither true nor false."""

    def __eq__(self, other: object) -> Any:
        return self

    def __hash__(self) -> int:
        return 1

    def __bool__(self) -> bool:
        raise TypeError("ambiguous")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("INT64", [NAType(), 2], [None, 2]),
        ("INT64", np.array([float("nan"), 2], object), [None, 2]),
        ("BYTES", ["a", NAType(), float("nan"), b"b"], [b"a", None, None, b"b"]),
        ("BYTES", [None, Colour.RED], [None, b"red"]),
        ("BYTES", np.ma.array(["a", "b"], mask=[True, False]), [None, b"b"]),
        ("INT64", np.ma.array([1, 2], mask=[True, False], dtype=np.int32), [None, 2]),
        ("BOOL", [True, None], [True, None]),
        ("INT64", [None, None], [None, None]),
    ],
)
def test_missing_values_of_other_packages_are_null(name: str, value: Any, expected: Any) -> None:
    [named] = contract(name).encode_outputs({"x": value})
    assert listed(named.masked) == expected


def test_a_wrong_element_beside_null_is_named() -> None:
    with pytest.raises(ResponseError, match=r"or null, got 'b' at index 1"):
        contract().encode_outputs({"x": [None, "b"]})
    with pytest.raises(ResponseError, match="got 300"):
        contract("INT8").encode_outputs({"x": np.ma.array([1, 300], mask=[True, False])})


def test_asking_for_an_output_or_its_companion_is_allowed() -> None:
    assert contract().requested_outputs(["x", "x.nulls"]) == ["x", "x.nulls"]
    with pytest.raises(ContractError, match=r'unknown, expected "x"$'):
        contract().requested_outputs(["y"])


def test_warnings_let_nulls_through() -> None:
    seen: list[str] = []
    x = spec("x", "INT64", minimum=1)
    lenient = Contract(
        "m", [x], [x], ["requests", "responses"], lambda *breach: seen.append(breach[0])
    )
    assert decoded(lenient, [None, 0]) == [None, 0]
    assert decoded(lenient, [5], mask(True, False)) == [5]
    [named] = lenient.encode_outputs({"x": [[None, 1]]})
    assert listed(named.masked) == [[None, 1]]
    assert seen == ["request_value", "request_shape", "response_shape"]


def test_an_example_may_have_nulls() -> None:
    from mlserver_pyfunc.protocol.samples import example_array, examples

    x = spec("x", "INT8", minimum=1)
    assert listed(example_array(x, [1, None])) == [1, None]
    assert examples([x], {"x": [1, None]})[0]["data"] == [1, None]


def columns(model: Contract, inputs: list[RequestInput]) -> list[RequestInput]:
    return [pandas_column(model.inputs.get(each.name), each) for each in inputs]


@pytest.mark.parametrize("raw", [False, True])
def test_columns_of_pandas_codec_are_read(raw: bool) -> None:
    """Columns have the shape [N, 1], those of mixed types are JSON."""
    model = Contract(
        "m",
        [
            spec("x", "INT64"),
            spec("s", "BYTES", content_type="str"),
            spec("m", "INT8", shape=[-1, 1]),
        ],
        [],
    )
    elements = [b"1", b"null"]
    json_data = (
        RawTensor(to_raw(DATATYPES["BYTES"], np.array(elements, object))) if raw else elements
    )
    parameters = InferenceRequest.from_json(
        {"inputs": [], "parameters": {"content_type": "pd_json"}}
    ).parameters
    inputs = [
        RequestInput("x", "BYTES", [2, 1], json_data, parameters),
        RequestInput("s", "BYTES", [3, 1], ['"a"', "null", "1.5"], parameters),
        RequestInput("m", "INT8", [1, 1], [7]),
    ]
    arrays = model.decode_inputs(columns(model, inputs))
    assert listed(masked(arrays, "x")) == [1, None]
    assert listed(masked(arrays, "s")) == ["a", None, "1.5"]
    assert listed(arrays["m"]) == [[7]]


@pytest.mark.parametrize("element", ["{", "[" * 100_000, "9" * 5000, 1, ["1"]])
def test_a_column_that_is_no_json_is_refused(element: Any) -> None:
    parameters = InferenceRequest.from_json(
        {"inputs": [], "parameters": {"content_type": "pd_json"}}
    ).parameters
    sent = [RequestInput("x", "BYTES", [1, 1], [element], parameters)]
    with pytest.raises(ContractError, match="expected datatype INT64, got BYTES"):
        contract().decode_inputs(columns(contract(), sent))


def test_rows_of_a_batch_keep_their_nulls() -> None:
    named = NamedArray.of(spec("x", "INT8"), np.ma.array([1, 0, 3], mask=[False, True, False]))
    parts = [NamedArray.of(named.spec, named.masked[i : i + 1]) for i in range(3)]
    assert [part.nulls is None for part in parts] == [True, False, True]


def test_a_list_with_null_is_masked() -> None:
    array = from_list(datatype_of("UINT8", nullable=True), [[1], [None]], [2, 1])
    assert listed(array) == [[1], [None]]
    assert array.dtype == np.uint8
