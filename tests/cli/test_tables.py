"""`run` and `infer` read a whole table: each column is the input of its name."""

import datetime
import json
import sys
from decimal import Decimal

import pyarrow as pa
import pytest
from click.testing import CliRunner
from pyarrow import parquet

from mlserver_pyfunc.cli import main

DEFINITION = """
source:
  code: "def f(income, plan, day=None): return {'y': income, 'text': plan, 'd': day}"
  handler: f
inputs:
  - {name: age, datatype: INT16, shape: [-1]}
  - {name: income, datatype: FP32, shape: [-1], nullable: true}
  - {name: plan, datatype: BYTES, shape: [-1], content_type: str}
  - {name: member, datatype: BOOL, shape: [-1]}
  - {name: day, datatype: BYTES, shape: [-1], content_type: str, optional: true}
outputs:
  - {name: y, datatype: FP32, shape: [-1], nullable: true}
  - {name: text, datatype: BYTES, shape: [-1], content_type: str}
  - {name: d, datatype: BYTES, shape: [-1], content_type: str, optional: true}
"""
INT16 = "expected whole numbers from -32768 to 32767"
FP32 = "expected numbers up to 3.4028e+38"
HEADER = "income,plan,age,member\n"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "function.yaml").write_text(DEFINITION)
    return tmp_path


def outputs(folder, *given):
    done = CliRunner().invoke(main, ["run", str(folder), *given, "--json"])
    assert done.exit_code == 0, done.output
    return {one["name"]: one["data"] for one in json.loads(done.stdout)["outputs"]}


def error(folder, *given):
    done = CliRunner().invoke(main, ["run", str(folder), *given])
    assert done.exit_code == 2, done.output
    return " ".join(done.stderr.split())


def test_a_csv_file_gives_the_columns_of_its_header(folder):
    file = folder / "table.csv"
    text = f'{HEADER}1.5,"fünf, sechs",3,True\n,,4,0\n\n1e3,"a\nb",5.0,false\n'
    file.write_text(text, encoding="utf-8-sig")
    assert outputs(folder, "-i", str(file)) == {
        "y": [1.5, None, 1000],
        "text": ["fünf, sechs", "", "a\nb"],
    }


def test_other_inputs_can_be_given_beside_a_table(folder):
    (folder / "table.csv").write_text("income,plan,age\n1,a,3\n")
    answer = outputs(folder, "-i", str(folder / "table.csv"), "-i", "member=[true]")
    assert answer == {"y": [1], "text": ["a"]}


def test_a_csv_file_may_have_no_rows(folder):
    (folder / "table.csv").write_text(HEADER)
    assert outputs(folder, "-i", str(folder / "table.csv")) == {"y": [], "text": []}


def test_a_parquet_file_gives_its_columns_as_the_declared_datatypes(folder):
    table = pa.table(
        {
            "age": pa.array([1, 2], pa.int64()),
            "income": pa.array([None, 2], pa.int32()),
            "plan": pa.array([Decimal("1.50"), Decimal(2)]),
            "member": [True, False],
            "day": [datetime.date(2025, 1, 31), datetime.date(1970, 1, 1)],
        }
    )
    parquet.write_table(table, folder / "table.parquet")
    assert outputs(folder, "-i", str(folder / "table.parquet")) == {
        "y": [None, 2],
        "text": ["1.50", "2.00"],
        "d": ["2025-01-31", "1970-01-01"],
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,a,3,true\n2,b,x,true\n", f"row 2, column \"age\": {INT16}, got 'x'"),
        ("1,a,40000,true\n", f'row 1, column "age": {INT16}, got 40000'),
        ("1,a,,true\n", f'row 1, column "age": {INT16}, got null'),
        ("1,a,1,yes\n", "row 1, column \"member\": expected true or false, got 'yes'"),
        ("x,a,1,true\n", f"row 1, column \"income\": {FP32}, or null, got 'x'"),
        ("1,a,1,true\n1,a,1\n", "row 2: expected 4 cells, got 3"),
    ],
)
def test_an_error_names_row_and_column(folder, text, message):
    (folder / "table.csv").write_text(HEADER + text)
    assert message in error(folder, "-i", str(folder / "table.csv"))


def test_an_error_names_a_column_that_is_no_input_or_comes_twice(folder):
    (folder / "table.csv").write_text("age,id\n1,2\n")
    expected = 'column "id": unknown, expected "age", "income", "plan", "member", "day"'
    assert expected in error(folder, "-i", str(folder / "table.csv"))
    (folder / "table.csv").write_text("age,age\n1,2\n")
    assert 'column "age": given twice, expected' in error(folder, "-i", str(folder / "table.csv"))
    assert "No such file" in error(folder, "-i", "nowhere.csv")
    (folder / "table.parquet").write_bytes(b"no parquet")
    assert "Parquet" in error(folder, "-i", str(folder / "table.parquet"))


def test_a_cell_that_is_a_list_names_its_column(folder):
    table = pa.table({"age": pa.array([[1], [2, 3]])})
    parquet.write_table(table, folder / "table.parquet")
    said = error(folder, "-i", str(folder / "table.parquet"))
    assert 'table.parquet: column "age": expected' in said


def test_a_missing_column_is_a_missing_input(folder):
    (folder / "table.csv").write_text("income,age,member\n1,2,true\n")
    done = CliRunner().invoke(main, ["run", str(folder), "-i", str(folder / "table.csv")])
    assert done.exit_code == 1
    assert 'input "plan"' in done.stderr
    assert "missing from the request" in done.stderr


def test_parquet_needs_pyarrow_and_says_so(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    assert "pip install pyarrow" in error(folder, "-i", "table.parquet")


def test_an_empty_cell_is_null_where_null_may_be(folder):
    tensors = [
        {"name": name, "datatype": datatype, "shape": [-1], "nullable": True}
        for name, datatype in (("n", "INT64"), ("b", "BOOL"), ("s", "BYTES"))
    ]
    source = {"code": "def f(inputs): return inputs", "handler": "f"}
    definition = {"source": source, "inputs": tensors, "outputs": tensors}
    (folder / "function.yaml").write_text(json.dumps(definition))
    columns = {"n": [None, 2**60 + 1], "b": [True, None], "s": [None, "a"]}
    parquet.write_table(pa.table(columns), folder / "table.parquet")
    (folder / "table.csv").write_text(f"n,b,s\n,true,\n{2**60 + 1},,a\n")
    for name in ("table.csv", "table.parquet"):
        assert outputs(folder, "-i", str(folder / name)) == columns
