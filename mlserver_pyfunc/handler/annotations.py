"""Reads an annotation: which tensors it stands for, and how their arrays become its values.

Types of other packages (PyTorch, Pillow, pydantic, jaxtyping) are recognised by their names and
attributes: nothing here imports them. An annotation that names one has imported its package.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import math
import sys
import types
import typing
from collections import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

import numpy as np

from mlserver_pyfunc.protocol.contract import TensorSpec
from mlserver_pyfunc.protocol.types import Array, TensorError

from .elements import TEXT, datatype_name, element_of
from .frames import FromArray, frame_of, is_dtype, library_of, maker, row_of_schema
from .tensor import noted

_LISTS = {list, abc.Sequence, abc.Iterable, abc.Collection, abc.MutableSequence}
NO_COLUMNS = (
    "a DataFrame tells no columns: Annotated[pd.DataFrame, Columns(name=str, age=int)] does"
)
_OURS = ("mlserver", "mlserver_pyfunc")


@dataclass(frozen=True)
class Value:
    """An annotation that one tensor stands for. A frame with a `problem` tells no columns."""

    tensor: Mapping[str, Any]  # keys of a definition, as far as the annotation tells them
    kinds: str = ""  # NumPy kinds of the arrays that `from_array` takes
    rank: int | None = None  # of these arrays; None for any
    from_array: FromArray | None = None  # makes the handler's value, if that is not the array
    problem: str = ""  # what the annotation does not tell
    is_unknown: bool = False  # whether it is text without a meaning
    admits_none: bool = False  # whether an element may be None
    has_default: bool = False  # whether it is a field with a default
    default: Any = None  # of a column of a frame, as kind, dtype and table
    kind: Any = None  # type of the elements
    dtype: Any = None  # if given
    table: str = ""  # library of the frame

    @property
    def is_scalar(self) -> bool:
        """Whether a single Python value is meant, which a request's parameter can carry."""
        return self.rank == 0 and not self.problem

    def converter(self, spec: TensorSpec) -> FromArray | None:
        """Returns what makes the handler's value of a declared tensor; None to pass the array."""
        if self.table and not self.problem:
            return maker(self.table, spec, self.kind, self.dtype)
        if self.from_array is None or spec.datatype.dtype.kind not in self.kinds:
            return None
        if self.rank == 0:
            return self.from_array if spec.shape in ((), (1,)) else None
        return self.from_array if self.rank in (None, len(spec.shape)) else None


@dataclass(frozen=True)
class Record:
    """An annotation that a tensor for each field stands for: a dataclass, a pydantic model, ..."""

    fields: Mapping[str, Value]
    make: Callable[[dict[str, Any]], Any]
    is_many: bool = False  # a list of objects: each tensor has an element for each of them
    doc: str = ""
    is_table: bool = False  # a frame, made of columns

    def build(self, values: dict[str, Any], specs: Mapping[str, TensorSpec] | None = None) -> Any:
        """Makes the handler's object, a list of them or a frame, or raises a TensorError."""
        if not self.is_many:
            return self._made(values)
        if len(lengths := set(map(len, values.values()))) > 1:
            raise TensorError("as many elements in each tensor", f"{sorted(lengths)}")
        if self.is_table:
            if specs and len(values) < len(specs):
                values = self._filled(values, specs, max(lengths, default=0))
            return self.make(values)
        rows = enumerate(zip(*values.values(), strict=True))
        return [self._made(dict(zip(values, row, strict=True)), index) for index, row in rows]

    def _filled(self, values: dict[str, Any], specs: Any, rows: int) -> dict[str, Any]:
        """Adds the columns that a request may leave out, and puts all into their order."""
        for name in specs.keys() - values.keys():
            spec, field = specs[name], self.fields[name]
            is_null = field.default is None
            if spec.datatype.nullable or not is_null:
                array = np.full(rows, 0 if is_null else field.default, spec.datatype.dtype)
                array = np.ma.MaskedArray(array, True) if is_null else array
                make = field.converter(spec)
                values[name] = make(array) if make else array
        return {name: values[name] for name in specs if name in values}

    def _made(self, values: dict[str, Any], index: int | None = None) -> Any:
        try:
            return self.make(values)
        except (TypeError, ValueError) as error:
            text = " ".join(str(error).split())[:300]
            got = text if index is None else f"{text} at index {index}"
            raise TensorError("values that the handler's type takes", got) from None


