"""What a function does to itself hurts itself alone, and not for long."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE
from pathlib import Path

import numpy as np
import psutil
import pytest
from prometheus_client import REGISTRY

from mlserver_pyfunc.errors import (
    HandlerError,
    LoadError,
    OverloadedError,
    RequestError,
    TimeLimitError,
    WorkerError,
)
from mlserver_pyfunc.serving.workers.process import Exit, WorkerProcess
from mlserver_pyfunc.serving.workers.wire.messages import VERSION, Kind

from .functions import DOUBLE, call, children, loaded, no_more_children, request, until, until_ready

# What to do is in the first element.
DEADLY = """
import ctypes, os, signal, sys, threading, time

def handler(x, context):
    deed = int(x[0])
    if deed == 1:
        ctypes.string_at(0)
    if deed == 2:
        os._exit(0)
    if deed == 3:
        os._exit(1)
    if deed == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    if deed == 5:
        os.abort()
    if deed == 6:
        if os.fork() == 0:
            time.sleep(60)
        os._exit(7)
    if deed == 7:
        sys.exit(3)
    if deed == 8:
        raise KeyboardInterrupt
    if deed == 9:
        raise GeneratorExit
    if deed == 10:
        return handler(x, context)
    if deed == 11:
        time.sleep(3600)
    if deed == 12:
        os.fork()
    if deed == 13:
        os.close(int(sys.argv[1]))
        time.sleep(60)
    return x * 2
"""

DEATHS = {
    1: "was killed by SIGSEGV",
    2: "exited with code 0",
    3: "exited with code 1",
    4: "was killed by SIGKILL",
    5: "was killed by SIGABRT",
    6: "exited with code 7",
}


@pytest.mark.parametrize("deed", DEATHS)
async def test_a_death_fails_its_call_at_once_and_the_worker_is_replaced(deed: int) -> None:
    async with loaded(DEADLY, timeout=250) as function:
        await call(function, 0)
        with pytest.raises(WorkerError, match=DEATHS[deed]) as raised:
            await call(function, deed)
        assert raised.value.status == 500
        assert not function.ready
        assert function.accepts_calls
        assert (await call(function, 0, 4)).tolist() == [0, 8]
        assert function.ready


async def test_a_death_from_outside_fails_the_call_that_runs() -> None:
    async with loaded(DEADLY, timeout=250) as function:
        for _ in range(3):
            await until_ready(function)
            (worker,) = children()
            waiting = asyncio.ensure_future(call(function, 11))
            await asyncio.sleep(0.2)
            worker.kill()
            with pytest.raises(WorkerError):
                await waiting


@pytest.mark.parametrize(
    ("deed", "name"),
    [
        (7, "SystemExit: 3"),
        (8, "KeyboardInterrupt"),
        (9, "GeneratorExit"),
        (10, "RecursionError: maximum recursion depth exceeded"),
    ],
)
async def test_what_can_be_contained_is_an_error_of_the_call_alone(deed: int, name: str) -> None:
    async with loaded(DEADLY) as function:
        before = children()
        with pytest.raises(HandlerError, match=f"raised {name}"):
            await call(function, deed)
        assert (await call(function, 0, 4)).tolist() == [0, 8]
        assert children() == before


async def test_children_that_a_dead_worker_left_are_ended() -> None:
    code = f"""
import os, subprocess

def handler(x):
    subprocess.Popen({SLEEP})
    subprocess.Popen({SLEEP}, start_new_session=True)
    if x[0]:
        os._exit(1)
    return x
"""
    async with loaded(code) as function:
        with pytest.raises(WorkerError):
            await call(function, 1)
        await call(function, 0)
        await until(lambda: sleeping() == 2)  # Of the live worker.
    await until(lambda: sleeping() == 0)


STARTS = f"""
import os, subprocess

def start():
    for more in ({{}}, {{"env": {{}}}}, {{"start_new_session": True}}):
        subprocess.Popen({["sleep", f"60.{os.getpid()}"]}, **more)
    subprocess.Popen(
        {["sleep", f"60.{os.getpid()}"]}, start_new_session=True, env={{}}, close_fds=True
    )
    # Its parent is gone at once.
    subprocess.run(["sh", "-c", "sleep 60.{os.getpid()} & exit 0"], env={{}})

