"""Loads functions in worker processes, without a server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil

from mlserver_pyfunc.definition import parse
from mlserver_pyfunc.serving.function import Function

Array = np.ndarray[Any, Any]

DOUBLE = "def handler(x):\n    return x * 2\n"

X = [{"name": "x", "datatype": "FP32", "shape": [-1]}]
Y = [{"name": "y", "datatype": "FP32", "shape": [-1]}]


def definition(code: str, handler: str = "handler", **more: Any) -> dict[str, Any]:
    """A definition of inline code from x to y; keys of `serving` and `source` go there."""
    source = {"code": code, "handler": handler}
    source.update({key: more.pop(key) for key in list(more) if key.endswith("_function")})
    fields = {"inputs": X, "outputs": Y}
    fields.update(
        {
            key: more.pop(key)
            for key in ("inputs", "outputs", "python_version", "requirements", "init_parameters")
            if key in more
        }
    )
    return {"source": source, "serving": {"isolation": "process", **more}, **fields}


@contextlib.asynccontextmanager
async def loaded(code: str, handler: str = "handler", **more: Any) -> AsyncIterator[Function]:
    """A function while it is loaded; afterwards no process of it is left."""
    before = {child.pid for child in children()}
    function = Function(
        parse(definition(code, handler, **more)), Path(__file__).parent, "subject", "1"
    )
    await function.load()
    try:
        yield function
    finally:
        await function.close()
        left = await no_more_children(before)
        assert not left, f"left running: {left}"


def children() -> list[psutil.Process]:
    """The workers of this process and what they started.

    Not those of a server that another test has started, which are its grandchildren.
    """
    found = []
    for worker in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if _is_marked(worker):
                found += worker.children(recursive=True)  # `worker` is its guardian.
    return found


def _is_marked(process: psutil.Process) -> bool:
    try:
        return "MLSERVER_PYFUNC_WORKER" in process.environ()
    except psutil.Error:
        return False


async def no_more_children(before: set[int]) -> list[psutil.Process]:
    for _ in range(200):
        left = [child for child in children() if child.pid not in before]
        if not left:
            return []
        await asyncio.sleep(0.05)
    return left


def request(*values: float, id: str = "r1", **tensors: Any) -> Any:  # noqa: A002
    """An inference request as the host hands it over."""
    arrays = tensors or {"x": np.array(values, dtype=np.float32)}
    inputs = [
        SimpleNamespace(
            name=name,
            datatype=DATATYPE_NAMES.get(array.dtype.str, "BYTES"),
            shape=list(array.shape),
            data=array,
            parameters=None,
        )
        for name, array in arrays.items()
    ]
    return SimpleNamespace(id=id, parameters=None, inputs=inputs, outputs=None)


DATATYPE_NAMES = {"<f4": "FP32", "<i8": "INT64", "<f8": "FP64", "|u1": "UINT8"}


async def call(function: Function, *values: float, **more: Any) -> Array:
    answer = await function.infer(request(*values, **more))
    array: Array = answer.arrays[0].array
    return array


async def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Waits for what comes in a moment, or in a few seconds on a busy machine.

    Raises:
        AssertionError: It does not come.
    """

    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.01)

    try:
        await asyncio.wait_for(poll(), seconds)
    except asyncio.TimeoutError:
        raise AssertionError(f"still not so after {seconds:g} s") from None


async def until_ready(function: Function) -> None:
    await until(lambda: function.ready)