def read(annotation: Any) -> Value | Record:
    """Reads an annotation. What it does not tell is the `problem` of the value."""
    base, notes, is_optional = _unwrapped(annotation)
    if table := library_of(get_origin(base) or base):
        return _table(table, [*map(row_of_schema, get_args(base)), *notes])
    if (record := _record(base)) is not None:
        return record
    if get_origin(base) in _LISTS and (record := _record(get_args(base)[0])) is not None:
        return _many(record)
    value = _value(base, notes)
    if not is_optional:
        return value
    admits_none = value.admits_none or value.rank == 0
    value = with_default(value, None)
    return dataclasses.replace(value, admits_none=admits_none, has_default=False)


def _table(library: str, notes: Sequence[Any]) -> Value | Record:
    """Reads the type of a frame, by the class of a row or the schema that tells its columns."""
    for row in map(_record, notes):
        if row is not None:
            rows = _many(row).fields.items()
            fields = {name: dataclasses.replace(value, table=library) for name, value in rows}
            make = frame_of(library, fields)
            return Record(fields, make, is_many=True, doc=row.doc, is_table=True)
    return Value({}, problem=NO_COLUMNS, table=library)


def read_result(annotation: Any) -> Value | Record:
    """Reads the annotation of a result: a tuple of fixed length has an output for each element."""
    base, _, _ = _unwrapped(annotation)
    elements = get_args(base)
    if get_origin(base) is tuple and elements[-1:] != (Ellipsis,):
        return Record({f"output_{i}": _field(each) for i, each in enumerate(elements)}, dict)
    return read(annotation)


def _unwrapped(annotation: Any) -> tuple[Any, list[Any], bool]:
    """Returns the type in an annotation, the metadata of Annotated, and whether it admits None."""
    notes: list[Any] = []
    is_optional = False
    while True:
        origin = get_origin(annotation)
        if origin is Annotated:
            notes += annotation.__metadata__
            annotation = annotation.__origin__
        elif origin in (Union, types.UnionType):
            given = get_args(annotation)
            some = [each for each in given if each is not type(None)]
            is_optional |= len(some) < len(given)
            if len(some) != 1:
                return annotation, notes, is_optional
            annotation = some[0]
        elif getattr(origin, "_name", "") in ("NotRequired", "Required", "ReadOnly"):
            annotation = get_args(annotation)[0]
        elif (meant := getattr(annotation, "__supertype__", None)) is not None:
            annotation = meant
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = annotation.__value__
        elif type(origin).__name__ == "TypeAliasType":  # as NDArray is from NumPy 2.4 on
            annotation = origin.__value__[get_args(annotation)]
        else:
            return annotation, notes, is_optional


def _value(base: Any, notes: Sequence[Any]) -> Value:
    keys = noted(notes)
    shape = keys.pop("shape", None)
    if (array := _array(base, shape, keys.pop("datatype", None))) is not None:
        return dataclasses.replace(array, tensor={**array.tensor, **keys})
    depth, inner, admits_none = 0, base, False
    container = tuple if get_origin(base) is tuple else None
    while get_origin(inner) in _LISTS or (
        get_origin(inner) is tuple and get_args(inner)[1:] == (Ellipsis,)
    ):
        inner, more, admits_none = _unwrapped(get_args(inner)[0])
        keys = {**noted(more), **keys}
        depth += 1
    element = element_of(inner)
    if element is None:
        is_text = isinstance(base, str | typing.ForwardRef)
        return Value({}, problem=_problem(base), is_unknown=is_text)
    fitting = list(shape) if shape and len(shape) == (depth or 1) else [-1] * depth or [1]
    own = {key: value for key, value in element.keys.items() if depth < 2 or key != "example"}
    tensor = {"datatype": element.datatype, "shape": fitting, **own, **keys}
    if admits_none:
        tensor["nullable"] = True
    convert, dtype = _converter(element.make, depth, container), next(filter(is_dtype, notes), None)
    return Value(
        tensor, element.kinds, depth, convert, admits_none=admits_none, kind=inner, dtype=dtype
    )


