"""Numbers that a parser or gRPC has put into an array: the same tensor as from a list of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlserver_pyfunc.protocol import tensors
from mlserver_pyfunc.protocol.tensors import DATATYPES, JsonNumbers, RawTensor, TensorError

INTEGERS = [name for name in DATATYPES if "INT" in name]
FLOATS = [name for name in DATATYPES if name.startswith("FP")]


def outcome(datatype: str, data: Any, shape: list[int]) -> Any:
    """The elements of a tensor, or the error."""
    try:
        array = tensors.from_other(DATATYPES[datatype], data, shape)
    except TensorError as error:
        return str(error)
    assert array.dtype == DATATYPES[datatype].dtype
    assert array.shape == tuple(shape)
    return array.ravel().tolist()


def edges(name: str) -> list[int]:
    info = np.iinfo(DATATYPES[name].dtype)
    ends = [int(info.min), int(info.max)]
    return [*ends, ends[0] - 1, ends[1] + 1, 0, 1]


@pytest.mark.parametrize("dtype", ["i8", "u8"])
@pytest.mark.parametrize("name", DATATYPES)
def test_whole_numbers_are_the_same_as_in_a_list(name: str, dtype: str) -> None:
    info = np.iinfo(dtype)
    for first in edges(name if name in INTEGERS else "INT8"):
        for second in (0, first):
            pair = [min(max(each, int(info.min)), int(info.max)) for each in (first, second)]
            numbers = np.array(pair, dtype)
            assert outcome(name, JsonNumbers(numbers), [2]) == outcome(name, pair, [2])
            assert outcome(name, numbers, [2]) == outcome(name, pair, [2])


@pytest.mark.parametrize("pair", [[1.0, 2.0], [1.5, 2.0], [-1.0, 0.0], [300.0, 1.0], [1e39, 1.0]])
@pytest.mark.parametrize("name", DATATYPES)
def test_fractions_are_the_same_as_in_a_list(name: str, pair: list[float]) -> None:
    assert outcome(name, JsonNumbers(np.array(pair)), [2]) == outcome(name, pair, [2])


@pytest.mark.parametrize("name", FLOATS)
def test_one_number_too_large_among_others_is_an_error(name: str) -> None:
    beyond = float(np.finfo(DATATYPES[name].dtype).max) * 1.01
    if name != "FP64":  # An array of FP64 cannot hold it.
        assert f"got {beyond} at index 0" in outcome(
            name, JsonNumbers(np.array([beyond, 1.0])), [2]
        )


@pytest.mark.parametrize("shape", [[3], [1, 2, 1], [0], []])
def test_a_count_that_is_not_the_shapes_is_an_error(shape: list[int]) -> None:
    numbers = np.array([1, 2])
    for data in (JsonNumbers(numbers), numbers):
        if shape == [1, 2, 1]:
            assert outcome("INT8", data, shape) == [1, 2]
        else:
            size = shape[0] if shape else 1
            expected = f"expected {size} elements for shape {shape}, got 2"
            assert outcome("INT8", data, shape) == expected


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("INT64", [-(2**63), 2**63 - 1]),
        ("UINT64", [0, 2**64 - 1]),
        ("FP64", [0.5, -1.5]),
    ],
)
def test_numbers_of_the_datatype_itself_are_not_copied(name: str, values: list[Any]) -> None:
    numbers = np.array(values, DATATYPES[name].dtype)
    assert np.shares_memory(tensors.from_other(DATATYPES[name], numbers, [2]), numbers)
    array = tensors.from_other(DATATYPES[name], JsonNumbers(numbers), [2])
    assert array.tolist() == values
    if name != "FP64":
        assert np.shares_memory(array, numbers)


def test_the_count_is_named_before_the_values() -> None:
    assert outcome("INT8", [300], [2]) == "expected 2 elements for shape [2], got 1"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (RawTensor(b"ab", 3), "expected 3 bytes (binary_data_size), got 2 in the body"),
        (RawTensor(b"ab", 1), "expected 1 bytes (binary_data_size), got 2 in the body"),
        (RawTensor(b"ab", 2, 4), "expected the body to end with this tensor, got 4 bytes more"),
        (RawTensor(b"a"), "expected 2 bytes for INT8 of shape [2], got 1"),
    ],
)
def test_a_raw_tensor_has_the_size_that_the_request_says(raw: RawTensor, message: str) -> None:
    with pytest.raises(TensorError) as caught:
        tensors.from_raw(DATATYPES["INT8"], raw, [2])
    assert str(caught.value) == message
    assert tensors.from_raw(DATATYPES["INT8"], RawTensor(b"ab", 2, 0), [2]).tolist() == [97, 98]


@pytest.mark.parametrize("shape", [[1], [3], []])
def test_as_many_bytes_elements_as_the_shape_says(shape: list[int]) -> None:
    data = RawTensor(b"\x01\0\0\0a\x01\0\0\0b")
    with pytest.raises(TensorError) as caught:
        tensors.from_raw(DATATYPES["BYTES"], data, shape)
    size = shape[0] if shape else 1
    assert str(caught.value) == f"expected {size} elements for shape {shape}, got 2"


@pytest.mark.parametrize("shape", [[1] * 65, [0, 2**70]])
def test_a_shape_that_numpy_cannot_hold_is_an_error(shape: list[int]) -> None:
    data = [1] if shape[0] else []
    with pytest.raises(TensorError, match="expected a shape NumPy can hold"):
        tensors.from_list(DATATYPES["INT8"], data, shape)
