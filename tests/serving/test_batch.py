"""What can be joined, and how calls are joined and answers split."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mlserver_pyfunc.errors import ContractError
from mlserver_pyfunc.handler.call import InferenceCall
from mlserver_pyfunc.protocol.contract import Contract, NamedArray, TensorSpec
from mlserver_pyfunc.protocol.tensors import DATATYPES
from mlserver_pyfunc.serving import batching
from mlserver_pyfunc.serving.runner import Answer, HandlerInfo

SYNC = HandlerInfo("sync", frozenset({"parameters"}))


def spec(name: str, *shape: int, axes: tuple[str | None, ...] = ()) -> TensorSpec:
    return TensorSpec(name, DATATYPES["FP32"], shape, axes=axes)


def contract(*inputs: TensorSpec, outputs: tuple[TensorSpec, ...] = ()) -> Contract:
    return Contract("iris", list(inputs), list(outputs))


@pytest.mark.parametrize(
    ("declared", "handler", "expected"),
    [
        (contract(spec("x", -1), outputs=(spec("y", -1, 3),)), SYNC, []),
        (
            contract(spec("x", 1), spec("z", -1, 2), outputs=(spec("y"), spec("w", 4, -1))),
            SYNC,
            [
                'input "x": expected a shape with a leading -1, got [1]',
                'output "y": expected a shape with a leading -1, got []',
                'output "w": expected a shape with a leading -1, got [4, -1]',
            ],
        ),
        (
            contract(
                spec("x", -1, -1, axes=("rows", "columns")),
                spec("z", -1, -1, axes=(None, "rows")),
                outputs=(spec("y", -1, -1, -1, axes=("columns", "rows", "rows")),),
            ),
            SYNC,
            [
                '"x": expected axis "columns" first in each shape, as it counts the rows',
                '"z": expected axis "rows" first in each shape, as it counts the rows',
                '"y": expected axis "rows" first in each shape, as it counts the rows',
            ],
        ),
        (
            contract(spec("x", -1, -1, axes=("rows", None)), spec("z", -1, -1, axes=(None, "k"))),
            SYNC,
            [],
        ),
        (contract(), SYNC, ["expected an input, got none"]),
        (
            Contract("iris", [spec("x", -1)], [], ["responses"], print),
            SYNC,
            ["contract: expected enforce for requests and responses, got warn"],
        ),
        (contract(spec("x", -1)), HandlerInfo("generator"), ["the handler streams"]),
        (
            contract(spec("x", -1)),
            HandlerInfo("sync", frozenset({"request", "headers", "parameters"})),
            ['the handler takes "headers", which is of one request'],
        ),
    ],
)
def test_what_keeps_calls_from_being_joined(
    declared: Contract, handler: HandlerInfo, expected: list[str]
) -> None:
    assert batching.obstacles(declared, handler) == expected


def call(identity: str, **inputs: Any) -> InferenceCall:
    request = SimpleNamespace(id=identity, parameters={"of": identity}, inputs=())
    return InferenceCall(None, inputs, {}, request)  # type: ignore[arg-type]


def test_the_inputs_of_a_call_have_the_same_rows() -> None:
    assert batching.rows_of(call("a", x=np.ones((2, 3)), z=np.ones(2)), "iris") == 2
    with pytest.raises(ContractError) as caught:
        batching.rows_of(call("a", x=np.ones((2, 3)), z=np.ones(3)), "iris")
    assert str(caught.value) == (
        'input "z" of model "iris": expected 2 rows, as "x" has (serving.batch), got 3'
    )


def test_a_lone_call_is_left_as_it_is() -> None:
    alone = call("a", x=np.ones(2))
    assert batching.join([alone]) is alone


def test_calls_are_joined_in_order_and_their_ids_listed() -> None:
    joined = batching.join([call("a", x=np.array([1])), call("b" * 300, x=np.array([2, 3]))])
    assert joined.inputs["x"].tolist() == [1, 2, 3]
    assert not joined.inputs["x"].flags.writeable
    assert joined.id == "a," + "b" * 198
    assert joined.parameters == {"of": "a"}


def test_an_answer_is_split_in_order() -> None:
    named = NamedArray(spec("y", -1), np.arange(6))
    parts = batching.split(Answer([named], {"k": 1}), [2, 0, 1, 3], "iris")
    assert [part.arrays[0].array.tolist() for part in parts] == [[0, 1], [], [2], [3, 4, 5]]
    assert [part.parameters for part in parts] == [{"k": 1}] * 4