"""


@pytest.mark.parametrize("end", ["os._exit(1)", "os.kill(os.getpid(), 9)", "os.kill(0, 15)"])
async def test_no_child_outlives_its_worker(end: str) -> None:
    code = f"{STARTS}def handler(x):\n    start()\n    {end}\n"
    async with loaded(code) as function:
        with pytest.raises(WorkerError):
            await call(function, 1)
        await until(lambda: sleeping() == 0)


async def test_no_child_outlives_a_call_past_its_limit() -> None:
    code = f"import time\n{STARTS}def handler(x):\n    start()\n    time.sleep(60)\n"
    async with loaded(code, timeout=1) as function:
        with pytest.raises(TimeLimitError):
            await call(function, 1)
        await until(lambda: sleeping() == 0)


@pytest.mark.parametrize("busy", [True, False])
async def test_no_child_outlives_a_killed_server(busy: bool, tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        f"import time\n{STARTS}start()\ndef handler(x):\n    time.sleep(60 if x[0] else 0)\n"
        "    return x\n"
    )
    definition = {
        "source": {"source": "model.py", "handler": "handler"},
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1]}],
        "serving": {"isolation": "process"},
    }
    (tmp_path / "function.yaml").write_text(json.dumps(definition))
    program = (
        "from mlserver_pyfunc.serving.local import load\n"
        f"with load({str(tmp_path)!r}) as function:\n"
        f"    function(x=[0.0]); print('up', flush=True); function(x=[{float(busy)}]); input()\n"
    )
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdin=PIPE, stdout=PIPE
    )
    assert await server.stdout.readline() == b"up\n"
    await until(lambda: sleeping() == 5)
    server.kill()
    await server.wait()
    await until(lambda: sleeping() == 0)


# Told from what others run.
SLEEP = ["sleep", f"60.{os.getpid()}"]


def sleeping() -> int:
    return sum(p.info["cmdline"] == SLEEP for p in psutil.process_iter(["cmdline"]))


async def test_a_child_that_returns_from_the_handler_answers_nothing() -> None:
    async with loaded(DEADLY) as function:
        for _ in range(5):
            assert (await call(function, 12, 3)).tolist() == [24, 6]


async def test_a_call_past_its_limit_is_stopped_and_no_other_notices() -> None:
    async with loaded(DEADLY, workers=2, timeout=3) as function:
        started = time.monotonic()
        late = asyncio.ensure_future(call(function, 11))
        await asyncio.sleep(0.05)
        while not late.done():
            assert (await call(function, 0, 3)).tolist() == [0, 6]
            await asyncio.sleep(0.01)
        with pytest.raises(TimeLimitError, match=r"passed its time limit of 3 s \(serving.time"):
            await late
        assert time.monotonic() - started > 2.9
        await until(
            lambda: "last_exit" in function.metadata and function.metadata["workers"] == "2 of 2 up"
        )
        assert "another call passed its limit" in function.metadata["last_exit"]


async def test_calls_beside_a_call_past_its_limit_fail_and_say_why() -> None:
    async with loaded(DEADLY, concurrency=2, timeout=5) as function:
        late = asyncio.ensure_future(call(function, 11))
        await asyncio.sleep(4)
        other = asyncio.ensure_future(call(function, 11))
        with pytest.raises(TimeLimitError):
            await late
        with pytest.raises(WorkerError, match="when another call passed its limit"):
            await other


async def test_calls_of_an_idempotent_handler_are_repeated_once(tmp_path: Path) -> None:
    code = """
import os, pathlib

def handler(x, context):
    tries = pathlib.Path(context.init_parameters["mark"])
    with tries.open("a") as file:
        file.write("x")
    if len(tries.read_text()) <= x[0]:
        os._exit(1)
    return x
"""
    mark = tmp_path / "tries"
    more = {"idempotent": True, "init_parameters": {"mark": str(mark)}}
    async with loaded(code, **more) as function:
        assert (await call(function, 1)).tolist() == [1]
        assert mark.read_text() == "xx"
        mark.unlink()
        with pytest.raises(WorkerError):
            await call(function, 9)
        assert mark.read_text() == "xx"


async def test_calls_wait_while_all_workers_are_replaced() -> None:
    async with loaded(DEADLY, workers=2) as function:
        for worker in children():
            worker.kill()
        while function.ready:
            await asyncio.sleep(0.001)
        answers = await asyncio.gather(*(call(function, 0, n) for n in range(8)))
        assert [answer.tolist() for answer in answers] == [[0, 2 * n] for n in range(8)]
        await until_ready(function)


async def test_a_crash_loop_is_told_and_refused(tmp_path: Path) -> None:
    code = """
import pathlib, os

