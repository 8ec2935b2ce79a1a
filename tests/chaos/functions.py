"""What the server under chaos serves: each function doubles its input, and does what a call asks.

The input `x` has four columns of whole numbers, so that FP32 is exact: the number of the call, a
deed, the deed's argument, and chance. All rows have the number: an answer cannot be another call's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.hosts.mlserver.models import tensor, write_model

COLUMNS = 4
SLEEP, RAISE, REFUSE, EXIT, ABORT, SPAWN, BREAK, PRINT, HANG, KEEP, COLLECT = range(1, 12)
"""Deeds. HANG sleeps past the time limit, SPAWN starts a process that outlives the call, BREAK
breaks the contract, KEEP keeps the input and looks at it in a later call, COLLECT frees what nobody
holds."""

CODE = '''
import asyncio
import ctypes
import gc
import os
import subprocess
import sys
import time

import numpy as np

from mlserver_pyfunc import InferenceError


def setup(context):
    parameters = context.init_parameters
    context.kept = []
    context.journal = os.open(parameters["journal"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    if parameters.get("plant"):
        sys.path.append(parameters["root"])
        from tests.chaos import plants

        plants.plant(parameters["plant"])


def teardown(context):
    os.close(context.journal)


def act(context, x, words):
    """Returns how long to sleep."""
    number, deed, argument = (int(value) for value in x[0, :3])
    os.write(context.journal, number.to_bytes(8, "little"))
    if deed in (1, 9):
        return argument / 1000
    if deed == 2:
        raise ValueError(f"as asked {number}")
    if deed == 3:
        raise InferenceError(f"refused as asked {number}", 409)
    if deed == 4:
        os._exit(argument)
    if deed == 5:
        os.abort()
    if deed == 6:
        command = ["/bin/sleep", context.init_parameters["sleep"]]
        env = {} if context.init_parameters["hides"] else None
        subprocess.Popen(command, env=env, start_new_session=True)
    if deed == 8:
        print(f"one of many lines {number}")
    if deed == 11:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
    if deed == 10:
        for kept, copy in context.kept:
            if not np.array_equal(kept, copy):
                raise RuntimeError("a kept input has changed")
        # What is kept in the server's process would look like a leak.
        if context.init_parameters["isolated"] or len(x) < 100:
            context.kept = [*context.kept[-2:], (x, x.copy())]
    return 0


def answer(x, words):
    breaks = int(x[0, 1]) == 7
    y = x[:, :3] if breaks else x * 2
    return {"y": y} if words is None else {"y": y, "said": words}


def handler(x, words, context):
    time.sleep(act(context, x, words))
    return answer(x, words)


async def handler_async(x, words, context):
    await asyncio.sleep(act(context, x, words))
    return answer(x, words)


def rows(x, context):
    for row in range(len(x)):
        time.sleep(act(context, x[row:], None))
        if int(x[row, 1]) == 7:
            return {"y": x[:, :3]}
    return {"y": x * 2}


def stream(x, words, context):
    count = 1 + int(x[0, 0]) % 5
    for item in range(count):
        if item == count - 1:
            time.sleep(act(context, x, words))
        yield {**answer(x, words), "y": answer(x, words)["y"] + item}


async def stream_async(x, words, context):
    count = 1 + int(x[0, 0]) % 5
    for item in range(count):
        if item == count - 1:
            await asyncio.sleep(act(context, x, words))
        yield {**answer(x, words), "y": answer(x, words)["y"] + item}
'''


@dataclass(frozen=True)
class Subject:
    """A function under chaos.

    Attributes:
        handler: Name of the handler.
        serving: Keys of `serving`.
        churns: Whether it is unloaded at times.
    """

    handler: str
    serving: Mapping[str, Any]
    churns: bool = False

    @property
    def streams(self) -> bool:
        return self.handler.startswith("stream")

    @property
    def batches(self) -> bool:
        return "batch" in self.serving

    @property
    def isolated(self) -> bool:
        return self.serving.get("isolation") == "process"

    @property
    def workers(self) -> int:
        return self.serving.get("workers", 1) if self.isolated else 0

    @property
    def timeout(self) -> float:
        seconds: float = self.serving["timeout"]
        return seconds


_HERE = {"timeout": 5, "max_queue": 64}
_APART = {**_HERE, "isolation": "process"}
_BATCH = {"batch": {"max_size": 64, "max_delay_ms": 3}}
SUBJECTS = {
    "here": Subject("handler", {**_HERE, "concurrency": 2}),
    "here-async": Subject("handler_async", {**_HERE, "concurrency": 8}),
    "here-batched": Subject("rows", {**_HERE, **_BATCH}),
    "here-stream": Subject("stream", {**_HERE, "concurrency": 4}),
    "pair": Subject("handler", {**_APART, "workers": 2}),
    "alone": Subject("handler", {**_APART, "max_requests": 500}),
    "threads": Subject("handler", {**_APART, "concurrency": 4, "idempotent": True}),
    "async": Subject("handler_async", {**_APART, "concurrency": 8}),
    "batched": Subject("rows", {**_APART, **_BATCH, "workers": 2}),
    "stream": Subject("stream", {**_APART, "workers": 2}),
    "stream-async": Subject("stream_async", {**_APART, "concurrency": 4}),
    "churn": Subject("handler", _APART, churns=True),
}
WORKERS = sum(subject.workers for subject in SUBJECTS.values())


def write(folder: Path, journals: Path, sleep: str, hides: bool, plant: str) -> None:
    """Writes the model repository.

    Args:
        folder: Folder for the models.
        journals: Folder for the numbers of the calls that each model has begun.
        sleep: Seconds that a process sleeps that a call has started.
        hides: Whether that process has an empty environment.
        plant: Defect that `here` plants into the server's process; empty for none.
    """
    for name, subject in SUBJECTS.items():
        parameters = {"journal": str(journals / name), "sleep": sleep, "hides": hides}
        parameters["isolated"] = subject.isolated
        if plant and name == "here":
            parameters |= {"plant": plant, "root": str(Path(__file__).parents[2])}
        words = [] if subject.batches else [tensor("words", "BYTES", [-1], optional=True)]
        said = [] if subject.batches else [tensor("said", "BYTES", [-1], optional=True)]
        functions = {"init_function": "setup", "unload_function": "teardown"}
        source = {"code": CODE, "handler": subject.handler, **functions}
        definition = {
            "source": source,
            "init_parameters": parameters,
            "inputs": [tensor("x", "FP32", [-1, COLUMNS]), *words],
            "outputs": [tensor("y", "FP32", [-1, COLUMNS]), *said],
            "serving": json.loads(json.dumps(subject.serving)),
        }
        write_model(folder / name, definition)
