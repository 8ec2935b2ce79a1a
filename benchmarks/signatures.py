"""Measures the CPU time that annotations cost a call: scalars, lists and objects beside arrays.

    python -m benchmarks.signatures

Each handler gets the same values and returns one of them. Its call has the steps between a request
and its answer, without a server: decode, convert, call, read the result, check it.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlserver_pyfunc.definition import parse
from mlserver_pyfunc.handler.call import InferenceCall
from mlserver_pyfunc.handler.loading import HandlerLoader, HandlerSpec
from mlserver_pyfunc.handler.metrics import Metrics
from mlserver_pyfunc.handler.results import name_values
from mlserver_pyfunc.protocol.contract import Contract
from mlserver_pyfunc.protocol.request import InferenceRequest

CALLS = 3000
REPEATS = 7

IMPORTS = """
from dataclasses import dataclass
from typing import NamedTuple, TypedDict
import numpy as np
import pydantic
"""
FIELDS = "    a: float\n    b: float\n    n: int\n"
TENSORS = [
    {"name": "a", "datatype": "FP64", "shape": [1]},
    {"name": "b", "datatype": "FP64", "shape": [1]},
    {"name": "n", "datatype": "INT64", "shape": [1]},
]
SCALARS = {"a": 1.5, "b": 2.5, "n": 3}
LIST = [{"name": "a", "datatype": "FP64", "shape": [-1]}]
THOUSAND = {"a": [float(number) for number in range(1000)]}
CASES: Mapping[str, tuple[str, list[dict[str, Any]], dict[str, Any]]] = {
    "three arrays of one element": ("def f(a, b, n): return a", TENSORS, SCALARS),
    "the same, annotated np.ndarray": (
        "def f(a: np.ndarray, b: np.ndarray, n: np.ndarray): return a", TENSORS, SCALARS,
    ),
    "three scalars": ("def f(a: float, b: float, n: int): return a", TENSORS, SCALARS),
    "a TypedDict": (
        f"class R(TypedDict):\n{FIELDS}def f(r: R): return r['a']", TENSORS, SCALARS,
    ),
    "a NamedTuple": (f"class R(NamedTuple):\n{FIELDS}def f(r: R): return r.a", TENSORS, SCALARS),
    "a dataclass": (f"@dataclass\nclass R:\n{FIELDS}def f(r: R): return r.a", TENSORS, SCALARS),
    "a pydantic model": (
        f"class R(pydantic.BaseModel):\n{FIELDS}def f(r: R): return r.a", TENSORS, SCALARS,
    ),
    "an array of 1,000": ("def f(a): return a[:1]", LIST, THOUSAND),
    "a list of 1,000": ("def f(a: list[float]): return a[:1]", LIST, THOUSAND),
}  # fmt: skip


def microseconds(code: str, inputs: list[dict[str, Any]], values: dict[str, Any]) -> float:
    """Returns the CPU time of a call in microseconds: the median of several runs."""
    outputs = [{"name": "y", "datatype": "FP64", "shape": [1]}]
    source = {"code": code, "handler": "f"}
    definition = parse({"source": source, "inputs": inputs, "outputs": outputs})
    keys = definition.model_dump(mode="json")
    inline = {"m": IMPORTS + code}
    spec = HandlerSpec("m", None, keys, definition.written, {}, Path.cwd(), "m", inline)
    context = spec.new_context(logging.getLogger(), Metrics(print))
    loader = HandlerLoader(spec, context)
    for _, step in loader.load_steps():
        step()
    plan, contract = loader.plan, Contract("m", *loader.tensors)
    assert plan is not None
    request = InferenceRequest.from_values(contract, values)
    runs = []
    for _ in range(REPEATS):
        started = time.process_time()
        for _ in range(CALLS):
            arrays = contract.decode_inputs(request.inputs)
            named = name_values(
                contract, plan(InferenceCall(context, arrays, contract.inputs, request))
            )
            contract.encode_outputs(named.values)
        runs.append((time.process_time() - started) / CALLS * 1e6)
    loader.close()
    return statistics.median(runs)


def main() -> None:
    print("| The handler takes | µs a call |\n|---|---|")
    for name, case in CASES.items():
        print(f"| {name} | {microseconds(*case):.1f} |")


if __name__ == "__main__":
    main()
