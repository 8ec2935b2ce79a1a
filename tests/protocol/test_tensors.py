from __future__ import annotations

import base64
import contextlib
import json
import math
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal

from mlserver_pyfunc.protocol import bytes_tensors, casting, tensors
from mlserver_pyfunc.protocol.tensors import (
    DATATYPES,
    Array,
    Datatype,
    JsonNumbers,
    RawTensor,
    TensorError,
)

NUMBERS = [name for name in DATATYPES if name != "BYTES"]
INTEGERS = [name for name in NUMBERS if "INT" in name]
FLOATS = [name for name in NUMBERS if name.startswith("FP")]


def _error(function: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(TensorError) as caught:
        function(*args, **kwargs)
    return str(caught.value)


def _from_raw(datatype: Datatype, raw: bytes, shape: Any) -> Array:
    return tensors.from_raw(datatype, RawTensor(raw), shape)


def arrays(datatype: Datatype, *, finite: bool = False) -> st.SearchStrategy[Array]:
    """Arrays of up to four axes, some of size 0, with the datatype's every value."""
    shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=3)
    if datatype.is_bytes:
        return shapes.flatmap(
            lambda shape: st.lists(
                st.binary(max_size=6) | st.text(max_size=4).map(str.encode),
                min_size=math.prod(shape),
                max_size=math.prod(shape),
            ).map(lambda elements: _objects(elements, shape))
        )
    elements = (
        {"allow_nan": False, "allow_infinity": False} if finite and datatype.code in "efd" else {}
    )
    return hnp.arrays(datatype.dtype, shapes, elements=elements or None)


def _objects(elements: list[Any], shape: tuple[int, ...]) -> Array:
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array.reshape(shape)


def _same(got: Array, sent: Array) -> None:
    assert got.shape == sent.shape
    assert got.dtype == sent.dtype
    if sent.dtype == object:
        assert got.ravel().tolist() == sent.ravel().tolist()
    else:
        assert got.tobytes() == sent.tobytes(), "not the same bit for bit"


@pytest.mark.parametrize("name", DATATYPES)
def test_a_raw_tensor_decodes_to_what_was_encoded(name: str) -> None:
    datatype = DATATYPES[name]

    @given(arrays(datatype))
    def check(array: Array) -> None:
        _same(_from_raw(datatype, tensors.to_raw(datatype, array), array.shape), array)

    check()


@pytest.mark.parametrize("name", NUMBERS)
def test_a_typed_list_decodes_to_what_was_encoded(name: str) -> None:
    datatype = DATATYPES[name]

    @given(arrays(datatype))
    def check(array: Array) -> None:
        got = tensors.from_list(datatype, tensors.to_list(array), array.shape)
        assert_array_equal(got, array)
        _same(got[~np.isnan(array)], array[~np.isnan(array)])

    check()


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("form", ["flat", "nested"])
def test_json_numbers_decode_to_what_was_encoded(form: str, name: str) -> None:
    datatype = DATATYPES[name]

    @given(arrays(datatype, finite=True))
    def check(array: Array) -> None:
        data = tensors.to_list(array) if form == "flat" else array.tolist()
        # NumPy arrays go out through orjson, requests may come from any encoder.
        for text in (json.dumps(data), orjson.dumps(data)):
            _same(tensors.from_list(datatype, json.loads(text), array.shape), array)
        dumped = orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY) if array.ndim else b""
        if form == "nested" and dumped and array.dtype != np.dtype("<f2"):
            _same(tensors.from_list(datatype, orjson.loads(dumped), array.shape), array)

    check()


@given(arrays(DATATYPES["BYTES"]))
def test_json_bytes_decode_to_what_was_encoded(array: Array) -> None:
    data, is_base64 = bytes_tensors.to_json_bytes(array)
    data = json.loads(json.dumps(data))
    _same(tensors.from_list(DATATYPES["BYTES"], data, array.shape, is_base64=is_base64), array)


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=8,
)
_SHAPES = st.lists(st.integers(0, 3) | st.just(2**62), max_size=4)


