"""What the contract's checks and the dispatch to the handler cost a request of W1.

python -m benchmarks.contract
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import uvloop
from mlserver.types import InferenceRequest

from mlserver_pyfunc.definition import parse
from mlserver_pyfunc.function import Function

CALLS = 5000
REPEATS = 7


def _function(code: str) -> Function:
    tensor = {"datatype": "FP32", "shape": [-1, 4]}
    definition = parse(
        {
            "source": {"code": code, "handler": "double"},
            "inputs": [{"name": "x", **tensor}],
            "outputs": [{"name": "y", **tensor}],
        }
    )
    return Function(definition, Path.cwd(), "w1")


def _microseconds(call: Callable[[], object]) -> float:
    runs = []
    for _ in range(REPEATS):
        started = time.process_time()
        for _ in range(CALLS):
            call()
        runs.append((time.process_time() - started) / CALLS * 1e6)
    return statistics.median(runs)


async def _infer_microseconds(function: Function, payload: InferenceRequest) -> float:
    runs = []
    for _ in range(REPEATS):
        started = time.process_time()
        for _ in range(CALLS):
            await function.infer(payload)
        runs.append((time.process_time() - started) / CALLS * 1e6)
    return statistics.median(runs)


async def main() -> None:
    data = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1.5, 2.5, 3.5, 4.5]}
    payload = InferenceRequest.model_validate({"inputs": [data]})
    results = {}
    for kind, code in (
        ("a thread", "def double(x): return x * 2"),
        ("the event loop", "async def double(x): return x * 2"),
    ):
        function = _function(code)
        await function.load()
        results[kind] = await _infer_microseconds(function, payload)
        contract = function.contract
    values = {"y": np.ones((1, 4), np.float32)}
    check_in = _microseconds(lambda: contract.decode_inputs(payload.inputs))
    check_out = _microseconds(lambda: contract.encode_outputs(values))
    print(f"decode and check the inputs:   {check_in:5.1f} us of CPU")
    print(f"check the outputs:             {check_out:5.1f} us")
    for kind, whole in results.items():
        print(f"all, with a handler on {kind}: {whole:5.1f} us")


if __name__ == "__main__":
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(main())
