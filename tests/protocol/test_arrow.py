"""A whole table as an Arrow IPC stream in one BYTES tensor."""

from __future__ import annotations

import base64
import datetime
import io
import struct
import sys
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlserver_pyfunc.errors import ContractError
from mlserver_pyfunc.protocol import arrow
from mlserver_pyfunc.protocol.contract import ARROW, Contract, NamedArray, TensorSpec
from mlserver_pyfunc.protocol.datatypes import DATATYPES
from mlserver_pyfunc.protocol.request import Parameters, RequestInput
from mlserver_pyfunc.protocol.tensors import RawTensor

ARROW_TYPES = {
    "BOOL": pa.bool_(), "UINT8": pa.uint8(), "UINT16": pa.uint16(), "UINT32": pa.uint32(),
    "UINT64": pa.uint64(), "INT8": pa.int8(), "INT16": pa.int16(), "INT32": pa.int32(),
    "INT64": pa.int64(), "FP16": pa.float16(), "FP32": pa.float32(), "FP64": pa.float64(),
    "BYTES": pa.binary(),
}  # fmt: skip


def stream(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, **options) as writer:
        writer.write_table(table)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def sent(data: Any, datatype: str = "BYTES", shape: Any = (1,)) -> RequestInput:
    return RequestInput("t", datatype, list(shape), data, Parameters(content_type=ARROW))


def raw(element: bytes) -> RawTensor:
    return RawTensor(struct.pack("<I", len(element)) + element)


def spec(name: str, datatype: str, shape: Any = (-1,), **keys: Any) -> TensorSpec:
    return TensorSpec.of({"name": name, "datatype": datatype, "shape": list(shape), **keys})


def decoded(table: pa.Table, *specs: TensorSpec) -> dict[str, Any]:
    return Contract("m", specs, ()).decode_inputs([sent(raw(stream(table)))])


@pytest.mark.parametrize("datatype", DATATYPES)
def test_every_datatype_has_a_type_of_arrow(datatype: str) -> None:
    given = [b"a", b"\xff"] if datatype == "BYTES" else [1, 0]
    values = np.array(given, DATATYPES[datatype].dtype)
    arrays = decoded(pa.table({"x": pa.array(values, ARROW_TYPES[datatype])}), spec("x", datatype))
    assert arrays["x"].dtype == DATATYPES[datatype].dtype
    assert arrays["x"].tolist() == values.tolist()
    assert not arrays["x"].flags.writeable


def test_text_dates_decimals_and_categories_are_text() -> None:
    day = datetime.date(2025, 1, 31)
    table = pa.table(
        {
            "text": ["ü", ""],
            "view": pa.array(["a", "b"], pa.string_view()),
            "day": [day, day],
            "at": pa.array([datetime.datetime(2025, 1, 31, 12)] * 2, pa.timestamp("s")),
            "price": [Decimal("1.50"), Decimal(2)],
            "plan": pa.array(["x", "x"]).dictionary_encode(),
        }
    )
    specs = [spec(name, "BYTES", content_type="str") for name in table.column_names]
    arrays = decoded(table, *specs)
    assert {name: array.tolist() for name, array in arrays.items()} == {
        "text": ["ü", ""],
        "view": ["a", "b"],
        "day": ["2025-01-31"] * 2,
        "at": ["2025-01-31 12:00:00"] * 2,
        "price": ["1.50", "2.00"],
        "plan": ["x", "x"],
    }


def test_numbers_view_the_request() -> None:
    element = stream(pa.table({"x": np.arange(1000.0)}))
    request = sent(RawTensor(b"1234" + raw(element).buffer[4:]))
    request.data = RawTensor(memoryview(b"-" * 4 + raw(element).buffer)[4:])
    buffer = np.frombuffer(request.data.buffer, np.uint8)
    arrays = Contract("m", [spec("x", "FP64")], ()).decode_inputs([request])
    is_aligned = buffer.ctypes.data % 8 == 4
    assert np.shares_memory(arrays["x"], buffer) == is_aligned
    assert arrays["x"].ctypes.data % 8 == 0


