"""A handler's values at the edges: which are cast, which are copied, and what an error names."""

from __future__ import annotations

import datetime
import enum
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mlserver_pyfunc.protocol import casting
from mlserver_pyfunc.protocol.tensors import DATATYPES
from mlserver_pyfunc.protocol.types import TensorError


class Colour(enum.Enum):
    RED = "red"
    ONE = 1


class Tensor:
    """Has the methods by which a PyTorch tensor gives its array."""

    def __init__(self, *values: float) -> None:
        self._array = np.array(values, "f4")

    def detach(self) -> Tensor:
        return self

    cpu = detach

    def numpy(self) -> Any:
        return self._array


class Series:
    """Has an array in it, like a column of pandas."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return self.array


class Other:
    """Has nothing that a tensor could be made of."""


def error(datatype: str, value: Any) -> str:
    with pytest.raises(TensorError) as caught:
        casting.from_value(DATATYPES[datatype], value)
    return str(caught.value)


DAY = datetime.date(2024, 1, 2)


@pytest.mark.parametrize(
    ("datatype", "value", "expected"),
    [
        ("BYTES", Colour.RED, b"red"),
        ("BYTES", [Colour.RED, Colour.RED], [b"red", b"red"]),
        ("INT8", Colour.ONE, 1),
        ("INT8", [Colour.ONE, Colour.ONE], [1, 1]),
        ("FP32", Tensor(1.5, 2), [1.5, 2.0]),
        ("FP32", [Tensor(1.5, 2)], [[1.5, 2.0]]),
        ("BYTES", DAY, b"2024-01-02"),
        ("BYTES", [DAY], [b"2024-01-02"]),
        ("BYTES", datetime.datetime(2024, 1, 2, 3, 4), b"2024-01-02T03:04:00"),
        ("BYTES", np.array(["a"], dtype=object), [b"a"]),
        ("FP32", Series(np.array([1.5, 2])), [1.5, 2.0]),
    ],
)
def test_values_of_libraries_become_elements(datatype: str, value: Any, expected: Any) -> None:
    array = casting.from_value(DATATYPES[datatype], value)
    assert array.dtype == DATATYPES[datatype].dtype
    assert array.tolist() == expected


def test_a_picture_becomes_png() -> None:
    element = casting.from_value(DATATYPES["BYTES"], Image.new("RGB", (2, 2))).item()
    assert element.startswith(b"\x89PNG")
    assert element.rstrip().endswith(b"IEND\xaeB`\x82")


def test_the_array_of_a_library_is_not_copied() -> None:
    array = np.array([1.5], DATATYPES["FP32"].dtype)
    assert np.shares_memory(casting.from_value(DATATYPES["FP32"], Series(array)), array)


@pytest.mark.parametrize(
    ("datatype", "value", "message"),
    [
        ("INT8", np.array([-128, 127, 128]), "expected whole numbers from -128 to 127, got 128"),
        ("INT8", np.array([127, -128, -129]), "expected whole numbers from -128 to 127, got -129"),
        ("INT8", np.array([0, -200]), "expected whole numbers from -128 to 127, got -200"),
        ("INT8", np.array([200, 0]), "expected whole numbers from -128 to 127, got 200"),
        ("FP16", np.array([1.0, 1e6]), "expected numbers up to 65504, got 1000000.0"),
        ("FP16", np.array([1.0, -1e6]), "expected numbers up to 65504, got -1000000.0"),
        ("FP16", ["a"], "expected numbers up to 65504, got 'a' at index 0"),
        ("FP16", [1, None], "expected numbers up to 65504, got None at index 1 "
                            "(return nan for no number)"),
        ("INT8", [1, None], "expected whole numbers from -128 to 127, got None at index 1 "
                            "(nullable: true admits None)"),
        ("INT8", Series(np.array([1.0])), "expected INT8, got an array of float64 "
                                          "(cast it in the handler: .astype(np.int8))"),
    ],
)  # fmt: skip
def test_an_error_names_the_value(datatype: str, value: Any, message: str) -> None:
    assert error(datatype, value) == message


@pytest.mark.parametrize("datatype", ["BYTES", "FP32"])
def test_any_other_object_is_an_error(datatype: str) -> None:
    assert ".Other ob" in error(datatype, Other())
    if datatype != "BYTES":
        assert "datetime.date" in error(datatype, DAY)


def test_infinity_stays_infinity() -> None:
    array = casting.from_value(DATATYPES["FP16"], np.array([np.inf, np.nan, 1.0]))
    assert np.array_equal(array, [np.inf, np.nan, 1.0], equal_nan=True)
