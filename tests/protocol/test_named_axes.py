"""Axes of one name have equal sizes in a request and its answer."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from mlserver_pyfunc.definition import TensorDefinition, parse
from mlserver_pyfunc.errors import ContractError, ResponseError
from mlserver_pyfunc.protocol.contract import Contract
from mlserver_pyfunc.protocol.request import RequestInput
from mlserver_pyfunc.protocol.samples import random_arrays


def declared(name: str, shape: list[Any], **more: Any) -> TensorDefinition:
    return TensorDefinition(name=name, datatype="INT64", shape=shape, **more)


INPUTS = [
    declared("a", ["rows", 2]),
    declared("b", ["rows"]),
    declared("square", ["n", "n"], optional=True),
]
OUTPUTS = [
    declared("y", ["rows", "columns"]),
    declared("z", ["columns"]),
    declared("inverse", ["n", "n"], optional=True),
]
CONTRACT = Contract("m", [t.spec for t in INPUTS], [t.spec for t in OUTPUTS])


def given(**shapes: list[int]) -> list[RequestInput]:
    return [
        RequestInput(name, "INT64", shape, np.zeros(shape, "int64"))
        for name, shape in shapes.items()
    ]


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_equal_sizes_are_accepted(rows: int) -> None:
    arrays = CONTRACT.decode_inputs(given(a=[rows, 2], b=[rows], square=[2, 2]))
    sizes = CONTRACT.axis_sizes(arrays)
    values = {
        "y": np.zeros((rows, 3)).astype("int64"),
        "z": [1, 2, 3],
        "inverse": np.eye(2, dtype="int64"),
    }
    assert len(CONTRACT.encode_outputs(values, sizes)) == 3


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            {"b": [2], "a": [3, 2]},
            'input "b" of model "m": axis "rows": expected 3 as in input "a", got 2',
        ),
        (
            {"a": [3, 2], "b": [3], "square": [2, 4]},
            'input "square" of model "m": axis "n": expected 2 as in input "square", got 4',
        ),
    ],
)
def test_unequal_sizes_of_inputs_are_refused(shapes: dict[str, list[int]], message: str) -> None:
    with pytest.raises(ContractError) as caught:
        CONTRACT.decode_inputs(given(**shapes))
    assert str(caught.value) == message
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"y": np.zeros((2, 1), "int64")},
            'output "y" of model "m": axis "rows": expected 3 as in input "a", got 2',
        ),
        (
            {"z": [1, 2]},
            'output "z" of model "m": axis "columns": expected 1 as in output "y", got 2',
        ),
        (
            {"inverse": np.eye(3, dtype="int64")},
            'output "inverse" of model "m": axis "n": expected 2 as in input "square", got 3',
        ),
    ],
)
def test_unequal_sizes_of_outputs_are_refused(changed: dict[str, Any], message: str) -> None:
    arrays = CONTRACT.decode_inputs(given(a=[3, 2], b=[3], square=[2, 2]))
    values = {"y": np.zeros((3, 1), "int64"), "z": [1], **changed}
    with pytest.raises(ResponseError) as caught:
        CONTRACT.encode_outputs(values, CONTRACT.axis_sizes(arrays))
    assert str(caught.value) == message
    assert caught.value.status == 500


def test_the_protocol_has_minus_one_for_a_name() -> None:
    tensor = declared("x", ["rows", -1, 4])
    assert tensor.sizes == [-1, -1, 4]
    assert tensor.shape_text == "[rows, -1, 4]"
    assert tensor.spec.shape == (-1, -1, 4)
    assert tensor.spec.axes == ("rows", None, None)
    assert declared("x", [-1, 4]).spec.axes == ()


def test_random_arrays_have_equal_sizes_and_those_of_what_is_given() -> None:
    specs = [tensor.spec for tensor in INPUTS]
    seen = set()
    for seed in range(30):
        arrays = random_arrays(specs, random.Random(seed))
        CONTRACT.axis_sizes(arrays)
        seen.add(len(arrays["b"]))
    assert len(seen) > 1
    held = {"b": np.zeros(7, "int64")}
    arrays = random_arrays(specs, random.Random(0), held)
    assert arrays["a"].shape == (7, 2)
    assert arrays["b"] is held["b"]


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ("2d", 'expected a size, -1, or a name such as rows, got "2d"'),
        ("", 'expected a size, -1, or a name such as rows, got ""'),
        (True, "got true, write the name in quotes"),
        (1.5, "got 1.5"),
        (-2, "greater than or equal to -1"),
    ],
)
def test_an_axis_is_a_size_or_a_name(axis: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        declared("x", [axis])


def test_a_definition_keeps_its_names() -> None:
    definition = parse({
        "source": {"code": "def f(a): return a", "handler": "f"},
        "inputs": [{"name": "a", "datatype": "INT64", "shape": "[rows, '4']"}],
        "outputs": [{"name": "y", "datatype": "INT64", "shape": ["rows", 4]}],
    })  # fmt: skip
    assert definition.inputs[0].shape == ["rows", 4]
    assert parse(definition.model_dump(mode="json")) == definition
