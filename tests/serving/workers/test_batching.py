"""Requests joined into one call: in process and isolated alike."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mlserver_pyfunc.errors import (
    ContractError,
    HandlerError,
    InferenceError,
    LoadError,
    OverloadedError,
    ResponseError,
    TimeLimitError,
)
from mlserver_pyfunc.serving.function import Function

from .functions import X, Y, loaded, request

BATCH = {"max_size": 8, "max_delay_ms": 20}

# Each answer tells how many rows its call had.
HANDLER = """
import time
from mlserver_pyfunc import InferenceError

def handler(x):
    time.sleep(0.3)
    if (x == -1).any():
        raise InferenceError("a bad row", 400)
    if (x == -2).any():
        raise ValueError("a worse row")
    return {"y": x * 2, "rows": [len(x)] * len(x)}
"""
OUTPUTS = [*Y, {"name": "rows", "datatype": "INT64", "shape": [-1]}]


@pytest.fixture(params=["none", "process"])
def isolation(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"isolation": request.param, "batch": BATCH, "outputs": OUTPUTS}


async def infer(function: Function, *values: float, **more: Any) -> tuple[list[float], list[int]]:
    answer = await function.infer(request(*values, **more))
    arrays = {named.spec.name: named.array for named in answer.arrays}
    return arrays["y"].tolist(), arrays["rows"].tolist()


async def together(function: Function, *requests: tuple[float, ...]) -> list[Any]:
    """Sends requests while another runs, so that they wait."""
    first = asyncio.ensure_future(infer(function, 100))
    await asyncio.sleep(0.02)
    calls = [asyncio.ensure_future(infer(function, *values)) for values in requests]
    assert (await first)[0] == [200]
    return list(await asyncio.gather(*calls, return_exceptions=True))


async def test_inputs_of_a_batch_are_read_only(isolation: Any) -> None:
    code = f"{HANDLER}\ndef check(x):\n    assert not x.flags.writeable\n    return handler(x)\n"
    async with loaded(code, "check", **isolation) as function:
        assert await together(function, (1,), (2, 3)) == [([2], [3]), ([4, 6], [3, 3])]


async def test_requests_that_wait_share_a_call_and_get_their_own_rows(isolation: Any) -> None:
    async with loaded(HANDLER, **isolation) as function:
        answers = await together(function, (1,), (2, 3), (4, 5, 6), ())
        assert answers == [
            ([2], [6]),
            ([4, 6], [6, 6]),
            ([8, 10, 12], [6, 6, 6]),
            ([], []),
        ]


async def test_a_call_has_no_more_rows_than_it_may(isolation: Any) -> None:
    async with loaded(HANDLER, **isolation) as function:
        answers = await together(function, *[(n, n, n) for n in range(7)], tuple(range(20)))
        for n, (values, _) in enumerate(answers[:7]):
            assert values == [2 * n] * 3
        assert max(max(rows) for _, rows in answers[:7]) <= 8
        assert answers[7] == ([2 * n for n in range(20)], [20] * 20), "too big alone, and so alone"


async def test_a_bad_request_fails_alone(isolation: Any) -> None:
    async with loaded(HANDLER, **isolation) as function:
        answers = await together(function, (1,), (-1,), (2,), (-2,), (3,))
        assert [answers[n][0] for n in (0, 2, 4)] == [[2], [4], [6]]
        assert isinstance(answers[1], InferenceError)
        assert isinstance(answers[3], HandlerError)
        broken = request(1)
        broken.inputs[0].datatype = "FP64"
        with pytest.raises(ContractError):
            await function.infer(broken)


async def test_a_response_that_breaks_the_contract_fails_its_own_request_alone(
    isolation: Any,
) -> None:
    isolation["inputs"] = [{**X[0], "datatype": "FP64"}]
    async with loaded(HANDLER, **isolation) as function:

        async def one(value: float) -> Any:
            answer = await function.infer(request(x=np.array([float(value)])))
            return answer.arrays[0].array.tolist()

        first = asyncio.ensure_future(one(0))
        await asyncio.sleep(0.02)
        calls = [one(1), one(1e300), one(2), one(3)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [answers[0], *answers[2:]] == [[2], [4], [6]]
        assert isinstance(answers[1], ResponseError)
        assert await first == [0]


async def test_members_that_run_again_are_not_refused(isolation: Any) -> None:
    isolation["batch"] = {"max_size": 4, "max_delay_ms": 20}
    async with loaded(HANDLER, concurrency=2, max_queue=4, **isolation) as function:
        blockers = [asyncio.ensure_future(infer(function, n)) for n in (100, 101)]
        await asyncio.sleep(0.05)
        values = [1, 2, 3, -2]
        calls = [asyncio.ensure_future(infer(function, n)) for n in values]
        await asyncio.gather(*blockers)
        # Two batches run at a time now, and their members are more than may wait.
        calls += [asyncio.ensure_future(infer(function, n)) for n in values]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for start in (0, 4):
            assert [answer[0] for answer in answers[start : start + 3]] == [[2], [4], [6]]
            assert isinstance(answers[start + 3], HandlerError)


async def test_a_member_that_is_cancelled_leaves_the_queue(isolation: Any) -> None:
    async with loaded(HANDLER, max_queue=2, **isolation) as function:
        first = asyncio.ensure_future(infer(function, 100))
        await asyncio.sleep(0.02)
        calls = [asyncio.ensure_future(infer(function, n)) for n in range(2)]
        await asyncio.sleep(0.02)
        with pytest.raises(OverloadedError):
            await infer(function, 3)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        others = [asyncio.ensure_future(infer(function, n)) for n in (4, 5)]
        assert [(await other)[0] for other in others] == [[8], [10]]
        assert (await first)[0] == [200]


async def test_a_client_that_leaves_harms_nobody(isolation: Any) -> None:
    async with loaded(HANDLER, **isolation) as function:
        first = asyncio.ensure_future(infer(function, 100))
        await asyncio.sleep(0.02)
        calls = [asyncio.ensure_future(infer(function, n)) for n in range(4)]
        await asyncio.sleep(0.02)
        calls[0].cancel()
        await first
        await asyncio.sleep(0.02)
        calls[2].cancel()
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(done[0], asyncio.CancelledError)
        assert isinstance(done[2], asyncio.CancelledError)
        assert [done[1][0], done[3][0]] == [[2], [6]]
        assert (await infer(function, 5))[0] == [10]


async def test_a_lone_request_does_not_wait(isolation: Any) -> None:
    isolation["batch"] = {"max_size": 8, "max_delay_ms": 120_000}
    async with loaded(HANDLER, **isolation) as function:
        for _ in range(3):
            started = time.monotonic()
            await infer(function, 1)
            assert time.monotonic() - started < 60


async def test_requests_that_come_together_are_joined_when_some_were_before(
    isolation: Any,
) -> None:
    isolation["batch"] = {"max_size": 8, "max_delay_ms": 500}
    async with loaded(HANDLER, **isolation) as function:
        await together(function, (1,), (2,), (3,))
        answers = await asyncio.gather(*(infer(function, n) for n in range(3)))
        assert [rows for _, rows in answers] == [[3]] * 3


OPTIONAL = """
import time

