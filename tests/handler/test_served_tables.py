"""Generated tables through real servers: in process, isolated and batched, by each route."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mlserver_pyfunc.client import CallError, InferResult
from mlserver_pyfunc.deployment.server_process import Server
from mlserver_pyfunc.protocol.contract import NamedArray
from mlserver_pyfunc.protocol.datatypes import DATATYPES
from tests.parity import ROUTES, answers_by_route, input_of

from .tables import KINDS, assert_equal, sent, tables

pytestmark = [pytest.mark.server, pytest.mark.heavy]

FRAMES = {"pandas": "pandas.DataFrame", "polars": "polars.DataFrame", "pyarrow": "pyarrow.Table"}
MODES = {
    "process": "",
    "worker": "serving: {isolation: process}",
    "batches": "serving: {batch: {max_size: 64, max_delay_ms: 1}}",
}
CODE = """
import datetime
from decimal import Decimal
from typing import Annotated, Literal

import numpy as np
import {library}
from annotated_types import Ge

from mlserver_pyfunc import Columns

Wide = Annotated[{frame}, Columns({columns})]
Narrow = Annotated[{frame}, Columns(only={only})]


def wide(table: Wide) -> Wide:
    return table


def narrow(table: Narrow) -> Narrow:
    return table


Customers = Columns(
    plan=Literal["basic", "pro"],
    age=Annotated[np.int64, Ge(0)],
    joined=datetime.datetime,
)


def customers(table: Annotated[{frame}, Customers]) -> list[int]:
    return [len(table)] * len(table)


def maybe(x: float, table: Annotated[{frame}, Customers] | None = None) -> int:
    return -1 if table is None else len(table)
"""
DECLARED = """
import polars
import pyarrow


def joined(people: polars.DataFrame, plans: pyarrow.Table) -> polars.DataFrame:
    prices = dict(zip(plans["plan"].to_pylist(), plans["price"].to_pylist()))
    assert people.columns == ["name", "chosen"] and plans.column_names == ["plan", "price"]
    chosen = [prices[plan] if plan else None for plan in people["chosen"]]
    return people.select("name").with_columns(polars.Series("price", chosen, polars.Float64))
"""
TWO_TABLES = """
inputs:
  - name: people
    columns:
      - {name: name, datatype: BYTES, content_type: str}
      - {name: chosen, datatype: BYTES, content_type: str, nullable: true, enum: [basic, pro]}
  - name: plans
    columns:
      - {name: plan, datatype: BYTES, content_type: str}
      - {name: price, datatype: FP64, minimum: 0}
outputs:
  - name: people
    columns:
      - {name: name, datatype: BYTES}
      - {name: price, datatype: FP64, nullable: true}
"""


def _write(folder: Path, code: str, handler: str, lines: str) -> None:
    folder.mkdir()
    (folder / "model.py").write_text(code, encoding="utf-8")
    (folder / "model-settings.json").write_text(
        f'{{"name": "{folder.name}", "implementation": "mlserver_pyfunc.PyFuncRuntime"}}'
    )
    (folder / "function.yaml").write_text(
        f"model_name: {folder.name}\nsource: {{source: model.py, handler: {handler}}}\n{lines}\n"
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serves functions that return their table, one for each library, mode and width."""
    root = tmp_path_factory.mktemp("tables")
    columns = ", ".join(f"{name}={kind.source}" for name, kind in KINDS.items())
    for mode in ("process", "worker"):
        _write(root / f"declared-{mode}", DECLARED, "joined", TWO_TABLES + MODES[mode])
    for library, frame in FRAMES.items():
        only = KINDS["text_or_null"].source
        code = CODE.format(library=library, frame=frame, columns=columns, only=only)
        for mode, lines in MODES.items():
            more = ("maybe",) if library == "polars" and mode != "batches" else ()
            for width in ("wide", "narrow", "customers", *more):
                _write(root / f"{library}-{mode}-{width}", code, width, lines)
    with Server(root) as server:
        yield server


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("library", FRAMES)
def test_tables_go_in_and_out_unchanged_by_each_route(
    server: Server, library: str, mode: str
) -> None:
    narrow = {"only": KINDS["text_or_null"]}

    # To shrink a failure, each try would have to ask the server.
    @settings(
        max_examples=3,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[*HealthCheck],
    )
    @given(
        st.lists(tables(KINDS), min_size=12, max_size=12),
        st.lists(tables(narrow), min_size=8, max_size=8),
    )
    def check(wide_tables: list[Any], narrow_tables: list[Any]) -> None:
        for width, drawn in (("wide", wide_tables), ("narrow", narrow_tables)):
            model = f"{library}-{mode}-{width}"
            answers = answers_by_route(server, model, [sent(table) for table in drawn])
            assert list(answers) == list(ROUTES)
            for route, results in answers.items():
                for table, result in zip(drawn, results, strict=True):
                    assert isinstance(result, InferResult), f"{route}: {result}"
                    assert_equal(table, result.outputs)

    check()


def _column(name: str, datatype: str, *values: Any) -> NamedArray:
    return input_of(name, datatype, np.array(values, DATATYPES[datatype].dtype))


