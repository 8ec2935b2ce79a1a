"""What the metadata of Annotated tell about a tensor."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import annotated_types
import pydantic
import pytest

from mlserver_pyfunc import Tensor
from mlserver_pyfunc.handler.tensor import noted


@pytest.mark.parametrize(
    ("notes", "keys"),
    [
        ([], {}),
        (["text", 5, None], {}),
        ([Tensor()], {}),
        ([Tensor("n", 2)], {"shape": ("n", 2)}),
        ([Tensor(datatype="FP32")], {"datatype": "FP32"}),
        (
            [Tensor(description="d", example=[1], labels=["a"], nullable=True)],
            {"description": "d", "example": [1], "labels": ["a"], "nullable": True},
        ),
        ([Tensor(2), Tensor(description="d"), Tensor()], {"shape": (2,), "description": "d"}),
        (
            [annotated_types.Gt(0), annotated_types.Le(1.5)],
            {"exclusive_minimum": 0, "maximum": 1.5},
        ),
        ([Tensor(2), annotated_types.Ge(1)], {"shape": (2,), "minimum": 1}),
        ([pydantic.Field(ge=1, description="d")], {"minimum": 1, "description": "d"}),
        ([pydantic.Field(examples=[7, 8])], {"example": 7}),
        ([SimpleNamespace(documentation="d")], {"description": "d"}),
        ([SimpleNamespace(documentation=5, examples=[], ge="1")], {}),
        ([SimpleNamespace(examples=7), SimpleNamespace(examples={1})], {}),
        ([SimpleNamespace(ge=0.5, gt=None)], {"minimum": 0.5}),
    ],
)
def test_the_keys_that_notes_tell(notes: list[Any], keys: dict[str, Any]) -> None:
    assert noted(notes) == keys


def test_a_tensor_has_the_keys_that_are_given() -> None:
    assert Tensor("n").keys == {}
    assert Tensor(nullable=True, description="d").keys == {"nullable": True, "description": "d"}


def test_a_tensor_is_shown_by_its_shape() -> None:
    assert repr(Tensor("n", 2, datatype="FP32")) == "Tensor('n', 2)"