def handler(x, z=None, parameters=None):
    time.sleep(0.3)
    seen = sorted(parameters.items())
    return {"y": x.sum(axis=1), "rows": [len(x)] * len(x)}
"""
OPTIONAL_INPUTS = [
    {"name": "x", "datatype": "FP32", "shape": [-1, -1]},
    {"name": "z", "datatype": "FP32", "shape": [-1], "optional": True},
]


async def test_only_requests_that_are_alike_are_joined(isolation: Any) -> None:
    async with loaded(OPTIONAL, inputs=OPTIONAL_INPUTS, **isolation) as function:

        async def rows(width: int, parameters: Any = None, **more: Any) -> list[int]:
            payload = request(x=np.ones((1, width), dtype=np.float32), **more)
            payload.parameters = parameters
            answer = await function.infer(payload)
            assert answer.arrays[0].array.tolist() == [width]
            return answer.arrays[1].array.tolist()

        z = np.ones(1, dtype=np.float32)
        first = asyncio.ensure_future(rows(9))
        await asyncio.sleep(0.02)
        found = await asyncio.gather(
            rows(2), rows(3), rows(2), rows(2, z=z), rows(2, {"k": 1}), rows(2, {"k": 1})
        )
        await first
        assert found == [[2], [1], [2], [1], [2], [2]]


async def test_rows_must_agree_between_inputs(isolation: Any) -> None:
    async with loaded(OPTIONAL, inputs=OPTIONAL_INPUTS, **isolation) as function:
        payload = request(x=np.ones((2, 1), dtype=np.float32), z=np.ones(3, dtype=np.float32))
        with pytest.raises(ContractError, match=r'"z" .*expected 2 rows, as "x" has .*got 3'):
            await function.infer(payload)


async def test_an_output_of_other_rows_is_an_error_and_nobodys_data(isolation: Any) -> None:
    code = "def handler(x):\n    return {'y': x[:3], 'rows': [len(x)] * len(x)}"
    async with loaded(code, **isolation) as function:
        with pytest.raises(ResponseError, match=r'output "y".*expected 4 rows.*got 3'):
            await infer(function, 1, 2, 3, 4)
        assert (await infer(function, 1))[0] == [1]


async def test_bytes_are_joined_too(isolation: Any) -> None:
    words = [{"name": "x", "datatype": "BYTES", "shape": [-1], "content_type": "str"}]
    outputs = [{"name": "y", "datatype": "BYTES", "shape": [-1]}]
    code = "import time\ndef handler(x):\n    time.sleep(0.05)\n    return [w.upper() for w in x]\n"
    isolation = {**isolation, "outputs": outputs, "inputs": words}
    async with loaded(code, **isolation) as function:

        async def upper(word: str) -> list[bytes]:
            tensor = SimpleNamespace(
                name="x", datatype="BYTES", shape=[1], data=[word], parameters=None
            )
            payload = SimpleNamespace(id="", parameters=None, inputs=[tensor], outputs=None)
            answer = await function.infer(payload)
            return [w.encode() if isinstance(w, str) else w for w in answer.arrays[0].array]

        words_sent = ["a", "", "héllo", "x" * 1000]
        found = await asyncio.gather(*map(upper, words_sent))
        assert found == [[word.upper().encode()] for word in words_sent]


async def test_what_waits_is_bounded_in_number_and_time(isolation: Any) -> None:
    code = HANDLER.replace("0.3", "2")
    isolation["batch"] = {"max_size": 2, "max_delay_ms": 1}
    async with loaded(code, max_queue=4, timeout=3.2, **isolation) as function:
        first = asyncio.ensure_future(infer(function, 0))
        await asyncio.sleep(0.05)
        calls = [asyncio.ensure_future(infer(function, n)) for n in range(6)]
        done = await asyncio.gather(*calls, return_exceptions=True)
        await first
        kinds = [type(answer) for answer in done]
        assert kinds[4:] == [OverloadedError] * 2
        assert kinds[2:4] == [TimeLimitError] * 2


async def test_requests_that_wait_are_answered_before_an_unload(isolation: Any) -> None:
    async with loaded(HANDLER, **isolation) as function:
        calls = [asyncio.ensure_future(infer(function, n)) for n in range(20)]
        await asyncio.sleep(0.02)
        closing = asyncio.ensure_future(function.close())
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match="is not loaded"):
            await infer(function, 20)
        await closing
    answers = await asyncio.gather(*calls)
    assert [values for values, _ in answers] == [[2 * n] for n in range(20)]


@pytest.mark.parametrize(
    ("more", "cause"),
    [
        ({"inputs": [{"name": "x", "datatype": "FP32", "shape": [4]}]}, 'input "x": expected a'),
        ({"outputs": [{"name": "y", "datatype": "FP32", "shape": []}]}, 'output "y": expected a'),
        ({"code": "def handler(x):\n    yield x"}, "the handler streams"),
        ({"code": "def handler(x, headers): pass"}, 'the handler takes "headers"'),
        ({"code": "def handler(x, request): pass"}, 'the handler takes "request"'),
        ({"code": "def handler(event): pass"}, 'the handler takes "event"'),
    ],
)
async def test_what_cannot_be_joined_does_not_load(
    more: dict[str, Any], cause: str, isolation: dict[str, Any]
) -> None:
    fields = {**isolation, "outputs": Y, "inputs": X, "code": HANDLER, **more}
    with pytest.raises(LoadError, match=f"serving.batch: {cause}"):
        async with loaded(**fields):
            pass


async def test_every_answer_is_for_its_own_request(isolation: Any) -> None:
    code = "def handler(x):\n    return {'y': x * 2, 'rows': [len(x)] * len(x)}"
    async with loaded(code, max_queue=1000, **isolation) as function:
        rng = np.random.default_rng(0)
        sizes = rng.integers(0, 6, 400)

        async def one(n: int, size: int) -> None:
            await asyncio.sleep(float(rng.random()) * 0.2)
            values = [1000.0 * n + k for k in range(size)]
            assert (await infer(function, *values))[0] == [2 * value for value in values]

        await asyncio.gather(*(one(n, int(size)) for n, size in enumerate(sizes)))
