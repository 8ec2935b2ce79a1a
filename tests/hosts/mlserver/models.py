"""The functions that the servers under test serve."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .wire import DTYPES

Definition = dict[str, Any]

SHAPES: dict[str, list[int]] = {
    "fixed": [2, 3],
    "any": [-1],
    "batch": [-1, 2],
    "scalar": [],
    "cube": [2, -1, 3],
}

ECHO = '''
def echo(inputs):
    """Gives back what it got, and says bit for bit what it saw."""
    seen = []
    for name, array in inputs.items():
        if array.dtype == object:
            bits = " ".join(f"{type(e).__name__}:{e.hex()}" for e in array.ravel().tolist())
        else:
            bits = array.tobytes().hex()
        seen.append(f"{name} {array.dtype} {list(array.shape)} {bits}")
    return {**inputs, "seen": "\\n".join(seen)}
'''

FLAKY = """
import sys
import threading

from mlserver_pyfunc import InferenceError


class Unsayable(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class Stop(BaseException):
    pass


def forever(depth=0):
    return forever(depth + 1)


def act(mode):
    what, _, argument = mode.item().partition(":")
    if what == "ok":
        return {"answer": argument}
    if what == "raise":
        raise ValueError(argument)
    if what == "inference_error":
        raise InferenceError(f"refused with {argument}", int(argument))
    if what == "exit":
        sys.exit(int(argument or 0))
    if what == "interrupt":
        raise KeyboardInterrupt
    if what == "generator exit":
        raise GeneratorExit
    if what == "base exception":
        raise Stop("enough")
    if what == "surrogate":
        raise ValueError("caf" + chr(0xDCE9))
    if what == "parameters":
        tensor = {"name": "answer", "datatype": "BYTES", "shape": [1], "data": ["a"]}
        return {"outputs": [tensor], "parameters": eval(argument)}
    if what == "unsayable":
        raise Unsayable
    if what == "stop iteration":
        raise StopIteration("stop")
    if what == "recursion":
        return forever()
    if what == "none":
        return None
    if what == "lock":
        return threading.Lock()
    if what == "lock inside":
        return {"answer": threading.Lock()}
    if what == "shape":
        return {"answer": ["a", "b"]}
    if what == "generator":
        return (word for word in ["a", "b"])
    if what == "unknown output":
        return {"answer": "a", "extra": "b"}
    if what == "missing output":
        return {}
    raise AssertionError(f"no such mode: {mode}")


async def act_async(mode):
    return act(mode)
"""

SLOW = """
import asyncio
import time


def sleep(seconds):
    time.sleep(seconds.item())
    return seconds


async def sleep_async(seconds):
    await asyncio.sleep(seconds.item())
    return seconds
"""

STREAMS = """
import asyncio
import pathlib
import time

from mlserver_pyfunc import InferenceError


def count(upto, fail_at, mark):
    try:
        for n in range(upto.item()):
            if fail_at is not None and n == fail_at.item():
                raise InferenceError(f"no {n} today", 409)
            yield n
            time.sleep(0.001)
    finally:
        if mark is not None:
            pathlib.Path(mark.item()).write_text("closed")


async def count_async(upto, fail_at, mark):
    try:
        for n in range(upto.item()):
            if fail_at is not None and n == fail_at.item():
                raise ValueError(f"no {n} today")
            yield n
            await asyncio.sleep(0.001)
    finally:
        if mark is not None:
            pathlib.Path(mark.item()).write_text("closed")
"""

CONVERT = """
def convert(x):
    if x.size and x[0] == 7:
        return {"whole": [1.7], "small": [1], "rows": [[1.0, 2.0]]}
    if x.size and x[0] == 8:
        return {"whole": [1], "small": [300], "rows": [[1.0, 2.0]]}
    if x.size and x[0] == 9:
        return {"whole": [1], "small": [3], "rows": [[1.0, 2.0], [3.0]]}
    if x.size and x[0] == 10:
        return {"whole": x, "small": [3], "rows": [[1.0, 2.0]]}
    return {"whole": x.astype("int32"), "small": [3], "rows": x.astype("float64").reshape(-1, 1)}
"""

NONFINITE = """
def handler(n):
    values = [1.5, float("nan"), float("inf"), -float("inf")]
    return {name: values for name in ("fp16", "fp32", "fp64")}
"""

INSPECT = """
import json


def handler(request, headers):
    seen = {
        "id": request.id,
        "parameters": dict(request.parameters),
        "trace": headers["x-trace"],
        "unit": request.inputs[0].parameters["unit"],
        "requested": request.outputs,
    }
    return {"seen": json.dumps(seen)}
"""

PROTOCOL_FORM = """
def handler(x):
    y = {"name": "y", "datatype": "INT64", "shape": list(x.shape), "data": (x * 2).tolist()}
    return {"parameters": {"note": "doubled"}, "outputs": [y]}
"""


def tensor(name: str, datatype: str, shape: list[int], **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, **more}


def tensor_name(datatype: str, kind: str) -> str:
    return f"{datatype.lower()}_{kind}"


_EVERY = [
    tensor(tensor_name(datatype, kind), datatype, shape, optional=True)
    for datatype in DTYPES
    for kind, shape in SHAPES.items()
]
_MODE = {
    "inputs": [tensor("mode", "BYTES", [1], content_type="str")],
    "outputs": [tensor("answer", "BYTES", [1])],
}
_SECONDS = {
    "inputs": [tensor("seconds", "FP64", [1])],
    "outputs": [tensor("slept", "FP64", [1])],
}
_COUNT = {
    "inputs": [
        tensor("upto", "INT64", [1]),
        tensor("fail_at", "INT64", [1], optional=True),
        tensor("mark", "BYTES", [1], optional=True, content_type="str"),
    ],
    "outputs": [tensor("n", "INT64", [1])],
}


def inline(code: str, handler: str, more: Mapping[str, Any], **serving: Any) -> Definition:
    return {"source": {"code": code, "handler": handler}, "serving": serving, **more}


MODELS: dict[str, Definition] = {
    "echo": inline(
        ECHO, "echo", {"inputs": _EVERY, "outputs": [*_EVERY, tensor("seen", "BYTES", [])]}
    ),
    "strict": inline(
        "def handler(inputs):\n"
        "    return {'sum': inputs['x'].sum(axis=1), 'rows': len(inputs['x'])}",
        "handler",
        {
            "inputs": [
                tensor("x", "FP32", [-1, 4]),
                *(tensor(datatype.lower(), datatype, [-1], optional=True) for datatype in DTYPES),
                tensor("text", "BYTES", [1], optional=True, content_type="str"),
                tensor("number", "INT32", [], optional=True),
            ],
            "outputs": [tensor("sum", "FP32", [-1]), tensor("rows", "INT64", [1])],
        },
    ),
    "convert": inline(
        CONVERT,
        "convert",
        {
            "inputs": [tensor("x", "FP32", [-1])],
            "outputs": [
                tensor("whole", "INT64", [-1]),
                tensor("small", "UINT8", [1]),
                tensor("rows", "FP32", [-1, -1]),
            ],
        },
    ),
    "nonfinite": inline(
        NONFINITE,
        "handler",
        {
            "inputs": [tensor("n", "INT64", [1])],
            "outputs": [tensor(name.lower(), name, [-1]) for name in ("FP16", "FP32", "FP64")],
        },
    ),
    "upper": inline(
        "def handler(text):\n    return [word.upper() for word in text]",
        "handler",
        {
            "inputs": [tensor("text", "BYTES", [-1], content_type="str")],
            "outputs": [tensor("upper", "BYTES", [-1])],
        },
    ),
    "inspect": inline(
        INSPECT,
        "handler",
        {"inputs": [tensor("x", "INT64", [1])], "outputs": [tensor("seen", "BYTES", [])]},
    ),
    "protocol-form": inline(
        PROTOCOL_FORM,
        "handler",
        {"inputs": [tensor("x", "INT64", [-1])], "outputs": [tensor("y", "INT64", [-1])]},
    ),
    "versioned": inline(
        "def handler(x, n):\n    return {'y': x, 'm': n}",
        "handler",
        {
            "model_version": "1",
            "inputs": [
                tensor("x", "FP32", [-1], optional=True),
                tensor("n", "INT64", [-1], optional=True),
            ],
            "outputs": [
                tensor("y", "FP32", [-1], optional=True),
                tensor("m", "INT64", [-1], optional=True),
            ],
        },
    ),
    "flaky": inline(FLAKY, "act", _MODE, concurrency=4),
    "flaky-async": inline(FLAKY, "act_async", _MODE, concurrency=4),
    "narrow": inline(SLOW, "sleep", _SECONDS, concurrency=1, max_queue=1, timeout=250),
    "narrow-async": inline(SLOW, "sleep_async", _SECONDS, concurrency=1, max_queue=1, timeout=250),
    "hasty": inline(SLOW, "sleep", _SECONDS, timeout=0.4),
    "hasty-async": inline(SLOW, "sleep_async", _SECONDS, timeout=0.4),
    "blocker": inline(SLOW, "sleep", _SECONDS, concurrency=2),
    "writes-to-its-input": inline(
        "def handler(x):\n    x[0] = 1\n    return x",
        "handler",
        {"inputs": [tensor("x", "FP32", [-1])], "outputs": [tensor("y", "FP32", [-1])]},
    ),
    "count": inline(STREAMS, "count", _COUNT, concurrency=4),
    "count-async": inline(STREAMS, "count_async", _COUNT, concurrency=4),
    "count-isolated": inline(STREAMS, "count", _COUNT, isolation="process"),
    "count-threads-isolated": inline(STREAMS, "count", _COUNT, isolation="process", concurrency=4),
    "count-async-isolated": inline(
        STREAMS, "count_async", _COUNT, isolation="process", concurrency=4
    ),
}


def write_model(folder: Path, definition: Definition | None, **settings: Any) -> None:
    """Writes a model's folder: model-settings.json, and function.yaml where there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    implementation = {"implementation": "mlserver_pyfunc.PyFuncRuntime"}
    (folder / "model-settings.json").write_text(json.dumps({**implementation, **settings}))
    if definition is not None:
        # JSON is YAML.
        (folder / "function.yaml").write_text(json.dumps(definition))


def write_repository(folder: Path, models: Mapping[str, Definition]) -> None:
    for name, definition in models.items():
        write_model(folder / name, definition)