def setup(context):
    if pathlib.Path(context.init_parameters["broken"]).exists():
        os._exit(9)

def handler(x):
    return x
"""
    broken = tmp_path / "broken"
    more = {"init_function": "setup", "init_parameters": {"broken": str(broken)}}
    async with loaded(code, timeout=250, **more) as function:
        broken.touch()
        (worker,) = children()
        worker.kill()
        while function.ready:
            await asyncio.sleep(0.001)
        with pytest.raises(OverloadedError, match=r"no worker: .* exited with code 9, 3 times"):
            await call(function, 1)
        assert not function.ready
        assert "init: the worker exited with code 9" in function.metadata["crash_loop"]
        assert function.metadata["workers"] == "0 of 1 up"
        broken.unlink()
        await until_ready(function)
        assert (await call(function, 1)).tolist() == [1]
        assert "crash_loop" not in function.metadata


async def test_a_worker_is_replaced_after_its_share_of_calls() -> None:
    code = "import os\ndef handler(x):\n    return [os.getpid()]\n"
    outputs = [{"name": "pid", "datatype": "INT64", "shape": [-1]}]
    async with loaded(code, max_requests=10, workers=2, outputs=outputs) as function:
        seen: dict[int, int] = {}
        for _ in range(2000):
            (pid,) = (await call(function, 1)).tolist()
            seen[pid] = seen.get(pid, 0) + 1
            if len(seen) >= 4:
                break
            await asyncio.sleep(0.01)
        assert len(seen) >= 4, "workers were not replaced"
        assert function.ready
        await until(lambda: len(children()) == 2)
        assert "last_exit" not in function.metadata, (
            "a worker that reached max_requests is no failure"
        )


async def test_the_death_of_a_worker_that_is_being_replaced_is_logged_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code = """
import pathlib, time

def setup(folder):
    while pathlib.Path(folder, "hold").exists():
        pathlib.Path(folder, "starting").touch()
        time.sleep(0.01)

def handler(x):
    return x
"""

    def count(reason: str) -> float:
        labels = {"model": "subject", "version": "1", "reason": reason}
        return REGISTRY.get_sample_value("pyfunc_worker_restarts_total", labels) or 0

    more = {"init_function": "setup", "init_parameters": {"folder": str(tmp_path)}}
    async with loaded(code, max_requests=1, timeout=250, **more) as function:
        before = count("signal"), count("max_requests")
        (worker,) = children()
        (tmp_path / "hold").touch()
        await call(function, 1)
        await until((tmp_path / "starting").exists)
        worker.kill()
        await until(lambda: count("signal") > before[0])
        assert "worker 0 was killed by SIGKILL" in function.metadata["last_exit"]
        assert "subject: worker 0 was killed by SIGKILL" in caplog.text
        (tmp_path / "hold").unlink()
        await until_ready(function)
        assert (count("signal"), count("max_requests")) == (before[0] + 1, before[1])
        assert (await call(function, 2)).tolist() == [2]


async def test_an_unload_refuses_calls_at_once_and_ends_those_that_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mlserver_pyfunc.serving.runner.UNLOAD_SECONDS", 0.5)
    monkeypatch.setattr("mlserver_pyfunc.serving.workers.worker.UNLOAD_SECONDS", 0.5)
    async with loaded(DEADLY, timeout=250) as function:
        running = asyncio.ensure_future(call(function, 11))
        await asyncio.sleep(0.1)
        waiting = asyncio.ensure_future(call(function, 0))
        await asyncio.sleep(0.1)
        closing = asyncio.ensure_future(function.close())
        await asyncio.sleep(0)
        assert not function.accepts_calls
        for refused in (call(function, 0), waiting):
            with pytest.raises(OverloadedError, match=r'^model "subject" is not loaded$'):
                await asyncio.wait_for(refused, 60)
        with pytest.raises(WorkerError):
            await running
        await closing


async def test_a_process_id_is_used_only_while_it_is_the_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []

    def kill(pid: int, number: int) -> None:
        if pid != process.pid:
            send(pid, number)
            return
        with contextlib.suppress(psutil.NoSuchProcess):
            seen.append(psutil.Process(pid).status())
            return
        seen.append("gone")

    ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
    process = WorkerProcess(Path(sys.executable), {}, ended.set_result, print)
    guardian, send = psutil.Process(process.pid), os.kill
    os.kill(process.pid, signal.SIGKILL)
    with contextlib.suppress(psutil.NoSuchProcess):
        while guardian.status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
    time.sleep(0.1)  # The event loop cannot report the exit yet.
    monkeypatch.setattr(os, "kill", kill)
    process.kill("late", "was stopped")
    assert seen == ["zombie"]
    await asyncio.wait_for(ended, 60)
    process.kill("later", "was stopped")
    assert len(seen) == 1
    assert not psutil.pid_exists(process.pid)


@pytest.mark.parametrize(
    ("name", "value", "threshold"),
    [
        ("UNRELATED", "1", str(32 << 20)),
        ("MALLOC_ARENA_MAX", "2", None),
        ("GLIBC_TUNABLES", "glibc.rtld.nns=4", str(32 << 20)),
        ("GLIBC_TUNABLES", "glibc.rtld.nns=4:glibc.malloc.arena_max=2", None),
    ],
)
async def test_malloc_of_a_worker_is_tuned_unless_somebody_has(
    name: str, value: str, threshold: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in [each for each in os.environ if each.startswith(("MALLOC_", "GLIBC_"))]:
        monkeypatch.delenv(each)
    monkeypatch.setenv(name, value)
    async with loaded(DOUBLE):
        (worker,) = children()
        assert worker.environ().get("MALLOC_MMAP_THRESHOLD_") == threshold


async def test_memory_over_the_limit_is_a_clear_error() -> None:
    code = """
