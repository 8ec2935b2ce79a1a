"""Tables: frames of pandas, polars and pyarrow, made of columns and read as columns.

Nothing here imports these libraries: an annotation or a result that names one has imported it.
Needs only NumPy and the standard library.
"""

from __future__ import annotations

import datetime
import re
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cached_property, partial
from types import SimpleNamespace
from typing import Annotated, Any, TypedDict

import numpy as np

from mlserver_pyfunc.errors import ContractError, ResponseError
from mlserver_pyfunc.protocol import casting
from mlserver_pyfunc.protocol.bytes_tensors import object_array
from mlserver_pyfunc.protocol.contract import Contract, TensorSpec
from mlserver_pyfunc.protocol.types import Array, TensorError, misfit

from .elements import element_of

_FRAMES = {"pandas": "DataFrame", "polars": "DataFrame", "pyarrow": "Table"}
_OBJECTS = (datetime.datetime, datetime.date, Decimal)
_TEXTS = (*_OBJECTS, str, bytes)
"""Types of the values of a BYTES tensor. The first ones are text in the tensor."""
_TYPES = {
    "str|object|categ|enum|dict|large_string": str, "bool": bool, "binary": bytes, "dec": Decimal,
    "datetime|timestamp": datetime.datetime, "date": datetime.date,
    "halffloat": np.float16, "float$": np.float32, "double": np.float64,
}  # fmt: skip
"""The types of dtypes that are not called as those of NumPy, by how their names begin."""

_TIME = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d:?\d\d)?)?")

_FEW = 1000
"""Rows up to which to copy a column takes less time than to make a block of it."""

FromArray = Callable[[Array], Any]


def Columns(columns: Mapping[str, Any] | None = None, /, **types: Any) -> Any:  # noqa: N802
    """Declares the columns of a table in an annotation, by their names and types.

    A type is one of Python or NumPy, or a dtype of the table's library.

    >>> from typing import Annotated, Literal
    >>> import numpy as np
    >>> import pandas as pd
    >>> Customers = Annotated[pd.DataFrame, Columns(plan=Literal["basic", "pro"], age=np.int64)]
    """
    fields = {name: _annotation(kind) for name, kind in {**(columns or {}), **types}.items()}
    make: Any = TypedDict
    row = make("Columns", fields)
    row.__module__ = ""  # Classes of this package are no rows.
    return row


def library_of(kind: Any) -> str:
    """Returns the name of the library whose frame a type is; empty if it is none."""
    bases = ((b.__module__.partition(".")[0], b.__name__) for b in getattr(kind, "__mro__", ()))
    return next((library for library, name in bases if _FRAMES.get(library) == name), "")


def is_dtype(note: Any) -> bool:
    """Returns whether an object is a dtype of NumPy or of a library of frames."""
    kind = note if isinstance(note, type) else type(note)
    is_of_library = kind.__module__.partition(".")[0] in _FRAMES and not library_of(kind)
    return is_of_library or isinstance(note, np.dtype)


def _annotation(dtype: Any) -> Any:
    """Returns what the class of a row would say of a column of a dtype; other types as they are."""
    if not is_dtype(dtype):
        return dtype
    text = "str" if str(dtype).startswith("<U") else str(dtype)
    name = re.split(r"\W", text)[0].lower()
    known = (kind for start, kind in _TYPES.items() if re.match(start, name))
    kind: Any = next(known, None) or np.dtype(name).type
    categories = getattr(dtype, "categories", None)
    kind = type(next(iter(categories))) if categories is not None and len(categories) else kind
    is_pandas = type(dtype).__module__.startswith("pandas")
    if is_pandas and (text[0].isupper() or name in ("boolean", "string")):
        kind = kind | None
    return Annotated[kind, dtype] if kind in _OBJECTS or not isinstance(dtype, np.dtype) else kind


def row_of_schema(schema: Any) -> Any:
    """Returns the class of a row of a schema of pandera; any other type as it is."""
    if not hasattr(schema, "to_schema"):
        return schema
    fields: dict[str, Any] = {}
    for name, column in schema.to_schema().columns.items():
        kind = _annotation(column.dtype.type)
        kind = Annotated[kind | None if column.nullable else kind, column]
        for check in column.checks:
            told = check.statistics or {}
            low = "ge" if told.get("include_min", check.name != "greater_than") else "gt"
            high = "le" if told.get("include_max", check.name != "less_than") else "lt"
            bounds = {low: told.get("min_value"), high: told.get("max_value")}
            kind = Annotated[kind, SimpleNamespace(**bounds, categories=told.get("allowed_values"))]
        fields[name] = kind
    return Columns(fields)


