"""Lists of elements: which one an error names, and what is an element of which datatype."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mlserver_pyfunc.protocol import tensors
from mlserver_pyfunc.protocol.datatypes import DATATYPES, datatype_of
from mlserver_pyfunc.protocol.types import TensorError, short_repr

FLOATS = [name for name in DATATYPES if name.startswith("FP")]


NULL = " (nullable: true, or | None in an annotation, admits null)"


def error(datatype: str, data: list[Any]) -> str:
    with pytest.raises(TensorError) as caught:
        tensors.from_list(DATATYPES[datatype], data, [len(data)])
    return str(caught.value)


@pytest.mark.parametrize(
    ("datatype", "data", "message"),
    [
        ("BOOL", [True, False, 1], "expected true or false, got 1 at index 2"),
        ("BYTES", ["a", b"b", 7, 8], "expected strings, got 7 at index 2"),
        ("BYTES", [7], "expected strings, got 7 at index 0"),
        ("BYTES", [None], "expected strings, got null at index 0" + NULL),
        ("INT8", [1, "2"], "expected whole numbers from -128 to 127, got '2' at index 1"),
        ("INT8", [1, None], "expected whole numbers from -128 to 127, got null at index 1" + NULL),
        ("INT8", [1, 2.5], "expected whole numbers from -128 to 127, got 2.5 at index 1"),
        ("INT8", [1.0, -129.0], "expected whole numbers from -128 to 127, got -129.0 at index 1"),
        ("FP16", [1, "2"], "expected numbers up to 65504, got '2' at index 1"),
        ("FP16", [1, 1e6], "expected numbers up to 65504, got 1000000.0 at index 1"),
    ],
)
def test_an_error_names_the_first_element_that_is_none(
    datatype: str, data: list[Any], message: str
) -> None:
    assert error(datatype, data) == message


@pytest.mark.parametrize("datatype", ["INT32", "FP64"])
def test_a_boolean_beside_a_1_is_found_among_many_others(datatype: str) -> None:
    for first, second in ((1, True), (True, 1), (0, False)):
        data: list[Any] = [2] * 100
        data[3], data[50] = first, second
        assert "got true at index" in error(datatype, data) or "got false" in error(datatype, data)


def test_text_and_bytes_may_be_mixed() -> None:
    array = tensors.from_list(DATATYPES["BYTES"], ["\u00e9", b"\xff"], [2])
    assert array.tolist() == ["\u00e9".encode(), b"\xff"]


@pytest.mark.parametrize("name", DATATYPES)
def test_a_datatype_is_nullable_only_if_it_is_asked_for(name: str) -> None:
    assert datatype_of(name) is DATATYPES[name]
    assert not datatype_of(name).nullable
    assert datatype_of(name, nullable=True).nullable


@pytest.mark.parametrize("name", FLOATS)
def test_null_is_nan_in_a_nullable_datatype_alone(name: str) -> None:
    array = tensors.from_list(datatype_of(name, nullable=True), [1, None], [2])
    assert array[0] == 1
    assert math.isnan(array[1])
    assert datatype_of(name, nullable=True).nullable
    assert "got null at index 1" in error(name, [1, None])


@pytest.mark.parametrize(
    ("length", "shown"), [(38, "'" + "x" * 38 + "'"), (39, "'" + "x" * 36 + "...")]
)
def test_a_value_is_shown_in_up_to_40_characters(length: int, shown: str) -> None:
    assert short_repr("x" * length) == shown
    assert len(shown) == 40
