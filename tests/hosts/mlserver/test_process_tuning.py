"""How often Python looks for cycles, in a server that serves a function of ours."""

from __future__ import annotations

import json
import logging
import platform
import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn
from mlserver import MLModel, ModelSettings, Settings
from mlserver.context import model_context
from mlserver.logging import ModelLoggerFormatter

from mlserver_pyfunc.hosts.common import tuning
from mlserver_pyfunc.hosts.mlserver import process_tuning

PROGRAM = """
import gc, json
{before}
from mlserver_pyfunc import PyFuncRuntime
print(json.dumps([gc.isenabled(), *gc.get_threshold()]))
"""


def _thresholds(before: str, switch: str = "1") -> list[int]:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before=before)],
        capture_output=True, check=True, text=True,
        env={"MLSERVER_PYFUNC_FASTPATH": switch},
    )  # fmt: skip
    found: list[int] = json.loads(ran.stdout.splitlines()[-1])
    return found


def test_it_is_less_often_than_pythons_own() -> None:
    _, stock, *older = _thresholds("", switch="0")
    assert stock in (700, 2000)
    assert _thresholds("") == [True, 20_000, *older]


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ("gc.set_threshold(5000, 3, 3)", [True, 5000, 3, 3]),
        ("gc.set_threshold(0)", [True, 0]),
        ("gc.disable()", [False, 700]),
    ],
)
def test_what_was_set_otherwise_stays(before: str, expected: list[int]) -> None:
    assert _thresholds(before)[: len(expected)] == expected


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_malloc_that_was_tuned_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=1048576")
    assert tuning.raise_malloc_thresholds() == "GLIBC_TUNABLES is set"


def test_a_structured_line_is_json_and_leaves_the_model_on_its_record() -> None:
    formatter = ModelLoggerFormatter(Settings(use_structured_logging=True))
    record = logging.LogRecord("mlserver", logging.INFO, "", 0, 'said "%s"', ("no",), None)
    # The patch is on already if another test has imported the runtime.
    stock = getattr(ModelLoggerFormatter.format, "_pyfunc_patch", ("", ModelLoggerFormatter.format))
    write = process_tuning.write_valid_json(stock[1])
    with model_context(ModelSettings(name="iris", implementation=MLModel)):
        line = write(formatter, record)
    assert json.loads(line)["message"] == 'said "no"'
    # Other handlers of the record read it there.
    assert record.model == ', "model_name": "iris"'  # type: ignore[attr-defined]
    assert (record.msg, record.args) == ('said "%s"', ("no",))


async def test_a_server_that_ends_has_no_signal_to_raise_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rest, metrics = (uvicorn.Server(uvicorn.Config(app="none:app")) for _ in range(2))
    hosts = (SimpleNamespace(_server=server) for server in (rest, metrics))
    servers = SimpleNamespace(**dict(zip(("_rest_server", "_metrics_server"), hosts, strict=True)))
    kept: list[int] = []

    async def part(_: Any) -> None:
        kept.extend(reversed(metrics._captured_signals))

    async def stock(_: Any, sig: int) -> None:
        for server in (rest, metrics):
            server.handle_exit(sig, None)
            kept.extend(reversed(server._captured_signals))

    monkeypatch.setattr(process_tuning.connections, "part", part)
    metrics.handle_exit(signal.SIGTERM, None)  # the kernel's
    await process_tuning.drain_on_interrupt(stock)(servers, signal.SIGTERM)
    assert kept == []
    assert rest.should_exit
    assert metrics.should_exit


async def test_a_server_that_ends_is_stopped_once(monkeypatch: pytest.MonkeyPatch) -> None:
    server = SimpleNamespace(_server=uvicorn.Server(uvicorn.Config(app="none:app")))
    servers = SimpleNamespace(_rest_server=server, _metrics_server=None)
    stopped: list[int] = []

    async def part(_: Any) -> None:
        pass

    async def stock(_: Any, sig: int) -> None:
        stopped.append(sig)

    monkeypatch.setattr(process_tuning.connections, "part", part)
    stop = process_tuning.drain_on_interrupt(stock)
    for _ in range(2):
        await stop(servers, signal.SIGTERM)
    assert stopped == [signal.SIGTERM]