def maker(library: str, spec: TensorSpec, kind: Any, dtype: Any) -> FromArray | None:
    """Returns what makes a column of a tensor's array; None if the array is the column."""
    text: Any = str if spec.text or kind not in (None, bytes) else bytes
    kind = kind if kind in _OBJECTS else text
    column = _Column(spec, kind if spec.datatype.is_bytes else None, dtype)
    return (column.of_pandas if library == "pandas" else column.of_other)(sys.modules[library])


@dataclass(frozen=True)
class _Column:
    """A column that is made of a tensor; `kind` is the type of the values of a BYTES tensor."""

    spec: TensorSpec
    kind: Any
    dtype: Any

    @cached_property
    def _make(self) -> FromArray | None:
        is_as_sent = self.kind in (None, bytes) or (self.kind is str and self.spec.text)
        return None if is_as_sent else getattr(element_of(self.kind), "make", None)

    def values(self, array: Array, null: float | None = None) -> Any:
        """Returns the elements of an array as values of the column, with `null` for null."""
        make = self._make
        if make is None and type(array) is np.ndarray:
            return array
        if array.dtype.kind == "f":
            return np.ma.filled(array, np.nan)
        return object_array([null if e is None else make(e) if make else e for e in array.tolist()])

    def of_pandas(self, pandas: Any) -> FromArray | None:
        # As in a frame that was read from a file: encoders take None for another category.
        dtype = self.dtype
        make: FromArray = partial(self.values, null=np.nan)
        if self.kind is datetime.datetime:
            texts = replace(self, kind=str)
            return lambda array: self._times(pandas, texts.values(array))
        if dtype is None and self.kind is str:
            dtype = pandas.Series(["text"]).dtype
        if self.spec.datatype.nullable and (kind := self.spec.datatype.dtype.kind) in "iub":
            masked = pandas.arrays.BooleanArray if kind == "b" else pandas.arrays.IntegerArray

            def make(array: Array) -> Any:
                return masked(np.asarray(array), np.ma.getmaskarray(array))

        elif dtype in (None, np.dtype("O")) and not self.spec.datatype.nullable and not self._make:
            return None
        if dtype is None:
            return make
        dtype = pandas.api.types.pandas_dtype(dtype)
        if isinstance(dtype, np.dtype):
            return lambda array: make(array).astype(dtype, copy=False)
        # What pandas.array does, which looks for it at each call.
        read = partial(dtype.construct_array_type()._from_sequence, dtype=dtype)
        return lambda array: read(make(array))

    def _times(self, pandas: Any, texts: Any) -> Any:
        for index, text in enumerate(texts):  # pandas takes "now" and more for times.
            if text is not None and not _TIME.fullmatch(text):
                raise misfit("a datetime in ISO 8601", text, index)
        try:
            times = pandas.to_datetime(texts, format="ISO8601", utc=True)  # to the nanosecond
        except ValueError as error:
            raise TensorError("a datetime in ISO 8601", str(error).partition(". ")[0]) from None
        if getattr(self.dtype, "tz", None) is None:
            times = times.tz_localize(None)
        return times.astype(self.dtype or "datetime64[ns]").array

    def of_other(self, library: Any) -> FromArray:
        if hasattr(library, "Series"):
            make, key, time = library.Series, "dtype", library.Datetime
            own: Any = (library.Date, library.Decimal(38, 18), library.String, library.Binary)
        else:
            make, key, time = library.array, "type", library.timestamp
            own = library.date32(), library.decimal128(38, 18), library.string(), library.binary()
        dtype = self.dtype or dict(zip(_TEXTS, (time("us"), *own), strict=True)).get(self.kind)
        if dtype is None:
            dtype = getattr(make(np.empty(0, self.spec.datatype.dtype)), key)
        is_free = self.dtype is None and self.kind is datetime.datetime

        def column(array: Array) -> Any:
            values = self.values(array)
            values = values.tolist() if values.dtype.hasobject else values
            return make([_in_utc(each) for each in values] if is_free else values, **{key: dtype})

        return column