def _converter(
    make: Callable[[Any], Any] | None, rank: int, container: Callable[[Any], Any] | None = None
) -> FromArray:
    """Returns what makes a value, or a list of values, of an array."""

    def listed(array: Array) -> Any:
        if array.ndim > 1:
            return [listed(row) for row in array]
        elements = array.tolist()
        if make is None:
            return elements
        return [None if element is None else make(element) for element in elements]

    def single(array: Array) -> Any:
        if type(array) is not np.ndarray and np.ma.is_masked(array):
            return None
        return array.item() if make is None else make(array.item())

    if rank == 0:
        return single
    return (lambda array: container(listed(array))) if container else listed


def _array(base: Any, shape: Sequence[int | str] | None, datatype: str | None) -> Value | None:
    """Reads the type of an array of NumPy, PyTorch or jaxtyping; None if it is none."""
    if hasattr(base, "dim_str") and hasattr(base, "dtypes"):
        return _jaxtyped(base)
    if base is not np.ndarray and get_origin(base) is not np.ndarray and not _is_torch(base):
        return None
    arguments = get_args(base)
    if arguments:
        datatype = datatype or datatype_name(next(iter(get_args(arguments[1])), None))
        sizes = get_args(arguments[0])
        if shape is None and sizes and sizes[-1] is not Ellipsis:
            shape = [-1] * len(sizes)
    told = {"datatype": datatype, "shape": None if shape is None else list(shape)}
    lacks = [key for key, value in told.items() if value is None]
    problem = f"{_name(base)} tells no {' and no '.join(lacks)}" if lacks else ""
    tensor = {key: value for key, value in told.items() if value is not None}
    if np.str_ in get_args(next(iter(arguments[1:]), None)):
        tensor |= TEXT
    return _array_of(base, tensor, None, problem)


def _jaxtyped(base: Any) -> Value:
    names = {datatype for name in base.dtypes if (datatype := datatype_name(str(name)))}
    shape: list[int | str] = []
    admits = "several datatypes" if len(base.dtypes) > 1 else "no datatype of the protocol"
    problem = "" if len(names) == 1 else f"{_name(base)} admits {admits}"
    for part in base.dim_str.split():
        size = part.rpartition("=")[2].lstrip("#")
        if size.isdigit():
            shape.append(int(size))
        elif size.isidentifier():
            shape.append(-1 if size.startswith("_") else size)
        else:
            problem = f'{_name(base)} has an axis "{part}" of no one size'
    tensor = {"datatype": next(iter(names), ""), "shape": shape}
    return _array_of(base.array_type, tensor, len(shape), problem)


def _array_of(kind: Any, tensor: Mapping[str, Any], rank: int | None, problem: str) -> Value:
    if _is_torch(kind):
        return Value(tensor, "biuf", rank, _torch, problem=problem)
    return Value(tensor, problem=problem)


def _is_torch(base: Any) -> bool:
    return getattr(base, "__module__", "") == "torch" and base.__name__ == "Tensor"


def _torch(array: Array) -> Any:
    # PyTorch has no read-only tensors: it takes a copy.
    return sys.modules["torch"].from_numpy(array.copy())


def _record(base: Any) -> Record | None:
    """Reads a class with fields; None if the type is none, or has a field that is no value."""
    if not isinstance(base, type) or base.__module__.partition(".")[0] in _OURS:
        return None

    def make(values: dict[str, Any]) -> Any:
        return base(**values)

    if hasattr(base, "model_fields") and hasattr(base, "model_validate"):
        found = dict(_pydantic_fields(base))
        make = base.model_validate
    elif dataclasses.is_dataclass(base):
        given = [each for each in dataclasses.fields(base) if each.init]
        defaults = {
            each.name: each.default
            for each in given
            if each.default is not dataclasses.MISSING
            or each.default_factory is not dataclasses.MISSING
        }
        found = _typed(base, {each.name: each.type for each in given}, defaults)
    elif issubclass(base, tuple) and hasattr(base, "_fields"):
        found = _typed(base, base.__annotations__, getattr(base, "_field_defaults", {}))
    elif hasattr(base, "__required_keys__"):
        found = _typed(base, base.__annotations__, dict.fromkeys(_not_required(base)))
    else:
        return None
    return Record(found, make, doc=base.__dict__.get("__doc__") or "")