import numpy

def handler(x):
    return numpy.ones(int(x[0]) * 2**18, dtype="float32")[:1]
"""
    async with loaded(code, memory_limit="512M") as function:
        assert (await call(function, 10)).tolist() == [1]
        with pytest.raises(HandlerError, match=r"MemoryError.*serving.memory_limit is 512 MiB"):
            await call(function, 800)
        assert (await call(function, 10)).tolist() == [1]


async def test_a_memory_limit_leaves_room_for_the_stacks_of_all_threads() -> None:
    code = """
import threading

import numpy

everybody = threading.Barrier(16)

def handler(x):
    everybody.wait()
    return numpy.ones(int(x[0]) * 2**18, dtype="float32")[:1]
"""
    async with loaded(code, memory_limit="128M", concurrency=16) as function:
        for mebibytes in (0.1, 800, 0.1):
            calls = [call(function, mebibytes) for _ in range(16)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            kinds = {type(answer) for answer in answers}
            assert kinds == {HandlerError if mebibytes == 800 else np.ndarray}, answers


async def test_a_memory_limit_without_room_for_all_threads_is_an_error_of_the_load() -> None:
    code = "import numpy\nkept = []\n"
    code += "def setup():\n    for size in 2**20, 2**14:\n        try:\n"
    code += "            while True:\n                kept.append(numpy.ones(size, 'u1'))\n"
    code += "        except MemoryError:\n            pass\n"
    with pytest.raises(LoadError, match=r"can't start new thread|MemoryError"):
        async with loaded(
            code + DOUBLE, init_function="setup", memory_limit="128M", concurrency=16
        ):
            pass


@pytest.mark.parametrize(
    ("code", "phase", "cause"),
    [
        ("import nothing_of_this_name", "import", "ModuleNotFoundError: No module named"),
        ("def handler(:", "import", "SyntaxError"),
        ("import os; os._exit(4)", "import", "the worker exited with code 4"),
        ("import sys; print('my last words'); sys.exit(4)", "import", "SystemExit: 4"),
        ("print('my last words', flush=True)\nimport os; os.abort()", "import", "my last words"),
        ("def setup(): 1/0", "init", "ZeroDivisionError"),
        ("import os\ndef setup(): os._exit(0)", "init", "the worker exited with code 0"),
        ("import time\ndef setup(): time.sleep(3600)", "init", r"passed its limit of 5 s"),
        ("def setup(): pass", "bind", 'has no "handler"'),
        ("def setup(): pass\ndef handler(y): pass\nhandler = 3", "bind", "is not callable"),
    ],
)
async def test_a_load_that_fails_names_phase_and_cause(code: str, phase: str, cause: str) -> None:
    before = {child.pid for child in children()}
    seconds = 5 if "limit" in cause else 60
    with pytest.raises(LoadError, match=f'"subject" failed to load: {phase}: .*{cause}'):
        async with loaded(code, init_function="setup", init_timeout=seconds, workers=2):
            pass
    assert not await no_more_children(before)


async def test_more_calls_than_may_wait_are_refused() -> None:
    code = "import time\ndef handler(x):\n    time.sleep(0.3)\n    return x\n"
    async with loaded(code, workers=2, max_queue=3) as function:
        calls = [asyncio.ensure_future(call(function, n)) for n in range(9)]
        done = await asyncio.gather(*calls, return_exceptions=True)
        refused = [error for error in done if isinstance(error, OverloadedError)]
        assert len(refused) == 4
        assert "2 calls at a time" in str(refused[0])
        assert "3 waiting" in str(refused[0])


async def test_a_call_that_waits_too_long_for_a_worker_is_over_its_limit() -> None:
    code = "import time\ndef handler(x):\n    time.sleep(2)\n    return x\n"
    async with loaded(code, timeout=5) as function:
        calls = [asyncio.ensure_future(call(function, n)) for n in range(4)]
        done = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(done[3], TimeLimitError)
        assert done[0].tolist() == [0]


async def test_calls_spread_over_the_workers() -> None:
    code = "import os, time\ndef handler(x):\n    time.sleep(0.5)\n    return [os.getpid()]\n"
    outputs = [{"name": "pid", "datatype": "INT64", "shape": [-1]}]
    async with loaded(code, workers=3, outputs=outputs) as function:
        pids = await asyncio.gather(*(call(function, n) for n in range(3)))
        assert len({int(pid[0]) for pid in pids}) == 3


async def test_a_worker_has_as_many_calls_at_a_time_as_it_may() -> None:
    code = """
