"""Frames of pandas, polars and pyarrow as parameters and results: exact both ways."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings

from mlserver_pyfunc import Columns
from mlserver_pyfunc.definition.scaffold import described
from mlserver_pyfunc.errors import BindError, ContractError, ResponseError
from mlserver_pyfunc.handler.binding import bind
from mlserver_pyfunc.handler.call import InferenceCall
from mlserver_pyfunc.handler.frames import library_of
from mlserver_pyfunc.handler.signature import Signature, derive
from mlserver_pyfunc.protocol.contract import NamedArray, TensorSpec
from mlserver_pyfunc.protocol.datatypes import DATATYPES
from mlserver_pyfunc.protocol.limits import Limits
from mlserver_pyfunc.validation import validate
from tests.parity import input_of

from .tables import Handler, assert_equal, sent, tables

FRAMES = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "pyarrow": pa.Table}
MANY = settings(max_examples=100, deadline=None)


def echo(frame: Any, row: Any) -> Any:
    """Returns a handler that returns its table, and keeps it as `seen`."""

    def handler(table):
        handler.seen = table
        return table

    handler.__annotations__ = {"table": Annotated[frame, row], "return": Annotated[frame, row]}
    return handler


@pytest.mark.parametrize("library", FRAMES)
@MANY
@given(table=tables())
def test_a_table_goes_in_and_out_unchanged(library: str, table: Any) -> None:
    row = Columns({name: kind.type for name, (kind, _) in table.items()})
    outputs = Handler(echo(FRAMES[library], row))(sent(table))
    assert_equal(table, outputs)


TEXT = str(pd.Series(["text"]).dtype)


@MANY
@given(table=tables())
def test_columns_have_the_declared_dtypes_and_order(table: Any) -> None:
    handler = echo(pd.DataFrame, Columns({name: kind.type for name, (kind, _) in table.items()}))
    Handler(handler)(sent(table))
    dtypes = {name: str(dtype) for name, dtype in handler.seen.dtypes.items()}
    expected = {n: kind.pandas.replace("str", TEXT) for n, (kind, _) in table.items()}
    assert list(dtypes.items()) == list(expected.items())
    rows = len(next(iter(table.values()))[1])
    assert handler.seen.index.equals(pd.RangeIndex(rows))


def column(name: str, datatype: str, *values: Any) -> NamedArray:
    return input_of(name, datatype, np.array(values, DATATYPES[datatype].dtype))


@dataclass
class Flat:
    """A row with a default, and one that may be null."""

    rooms: int
    town: str = "Bolzano"
    area: float | None = None
    balcony: bool | None = None


@pytest.mark.parametrize("library", FRAMES)
def test_columns_that_a_request_leaves_out_have_their_default_or_null(library: str) -> None:
    handler = echo(FRAMES[library], Flat)
    outputs = Handler(handler)([column("rooms", "INT64", 1, 2)])
    assert list(outputs) == ["rooms", "town", "area", "balcony"]
    assert outputs["town"].tolist() == [b"Bolzano"] * 2
    assert np.isnan(outputs["area"]).all()
    assert outputs["balcony"].mask.all()


@pytest.mark.parametrize("form", [pd.DataFrame, pl.DataFrame, list, None])
def test_a_table_or_an_object_with_a_default_may_be_left_out(form: Any) -> None:
    def handler(x, flats=None):
        return 0 if flats is None else 1 if form is None else len(flats)

    row: Any = Annotated[form, Flat] if library_of(form) else list[Flat] if form else Flat
    handler.__annotations__ = {"x": float, "flats": row | None, "return": int}
    served = Handler(handler)
    told = {each["name"]: each.get("optional") for each in served.derived.inputs}
    assert told == {"x": None, "rooms": True, "town": True, "area": True, "balcony": True}
    x, rooms = column("x", "FP64", 1), column("rooms", "INT64", 1)
    assert served([x])["output"].tolist() == [0]
    assert served([x, rooms])["output"].tolist() == [1]
    missing = 'input "rooms" of model "m": missing from the request, which has "town"$'
    with pytest.raises(ContractError, match=missing):
        served([x, column("town", "BYTES", b"")])


@pytest.mark.parametrize("library", FRAMES)
def test_nan_is_a_number_of_a_column_without_null(library: str) -> None:
    outputs = Handler(echo(FRAMES[library], Columns(x=np.float32)))([column("x", "FP32", np.nan)])
    assert np.isnan(outputs["x"]).all()


ZONE = "2025-01-31T12:00:00+01:00"
DTYPES: list[tuple[str, Any, Any, str]] = [
    ("pandas", pd.CategoricalDtype(["b", "a"]), b"a", "category"),
    ("pandas", pd.CategoricalDtype([3, 1]), 1, "category"),
    ("pandas", pd.Int64Dtype(), 1, "Int64"),
    ("pandas", pd.StringDtype(), b"x", "string"),
    ("pandas", pd.BooleanDtype(), True, "boolean"),
    ("pandas", np.dtype("int16"), 1, "int16"),
    ("pandas", np.dtype("datetime64[s]"), b"2025-01-31", "datetime64[s]"),
    ("pandas", pd.DatetimeTZDtype("us", "Europe/Rome"), ZONE, "datetime64[us, Europe/Rome]"),
    ("pandas", datetime.datetime, ZONE, "datetime64[ns]"),
    ("polars", pl.Int16, 1, "Int16"),
    ("polars", pl.Enum(["b", "a"]), b"a", "Enum(categories=['b', 'a'])"),
    ("polars", pl.Decimal(10, 2), b"1.50", "Decimal(precision=10, scale=2)"),
    ("polars", pl.Datetime("ms", "Europe/Rome"), ZONE,
     "Datetime(time_unit='ms', time_zone='Europe/Rome')"),
    ("polars", datetime.datetime, ZONE, "Datetime(time_unit='us', time_zone=None)"),
    ("pyarrow", pa.uint8(), 1, "uint8"),
    ("pyarrow", pa.float16(), 1, "halffloat"),
    ("pyarrow", pa.decimal128(10, 2), b"1.50", "decimal128(10, 2)"),
    ("pyarrow", pa.timestamp("ms", "UTC"), ZONE, "timestamp[ms, tz=UTC]"),
    ("pyarrow", pa.date32(), b"2025-01-31", "date32[day]"),
    ("pyarrow", pa.bool_(), True, "bool"),
    ("pyarrow", datetime.datetime, ZONE, "timestamp[us]"),
]  # fmt: skip


@pytest.mark.parametrize(("library", "dtype", "value", "shown"), DTYPES)
def test_a_column_may_have_a_dtype_of_the_library(
    library: str, dtype: Any, value: Any, shown: str
) -> None:
    handler = echo(FRAMES[library], Columns(x=dtype))
    served = Handler(handler)
    value = value.encode() if isinstance(value, str) else value
    datatype = served.contract.inputs["x"].datatype.name
    outputs = served([column("x", datatype, value)])
    frame = handler.seen
    assert str(frame["x"].type if library == "pyarrow" else frame["x"].dtype) == shown
    [answer] = outputs["x"].tolist()
    if not str(value).startswith("b'2025"):
        assert answer == value
    else:
        parse = datetime.datetime.fromisoformat
        instants = [parse(each.decode()).timestamp() for each in (answer, value)]
        assert instants[0] == instants[1]


def test_categories_are_the_values_that_a_request_may_have() -> None:
    row = Columns(size=pd.CategoricalDtype(["s", "m"]), count=pd.CategoricalDtype([1, 2]))
    served = Handler(echo(pd.DataFrame, row))
    assert served.contract.inputs["size"].limits == Limits(enum=("s", "m"))
    assert served.contract.inputs["count"].datatype.name == "INT64"
    with pytest.raises(ContractError, match='"size" of model "m": expected one of "s", "m", got'):
        served([column("size", "BYTES", b"l"), column("count", "INT64", 1)])


def test_times_have_nanoseconds_in_pandas() -> None:
    handler = echo(pd.DataFrame, Columns(at=datetime.datetime))
    text = b"2025-01-31T12:00:00.123456789"
    assert Handler(handler)([column("at", "BYTES", text)])["at"].tolist() == [text]


@pytest.mark.parametrize("library", FRAMES)
@pytest.mark.parametrize(
    ("kind", "text"),
    [(datetime.datetime, b"soon"), (datetime.date, b"32"), (Decimal, b"1,5")],
)
def test_text_that_is_no_value_is_an_error_of_the_request(
    library: str, kind: Any, text: bytes
) -> None:
    good = {datetime.datetime: b"2025-01-31", datetime.date: b"2025-01-31", Decimal: b"1.5"}[kind]
    texts = [*[good] * 6, text, good]
    problem = r'input "x" of model "m": expected a .* got .* at index 6$'
    with pytest.raises(ContractError, match=problem):
        Handler(echo(FRAMES[library], Columns(x=kind)))([column("x", "BYTES", *texts)])
    if library == "pandas":

        def rows(table: Any) -> int:
            return len(table)

        rows.__annotations__["table"] = list[Columns(x=kind)]  # type: ignore[misc]
        with pytest.raises(ContractError, match=problem):
            Handler(rows)([column("x", "BYTES", *texts)])


@pytest.mark.parametrize(
    ("library", "dtype", "text"),
    [
        ("polars", pl.Decimal(4, 2), b"100000.5"),
        ("pyarrow", pa.decimal128(4, 2), b"1.255"),
    ],
)
def test_an_element_that_a_dtype_cannot_hold_is_named(
    library: str, dtype: Any, text: bytes
) -> None:
    with pytest.raises(ContractError, match=r'input "x" of model "m": .* at index 2$'):
        Handler(echo(FRAMES[library], Columns(x=dtype)))([column("x", "BYTES", b"1", b"2", text)])


def test_a_row_that_its_class_refuses_is_named() -> None:
    import pydantic

    class Even(pydantic.BaseModel):
        n: Annotated[int, pydantic.Field(multiple_of=2)]

    def handler(rows: Any) -> int:
        return len(rows)

    handler.__annotations__["rows"] = list[Even]
    with pytest.raises(ContractError, match=r'input "n" of model "m": .* at index 2$'):
        Handler(handler)([column("n", "INT64", 2, 4, 5, 6)])


@pytest.mark.parametrize("library", FRAMES)
def test_a_time_of_midnight_is_a_date(library: str) -> None:
    handler = echo(FRAMES[library], Columns(on=datetime.date))
    texts = [b"2025-01-31T00:00:00", b"2025-01-31 00:00:00.000000000", b"2025-01-31"]
    assert Handler(handler)([column("on", "BYTES", *texts)])["on"].tolist() == [b"2025-01-31"] * 3
    for text in (b"2025-01-31T00:00:01", b"2025-01-31T00:00:00Z"):
        with pytest.raises(ContractError, match="expected a date in ISO 8601"):
            Handler(handler)([column("on", "BYTES", text)])


def test_a_column_called_as_what_tells_the_nulls_of_another_is_an_error_at_load() -> None:
    handler = echo(pd.DataFrame, Columns({"a": int | None, "a.nulls": bool}))
    with pytest.raises(BindError, match=r'two inputs of the handler are called "a.nulls": rename'):
        Handler(handler)


def test_a_column_that_became_the_index_is_named() -> None:
    row = Annotated[pd.DataFrame, Columns(a=int, b=int)]

    def handler(table: Any) -> Any:
        return table.groupby("a").sum()

    handler.__annotations__.update(dict.fromkeys(("table", "return"), row))
    a, b = column("a", "INT64", 1, 1), column("b", "INT64", 2, 3)
    with pytest.raises(ResponseError, match=r'"a" of model "m": .* index of the frame, use reset_'):
        Handler(handler)([a, b])


@pytest.mark.parametrize("library", FRAMES)
def test_times_without_a_dtype_are_in_utc_whatever_zones_a_request_has(library: str) -> None:
    handler = echo(FRAMES[library], Columns(at=datetime.datetime))
    texts = [b"2025-01-31T12:00:00", b"2025-01-31T12:00:00+02:00", b"2025-01-31T12:00:00Z"]
    outputs = Handler(handler)([column("at", "BYTES", *texts)])
    hours = [element.decode()[11:13] for element in outputs["at"].tolist()]
    assert hours == ["12", "10", "12"]
    for text in ("now", "NaT", "", "yesterday", "2025-13-01", "9999-99-01"):
        with pytest.raises(ContractError, match=r'input "at" of model "\w+": expected a datetime'):
            Handler(handler)([column("at", "BYTES", text.encode())])


@pytest.mark.parametrize("library", FRAMES)
def test_a_column_may_be_called_as_the_frame(library: str) -> None:
    handler = echo(FRAMES[library], Columns(table=float, other=int))
    outputs = Handler(handler)([column("table", "FP64", 1.5), column("other", "INT64", 2)])
    assert list(outputs) == ["table", "other"]


def test_a_column_has_the_example_of_its_type_or_its_own() -> None:
    import pydantic

    own = Annotated[int, pydantic.Field(examples=[7])]
    handler = echo(pd.DataFrame, Columns(at=datetime.datetime, count=own, price=Decimal))
    examples = {each["name"]: each["example"] for each in Handler(handler).derived.inputs}
    assert examples == {"at": ["2025-01-31T12:00:00"], "count": [7], "price": ["12.50"]}


def test_floats_that_pandas_makes_of_integers_with_nulls_are_integers() -> None:
    def handler() -> Annotated[pd.DataFrame, Columns(n=int | None)]:
        return pd.DataFrame({"n": [1.0, None]})

    assert Handler(handler)([])["n"].tolist() == [1, None]


@MANY
@given(table=tables())
def test_a_small_frame_is_what_the_constructor_of_pandas_makes(table: Any) -> None:
    handler = echo(pd.DataFrame, Columns({name: kind.type for name, (kind, _) in table.items()}))
    Handler(handler)(sent(table))
    quick = handler.seen
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(pd.DataFrame, "_from_arrays")
        handler = echo(pd.DataFrame, Columns({n: kind.type for n, (kind, _) in table.items()}))
        Handler(handler)(sent(table))
    pd.testing.assert_frame_equal(quick, handler.seen)


def test_a_frame_shares_nothing_that_a_handler_can_change() -> None:
    def handler(table: Annotated[pd.DataFrame, Columns(a=int, b=int)]) -> int:
        assert table.columns.name is None
        assert table._mgr.nblocks == (1 if len(table) < 1000 else 2)
        table.columns.name = "changed"
        with pytest.raises(ValueError, match="read-only"):
            table.loc[0, "a"] = 7
        table["c"] = 1
        return int(table.copy().a.sum())

    served = Handler(handler)
    for size in (2, 2000):
        ones = column("a", "INT64", *[1] * size), column("b", "INT64", *[1] * size)
        for _ in range(2):
            assert served([*ones])["output"].tolist() == [size]


def test_tables_share_an_axis_each() -> None:
    def join(left: Annotated[pd.DataFrame, Columns(a=int, b=int)],
             right: Annotated[pl.DataFrame, Columns(c=int)]) -> list[int]:  # fmt: skip
        return [len(left), len(right)]

    served = Handler(join)
    axes = {name: spec.axes for name, spec in served.contract.inputs.items()}
    assert axes == {"a": ("left",), "b": ("left",), "c": ("right",)}
    a, b, c = column("a", "INT64", 1, 2), column("b", "INT64", 1, 2), column("c", "INT64", 1)
    assert served([a, b, c])["output"].tolist() == [2, 1]
    with pytest.raises(ContractError, match='"b" of model "m": axis "left": expected 2'):
        served([a, column("b", "INT64", 1), c])


INPUTS = [
    TensorSpec.of({"name": "age", "datatype": "INT32", "shape": [-1]}),
    TensorSpec.of({"name": "town", "datatype": "BYTES", "shape": [-1], "content_type": "str"}),
    TensorSpec.of({"name": "limit", "datatype": "FP64", "shape": [1]}),
]


@pytest.mark.parametrize("library", FRAMES)
def test_a_frame_takes_the_declared_inputs_that_no_other_parameter_takes(library: str) -> None:
    def handler(table, limit):
        return table, limit

    handler.__annotations__ = {"table": FRAMES[library]}
    arrays = {
        "age": np.array([1, 2], np.int32), "town": np.array(["a", "b"], object),
        "limit": np.array([0.5]),
    }  # fmt: skip
    context: Any = SimpleNamespace(model_name="m")
    plan = bind(handler, INPUTS)
    table, limit = plan(InferenceCall(context, arrays, {}, None))
    assert limit is arrays["limit"]
    frame = table if library == "pandas" else table.to_pandas()
    assert frame.to_dict("list") == {"age": [1, 2], "town": ["a", "b"]}
    assert str(frame["age"].dtype) == "int32"
    arrays["town"] = arrays["town"][:1]
    with pytest.raises(ContractError, match=r'"age, town" of model "m": expected as many elem'):
        plan(InferenceCall(context, arrays, {}, None))


def test_a_frame_does_not_take_matrices() -> None:
    def handler(features: pd.DataFrame) -> Any:
        return features

    matrix = TensorSpec.of({"name": "features", "datatype": "FP32", "shape": [-1, 2]})
    array = np.ones((1, 2), np.float32)
    context: Any = SimpleNamespace(model_name="m")
    call = InferenceCall(context, {"features": array}, {}, None)
    assert bind(handler, [matrix])(call) is array


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        (pd.DataFrame, "a DataFrame tells no columns"),
        (Annotated[pa.Table, "note"], "a DataFrame tells no columns"),
        (Annotated[pd.DataFrame, Columns(x=object)], 'field "x" of "table": object is no tensor'),
        (Annotated[pd.DataFrame, Columns(x=np.complex64)], "complex64 is no tensor"),
        (Annotated[pl.DataFrame, Columns(x=list[int])], "a field has one value"),
        (Annotated[pl.DataFrame, Columns(x=Flat)], "a class within a class is no tensor"),
    ],
)
def test_what_a_tensor_cannot_carry_is_an_error_at_load(annotation: Any, problem: str) -> None:
    def handler(table: Any) -> int:
        return len(table)

    handler.__annotations__["table"] = annotation
    with pytest.raises(BindError, match=problem):
        Handler(handler)


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), 'different names, got two that'),
        (pa.table([[1], [2]], ["a", "a"]), 'different names, got two that are called "a"'),
        (pd.DataFrame({"a": [1], "b": [2]}), '"b" of model "m": expected bytes or str, got 2'),
        (pd.DataFrame({"a": [1]}), '"b" of model "m": the handler returned no value'),
        (pd.DataFrame({"a": [1], "b": "x", "c": 1}), '"c" of model "m": the handler returned it'),
        (pd.DataFrame({"a": [1], "b": [None]}), '"b" of model "m": expected bytes or str, got'),
        (pl.DataFrame({"a": [1], "b": [["x"]]}), '"b" of model "m": expected '),
        (pd.DataFrame({"a": [1 + 1j], "b": ["x"]}), '"a" of model "m": expected INT64, got an'),
        (pd.DataFrame({"a": [1], "b": [pd.Timedelta(1)]}), '"b" of model "m": expected bytes or'),
    ],
)  # fmt: skip
def test_what_a_returned_frame_cannot_give_is_an_error(frame: Any, problem: str) -> None:
    def handler() -> Annotated[pd.DataFrame, Columns(a=int, b=str)]:
        return frame

    with pytest.raises(ResponseError, match=problem):
        Handler(handler)([])


def test_an_index_is_left_out_and_columns_are_found_by_name() -> None:
    def handler() -> Annotated[pd.DataFrame, Columns(a=int, b=str)]:
        return pd.DataFrame({"b": ["x", "y"], "a": [1, 2]}, index=[7, 9])

    outputs = Handler(handler)([])
    assert [outputs["a"].tolist(), outputs["b"].tolist()] == [[1, 2], [b"x", b"y"]]


def test_a_schema_of_pandera_tells_the_columns() -> None:
    pandera = pytest.importorskip("pandera.pandas")
    from pandera.typing import DataFrame

    class Customers(pandera.DataFrameModel):
        age: int = pandera.Field(ge=0, lt=120, description="years")
        plan: str = pandera.Field(isin=["basic", "pro"])
        score: float = pandera.Field(nullable=True, gt=0)
        visits: pd.Int64Dtype = pandera.Field(nullable=True)
        since: pd.DatetimeTZDtype = pandera.Field(dtype_kwargs={"unit": "ns", "tz": "UTC"})
        share: float = pandera.Field(in_range={"min_value": 0, "max_value": 1})

    def handler(table):
        handler.seen = table
        return table

    handler.__annotations__ = {"table": DataFrame[Customers], "return": DataFrame[Customers]}
    signature = Signature.of(handler)
    told = {each.pop("name"): each for each in derive(signature, (), (), (), ()).inputs}
    rows, text = {"shape": ["rows"]}, {"datatype": "BYTES", "content_type": "str"}
    assert told == {
        "age": {**rows, "datatype": "INT64", "minimum": 0, "exclusive_maximum": 120,
                "description": "years"},
        "plan": {**rows, **text, "enum": ["basic", "pro"]},
        "score": {**rows, "datatype": "FP64", "nullable": True, "optional": False,
                  "exclusive_minimum": 0},
        "visits": {**rows, "datatype": "INT64", "nullable": True, "optional": False},
        "since": {**rows, **text, "example": ["2025-01-31T12:00:00"]},
        "share": {**rows, "datatype": "FP64", "minimum": 0, "maximum": 1},
    }  # fmt: skip
    Handler(handler)([
        column("age", "INT64", 1), column("plan", "BYTES", b"pro"), column("score", "FP64", 1),
        column("visits", "INT64", 1), column("since", "BYTES", b"2025-01-31T12:00:00Z"),
        column("share", "FP64", 0.5),
    ])  # fmt: skip
    Customers.validate(handler.seen)


def test_validate_reads_columns_without_running_the_code(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "import datetime\nfrom typing import Annotated, Literal\nimport numpy as np\n"
        "import pandas as pd\nfrom mlserver_pyfunc import Columns\n"
        "Rows = Annotated[pd.DataFrame, Columns(plan=Literal['a'], n=pd.Int64Dtype())]\n"
        "raise SystemExit\n"
        "def predict(rows: Rows) -> Annotated[pd.DataFrame, Columns(y=float)]: return rows\n"
    )
    assert validate(tmp_path / "model.py:predict") == []
    files = described("m", tmp_path, tmp_path / "model.py", "predict")
    assert "{name: n, datatype: INT64, shape: [rows], nullable: true}" in files["function.yaml"]


STATIC = {
    "pl": ("pl.DataFrame", {
        "pl.Int16": "INT16", "pl.Datetime('ms', 'UTC')": "BYTES", "pl.Decimal(10, 2)": "BYTES",
        "pl.Enum(['s', 'm'])": "BYTES",
    }),
    "pa": ("pa.Table", {
        "pa.int8()": "INT8", "pa.float32()": "FP32", "pa.bool_()": "BOOL", "pa.string()": "BYTES",
        "pa.decimal128(10, 2)": "BYTES", "pa.timestamp('ms')": "BYTES",
    }),
    "pd": ("pd.DataFrame", {
        "pd.UInt8Dtype()": "UINT8", "np.dtype('int16')": "INT16", "pd.StringDtype()": "BYTES",
    }),
}  # fmt: skip


@pytest.mark.parametrize("library", STATIC)
def test_validate_and_init_know_the_dtypes_of_each_library(library: str, tmp_path: Path) -> None:
    frame, dtypes = STATIC[library]
    columns = ", ".join(f"c{index}={dtype}" for index, dtype in enumerate(dtypes))
    (tmp_path / "model.py").write_text(
        "from typing import Annotated\nimport numpy as np\nimport pandas as pd\n"
        "import polars as pl\nimport pyarrow as pa\nfrom mlserver_pyfunc import Columns\n"
        "raise SystemExit\n"
        f"def predict(rows: Annotated[{frame}, Columns({columns})]) -> int: return len(rows)\n"
    )
    assert validate(tmp_path / "model.py:predict") == []
    text = described("m", tmp_path, tmp_path / "model.py", "predict")["function.yaml"]
    told = [line.partition("datatype: ")[2].partition(",")[0] for line in text.splitlines()]
    assert [each for each in told if each][:-1] == list(dtypes.values())