def _pydantic_fields(model: Any) -> Iterator[tuple[str, Value]]:
    for name, info in model.model_fields.items():
        value = _field(Annotated[info.annotation, info])
        if not info.is_required():
            value = with_default(value, info.default)
        yield info.alias or name, value


def _typed(
    base: Any, annotations: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Value]:
    values = {}
    for name, hint in resolved(annotations, base).items():
        value = _field(hint)
        values[name] = with_default(value, defaults[name]) if name in defaults else value
    return values


def _field(annotation: Any) -> Value:
    found = read(annotation)
    if isinstance(found, Record):
        return Value({}, problem="a class within a class is no tensor")
    return found


def _not_required(base: Any) -> Iterator[str]:
    for name, hint in base.__annotations__.items():
        text = hint.__forward_arg__ if isinstance(hint, typing.ForwardRef) else str(hint)
        if name not in base.__required_keys__ or "NotRequired[" in text:
            yield name


def with_default(value: Value, default: Any) -> Value:
    """Returns the value of a parameter or field that has a default."""
    plain = _json_form(default)
    keys = {"optional": True} if plain is None else {"optional": True, "default": plain}
    return dataclasses.replace(value, tensor={**value.tensor, **keys}, has_default=True)


def _json_form(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        listed = [_json_form(each) for each in value]
        return None if None in listed or not listed else listed
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float) else None


def _many(record: Record) -> Record:
    """Returns the form of a list of objects: each tensor has an element for each of them."""
    fields = {}
    for name, value in record.fields.items():
        if value.rank != 0:
            problem = value.problem or "in a table or a list of objects, a field has one value"
            value = Value({}, problem=problem)
        else:
            keys = {k: v for k, v in value.tensor.items() if k != "default"}
            if isinstance(example := keys.get("example", []), str | int | float):
                keys["example"] = [example]
            if value.admits_none:
                keys |= {"nullable": True, "optional": value.has_default}
            many = _converter(getattr(element_of(value.kind), "make", None), 1)
            tensor, given = {**keys, "shape": [-1]}, value.tensor.get("default")
            value = dataclasses.replace(
                value, tensor=tensor, rank=1, from_array=many, default=given
            )
        fields[name] = value
    return dataclasses.replace(record, fields=fields, is_many=True)


def resolved(annotations: Mapping[str, Any], owner: Any) -> dict[str, Any]:
    """Evaluates annotations of a function or class that are text; one that cannot be stays text."""
    hints: dict[str, Any] = {}
    names, local = _names_at(owner)
    for name, annotation in annotations.items():
        holder = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            hints.update(typing.get_type_hints(holder, names, local, include_extras=True))
        except Exception:
            hints[name] = annotation
    return hints


def _names_at(owner: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what names mean in a function's module or a class's, and closer to it.

    Names of a function around another are known as far as the code of the inner one uses them.
    """
    module = sys.modules.get(getattr(owner, "__module__", None) or "")
    names = dict(getattr(owner, "__globals__", None) or (vars(module) if module else {}))
    local: dict[str, Any] = {}
    for part in getattr(owner, "__qualname__", "").split("."):
        around = local.get(part, names.get(part))
        local.update(vars(around) if isinstance(around, type) else {})
    code, cells = getattr(owner, "__code__", None), getattr(owner, "__closure__", None)
    for name, cell in zip(getattr(code, "co_freevars", ()), cells or (), strict=True):
        with suppress(ValueError):  # not yet assigned
            local[name] = cell.cell_contents
    local.update(vars(owner) if isinstance(owner, type) else {})
    return names, local


def _name(base: Any) -> str:
    if base is np.ndarray:
        return "np.ndarray"
    if get_origin(base) is np.ndarray:
        return f"NDArray[{', '.join(map(_name, get_args(get_args(base)[1])))}]"
    text = base.__name__ if isinstance(base, type) and not get_args(base) else str(base)
    return text.replace("typing.", "").replace("numpy.", "np.")


def _problem(base: Any) -> str:
    if base is None or base is type(None):
        return "None is no tensor"
    if isinstance(base, str | typing.ForwardRef):
        text = getattr(base, "__forward_arg__", base)
        return f'the annotation "{text}" cannot be evaluated from the top of its module'
    return f"{_name(base)} is no tensor"