import threading, time
running = most = 0

def handler(x):
    global running, most
    running += 1
    most = max(most, running)
    time.sleep(0.1)
    running -= 1
    return [most]
"""
    async with loaded(code, concurrency=3) as function:
        await asyncio.gather(*(call(function, n) for n in range(9)))
        assert (await call(function, 1)).tolist() == [3]


async def test_what_user_code_prints_is_logged_by_line_with_its_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    code = """
import os, sys

def handler(x, context):
    print("to stdout")
    print("to stderr", file=sys.stderr)
    os.system("echo from a child")
    os.write(1, b"not \\xff UTF-8\\n")
    print("y" * 20000)
    context.logger.warning("by the logger")
    return x
"""
    caplog.set_level(logging.INFO)
    tag = "[subject worker 0 request abc]"
    said = ("to stdout", "to stderr", "from a child", "not \\xff UTF-8", "yyyyyyy", "by the logger")
    async with loaded(code) as function:
        await function.infer(request(1, id="abc"))
        await until(lambda: all(f"{tag} {what}" in caplog.text for what in said))
    lines = caplog.messages
    for what in said:
        assert any(line.startswith(f"{tag} {what}") for line in lines), lines
    levels = {record.getMessage(): record.levelname for record in caplog.records}
    assert levels[f"{tag} by the logger"] == "WARNING"
    assert max(map(len, lines)) < 9000


async def test_a_flood_of_output_stops_nobody() -> None:
    code = """
import threading, os

def flood():
    while True:
        os.write(1, b"z" * 100 + b"\\n")

def handler(x):
    if x[0]:
        threading.Thread(target=flood, daemon=True).start()
    return x
"""
    logging.getLogger("mlserver.pyfunc").setLevel(logging.ERROR)
    try:
        async with loaded(code) as function:
            await call(function, 1)
            worst = 0.0
            end = time.monotonic() + 1
            while time.monotonic() < end:
                started = time.monotonic()
                await asyncio.sleep(0)
                await call(function, 0)
                worst = max(worst, time.monotonic() - started)
            assert worst < 60
    finally:
        logging.getLogger("mlserver.pyfunc").setLevel(logging.NOTSET)


async def test_a_worker_that_breaks_the_connection_is_replaced() -> None:
    async with loaded(DEADLY, timeout=2) as function:
        with pytest.raises(RequestError):
            await call(function, 13)
        await until_ready(function)
        assert (await call(function, 0, 1)).tolist() == [0, 2]


async def test_a_worker_that_breaks_the_protocol_is_replaced() -> None:
    code = """
import os, sys, time

def handler(x):
    if x[0]:
        connection, wakeup = map(int, sys.argv[1:3])
        os.write(connection, b"what?")
        os.write(wakeup, (1).to_bytes(8, sys.byteorder))
        time.sleep(3600)
    return x
"""
    async with loaded(code) as function:
        with pytest.raises(WorkerError, match="was stopped: unreadable message"):
            await call(function, 1)
        assert (await call(function, 0)).tolist() == [0]


SAY = """
import os, struct, sys

def say(kind, head, call=0):
    text = head.encode()
    header = struct.pack("<BBBxIIIIQ", {version}, kind, 0, 0, len(text), 0, 0, call)
    connection, wakeup = map(int, sys.argv[1:3])
    os.write(connection, header + text)
    os.write(wakeup, (1).to_bytes(8, sys.byteorder))