def test_a_table_may_come_in_parts_beside_other_tensors_and_in_another_shape() -> None:
    table = pa.concat_tables([pa.table({"x": [1.0]}), pa.table({"x": [2.0, 3.0]})])
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(range(6), pa.int64()), 2)
    table = table.append_column("v", pa.chunked_array([vectors]))
    specs = [spec("x", "FP64", (-1, 1)), spec("v", "INT64", (-1, 2)), spec("n", "INT64", (1,))]
    inputs = [sent([stream(table)]), RequestInput("n", "INT64", [1], [7])]
    arrays = Contract("m", specs, ()).decode_inputs(inputs)
    assert arrays["x"].tolist() == [[1], [2], [3]]
    assert arrays["v"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert arrays["n"].tolist() == [7]


def test_a_declared_tensor_is_left_as_it_is() -> None:
    [array] = Contract("m", [spec("t", "BYTES")], ()).decode_inputs([sent([b"abc"])]).values()
    assert array.tolist() == [b"abc"]


def test_validity_becomes_what_the_contract_knows_as_null() -> None:
    columns = {
        "f": pa.array([1.5, None], pa.float32()),
        "n": pa.nulls(2),
        "i": pa.array([None, 2**60], pa.int64()),
        "b": pa.array([None, True]),
        "s": pa.array(["", None]),
        "z": pa.nulls(2),
    }
    datatypes = {"f": "FP32", "n": "FP64", "i": "INT64", "b": "BOOL", "s": "BYTES", "z": "INT8"}
    specs = [spec(name, datatype, nullable=True) for name, datatype in datatypes.items()]
    arrays = decoded(pa.table(columns), *specs)
    np.testing.assert_array_equal(arrays["f"], np.array([1.5, np.nan], np.float32))
    assert np.isnan(arrays["n"]).all()
    assert arrays["i"].tolist() == [0, 2**60]
    nulls = {name: array.tolist() for name, array in arrays.items() if name.endswith(".nulls")}
    assert nulls == {
        "i.nulls": [True, False],
        "b.nulls": [True, False],
        "s.nulls": [False, True],
        "z.nulls": [True, True],
    }


def test_null_elements_of_outputs_are_null_in_arrow() -> None:
    specs = [spec("i", "INT64", nullable=True), spec("s", "BYTES", nullable=True)]
    outputs = Contract("m", (), specs).encode_outputs({"i": [None, 1], "s": ["", None]})
    with pa.ipc.open_stream(arrow.table(outputs).array[0]) as reader:
        assert reader.read_all().to_pydict() == {"i": [None, 1], "s": ["", None]}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([sent([b"abc"])], 'input "t" of model "m": expected an Arrow IPC stream of numbers,'),
        ([sent(raw(b""))], "expected an Arrow IPC stream"),
        ([sent(raw(stream(pa.table({"x": [1.0] * 99}))[:-90]))], "expected an Arrow IPC stream"),
        ([sent(raw(stream(pa.table({"\x7f": [1.0]})).replace(b"\x7f", b"\xff")))], "'utf-8' codec"),
        ([sent(["%"])], "expected base64 strings, got '%' at index 0"),
        ([sent([1.0], "FP64")], "expected strings, got 1.0 at index 0"),
        ([sent([b"", b""], shape=[2])], "expected 1 elements for shape [1], got 2"),
        ([sent(RawTensor(raw(b"").buffer, None, 3))], "got 3 bytes more"),
        ([sent(raw(stream(pa.table({"y": [1.0]}))))], 'input "y" of model "m": unknown'),
        ([sent(raw(stream(pa.table({"x": [1]}))))], "expected datatype FP64, got INT64"),
        ([sent(raw(stream(pa.table({"x": [1.0, None]}))))], "got null at index 1"),
        ([sent(raw(stream(pa.table({"x": [[1]]}))))], 'got column "x": Unsupported cast from list'),
        ([sent(raw(stream(pa.table([[1.0], [2.0]], ["x", "x"]))))], "expected once, got it twice"),
        ([sent(raw(stream(pa.table({}))))], 'input "x" of model "m": missing from the request'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_as_for_other_requests(inputs: Any, message: str) -> None:
    with pytest.raises(ContractError) as caught:
        Contract("m", [spec("x", "FP64")], ()).decode_inputs(inputs)
    assert message in str(caught.value)


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
@pytest.mark.parametrize("text", ["plain", "category"])
def test_a_compressed_stream_is_refused_before_it_fills_the_memory(
    compression: str, text: str
) -> None:
    column = pa.array(["x"] * 1000)
    table = pa.table({"a": column if text == "plain" else column.dictionary_encode()})
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pytest.raises(ContractError, match=r"without compression, got a compressed one"):
        Contract("m", [spec("a", "BYTES")], ()).decode_inputs(
            [sent(raw(stream(table, options=options)))]
        )


def test_columns_that_take_no_space_in_a_stream_do_not_fill_the_memory() -> None:
    with pytest.raises(ContractError, match=r"elements that have data, got 1000000 elements"):
        decoded(pa.table({"a": pa.nulls(10**6)}), spec("a", "FP64", nullable=True))
    lists = pa.FixedSizeListArray.from_arrays(pa.array([b""] * 10**5, pa.binary(0)), 10**4)
    with pytest.raises(ContractError, match=r"elements that have data, got 100000 elements"):
        decoded(pa.table({"a": lists}), spec("a", "BYTES", (-1, -1)))
    indices = pa.array(np.zeros(10**6, np.int8))
    categories = pa.DictionaryArray.from_arrays(indices, pa.array(["x" * 10**6]))
    with pytest.raises(ContractError, match=r'column "a" of up to 268435456 bytes of text'):
        decoded(pa.table({"a": categories}), spec("a", "BYTES"))
    ends, values = pa.array([10**6], pa.int32()), pa.array(["x" * 10**6])
    runs = pa.table({"a": pa.RunEndEncodedArray.from_arrays(ends, values)})
    with pytest.raises(ContractError, match=r'column "a": '):
        decoded(runs, spec("a", "BYTES"))


def test_without_pyarrow_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.ipc", None)
    with pytest.raises(ContractError, match=r"pip install 'mlserver-pyfunc\[arrow\]'"):
        Contract("m", [], ()).decode_inputs([sent([b""])])


def test_categories_of_polars_are_text() -> None:
    sink = io.BytesIO()
    frame = pl.DataFrame({"a": pl.Series(["x", None, "y"], dtype=pl.Categorical)})
    frame.write_ipc_stream(sink)
    arrays = Contract("m", [spec("a", "BYTES", nullable=True)], ()).decode_inputs(
        [sent(raw(sink.getvalue()))]
    )
    assert arrays["a"].tolist() == [b"x", b"", b"y"]
    assert arrays["a.nulls"].tolist() == [False, True, False]


def test_a_stream_is_base64_in_json() -> None:
    element = base64.b64encode(stream(pa.table({"x": [1.5]}))).decode()
    arrays = Contract("m", [spec("x", "FP64")], ()).decode_inputs([sent([element])])
    assert arrays["x"].tolist() == [1.5]


def test_an_output_that_has_other_rows_is_named() -> None:
    outputs = [
        NamedArray(spec("a", "FP64"), np.ones(2)),
        NamedArray(spec("b", "FP64"), np.ones(3)),
    ]
    with pytest.raises(ValueError, match=r'as in output "a", for Arrow, got shape \[3\] of "b"'):
        arrow.table(outputs)


@st.composite
def columns(draw: st.DrawFn) -> tuple[list[TensorSpec], dict[str, np.ndarray[Any, Any]]]:
    rows = draw(st.integers(0, 5))
    specs, arrays = [], {}
    for index in range(draw(st.integers(1, 5))):
        datatype, nullable = draw(st.sampled_from(list(DATATYPES))), draw(st.booleans())
        dtype = DATATYPES[datatype].dtype
        shape = [-1, 2] if draw(st.booleans()) else [-1]
        elements: Any = st.binary(max_size=3) | st.text(max_size=3).map(str.encode)
        if dtype.kind in "iu":
            elements = st.integers(np.iinfo(dtype).min, np.iinfo(dtype).max)
        elif dtype.kind != "O":
            elements = st.booleans() if dtype.kind == "b" else st.floats(width=8 * dtype.itemsize)
        count = rows * (2 if len(shape) == 2 else 1)
        flat = np.empty(count, dtype)
        flat[:] = draw(st.lists(elements, min_size=count, max_size=count))
        name = draw(st.text(min_size=1, max_size=3)) + str(index)
        specs.append(spec(name, datatype, shape, nullable=nullable))
        array = flat.reshape(rows, *shape[1:])
        if nullable and dtype.kind != "f":
            nulls = draw(st.lists(st.booleans(), min_size=count, max_size=count))
            array = np.ma.MaskedArray(array, np.array(nulls, bool).reshape(array.shape))
            array.data[array.mask] = b"" if dtype.kind == "O" else 0
        arrays[name] = array
    return specs, arrays


@settings(max_examples=500)
@given(columns())
def test_tables_are_exact_both_ways(drawn: Any) -> None:
    specs, arrays = drawn
    contract = Contract("m", specs, specs)
    made = arrow.table(contract.encode_outputs(arrays))
    back = contract.decode_inputs([sent(raw(made.array[0]))])
    for name, array in arrays.items():
        assert back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], np.asarray(array))
        nulls = np.ma.getmaskarray(array)
        assert (name + ".nulls" in back) == nulls.any()
        np.testing.assert_array_equal(back.get(name + ".nulls", nulls), nulls)
