"""Which devices each worker sees."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from mlserver_pyfunc.definition import parse
from mlserver_pyfunc.errors import DefinitionError

from .functions import call, children, definition, loaded, until

VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
CODE = f"""
import os, time

def handler(x, context):
    if x[0]:
        os._exit(1)
    time.sleep(0.2)
    seen = [os.environ.get(name) for name in {VARIABLES}]
    return {{"seen": [repr(seen), context.device]}}
"""
SEEN = [{"name": "seen", "datatype": "BYTES", "shape": [2]}]


@pytest.fixture(autouse=True)
def no_device_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


async def seen(function: Any, workers: int) -> dict[str, list[str]]:
    """What each worker sees, by its `context.device`."""
    answers = await asyncio.gather(*(call(function, 0) for _ in range(workers * 2)))
    return {device.decode(): eval(text) for text, device in (each.tolist() for each in answers)}


@pytest.mark.parametrize(
    ("devices", "workers", "expected"),
    [
        ([0, 1], 2, {"0": "0", "1": "1"}),
        ([3], 2, {"3": "3"}),
        ([0, 1, 2, 3], 2, {"0,2": "0,2", "1,3": "1,3"}),
        ({"per_worker": 1}, 2, {"0": "0", "1": "1"}),
        ({"per_worker": 2}, 1, {"0,1": "0,1"}),
        ([], 1, {"": None}),
    ],
)
async def test_each_worker_sees_its_own_also_after_it_was_replaced(
    devices: Any, workers: int, expected: dict[str, str | None]
) -> None:
    sides = {"outputs": SEEN, "devices": devices, "workers": workers}
    wanted = {device: [text] * 3 for device, text in expected.items()}
    async with loaded(CODE, **sides) as function:
        assert await seen(function, workers) == wanted
        before = {child.pid for child in children()}
        for child in children():
            child.kill()
        await until(lambda: len({each.pid for each in children()} - before) == workers)
        await until(lambda: f"{workers} of {workers} up" in function.metadata["workers"])
        assert await seen(function, workers) == wanted


async def test_numbers_count_what_the_server_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b")
    async with loaded(CODE, outputs=SEEN, devices=[1]) as function:
        assert await seen(function, 1) == {"1": ["GPU-b", "1", "1"]}


@pytest.mark.parametrize(
    ("devices", "workers", "count"),
    [([0, 1], 1, 2), ([0, 1], 4, 2), ([5, 5], 2, 1), ({"per_worker": 2}, 3, 6), ([], 4, 0)],
)
def test_the_devices_of_all_workers_are_counted(devices: Any, workers: int, count: int) -> None:
    given = definition(CODE, devices=devices, workers=workers)
    assert parse(given).serving.device_count == count


@pytest.mark.parametrize(
    ("devices", "message"),
    [
        (2, "serving.devices: expected a list, got 2"),
        (["cuda:0"], 'serving.devices.0: expected a whole number, got "cuda:0"'),
        ([-1], "serving.devices.0: expected at least 0, got -1"),
        ({"per_worker": 0}, "serving.devices.per_worker: expected at least 1, got 0"),
    ],
)
def test_wrong_devices_are_told_in_our_words(devices: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=re.escape(message)):
        parse({"source": "model.py", "serving": {"isolation": "process", "devices": devices}})
