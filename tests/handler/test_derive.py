"""The tensors that a signature adds to those that a definition has."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest

from mlserver_pyfunc.errors import BindError
from mlserver_pyfunc.handler.binding import RESERVED
from mlserver_pyfunc.handler.signature import Derived, Signature, derive
from mlserver_pyfunc.protocol.contract import TensorSpec
from mlserver_pyfunc.protocol.tensors import DATATYPES


@dataclass
class Point:
    """A point."""

    a: int
    b: float = 0.5


class Answer(NamedTuple):
    """An answer."""

    left: int
    right: list[float]


class Strange(NamedTuple):
    left: int
    other: dict[str, int]


class Broken(type):
    @property
    def __dataclass_fields__(cls) -> Any:
        raise RuntimeError("no fields")


class Raises(metaclass=Broken):
    pass


def derived(
    function: Callable[..., Any],
    inputs: tuple[str, ...] | None = None,
    outputs: tuple[str, ...] | None = None,
) -> Derived:
    """Derives the tensors beside the inputs and outputs of these names."""
    written = {"inputs": inputs, "outputs": outputs}
    specs = {
        key: [TensorSpec(name, DATATYPES["INT64"], (1,)) for name in names or ()]
        for key, names in written.items()
    }
    given = [key for key, names in written.items() if names is not None]
    signature = Signature.of(function)
    return derive(signature, specs["inputs"], specs["outputs"], given, RESERVED)


def names(tensors: list[dict[str, Any]]) -> list[str]:
    return [tensor["name"] for tensor in tensors]


def of_many(
    k: int, point: Point, n: int = 3, other=5, context: Any = None, request=None, *args, **rest
) -> Answer:
    """Does."""
    raise AssertionError


def of_one(x: int) -> int: ...
def of_two(x: int, k: int) -> int: ...
def of_any(x: int, k: Any) -> int: ...
def of_unknown(x) -> int: ...
def of_point(point: Point) -> int: ...
def of_strange(strange: Strange) -> int: ...
def of_run(x: int, run: int, event: dict, k: dict = {}) -> int: ...  # noqa: B006
def of_defaults(x: int, k: dict = {}, other=5, n: int = 3) -> int: ...  # noqa: B006
def of_default_point(k: int, point: Point = None) -> int: ...  # type: ignore[assignment]
def to_answer(x: int) -> Answer: ...
def to_strange(x: int) -> Strange: ...
def to_nothing(x: int): ...
def to_broken(x: Raises) -> int: ...


def test_every_parameter_that_tells_a_tensor_is_an_input() -> None:
    found = derived(of_many)
    assert [(each["name"], each["datatype"], each.get("default")) for each in found.inputs] == [
        ("k", "INT64", None), ("a", "INT64", None), ("b", "FP64", 0.5), ("n", "INT64", 3),
    ]  # fmt: skip
    assert ["optional" in each for each in found.inputs] == [False, False, True, True]
    assert names(found.outputs) == ["left", "right"]
    assert (found.doc, found.docs) == ("Does.", ["A point.", "An answer."])
    inputs, outputs = found.specs
    assert [spec.name for spec in [*inputs, *outputs]] == ["k", "a", "b", "n", "left", "right"]


@pytest.mark.parametrize(
    ("function", "written", "added"),
    [
        (of_one, (), []),
        (of_one, ("x",), []),
        (of_one, ("other",), []),
        (of_one, ("other", "more"), ["x"]),
        (of_two, ("x",), ["k"]),
        (of_two, ("x", "k"), []),
        (of_two, ("other",), ["x", "k"]),
        (of_any, ("x",), []),
        (of_many, ("k",), []),
        (of_point, ("a",), []),
        (of_run, ("x",), []),
        (of_defaults, None, ["x", "n"]),
        (of_default_point, ("a", "z"), ["k", "b"]),
    ],
)
def test_written_inputs_are_completed_if_parameters_would_have_no_value(
    function: Callable[..., Any], written: tuple[str, ...] | None, added: list[str]
) -> None:
    assert names(derived(function, written, ("y",)).inputs) == added


def test_a_reserved_name_with_a_type_is_an_input_without_a_definition() -> None:
    assert names(derived(of_run, None, ("y",)).inputs) == ["x", "run"]


@pytest.mark.parametrize(
    ("function", "written", "added"),
    [
        (to_answer, ("left",), ["right"]),
        (to_answer, ("left", "right"), []),
        (to_answer, (), ["left", "right"]),
        (to_answer, ("else",), []),
        (to_strange, (), ["left"]),
        (of_one, (), []),
    ],
)
def test_written_outputs_are_completed_by_fields(
    function: Callable[..., Any], written: tuple[str, ...], added: list[str]
) -> None:
    assert names(derived(function, ("x",), written).outputs) == added


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (of_unknown, 'handler parameter "x": it has no annotation; write its type, such as x: fl'),
        (of_strange, 'field "other" of "strange": dict[str, int] is no tensor; write its type'),
        (
            to_strange,
            'the result of the handler: of "other", dict[str, int] is no tensor; write its type, '
            "such as -> float or -> Annotated[NDArray[np.float32], Tensor(-1, 4)], or add to the "
            "definition's outputs - {name: output, datatype: FP32, shape: [-1]}",
        ),
        (to_nothing, "the result of the handler: it has no annotation; write its type, such as ->"),
        (to_broken, 'handler parameter "x": RuntimeError: no fields; write'),
    ],
)
def test_what_cannot_be_derived(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(BindError) as caught:
        derived(function)
    assert str(caught.value).startswith(message)


def _iterator(x: int) -> Iterator[float]:
    yield x


def _iterable(x: int) -> Iterable[float]:
    yield x


def _list(x: int) -> Iterable[float]:
    return [x]


async def _async(x: int) -> AsyncIterator[float]:
    yield x


@pytest.mark.parametrize(
    ("function", "shape"), [(_iterator, [1]), (_iterable, [1]), (_list, [-1]), (_async, [1])]
)
def test_the_output_of_a_stream_is_that_of_an_item(
    function: Callable[..., Any], shape: list[int]
) -> None:
    [output] = derived(function).outputs
    assert (output["name"], output["datatype"], output["shape"]) == ("output", "FP64", shape)
