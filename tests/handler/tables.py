"""Generated tables: what columns can be, the values that they take, and how their arrays look."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, Literal  # noqa: F401 (in the code of kinds)

import numpy as np
from hypothesis import strategies as st

from mlserver_pyfunc.handler.binding import RESERVED, bind
from mlserver_pyfunc.handler.call import InferenceCall
from mlserver_pyfunc.handler.results import name_values
from mlserver_pyfunc.handler.signature import Signature, derive
from mlserver_pyfunc.protocol.contract import Contract, NamedArray
from mlserver_pyfunc.protocol.datatypes import DATATYPES
from mlserver_pyfunc.protocol.nulls import NULLS
from mlserver_pyfunc.protocol.request import RequestInput
from tests.parity import input_of


@dataclass(frozen=True)
class Kind:
    """A type of column, as code: its datatype, its dtype in pandas, and what elements may be."""

    source: str
    datatype: str
    pandas: str
    elements: st.SearchStrategy[Any]

    @property
    def type(self) -> Any:
        return eval(self.source, globals())

    @property
    def nullable(self) -> bool:
        return "None" in self.source


def _numbers(name: str) -> st.SearchStrategy[Any]:
    if name.startswith("float"):
        # JSON carries NaN only where null may be.
        return st.floats(width=int(name[5:]), allow_nan=False, allow_infinity=False)
    info = np.iinfo(name)
    return st.integers(int(info.min), int(info.max))


# UTF-8 has no lone surrogates.
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=6)
TIMES = st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2250, 1, 1))
ISO = TIMES.map(datetime.datetime.isoformat)
PLAN = 'Literal["basic", "", "pro é"]'
PLANS = st.sampled_from(["basic", "", "pro é"])
CENTS = st.integers(-(10**12), 10**12).map(lambda cents: str(Decimal(cents) / 100))
DAYS = st.dates().map(datetime.date.isoformat)

_NUMBERS = {
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64", "uint8": "UINT8",
    "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "float32": "FP32",
    "float64": "FP64",
}  # fmt: skip
KINDS = {
    name: Kind(f"np.{name}", datatype, name, _numbers(name)) for name, datatype in _NUMBERS.items()
} | {
    "flag": Kind("bool", "BOOL", "bool", st.booleans()),
    "text": Kind("str", "BYTES", "str", TEXT),
    "raw": Kind("bytes", "BYTES", "object", st.binary(max_size=4)),
    "plan": Kind(PLAN, "BYTES", "str", PLANS),
    "time": Kind("datetime.datetime", "BYTES", "datetime64[ns]", ISO),
    "day": Kind("datetime.date", "BYTES", "object", DAYS),
    "money": Kind("Decimal", "BYTES", "object", CENTS),
    "int_or_null": Kind("np.int64 | None", "INT64", "Int64", _numbers("int64")),
    "byte_or_null": Kind("np.uint8 | None", "UINT8", "UInt8", _numbers("uint8")),
    "flag_or_null": Kind("bool | None", "BOOL", "boolean", st.booleans()),
    "text_or_null": Kind("str | None", "BYTES", "str", TEXT),
    "plan_or_null": Kind(f"{PLAN} | None", "BYTES", "str", PLANS),
    "time_or_null": Kind("datetime.datetime | None", "BYTES", "datetime64[ns]", ISO),
    "float_or_null": Kind("float | None", "FP64", "float64", st.floats(allow_infinity=False)),
}


@st.composite
def tables(
    draw: st.DrawFn, kinds: Mapping[str, Kind] | None = None, rows: int | None = None
) -> dict[str, tuple[Kind, list[Any]]]:
    """Draws the kinds of columns, unless they are given, and values for them, None for null."""
    if kinds is None:
        names = st.text(st.characters(categories=("L", "Nd"), max_codepoint=0x17F), min_size=1)
        kinds = draw(st.dictionaries(names, st.sampled_from([*KINDS.values()]), min_size=1))
    rows = draw(st.integers(0, 5)) if rows is None else rows
    drawn = {}
    for name, kind in kinds.items():
        elements = st.none() | kind.elements if kind.nullable else kind.elements
        drawn[name] = (kind, draw(st.lists(elements, min_size=rows, max_size=rows)))
    return drawn


def sent(table: Mapping[str, tuple[Kind, list[Any]]]) -> list[NamedArray]:
    """Returns the tensors that a client sends for a table."""
    inputs = []
    for name, (kind, values) in table.items():
        dtype = DATATYPES[kind.datatype].dtype
        empty = {"f": np.nan, "O": b""}.get(dtype.kind, 0)
        array = np.empty(len(values), dtype)
        array[:] = [empty if v is None else v.encode() if type(v) is str else v for v in values]
        inputs.append(input_of(name, kind.datatype, array))
        if kind.nullable and dtype.kind != "f" and None in values:
            nulls = np.array([value is None for value in values])
            inputs.append(input_of(name + NULLS, "BOOL", nulls))
    return inputs


def assert_equal(table: Mapping[str, tuple[Kind, list[Any]]], outputs: Mapping[str, Any]) -> None:
    """Compares a table with the arrays of an answer, in which null elements are masked."""
    assert list(outputs) == list(table)
    for name, (kind, values) in table.items():
        found = [_plain(kind, element) for element in outputs[name].tolist()]
        expected = [_plain(kind, value) for value in values]
        assert repr(found) == repr(expected), name


def _plain(kind: Kind, value: Any) -> Any:
    """Returns an element in the one form that is compared."""
    if kind.datatype == "FP64" and kind.nullable and value is None:
        return float("nan")
    if value is None or kind.datatype != "BYTES":
        return np.float32(value) if kind.datatype == "FP32" else value
    value = value.encode() if isinstance(value, str) else value
    if kind.source == "Decimal":
        return Decimal(value.decode()).normalize() + 0
    if "time" in kind.pandas:
        return datetime.datetime.fromisoformat(value.decode())
    return value


class Handler:
    """A function as it is served, without a server: contract, call plan and results."""

    def __init__(self, function: Callable[..., Any]) -> None:
        signature = Signature.of(function)
        self.derived = derive(signature, (), (), (), RESERVED)
        inputs, outputs = self.derived.specs
        self.contract = Contract("m", inputs, outputs)
        self.plan = bind(function, inputs, RESERVED, signature)

    def __call__(self, inputs: list[NamedArray]) -> dict[str, Any]:
        """Calls the function with tensors, and returns its outputs by name, masked for null."""
        contract = self.contract
        given = [
            RequestInput(i.spec.name, i.spec.datatype.name, [*i.array.shape], i.array)
            for i in inputs
        ]
        arrays = contract.decode_inputs(given)
        context: Any = SimpleNamespace(model_name="m")
        call = InferenceCall(context, arrays, contract.input_specs(arrays), None)
        sizes = contract.axis_sizes(arrays)
        checked = contract.encode_outputs(name_values(contract, self.plan(call)).values, sizes)
        return {
            named.spec.name: named.array
            if named.nulls is None
            else np.ma.MaskedArray(named.array, named.nulls)
            for named in checked
        }
