"""A load that fails says the same in the server's process and in a worker."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlserver_pyfunc.definition import parse
from mlserver_pyfunc.errors import LoadError
from mlserver_pyfunc.serving.function import Function

from .workers.functions import DOUBLE, definition

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