@given(
    st.sampled_from(list(DATATYPES.values())),
    _JSON | st.lists(st.integers() | st.floats()),
    _SHAPES,
    st.booleans(),
)
def test_no_json_raises_anything_but_a_tensor_error(
    datatype: Datatype, data: Any, shape: list[int], is_base64: bool
) -> None:
    with contextlib.suppress(TensorError):
        array = tensors.from_other(datatype, data, shape, is_base64=is_base64)
        assert array.dtype == datatype.dtype
        assert array.shape == tuple(shape)


@given(st.sampled_from(list(DATATYPES.values())), st.binary(max_size=40), _SHAPES)
def test_no_bytes_raise_anything_but_a_tensor_error(
    datatype: Datatype, data: bytes, shape: list[int]
) -> None:
    with contextlib.suppress(TensorError):
        array = _from_raw(datatype, data, shape)
        assert array.shape == tuple(shape)


@given(st.sampled_from(list(DATATYPES.values())), _JSON)
def test_no_result_raises_anything_but_a_tensor_error(datatype: Datatype, value: Any) -> None:
    with contextlib.suppress(TensorError):
        assert casting.from_value(datatype, value).dtype == datatype.dtype


_DTYPES = [*"?bBhHiIqQefdFDU", "S3", "M8[s]", "m8[s]", "O", ">f4", ">i8"]


@given(
    st.sampled_from(list(DATATYPES.values())),
    st.sampled_from(_DTYPES).flatmap(
        lambda dtype: hnp.arrays(
            np.dtype(dtype),
            hnp.array_shapes(max_dims=2, max_side=2),
            elements=_JSON if dtype == "O" else None,
        )
    ),
)
def test_no_array_raises_anything_but_a_tensor_error(datatype: Datatype, value: Array) -> None:
    with contextlib.suppress(TensorError):
        assert casting.from_value(datatype, value).dtype == datatype.dtype


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_are_exact_up_to_both_ends(name: str) -> None:
    datatype = DATATYPES[name]
    info = np.iinfo(datatype.dtype)
    ends = [int(info.min), int(info.max), int(info.max) - 1]
    assert tensors.from_list(datatype, ends, [3]).tolist() == ends
    for beyond in (ends[0] - 1, ends[1] + 1):
        assert _error(tensors.from_list, datatype, [0, beyond], [2]) == (
            f"expected whole numbers from {ends[0]} to {ends[1]}, got {beyond} at index 1"
        )


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("bad", [1.7, "1", True, False, None, [1], {}, math.nan, math.inf, b"1"])
def test_an_integer_tensor_takes_whole_numbers_only(bad: Any, name: str) -> None:
    message = _error(tensors.from_list, DATATYPES[name], [0, 1, bad], [3])
    assert message.startswith("expected whole numbers from")
    assert "at index 2" in message


@pytest.mark.parametrize("name", INTEGERS)
def test_a_whole_float_is_a_whole_number(name: str) -> None:
    assert tensors.from_list(DATATYPES[name], [3.0, 4], [2]).tolist() == [3, 4]


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("bad", ["1", True, False, [1], {}, b"1"])
def test_a_float_tensor_takes_numbers_only(bad: Any, name: str) -> None:
    message = _error(tensors.from_list, DATATYPES[name], [0.0, bad], [2])
    assert message.startswith("expected numbers up to")
    assert "at index 1" in message


@pytest.mark.parametrize("name", FLOATS)
def test_null_in_a_float_tensor_says_that_json_has_no_nan(name: str) -> None:
    message = _error(tensors.from_list, DATATYPES[name], [0.0, None], [2])
    assert message.endswith(
        "got null at index 1 "
        "(JSON has no NaN or infinity: send binary data or gRPC, "
        "or declare nullable: true)"
    )


@pytest.mark.parametrize("name", FLOATS)
def test_a_float_tensor_takes_integers(name: str) -> None:
    assert tensors.from_list(DATATYPES[name], [1, 2.5], [2]).tolist() == [1.0, 2.5]


