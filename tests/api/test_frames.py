"""Frames as arguments: of a function in this process, and of a model on a server by each route."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from mlserver_pyfunc import Function, connect
from mlserver_pyfunc.errors import ContractError, ResponseError

CODE = """
import datetime
from typing import Annotated

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlserver_pyfunc import Columns, Tensor

Row = Columns(name=str, age=np.int32, visits=int | None, on=datetime.date)
Answer = Columns(name=str, visits=int | None, rate=float | None, raw=bytes)


def rate(people: Annotated[pd.DataFrame, Row], scale: float = 1.0) -> Annotated[
    pd.DataFrame, Answer
]:
    rates = scale * people.visits / people.age
    return people[["name", "visits"]].assign(rate=rates, raw=people.name)


def matrix(x: Annotated[pd.DataFrame, Columns(x=float)]) -> Annotated[
    NDArray[np.float64], Tensor("rows", 2)
]:
    return np.ones((len(x), 2))
"""
DATA = {
    "on": [datetime.date(2025, 1, 31), datetime.date(2025, 2, 1)],
    "name": ["Ada", "Zoë"],
    "age": [20, 50],
    "visits": [30, None],
}
EXPECTED = {
    "name": ["Ada", "Zoë"], "visits": [30, None], "rate": [3.0, None],
    "raw": [b"Ada", "Zoë".encode()],
}  # fmt: skip
VISITS = np.ma.MaskedArray([30, 0], [False, True])
ARRAYS = {"name": EXPECTED["name"], "age": [20, 50], "visits": VISITS, "on": ["2025-01-31"] * 2}
FRAMES = {
    "pandas": pd.DataFrame(DATA),
    "polars": pl.DataFrame(DATA),
    "pyarrow": pa.table(DATA),
}


def values(frame: Any) -> dict[str, list[Any]]:
    """Returns a frame's columns as lists, with None for null and NaN."""
    if isinstance(frame, pa.Table):
        columns = frame.to_pydict()
    else:
        columns = frame.to_dict("list") if hasattr(frame, "loc") else frame.to_dict(as_series=False)
    return {n: [None if pd.isna(x) else x for x in column] for n, column in columns.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    (folder / "model.py").write_text(CODE, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def rate(folder: Path) -> Iterator[Function]:
    with Function.load(f"{folder}/model.py:rate") as function:
        yield function


@pytest.mark.parametrize("library", FRAMES)
def test_a_function_takes_a_frame_and_gives_one(rate: Function, library: str) -> None:
    frame = FRAMES[library]
    answer = rate(frame, scale=2)
    assert type(answer) is type(frame)
    assert values(answer) == EXPECTED
    if library == "pandas":
        assert str(answer["visits"].dtype) == "Int64"
        answer.loc[0, "rate"] = 0.0
    by_name = rate(people=frame, scale=2.0)
    assert by_name["name"].tolist() == EXPECTED["name"]
    assert by_name["visits"].tolist() == EXPECTED["visits"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"age": [0.5, 1]}, r'input "age" of model "rate": expected INT32, got .* float64$'),
        ({"age": [2**40, 1]}, f'input "age" of model "rate": .* got {2**40}$'),
        ({"name": ["a", None]}, 'input "name" of model "rate": expected .* at index 1$'),
        ({"city": ["a", "b"]}, 'input "city" of model "rate": unknown, expected "name", '),
    ],
)
def test_a_column_that_is_not_the_input_is_named(rate: Function, change: Any, problem: str) -> None:
    with pytest.raises(ContractError, match=problem):
        rate(pd.DataFrame({**DATA, **change}))


def test_columns_of_one_name_are_refused(rate: Function) -> None:
    with pytest.raises(ContractError, match=r'a frame for model "rate": expected .* called "a"'):
        rate(pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_outputs_that_are_no_columns_are_no_frame(folder: Path) -> None:
    with Function.load(f"{folder}/model.py:matrix") as function:
        assert function({"x": [1.0]})["output"].tolist() == [[1, 1]]
        with pytest.raises(ResponseError, match=r"make a frame, got shapes \[1, 2\]: give the in"):
            function(pd.DataFrame({"x": [1.0]}))


def _call(url: str, options: dict[str, Any]) -> None:
    with connect(url, "rate", **options) as model:
        for frame in FRAMES.values():
            answer = model.infer(frame, scale=2.0)
            assert type(answer) is type(frame)
            assert values(answer) == EXPECTED
        arrays = model.infer(ARRAYS)
        assert arrays["name"].tolist() == EXPECTED["name"]
        assert arrays["raw"].tolist() == EXPECTED["raw"]


@pytest.mark.server
def test_a_model_on_a_server_takes_frames_by_every_route(rate: Function) -> None:
    with rate.serve() as server, ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for options in ({}, {"binary": True}, {"grpc": True}):
            url = f"grpc://{server.grpc_target}" if options.get("grpc") else server.url
            pool.submit(_call, url, options).result()