PLAN = _column("plan", "BYTES", b"basic", b"pro")
AGE = _column("age", "INT64", 30, 40)
JOINED = _column("joined", "BYTES", b"2025-01-31", b"2025-02-01T12:00:00")
WRONG = {
    "an unknown column": (
        [PLAN, AGE, JOINED, _column("city", "INT64", 1, 2)],
        'input "city" of model "M": unknown, expected "plan", "age", "joined"',
    ),
    "a missing column": (
        [PLAN, JOINED],
        'input "age" of model "M": missing from the request, which has "plan", "joined"',
    ),
    "a column twice": (
        [PLAN, AGE, JOINED, AGE],
        'input "age" of model "M": expected once, got it twice',
    ),
    "unequal lengths": (
        [PLAN, _column("age", "INT64", 30), JOINED],
        'input "age" of model "M": axis "rows": expected 2 as in input "plan", got 1',
    ),
    "another datatype": (
        [PLAN, _column("age", "FP64", 30, 40), JOINED],
        'input "age" of model "M": expected datatype INT64, got FP64',
    ),
    "null where none may be": (
        [PLAN, AGE, _column("age.nulls", "BOOL", True, False), JOINED],
        'input "age.nulls" of model "M": unknown, expected "plan", "age", "joined" '
        "(nullable: true, or | None in an annotation, admits null)",
    ),
    "a value that is not allowed": (
        [_column("plan", "BYTES", b"basic", b"trial"), AGE, JOINED],
        'input "plan" of model "M": expected one of "basic", "pro", got \'trial\' at index 1',
    ),
    "a value out of bounds": (
        [PLAN, _column("age", "INT64", 30, -1), JOINED],
        'input "age" of model "M": expected values of 0 or more, got -1 at index 1',
    ),
    "no date": (
        [PLAN, AGE, _column("joined", "BYTES", b"2025-01-31", b"soon")],
        """input "joined" of model "M": expected a datetime in ISO 8601, got 'soon' at index 1""",
    ),
}


@pytest.mark.parametrize("mode", MODES)
def test_an_error_of_a_table_is_one_message_on_each_route(server: Server, mode: str) -> None:
    for library in FRAMES:
        model = f"{library}-{mode}-customers"
        answers = answers_by_route(server, model, [inputs for inputs, _ in WRONG.values()])
        for index, (flaw, (_, message)) in enumerate(WRONG.items()):
            errors = [results[index] for results in answers.values()]
            assert all(isinstance(error, CallError) for error in errors), flaw
            statuses = [error.status for error in errors if isinstance(error, CallError)]
            assert statuses == [400, 400, "INVALID_ARGUMENT", "INVALID_ARGUMENT"], flaw
            texts = {str(error).partition(" (request ")[0] for error in errors}
            assert len(texts) == 1, flaw
            assert texts.pop().startswith(message.replace('"M"', f'"{model}"')), flaw


@pytest.mark.parametrize("mode", ["process", "worker"])
def test_a_table_with_a_default_may_be_left_out(server: Server, mode: str) -> None:
    x, model = _column("x", "FP64", 1.0), f"polars-{mode}-maybe"
    requests = [[x], [x, PLAN, AGE, JOINED], [x, PLAN]]
    for nothing, table, part in answers_by_route(server, model, requests).values():
        assert isinstance(nothing, InferResult)
        assert isinstance(table, InferResult)
        assert [r.outputs["output"].tolist() for r in (nothing, table)] == [[-1], [2]]
        assert isinstance(part, CallError)
        assert part.status in (400, "INVALID_ARGUMENT")
        missing = f'input "age", "joined" of model "{model}": missing from the request, which has '
        assert str(part).startswith(f'{missing}"plan"')


NAMES = _column("name", "BYTES", b"Ada", b"Bo")
CHOSEN = [_column("chosen", "BYTES", b"pro", b""), _column("chosen.nulls", "BOOL", False, True)]
PLANS = [_column("plan", "BYTES", b"pro"), _column("price", "FP64", 9.5)]


@pytest.mark.parametrize("mode", ["process", "worker"])
def test_tables_of_the_definition_are_frames_by_their_names(server: Server, mode: str) -> None:
    model = f"declared-{mode}"
    requests = [[NAMES, *CHOSEN, *PLANS], [NAMES, *PLANS], [NAMES, CHOSEN[0], *PLANS]]
    for joined, missing, refused in answers_by_route(server, model, requests).values():
        assert isinstance(joined, InferResult)
        assert joined.outputs["name"].tolist() == [b"Ada", b"Bo"]
        assert str(joined.outputs["price"].tolist()) == "[9.5, nan]"
        assert str(missing).startswith(f'input "chosen" of model "{model}": missing')
        value = 'expected one of "basic", "pro", got \'\' at index 1'
        assert str(refused).startswith(f'input "chosen" of model "{model}": {value}')
    short = [_column("name", "BYTES", b"Ada"), *CHOSEN, *PLANS]
    for [error] in answers_by_route(server, model, [short]).values():
        axis = 'axis "people": expected 1 as in input "name", got 2'
        assert str(error).startswith(f'input "chosen" of model "{model}": {axis}')


def test_null_in_json_is_refused_where_none_may_be(server: Server) -> None:
    tensors = {"plan": ("BYTES", ["pro"]), "age": ("INT64", [None]), "joined": ("BYTES", ["2025"])}
    inputs = [
        {"name": name, "datatype": datatype, "shape": [1], "data": data}
        for name, (datatype, data) in tensors.items()
    ]
    url = f"{server.url}/v2/models/pandas-process-customers/infer"
    answer = httpx.post(url, json={"inputs": inputs})
    assert answer.status_code == 400
    assert 'input "age" of model "pandas-process-customers": expected' in answer.json()["error"]
    assert "got null at index 0" in answer.json()["error"]
