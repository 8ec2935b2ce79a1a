"""Named axes by every way of running a handler: in process and isolated, alone and in batches."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from mlserver_pyfunc.errors import ContractError, LoadError, ResponseError
from mlserver_pyfunc.serving.function import Function

from .functions import loaded, request

SHAPES = {
    "inputs": [
        {"name": "a", "datatype": "INT64", "shape": ["rows", "columns"]},
        {"name": "b", "datatype": "INT64", "shape": ["rows"]},
    ],
    "outputs": [{"name": "y", "datatype": "INT64", "shape": ["rows"]}],
}
ADD = "def handler(a, b):\n    return a.sum(axis=1) + b if b.size < 4 else b[1:]\n"
LATER = f"async {ADD}"
BOTH = pytest.mark.parametrize("isolation", ["none", "process"])


async def answer(function: Function, a: Any, b: Any) -> list[int]:
    sent = request(a=np.array(a), b=np.array(b))
    named = (await function.infer(sent)).arrays[0]
    values: list[int] = named.array.tolist()
    return values


@BOTH
@pytest.mark.parametrize("code", [ADD, LATER], ids=["sync", "async"])
async def test_sizes_are_compared_before_and_after_the_handler(isolation: str, code: str) -> None:
    async with loaded(code, **SHAPES, isolation=isolation) as function:
        assert await answer(function, [[1, 2], [3, 4]], [5, 6]) == [8, 13]
        with pytest.raises(ContractError, match=r'input "b" .* expected 2 as in input "a", got 3'):
            await answer(function, [[1], [2]], [3, 4, 5])
        with pytest.raises(ResponseError, match=r'output "y" .* expected 4 as in input "a", got 3'):
            await answer(function, [[1]] * 4, [1, 2, 3, 4])


@BOTH
@pytest.mark.parametrize("word", ["", "async "], ids=["sync", "async"])
async def test_each_item_of_a_stream_is_compared(isolation: str, word: str) -> None:
    code = f"{word}def handler(a, b):\n    yield b\n    yield b[1:]\n"
    async with loaded(code, **SHAPES, isolation=isolation) as function:
        items = function.stream(request(a=np.array([[1], [2]]), b=np.array([3, 4])))
        assert (await anext(items)).arrays[0].array.tolist() == [3, 4]
        with pytest.raises(ResponseError, match="expected 2 as in input"):
            await anext(items)
        await items.aclose()


@BOTH
async def test_a_handler_may_change_its_dictionary_of_inputs(isolation: str) -> None:
    code = "def handler(inputs):\n    del inputs['a']\n    return inputs.pop('b')\n"
    async with loaded(code, **SHAPES, isolation=isolation) as function:
        assert await answer(function, [[1], [2]], [3, 4]) == [3, 4]


@BOTH
async def test_requests_of_one_batch_each_have_their_own_rows(isolation: str) -> None:
    code = "import time\n\ndef handler(a, b):\n    time.sleep(0.1)\n    return a.sum(axis=1) + b\n"
    batch = {"max_size": 32, "max_delay_ms": 20}
    async with loaded(code, **SHAPES, isolation=isolation, batch=batch) as function:
        calls = [
            ([[1, 1]], [1]),
            ([[2, 2]] * 2, [2, 3]),
            ([[3], [3]], [3, 3]),
            ([[4, 4]] * 3, [4]),
        ]
        answers = await asyncio.gather(
            *(answer(function, *call) for call in calls), return_exceptions=True
        )
        assert answers[:3] == [[3], [6, 7], [6, 6]]
        assert isinstance(answers[3], ContractError)


async def test_an_axis_of_the_rows_that_stands_elsewhere_cannot_be_batched() -> None:
    outputs = [{"name": "y", "datatype": "INT64", "shape": ["rows", "rows"]}]
    shapes = {**SHAPES, "outputs": outputs, "batch": {"max_size": 4}}
    with pytest.raises(LoadError, match='"y": expected axis "rows" first in each shape'):
        async with loaded(ADD, **shapes):
            pass
