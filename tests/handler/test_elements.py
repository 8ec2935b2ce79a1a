"""The types of a single value."""

from __future__ import annotations

import datetime
import enum
import io
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image

from mlserver_pyfunc.handler.elements import datatype_name, element_of
from mlserver_pyfunc.protocol.types import TensorError


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Mixed(enum.Enum):
    ONE = 1
    TWO = "two"


class Flags(enum.Enum):
    ON = True


class Empty(enum.Enum):
    pass


@pytest.mark.parametrize(
    ("kind", "datatype", "kinds", "keys"),
    [
        (bool, "BOOL", "b", {}),
        (int, "INT64", "iu", {}),
        (float, "FP64", "f", {}),
        (str, "BYTES", "O", {"content_type": "str"}),
        (bytes, "BYTES", "O", {}),
        (Literal[1, 2], "INT64", "iu", {"enum": [1, 2]}),
        (Literal["a"], "BYTES", "O", {"content_type": "str", "enum": ["a"]}),
        (Color, "BYTES", "O", {"content_type": "str", "enum": ["red", "blue"]}),
        (datetime.date, "BYTES", "O", {"content_type": "str", "example": ["2025-01-31"]}),
        (
            datetime.datetime,
            "BYTES",
            "O",
            {"content_type": "str", "example": ["2025-01-31T12:00:00"]},
        ),
        (np.int8, "INT8", "i", {}),
        (np.bool_, "BOOL", "b", {}),
        (np.float32, "FP32", "f", {}),
        (np.str_, "BYTES", "O", {}),
        (Image.Image, "BYTES", "O", {}),
    ],
)
def test_the_element_of_a_type(kind: Any, datatype: str, kinds: str, keys: dict[str, Any]) -> None:
    element = element_of(kind)
    assert element is not None
    assert (element.datatype, element.kinds, element.keys) == (datatype, kinds, keys)


@pytest.mark.parametrize(
    "kind",
    [None, "text", [], complex, dict, object, Mixed, Flags, Empty, Literal[1, "a"], Literal[None],
     np.complex64, np.generic, np.datetime64, int | str],
)  # fmt: skip
def test_what_is_no_element(kind: Any) -> None:
    assert element_of(kind) is None


NOON = datetime.datetime(2025, 1, 31, 12, tzinfo=datetime.timezone.utc)


@pytest.mark.parametrize(
    ("kind", "given", "made"),
    [
        (str, b"a", "a"),
        (str, "a", "a"),
        (bytes, "\u00fc", b"\xc3\xbc"),
        (bytes, b"\xff", b"\xff"),
        (bytes, memoryview(b"a"), b"a"),
        (Literal["a"], b"a", "a"),
        (Literal[1], 1, 1),
        (Color, b"red", Color.RED),
        (datetime.date, b"2025-01-31", datetime.date(2025, 1, 31)),
        (datetime.datetime, "2025-01-31T12:00:00Z", NOON),
        (datetime.datetime, "2025-01-31T12:00:00z", NOON),
        (datetime.datetime, "2025-01-31T12:00:00+00:00", NOON),
        (np.float32, 1, np.float32(1)),
    ],
)
def test_what_is_made_of_an_element(kind: Any, given: Any, made: Any) -> None:
    element = element_of(kind)
    assert element is not None
    assert element.make is not None
    got = element.make(given)
    assert got == made
    assert type(got) is type(made)


@pytest.mark.parametrize("kind", [bool, int, float, np.str_])
def test_an_element_that_is_a_python_value_already(kind: Any) -> None:
    element = element_of(kind)
    assert element is not None
    assert element.make is None


@pytest.mark.parametrize("text", ["today", "", "Z"])
def test_another_text_is_no_date(text: str) -> None:
    element = element_of(datetime.date)
    assert element is not None
    assert element.make is not None
    with pytest.raises(TensorError, match=rf"^expected a date in ISO 8601, got '{text}'$"):
        element.make(text)


def test_a_picture_is_decoded() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (2, 3)).save(stream, "PNG")
    element = element_of(Image.Image)
    assert element is not None
    assert element.make is not None
    assert element.make(stream.getvalue()).size == (2, 3)
    for broken in (b"no picture", stream.getvalue()[:45]):
        with pytest.raises(TensorError, match=r"^expected an encoded picture, got .{1,100}$"):
            element.make(broken)


def test_why_a_picture_cannot_be_decoded_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(stream: Any) -> None:
        raise OSError("x" * 200)

    monkeypatch.setattr(Image, "open", fail)
    element = element_of(Image.Image)
    assert element is not None
    assert element.make is not None
    with pytest.raises(TensorError, match=rf"^expected an encoded picture, got {'x' * 100}$"):
        element.make(b"")


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        *(
            (np.float32, "FP32"),
            (">f4", "FP32"),
            ("U5", "BYTES"),
            ("S", "BYTES"),
            (object, "BYTES"),
        ),
        *((None, None), ("no dtype", None), (np.complex64, None), ("M8[s]", None)),
    ],
)
def test_the_datatype_of_a_dtype(dtype: Any, name: str | None) -> None:
    assert datatype_name(dtype) == name