def _in_utc(time: Any) -> Any:
    has_zone = time is not None and time.tzinfo is not None
    return time.astimezone(datetime.timezone.utc).replace(tzinfo=None) if has_zone else time


def frame_of(library: str, names: Collection[str]) -> Any:
    """Returns what makes a frame of columns, without copies where the library allows it."""
    module = sys.modules[library]
    make: Any = getattr(module, _FRAMES[library])
    if library != "pandas":
        return make.from_pydict if library == "pyarrow" else make
    index, quick = module.Index([*names]), getattr(make, "_from_arrays", None)

    def frame(columns: dict[str, Any]) -> Any:
        rows = len(next(iter(columns.values()), ()))
        # The constructor makes a block of each column, which takes long, and copies nothing.
        if quick is None or rows > _FEW or len(columns) < len(index):
            return make(columns, copy=False)
        # A view has a name of its own, but keeps what finds columns.
        axes = index.view(), module.RangeIndex(rows)
        made = quick([*columns.values()], *axes, verify_integrity=False)
        for block in made._mgr.blocks:
            if type(block.values) is np.ndarray:  # as the request's own
                block.values.setflags(write=False)
        return made

    return frame


def columns_of(frame: Any) -> dict[str, Any] | None:
    """Returns a frame's values by column, arrays or lists with None; None if it is no frame."""
    library = library_of(type(frame))
    if not library:
        return None
    names = list(frame.column_names if library == "pyarrow" else frame.columns)
    if twice := [name for name in names if names.count(name) > 1]:
        raise TensorError("columns of different names", f'two that are called "{twice[0]}"')
    read = _of_pandas if library == "pandas" else _of_native
    return {str(name): read(frame[name]) for name in names}


def as_inputs(contract: Contract, inputs: Any, named: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a caller's values by input, or raises. A frame among them is its columns."""
    found: dict[str, Any] = {}
    where = f'a frame for model "{contract.model_name}"'
    for key, value in (("", inputs), *named.items()):
        try:
            columns = columns_of(value)
            for name, column in (columns or {}).items():
                where = f'input "{name}" of model "{contract.model_name}"'
                spec = contract.inputs.get(name)
                found[name] = casting.from_value(spec.datatype, column) if spec else column
        except TensorError as error:  # Its note is for a handler.
            text = f"{where}: expected {error.expected}, got {error.got}"
            raise ContractError(text) from None
        if columns is None:
            found |= {key: value} if key else value or {}
    return found


def like(frame: Any, outputs: Mapping[str, Array], specs: Mapping[str, TensorSpec]) -> Any:
    """Returns outputs as a frame of another one's library; as they are if that is no frame."""
    library = library_of(type(frame))
    if not library:
        return outputs
    shapes = {array.shape for array in outputs.values()}
    if list(map(len, shapes)) != [1]:
        expected = "expected one value of each output for each row, to make a frame"
        got = ", ".join(map(str, map(list, shapes)))
        raise ResponseError(f"outputs: {expected}, got shapes {got}: give the inputs as a dict")
    makers = {name: maker(library, spec, None, None) for name, spec in specs.items()}
    columns = {n: make(array) if (make := makers.get(n)) else array for n, array in outputs.items()}
    kind: Any = type(frame)
    return kind.from_pydict(columns) if library == "pyarrow" else kind(columns)


def _of_pandas(column: Any) -> Any:
    dtype = getattr(column.dtype, "numpy_dtype", column.dtype)
    if dtype.kind not in "biufc":
        return column.astype(object).where(column.notna(), None).tolist()
    if dtype is column.dtype:
        return column.to_numpy()
    array = column.to_numpy(dtype, na_value=np.nan if dtype.kind == "f" else dtype.type(0))
    return array if dtype.kind == "f" else np.ma.MaskedArray(array, column.isna())


def _of_native(column: Any) -> Any:
    is_polars = hasattr(column, "to_list")
    kind = str(column.dtype if is_polars else column.type).lower()
    nulls = column.null_count() if is_polars else column.null_count
    if re.match("float|double|half" if nulls else "u?int|float|double|half|bool", kind):
        return column.to_numpy()
    return column.to_list() if is_polars else column.to_pylist()
