"""Measures the CPU time of contract checks, of calling a handler, and of a million short strings.

    python -m benchmarks.contract

Checks and calls are those of W1 requests. Strings are decoded and encoded.
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
from mlserver_pyfunc.protocol import bytes_tensors, casting, tensors
from mlserver_pyfunc.serving.function import Function

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
    _strings()


def _strings() -> None:
    elements = [b"item-%d" % number for number in range(1_000_000)]
    strings = [element.decode() for element in elements]
    shape = [len(elements)]
    bytes_ = tensors.DATATYPES["BYTES"]
    array = casting.from_value(bytes_, elements)
    raw = tensors.to_raw(bytes_, array)
    ways: dict[str, Callable[[], object]] = {
        "raw contents in": lambda: tensors.from_raw(bytes_, tensors.RawTensor(raw), shape),
        "raw contents out": lambda: tensors.to_raw(bytes_, array),
        "JSON strings in": lambda: tensors.from_list(bytes_, strings, shape),
        "JSON strings out": lambda: bytes_tensors.to_json_bytes(array),
        "a handler's list of str, checked": lambda: casting.from_value(bytes_, strings),
    }
    print("a million strings of about 11 bytes, ms of CPU:")
    for name, way in ways.items():
        times = []
        for _ in range(REPEATS):
            started = time.process_time()
            way()
            times.append(time.process_time() - started)
        print(f"  {name + ':':33} {statistics.median(times) * 1e3:4.0f}")


if __name__ == "__main__":
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(main())