@pytest.mark.parametrize(
    ("name", "beyond"), [("FP16", 65520.0), ("FP32", 3.5e38), ("FP64", 10**309)]
)
def test_a_finite_number_too_large_for_its_float_is_an_error(name: str, beyond: Any) -> None:
    assert "expected numbers up to" in _error(tensors.from_list, DATATYPES[name], [beyond], [1])


@pytest.mark.parametrize("bad", [0, 1, "true", None, 1.0, [True]])
def test_a_bool_tensor_takes_true_and_false_only(bad: Any) -> None:
    message = _error(tensors.from_list, DATATYPES["BOOL"], [True, bad], [2])
    assert message.startswith("expected true or false, got ")


def test_a_true_hidden_among_ones_is_found() -> None:
    for count in (3, 100, 1000):
        data: list[Any] = [1] * count
        data[count // 2] = True
        assert f"got true at index {count // 2}" in _error(
            tensors.from_list, DATATYPES["INT32"], data, [count]
        )
        spread: list[Any] = list(range(2, count + 2))
        spread[count // 2] = False
        assert f"got false at index {count // 2}" in _error(
            tensors.from_list, DATATYPES["FP64"], spread, [count]
        )


@pytest.mark.parametrize(
    ("data", "shape", "message"),
    [
        ([[1, 2], [3]], [2, 2], "expected nested lists of shape [2, 2], got a row of 1 on axis 1"),
        ([[1], [2], [3]], [2, 1], "expected nested lists of shape [2, 1], got 3 on axis 0"),
        ([[1, 2], 3], [2, 2], "expected nested lists of shape [2, 2], got 3 on axis 0"),
        ([[[1]]], [1, 1], "got [1] at index 0"),
        ([[1, 2]], [2], "expected nested lists of shape [2], got 1 on axis 0"),
        ([[1]], [1], "got [1] at index 0"),
        ([[]], [], "got [] at index 0"),
        ([1, [2]], [2], "got [2] at index 1"),
        ([1, 2, 3], [2], "expected 2 elements for shape [2], got 3"),
        ([], [2], "expected 2 elements for shape [2], got 0"),
        (3, [1], "expected a list of elements for shape [1], got 3"),
        ({}, [], "expected a list of elements for shape [], got {}"),
        (None, [0], "expected a list of elements for shape [0], got null"),
    ],
)
def test_ragged_and_misshapen_data_is_an_error(data: Any, shape: list[int], message: str) -> None:
    assert message in _error(tensors.from_other, DATATYPES["INT32"], data, shape)


@pytest.mark.parametrize(
    ("data", "shape"),
    [([], [0]), ([], [0, 3]), ([[], []], [2, 0]), ([[[], []]], [1, 2, 0]), ([], [2, 0])],
)
def test_empty_tensors_may_be_nested_or_flat(data: Any, shape: list[int]) -> None:
    assert tensors.from_list(DATATYPES["FP32"], data, shape).shape == tuple(shape)


@pytest.mark.parametrize("data", [5, [5]])
def test_a_scalar_may_stand_alone(data: Any) -> None:
    array = tensors.from_other(DATATYPES["INT32"], data, [])
    assert (array.shape, array.item()) == ((), 5)


def test_a_raw_tensor_is_a_read_only_view_of_the_request() -> None:
    buffer = np.arange(4, dtype="<f4").tobytes()
    array = _from_raw(DATATYPES["FP32"], buffer, [2, 2])
    assert not array.flags.writeable
    assert not array.flags.owndata


def test_raw_bools_of_0_and_1_are_a_view_too() -> None:
    buffer = np.array([0, 1], np.uint8)
    array = _from_raw(DATATYPES["BOOL"], memoryview(buffer).toreadonly(), [2])
    assert np.shares_memory(array, buffer)


def test_raw_bools_other_than_0_and_1_are_true() -> None:
    array = _from_raw(DATATYPES["BOOL"], b"\x00\x01\x02\xff", [4])
    assert array.tolist() == [False, True, True, True]
    assert array.view(np.uint8).tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize("data", [b"\x02", b"\x00\x02", b"\x01\x02", b"\x02\x02\x02"])
def test_a_raw_bool_of_2_is_a_true_of_1(data: bytes) -> None:
    array = _from_raw(DATATYPES["BOOL"], data, [len(data)])
    assert array.view(np.uint8).tolist() == [min(byte, 1) for byte in data]
    assert not array.flags.writeable


@pytest.mark.parametrize("name", ["FP16", "FP32"])
@pytest.mark.parametrize("beyond", [1e39, -1e39])
def test_parsed_numbers_too_large_for_their_float_are_an_error(name: str, beyond: float) -> None:
    numbers = JsonNumbers(np.array([1.0, beyond]))
    message = _error(tensors.from_other, DATATYPES[name], numbers, [2])
    assert message.endswith(f"got {beyond} at index 1")


@pytest.mark.parametrize("name", NUMBERS)
def test_raw_bytes_of_another_size_are_an_error(name: str) -> None:
    datatype = DATATYPES[name]
    size = datatype.dtype.itemsize * 2
    for length in (size - 1, size + 1, 0):
        assert _error(_from_raw, datatype, bytes(length), [2]) == (
            f"expected {size} bytes for {name} of shape [2], got {length}"
        )


def test_text_and_binary_elements() -> None:
    bytes_ = DATATYPES["BYTES"]
    array = tensors.from_list(bytes_, ["h\u00e9", "", "a\0b"], [3])
    assert array.tolist() == ["h\u00e9".encode(), b"", b"a\0b"]
    assert bytes_tensors.decode_text(array).tolist() == ["h\u00e9", "", "a\0b"]
    assert bytes_tensors.to_json_bytes(array) == (["h\u00e9", "", "a\0b"], False)


def test_one_element_that_is_not_text_makes_the_tensor_base64() -> None:
    array = _objects([b"text", b"\xff"], (2,))
    assert bytes_tensors.to_json_bytes(array) == (["dGV4dA==", "/w=="], True)
    assert "expected UTF-8 text" in _error(bytes_tensors.decode_text, array)


@pytest.mark.parametrize("bad", ["!", "abc", "YWJ j", "\u00e9"])
def test_base64_that_is_not_is_an_error(bad: str) -> None:
    message = _error(tensors.from_list, DATATYPES["BYTES"], ["YQ==", bad], [2], is_base64=True)
    assert message == f"expected base64 strings, got {bad!r} at index 1"


def test_a_long_element_is_cut_in_a_message() -> None:
    message = _error(tensors.from_list, DATATYPES["INT8"], ["x" * 1000], [1])
    assert len(message) < 200


@pytest.mark.parametrize("decode", [tensors.from_list, lambda d, v, _: casting.from_value(d, v)])
def test_text_that_has_no_utf8_is_an_error(decode: Any) -> None:
    message = _error(decode, DATATYPES["BYTES"], ["a", "\ud800"], [2])
    assert message == "expected UTF-8 text, got '\\ud800' at index 1"


CASTS = [
    ("FP32", np.array([1.5], "f8"), [1.5]),
    ("FP32", np.array([3], "i8"), [3.0]),
    ("FP16", np.array([1.5], "f8"), [1.5]),
    ("FP64", np.array([1.5], "f2"), [1.5]),
    ("INT64", np.array([3], "i4"), [3]),
    ("INT64", np.array([3], "u4"), [3]),
    ("INT64", np.array([True]), [1]),
    ("INT8", np.array([-128], "i8"), [-128]),
    ("UINT8", np.array([255], "u8"), [255]),
    ("FP32", np.array([1.5], ">f8"), [1.5]),
    ("INT32", np.array([7], ">i4"), [7]),
]


@pytest.mark.parametrize(("name", "value", "expected"), CASTS)
def test_safe_and_same_kind_casts_are_made(name: str, value: Array, expected: list[Any]) -> None:
    array = casting.from_value(DATATYPES[name], value)
    assert array.dtype == DATATYPES[name].dtype
    assert array.tolist() == expected


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("INT64", np.array([1.0]), "expected INT64, got an array of float64 (cast it in the "),
        ("FP32", np.array([1j]), "expected FP32, got an array of complex128"),
        ("BOOL", np.array([1]), "expected BOOL, got an array of int64"),
        ("UINT8", np.array([1], "i8"), "expected UINT8, got an array of int64"),
        ("INT8", np.array([5, 300], "i8"), "expected whole numbers from -128 to 127, got 300"),
        ("UINT8", np.array([256], "u8"), "expected whole numbers from 0 to 255, got 256"),
        ("INT64", np.array([2**63], "u8"), f"got {2**63}"),
        ("FP16", np.array([1e6], "f4"), "expected numbers up to 65504, got 1000000.0"),
        ("FP32", np.array([1e300], "f8"), "expected numbers up to 3.4028e+38, got 1e+300"),
        ("FP32", ["a"], "expected numbers up to 3.4028e+38, got 'a' at index 0"),
        ("FP32", [None], "got None at index 0 (return nan for no number)"),
        ("INT8", [1, None], "got None at index 1"),
        (
            "FP32",
            np.ma.array([1.0, 2.0], mask=[0, 1]),
            "expected an array without null, got null at index 1",
        ),
        ("INT32", [1.5], "got 1.5 at index 0"),
        ("INT8", [300], "got 300 at index 0"),
        ("FP32", [[1], [1, 2]], "expected an array, got list"),
        ("FP32", object(), "got <object object at"),
        ("BYTES", [1], "expected bytes or str, got 1 at index 0"),
        ("BYTES", np.array([1]), "expected bytes or str, got 1 at index 0"),
        ("BOOL", [1], "expected true or false, got 1 at index 0"),
    ],
)
def test_a_value_of_another_kind_is_an_error(name: str, value: Any, message: str) -> None:
    assert message in _error(casting.from_value, DATATYPES[name], value)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("INT64", 2**63 - 1, 2**63 - 1),
        ("UINT64", [2**64 - 1], [2**64 - 1]),
        ("INT32", np.int64(5), 5),
        ("FP32", 5, 5.0),
        ("BOOL", True, True),
        ("FP32", [[1, 2], [3, 4]], [[1, 2], [3, 4]]),
        ("INT32", range(3), [0, 1, 2]),
        ("FP32", [], []),
        ("BYTES", "a", b"a"),
        ("BYTES", ["a", b"\xff"], [b"a", b"\xff"]),
        ("BYTES", np.array(["a", "bc"]), [b"a", b"bc"]),
        ("BYTES", np.array([b"a", b"bc"]), [b"a", b"bc"]),
        ("FP32", np.array([1.5, 2], dtype=object), [1.5, 2.0]),
        ("FP32", [np.float32(1.5), 2], [1.5, 2.0]),
    ],
)
def test_python_values_become_arrays(name: str, value: Any, expected: Any) -> None:
    array = casting.from_value(DATATYPES[name], value)
    if name == "BYTES":
        got = _from_raw(DATATYPES[name], tensors.to_raw(DATATYPES[name], array), array.shape)
        assert got.tolist() == expected
    else:
        assert array.dtype == DATATYPES[name].dtype
        assert array.tolist() == expected


def test_an_array_of_the_declared_datatype_is_not_copied() -> None:
    array = np.zeros((2, 2), dtype="<f4")
    assert casting.from_value(DATATYPES["FP32"], array) is array


def test_raw_bytes_of_an_array_that_is_not_contiguous_are_in_row_major_order() -> None:
    array = np.arange(6, dtype="<i4").reshape(2, 3).T
    raw = tensors.to_raw(DATATYPES["INT32"], array)
    assert_array_equal(_from_raw(DATATYPES["INT32"], raw, [3, 2]), array)


@given(st.binary(max_size=30))
def test_base64_text_of_any_bytes_reaches_the_handler_as_those_bytes(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    array = tensors.from_list(DATATYPES["BYTES"], [text], [1], is_base64=True)
    assert array.tolist() == [data]
