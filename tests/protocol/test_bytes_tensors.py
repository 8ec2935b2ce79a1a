"""BYTES elements, at the edges of their lengths and of their types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mlserver_pyfunc.protocol import bytes_tensors
from mlserver_pyfunc.protocol.types import TensorError


class Series:
    """What has an array in it, like a column of pandas, and takes no arguments for it."""

    def __array__(self) -> Any:
        return np.array(["a", "b"])


def raw(*elements: bytes) -> bytes:
    return b"".join(len(element).to_bytes(4, "little") + element for element in elements)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (raw(b"ab", b"cde")[:-1], "expected 3 bytes in an element, got 2"),
        (raw(b"ab", b"c" * 9)[:-8], "expected 9 bytes in an element, got 1"),
        (raw(b"ab") + b"\x05\0\0\0", "expected 5 bytes in an element, got 0"),
        (raw(b"ab") + b"\0", "expected a 4-byte length before each element, got 1 bytes"),
        (raw(b"ab") + b"\0\0\0", "expected a 4-byte length before each element, got 3 bytes"),
        (b"\0\0\0", "expected a 4-byte length before each element, got 3 bytes"),
    ],
)
def test_an_element_that_the_data_do_not_hold_is_an_error(data: bytes, message: str) -> None:
    with pytest.raises(TensorError) as caught:
        bytes_tensors.split_elements(data)
    assert str(caught.value) == message


def test_an_element_may_be_empty_and_last() -> None:
    assert bytes_tensors.split_elements(raw(b"", b"a", b"")) == [b"", b"a", b""]


def test_text_goes_out_as_it_is() -> None:
    array = bytes_tensors.object_array(["h\u00e9", b"b"])
    assert bytes_tensors.to_json_bytes(array) == (["h\u00e9", "b"], False)
    array = bytes_tensors.object_array(["h\u00e9", b"\xff"])
    assert bytes_tensors.to_json_bytes(array) == (["aMOp", "/w=="], True)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([np.str_("a"), b"b", np.bytes_(b"c")], [b"a", b"b", b"c"]),
        (["a", b"b"], [b"a", b"b"]),
        (Series(), [b"a", b"b"]),
        ([["a"], ["b"]], [[b"a"], [b"b"]]),
        ("a", b"a"),
        (b"a", b"a"),
        ([], []),
    ],
)
def test_text_and_bytes_of_any_kind_become_bytes(value: Any, expected: Any) -> None:
    assert bytes_tensors.from_value(value).tolist() == expected


def test_an_array_of_rows_that_differ_is_an_error() -> None:
    rows = [np.array([["a", "b"]]), np.array([["a"]])]
    with pytest.raises(TensorError, match="expected an array, got list"):
        bytes_tensors.from_value(rows)


def test_an_element_of_another_type_is_named_after_a_subclass_of_text() -> None:
    with pytest.raises(TensorError, match="expected bytes or str, got 3 at index 1"):
        bytes_tensors.from_value([np.str_("a"), 3])


def test_base64_is_for_text_and_bytes_stay_as_they_are() -> None:
    assert bytes_tensors.from_base64([b"YQ==", "YQ==", b"!"]) == [b"YQ==", b"a", b"!"]
