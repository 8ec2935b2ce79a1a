"""What annotations mean, one by one."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import (
    Annotated,
    Any,
    ClassVar,
    NamedTuple,
    NewType,
    Optional,
    TypedDict,
    TypeVar,
    Union,
)

import annotated_types
import numpy as np
import pandas as pd
import pydantic
import pytest
from jaxtyping import Complex64, Float, Float32, Int64
from mlserver.types import Parameters
from numpy.typing import NDArray
from typing_extensions import NotRequired, TypeAliasType

from mlserver_pyfunc import Tensor
from mlserver_pyfunc.handler.annotations import (
    NO_COLUMNS,
    Record,
    Value,
    read,
    read_result,
    resolved,
    with_default,
)
from mlserver_pyfunc.protocol.contract import TensorSpec
from mlserver_pyfunc.protocol.tensors import DATATYPES
from mlserver_pyfunc.protocol.types import TensorError

Meters = NewType("Meters", float)
Rows = np.ndarray[tuple[int, int], np.dtype[np.int8]]
Row = np.ndarray[tuple[int], np.dtype[np.int8]]
Anything = np.ndarray[tuple[int, ...], np.dtype[np.int8]]
T = TypeVar("T")
Numbers = TypeAliasType("Numbers", list[int])
Many = TypeAliasType("Many", list[T], type_params=(T,))
TEXT = {"datatype": "BYTES", "content_type": "str"}


class HalfAModel:
    model_fields: ClassVar[Any] = {}


class Color(enum.Enum):
    RED = "red"


def value(annotation: Any) -> Value:
    found = read(annotation)
    assert isinstance(found, Value)
    return found


def record(annotation: Any) -> Record:
    found = read(annotation)
    assert isinstance(found, Record)
    return found


@pytest.mark.parametrize(
    ("annotation", "tensor", "rank"),
    [
        (float, {"datatype": "FP64", "shape": [1]}, 0),
        (Meters, {"datatype": "FP64", "shape": [1]}, 0),
        (list[Meters], {"datatype": "FP64", "shape": [-1]}, 1),
        (list[list[int]], {"datatype": "INT64", "shape": [-1, -1]}, 2),
        (tuple[int, ...], {"datatype": "INT64", "shape": [-1]}, 1),
        (Numbers, {"datatype": "INT64", "shape": [-1]}, 1),
        (Many[int], {"datatype": "INT64", "shape": [-1]}, 1),
        (Sequence[str], {**TEXT, "shape": [-1]}, 1),
        (Iterable[bool], {"datatype": "BOOL", "shape": [-1]}, 1),
        (Optional[int], {"datatype": "INT64", "shape": [1], "optional": True}, 0),  # noqa: UP045
        (int | None, {"datatype": "INT64", "shape": [1], "optional": True}, 0),
        (Union[int], {"datatype": "INT64", "shape": [1]}, 0),  # noqa: UP007
        (
            Annotated[int, annotated_types.Ge(5)],
            {"datatype": "INT64", "shape": [1], "minimum": 5},
            0,
        ),
        (
            list[Annotated[int, annotated_types.Ge(5)]],
            {"datatype": "INT64", "shape": [-1], "minimum": 5},
            1,
        ),
        (Annotated[list[float], Tensor(3)], {"datatype": "FP64", "shape": [3]}, 1),
        (Annotated[float, Tensor("n")], {"datatype": "FP64", "shape": ["n"]}, 0),
        (Annotated[float, Tensor(2, 2)], {"datatype": "FP64", "shape": [1]}, 0),
        (Annotated[list[list[float]], Tensor(2)], {"datatype": "FP64", "shape": [-1, -1]}, 2),
        (Annotated[list[float], Tensor(3, datatype="FP32")], {"datatype": "FP64", "shape": [3]}, 1),
        (
            Annotated[float, Tensor(description="d")],
            {"datatype": "FP64", "shape": [1], "description": "d"},
            0,
        ),
        (list[datetime.date], {**TEXT, "shape": [-1], "example": ["2025-01-31"]}, 1),
        (list[list[datetime.date]], {**TEXT, "shape": [-1, -1]}, 2),
        (Rows, {"datatype": "INT8", "shape": [-1, -1]}, None),
        (Row, {"datatype": "INT8", "shape": [-1]}, None),
        (Annotated[Rows, Tensor("n", 2)], {"datatype": "INT8", "shape": ["n", 2]}, None),
        (
            Annotated[NDArray[np.float32], Tensor(-1, 4, labels=["a", "b", "c", "d"])],
            {"datatype": "FP32", "shape": [-1, 4], "labels": ["a", "b", "c", "d"]},
            None,
        ),
        (Annotated[NDArray[np.str_], Tensor(-1)], {**TEXT, "shape": [-1]}, None),
        (
            Annotated[np.ndarray, Tensor(-1, datatype="FP16")],
            {"datatype": "FP16", "shape": [-1]},
            None,
        ),
        (Float32[np.ndarray, "n 2"], {"datatype": "FP32", "shape": ["n", 2]}, None),
        (Int64[np.ndarray, "_ _b #c d=4"], {"datatype": "INT64", "shape": [-1, -1, "c", 4]}, None),
    ],
)  # fmt: skip
def test_the_tensor_of_an_annotation(annotation: Any, tensor: Any, rank: int | None) -> None:
    found = value(annotation)
    assert (found.problem, found.is_unknown) == ("", False)
    assert (found.tensor, found.rank) == (tensor, rank)
    assert found.is_scalar is (rank == 0)


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        (dict, "dict is no tensor"),
        (dict[str, int], "dict[str, int] is no tensor"),
        (list[dict], "list[dict] is no tensor"),
        (tuple[int, float], "tuple[int, float] is no tensor"),
        (int | str, "int | str is no tensor"),
        (Union[int, str, None], " is no tensor"),  # noqa: UP007
        (None, "None is no tensor"),
        (type(None), "None is no tensor"),
        (Any, "Any is no tensor"),
        (np.ndarray, "np.ndarray tells no datatype and no shape"),
        (NDArray[np.int8], "NDArray[int8] tells no shape"),
        (Anything, "NDArray[int8] tells no shape"),
        (tuple, "tuple is no tensor"),
        (pd.DataFrame, NO_COLUMNS),
        (Parameters, "Parameters is no tensor"),
        (HalfAModel, "HalfAModel is no tensor"),
        (5, "5 is no tensor"),
        (
            SimpleNamespace(dim_str="n", dtypes=["float32", "int8"], array_type=np.ndarray),
            "admits several datatypes",
        ),
        (Annotated[np.ndarray, Tensor(2)], "np.ndarray tells no datatype"),
        (Float[np.ndarray, "n"], "admits several datatypes"),
        (Complex64[np.ndarray, "n"], "admits no datatype of the protocol"),
        (Float32[np.ndarray, "..."], 'has an axis "..." of no one size'),
        (Float32[np.ndarray, "n+1 2"], 'has an axis "n+1" of no one size'),
    ],
)
def test_what_an_annotation_does_not_tell(annotation: Any, problem: str) -> None:
    found = value(annotation)
    assert found.problem.endswith(problem)
    assert not found.is_unknown
    assert not found.is_scalar


@pytest.mark.parametrize(
    ("annotation", "tensor"),
    [
        (int | str, {}),
        (Union[int, str, None], {"optional": True}),  # noqa: UP007
        (np.ndarray, {}),
        (NDArray[np.int8], {"datatype": "INT8"}),
    ],
)
def test_what_is_told_beside_a_problem(annotation: Any, tensor: dict[str, Any]) -> None:
    assert value(annotation).tensor == tensor


def test_text_without_a_meaning_is_unknown() -> None:
    found = value("Later")
    assert found.is_unknown
    assert found.problem == (
        'the annotation "Later" cannot be evaluated from the top of its module'
    )


def spec(datatype: str, *shape: int) -> TensorSpec:
    return TensorSpec("x", DATATYPES[datatype], shape)


@pytest.mark.parametrize(
    ("annotation", "declared", "made"),
    [
        (int, spec("INT64", 1), 1),
        (int, spec("UINT8"), 1),
        (int, spec("INT64", -1), None),
        (int, spec("FP32", 1), None),
        (float, spec("FP32", 1), 1.0),
        (list[int], spec("INT64", -1), [1]),
        (list[int], spec("INT64", -1, 1), None),
        (tuple[int, ...], spec("INT64", 1), (1,)),
        (list[list[int]], spec("INT64", 1, 1), [[1]]),
        (NDArray[np.int64], spec("INT64", 1), None),
        (dict, spec("INT64", 1), None),
    ],
)
def test_a_declared_tensor_becomes_what_is_annotated_if_it_fits(
    annotation: Any, declared: TensorSpec, made: Any
) -> None:
    convert = value(annotation).converter(declared)
    array = np.ones([abs(size) for size in declared.shape], declared.datatype.dtype)
    got = None if convert is None else convert(array)
    assert got == made
    assert type(got) is type(made)


@pytest.mark.parametrize(
    ("annotation", "elements", "made"),
    [
        (Color, [b"red"], Color.RED),
        (list[Color], [b"red", b"red"], [Color.RED, Color.RED]),
        (list[list[Color]], [[b"red"], [b"red"]], [[Color.RED], [Color.RED]]),
        (tuple[Color, ...], [b"red"], (Color.RED,)),
        (list[list[list[str]]], [[[b"a", b"b"]]], [[["a", "b"]]]),
    ],
)
def test_elements_become_values_of_their_type(annotation: Any, elements: Any, made: Any) -> None:
    array = np.array(elements, dtype=object)
    convert = value(annotation).converter(spec("BYTES", *array.shape))
    assert convert is not None
    assert convert(array) == made


@dataclass
class Place:
    """Where."""

    lat: float
    lon: float = 0.5
    tags: list[str] = field(default_factory=list)
    hidden: int = field(init=False, default=1)


class Pair(NamedTuple):
    a: int
    b: float = 2.0


class Sizes(TypedDict):
    a: int
    b: NotRequired[float]


Plain = TypedDict("Plain", {"a": int, "b": NotRequired[float]})  # noqa: UP013


class Loose(TypedDict, total=False):
    a: int


class Model(pydantic.BaseModel):
    a: Annotated[int, pydantic.Field(ge=1)]
    b: float = pydantic.Field(2.0, alias="c", description="Of b.")


class Outer(NamedTuple):
    inner: Pair


A = {"datatype": "INT64", "shape": [1]}
B = {"datatype": "FP64", "shape": [1], "optional": True}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (
            Place,
            {
                "lat": {"datatype": "FP64", "shape": [1]},
                "lon": {**B, "default": 0.5},
                "tags": {**TEXT, "shape": [-1], "optional": True},
            },
        ),
        (Pair, {"a": A, "b": {**B, "default": 2.0}}),
        (Sizes, {"a": A, "b": B}),
        (Plain, {"a": A, "b": B}),
        (Loose, {"a": {**A, "optional": True}}),
        (
            Model,
            {"a": {**A, "minimum": 1}, "c": {**B, "default": 2.0, "description": "Of b."}},
        ),
    ],
)
def test_the_fields_of_a_class_are_tensors(kind: Any, fields: Any) -> None:
    found = record(kind)
    assert {name: each.tensor for name, each in found.fields.items()} == fields
    assert not found.is_many
    assert found.doc.startswith(("Where.", "Pair(")) is (kind in (Place, Pair))


@pytest.mark.parametrize(
    ("kind", "values", "made"),
    [
        (Place, {"lat": 1.0}, Place(1.0)),
        (Pair, {"a": 1}, Pair(1)),
        (Sizes, {"a": 1}, {"a": 1}),
        (Model, {"a": 1, "c": 3.0}, Model(a=1, c=3.0)),
    ],
)
def test_an_object_is_made_of_values(kind: Any, values: dict[str, Any], made: Any) -> None:
    assert record(kind).build(values) == made
    many = record(list[kind])
    assert many.is_many
    assert many.build({name: [each, each] for name, each in values.items()}) == [made, made]
    assert many.build({name: [] for name in values}) == []


def test_lists_of_fields_have_one_length() -> None:
    many = record(list[Pair])
    assert {name: each.tensor for name, each in many.fields.items()} == {
        "a": {"datatype": "INT64", "shape": [-1]},
        "b": {"datatype": "FP64", "shape": [-1], "optional": True},
    }
    convert = many.fields["a"].converter(spec("INT64", -1))
    assert convert is not None
    assert convert(np.array([1, 2])) == [1, 2]
    with pytest.raises(TensorError, match=r"as many elements in each tensor, got \[1, 2\]"):
        many.build({"a": [1, 2], "b": [1]})
    for name, each in record(list[Place]).fields.items():
        assert bool(each.problem) is (name == "tags")


@pytest.mark.parametrize("error", [TypeError, ValueError])
def test_why_a_class_refuses_values_is_cut(error: type[Exception]) -> None:
    def refuse(values: Any) -> None:
        raise error("x\n " + "y" * 400)

    with pytest.raises(TensorError) as caught:
        Record({}, refuse).build({})
    assert str(caught.value) == (
        f"expected values that the handler's type takes, got x {'y' * 298}"
    )


def test_a_class_within_a_class_is_no_tensor() -> None:
    [inner] = record(Outer).fields.values()
    assert inner.problem == "a class within a class is no tensor"


@pytest.mark.parametrize(
    ("annotation", "names"),
    [
        (tuple[int, float], {"output_0": "INT64", "output_1": "FP64"}),
        (tuple[int], {"output_0": "INT64"}),
        (Annotated[pd.DataFrame, "note", Pair], {"a": "INT64", "b": "FP64"}),
        (list[Pair], {"a": "INT64", "b": "FP64"}),
        (Pair, {"a": "INT64", "b": "FP64"}),
    ],
)
def test_a_result_of_parts_has_an_output_for_each(annotation: Any, names: Any) -> None:
    found = read_result(annotation)
    assert isinstance(found, Record)
    assert {name: each.tensor["datatype"] for name, each in found.fields.items()} == names


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        (tuple[int, ...], ""),
        (int, ""),
        (pd.DataFrame, NO_COLUMNS),
        (Annotated[pd.DataFrame, "note"], NO_COLUMNS),
    ],
)
def test_another_result_is_one_output(annotation: Any, problem: str) -> None:
    found = read_result(annotation)
    assert isinstance(found, Value)
    assert found.problem == problem


@pytest.mark.parametrize(
    ("default", "shown"),
    [
        (1, 1), (1.5, 1.5), ("a", "a"), (True, True), (0, 0), ("", ""),
        (Color.RED, "red"), (datetime.date(2025, 1, 31), "2025-01-31"),
        (np.float32(0.5), 0.5), (np.array([1, 2]), [1, 2]), ((1, 2), [1, 2]),
        ([[1], [2]], [[1], [2]]),
    ],
)  # fmt: skip
def test_a_default_is_shown_as_json_has_it(default: Any, shown: Any) -> None:
    tensor = with_default(Value({"shape": [1]}), default).tensor
    assert tensor == {"shape": [1], "optional": True, "default": shown}


@pytest.mark.parametrize(
    "default",
    [None, [], b"a", float("inf"), float("nan"), [None], [1, float("inf")], {"a": 1}, object()],
)
def test_a_default_that_json_has_not_is_left_out(default: Any) -> None:
    assert with_default(Value({}), default).tensor == {"optional": True}


def test_annotations_of_text_are_evaluated_one_by_one() -> None:
    class Here:
        class Inner: ...

        a: Inner
        b: Missing  # type: ignore[name-defined]  # noqa: F821
        c: Place
        d: Annotated[int, "note"]

    hints = resolved(Here.__annotations__, Here)
    noted = Annotated[int, "note"]
    assert hints == {"a": Here.Inner, "b": "Missing", "c": Place, "d": noted}

    def outer() -> Any:
        class Local: ...

        later: Any

        def inner(a: Local, b: later) -> Any:  # type: ignore[valid-type]  # noqa: F821
            return Local, later  # noqa: F821

        return Local, inner

    local, inner = outer()
    assert resolved(inner.__annotations__, inner) == {"a": local, "b": "later", "return": Any}


def test_annotations_without_a_module_are_evaluated() -> None:
    kind = type("Gone", (), {"__module__": "a module that is not there"})
    assert resolved({"a": "int", "b": "Missing"}, kind) == {"a": int, "b": "Missing"}
    assert resolved({"a": "int"}, len) == {"a": int}