"""


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        (Kind.ERROR, {}),
        (Kind.ERROR, {"error": [], "message": "no", "status": 400}),
        (Kind.ERROR, {"error": "HandlerError", "message": 3, "status": 400}),
        (Kind.ERROR, {"error": "HandlerError", "message": "no", "status": "400"}),
        (Kind.LOG, {"level": "x", "text": "no", "request": ""}),
        (Kind.LOG, {}),
        (Kind.PHASE, {}),
    ],
)
async def test_a_message_that_is_not_as_agreed_ends_its_worker_not_the_answer(
    kind: Kind, head: dict[str, object]
) -> None:
    code = (
        SAY.replace("{version}", str(VERSION))
        + f"""
import time
from asyncio.subprocess import PIPE

def handler(x):
    if x[0]:
        say({int(kind)}, {json.dumps(head)!r}, 2)
        time.sleep(3600)
    return x
"""
    )
    async with loaded(code, timeout=250) as function:
        await call(function, 0)  # The next call is number 2.
        with pytest.raises(WorkerError, match=f"was stopped: message {kind.name}"):
            await asyncio.wait_for(call(function, 1), 60)
        assert (await call(function, 0)).tolist() == [0]


@pytest.mark.parametrize("kind", [Kind.LOADED, Kind.FAILED, Kind.PHASE, Kind.LOG])
async def test_a_message_that_is_not_as_agreed_fails_the_load(kind: Kind) -> None:
    code = (
        SAY.replace("{version}", str(VERSION))
        + f"""
import time
from asyncio.subprocess import PIPE

say({int(kind)}, "{{}}")
time.sleep(3600)
"""
    )
    with pytest.raises(LoadError, match=f"import: the worker was stopped: message {kind.name}"):
        async with loaded(code, init_timeout=250):
            pass


async def test_a_stopped_worker_is_over_the_limit_too() -> None:
    async with loaded(DOUBLE, timeout=2) as function:
        (worker,) = children()
        os.kill(worker.pid, signal.SIGSTOP)
        with pytest.raises(TimeLimitError):
            await call(function, 1)
        await until_ready(function)
        assert (await call(function, 1)).tolist() == [2]


async def test_inputs_that_a_handler_keeps_stay_as_they_were() -> None:
    code = """
kept = []

def handler(x):
    kept.append(x)
    return [float(sum(abs(k - k[0]).max() for k in kept)), kept[0][0]]
"""
    async with loaded(code) as function:
        for n in range(1, 30):
            value = await call(function, x=np.full(100_000, n, dtype=np.float32))
            assert value.tolist() == [0, 1]


async def test_answers_that_are_kept_stay_as_they_were() -> None:
    async with loaded(DOUBLE) as function:
        kept = [await call(function, x=np.full(100_000, n, dtype=np.float32)) for n in range(20)]
        for n, array in enumerate(kept):
            assert (array == 2 * n).all()


async def test_init_and_unload_run_in_every_worker(tmp_path: Path) -> None:
    code = """
import os, pathlib

def setup(context, folder):
    context.folder = pathlib.Path(folder)
    (context.folder / f"init-{os.getpid()}").touch()

async def close(context):
    (context.folder / f"unload-{os.getpid()}").touch()

def handler(x):
    return x
"""
    more = {"init_function": "setup", "unload_function": "close"}
    async with loaded(code, workers=2, init_parameters={"folder": str(tmp_path)}, **more):
        pids = {worker.pid for worker in children()}
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"{what}-{pid}" for what in ("init", "unload") for pid in pids}


async def test_an_unload_function_that_hangs_does_not_hold_up_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mlserver_pyfunc.serving.workers.worker.UNLOAD_SECONDS", 0.5)
    code = "import time\ndef close():\n    time.sleep(3600)\n" + DOUBLE
    started = time.monotonic()
    async with loaded(code, unload_function="close"):
        pass
    assert time.monotonic() - started < 60


async def test_in_process_too_lines_of_a_call_carry_its_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    code = """
def handler(x, context):
    context.logger.warning("%d%% done", 50)
    context.logger.warning("plain")
    return x
"""
    async with loaded(code, isolation="none") as function:
        await function.infer(request(1, id="50%s\n"))
    said = [record.getMessage() for record in caplog.records]
    assert said == ["[request 50%s?] 50% done", "[request 50%s?] plain"]
