"""A load that fails says the same in the server's process and in a worker."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from mlserver_pyfunc.definition import parse
from mlserver_pyfunc.errors import DefinitionError, InferenceError, LoadError
from mlserver_pyfunc.serving.function import Function

from .workers.functions import DOUBLE, call, definition, loaded

FAILURES: dict[str, tuple[str, dict[str, str], str, str]] = {
    "import-raises": (
        "raise ValueError('no')", {}, "import", "ValueError: no",
    ),
    "import-exits": (
        "import sys; sys.exit(3)", {}, "import", "SystemExit: 3",
    ),
    "import-of-a-missing-module": (
        "import nowhere_at_all", {}, "import",
        "ModuleNotFoundError: No module named 'nowhere_at_all'",
    ),
    "init-raises": (
        "def setup(): raise OSError('no')\n" + DOUBLE, {"init_function": "setup"},
        "init", "OSError: no",
    ),
    "async-init-raises": (
        "async def setup(): raise OSError('no')\n" + DOUBLE, {"init_function": "setup"},
        "init", "OSError: no",
    ),
    "async-init-cancels": (
        "import asyncio\nasync def setup(): raise asyncio.CancelledError('no')\n" + DOUBLE,
        {"init_function": "setup"}, "init", "CancelledError",
    ),
    "init-interrupts": (
        "def setup(): raise KeyboardInterrupt\n" + DOUBLE, {"init_function": "setup"},
        "init", "KeyboardInterrupt",
    ),
    "init-is-missing": (
        DOUBLE, {"init_function": "setup"}, "init",
        'module "function" has no "setup", it has handler',
    ),
    "init-takes-what-is-not-given": (
        "def setup(weights): pass\n" + DOUBLE, {"init_function": "setup"}, "init",
        '"setup" requires "weights", which is not in init_parameters: context',
    ),
    "handler-is-missing": (
        DOUBLE, {"handler": "predict"}, "bind",
        'module "function" has no "predict", it has handler',
    ),
    "handler-is-no-function": (
        "handler = 3", {}, "bind", '"handler" is not callable, it is a int',
    ),
    "handler-takes-what-is-not-declared": (
        "def handler(x, other): return x", {}, "bind",
        'handler parameter "other" matches nothing, expected one of x, request, context',
    ),
    "handler-class-raises": (
        "class Model:\n    def __init__(self): raise ValueError('no')\n"
        "    def predict(self, x): return x",
        {"handler": "Model.predict"}, "bind", "ValueError: no",
    ),
    "unload-is-missing": (
        DOUBLE, {"unload_function": "close"}, "bind",
        'module "function" has no "close", it has handler',
    ),
}  # fmt: skip


async def failure(code: str, isolation: str, names: dict[str, str]) -> LoadError:
    fields: dict[str, Any] = definition(code, **names)
    fields["serving"]["isolation"] = isolation
    function = Function(parse(fields), Path(__file__).parent, "subject", "1")
    with pytest.raises(LoadError) as raised:
        await function.load()
    return raised.value


@pytest.mark.parametrize("case", FAILURES)
async def test_both_name_the_same_phase_and_cause(case: str) -> None:
    code, names, phase, cause = FAILURES[case]
    here = await failure(code, "none", names)
    worker = await failure(code, "process", names)
    assert (here.phase, worker.phase) == (phase, phase)
    assert str(here) == str(worker)
    assert f"{phase}: {cause}" in str(here)


@pytest.mark.parametrize("isolation", ["none", "process"])
async def test_init_parameters_are_what_json_makes_of_them(isolation: str) -> None:
    code = """
from mlserver_pyfunc import InferenceError

def handler(x, context):
    raise InferenceError(repr(context.init_parameters))
"""
    given = {
        "since": date(2024, 1, 1), "at": datetime(2024, 1, 1, 12), "folder": Path("/data"),
        "pair": (1, 2), "by": {1: "one"}, "limit": float("inf"),
    }  # fmt: skip
    async with loaded(code, isolation=isolation, init_parameters=given) as function:
        with pytest.raises(InferenceError) as raised:
            await call(function, 1)
    assert str(raised.value) == (
        "{'since': '2024-01-01', 'at': '2024-01-01T12:00:00', 'folder': '/data', "
        "'pair': [1, 2], 'by': {'1': 'one'}, 'limit': inf}"
    )


def test_init_parameters_that_json_cannot_carry_are_refused() -> None:
    message = "init_parameters: expected values that JSON can carry: .*unknown type"
    with pytest.raises(DefinitionError, match=message):
        parse(definition(DOUBLE, init_parameters={"it": object()}))
