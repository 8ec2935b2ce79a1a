"""Clients that leave at random points, beside clients that stay: `python -m tests.chaos.leavers`.

Handlers note each of their steps with the time, clients note when they left. Nobody who stays may
lose an answer, no handler may run on for somebody who has gone, and nothing may be left over.
"""

from __future__ import annotations

import argparse
import itertools
import json
import queue
import random
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.hosts.mlserver.models import tensor, write_model
from tests.hosts.mlserver.process import ServerProcess, serving

from . import command_line
from .leaver_calls import PAUSE_MS, PROTOCOLS, Call, Outcome, draw, send
from .run import _ONE_ARENA
from .usage import Usage, log_defects, measure

CODE = '''
import asyncio
import ctypes
import gc
import os
import time


def setup(context):
    if plant := context.init_parameters["plant"]:
        exec(plant, {})
    context.journal = os.open(
        context.init_parameters["journal"], os.O_WRONLY | os.O_APPEND | os.O_CREAT
    )


def teardown(context):
    os.close(context.journal)


class Work:
    """The calls that one run of a handler answers, and their line in the journal."""

    def __init__(self, texts, context):
        self.calls = [text.split() for text in texts.ravel().tolist()]
        self.numbers = ",".join(call[0] for call in self.calls)
        self.steps = max(int(call[1]) for call in self.calls)
        self.pause = max(int(call[2]) for call in self.calls) / 1000
        self.journal = context.journal
        self.note("began")

    def note(self, event):
        os.write(self.journal, f"{time.monotonic():.6f} {event} {self.numbers}\\n".encode())

    def answer(self, place=None):
        return [
            f"{number} {steps if place is None else place} {word[::-1]}"
            for number, steps, _, word in self.calls
        ]


def whole(text_input, context, cancelled):
    work = Work(text_input, context)
    for _ in range(work.steps):
        time.sleep(work.pause)
        if cancelled.is_set():
            break
        work.note("step")
    work.note("ended")
    return work.answer()


async def whole_async(text_input, context):
    work = Work(text_input, context)
    try:
        for _ in range(work.steps):
            await asyncio.sleep(work.pause)
            work.note("step")
    finally:
        work.note("ended")
    return work.answer()


def items(text_input, context):
    work = Work(text_input, context)
    try:
        for place in range(work.steps):
            if work.pause:
                time.sleep(work.pause)
            work.note("step")
            yield work.answer(place)
    finally:
        work.note("ended")


async def items_async(text_input, context):
    work = Work(text_input, context)
    try:
        for place in range(work.steps):
            if work.pause:
                await asyncio.sleep(work.pause)
            work.note("step")
            yield work.answer(place)
    finally:
        work.note("ended")


async def tasks(text_input):
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return [str(len(asyncio.all_tasks()))]
'''
PLANTS = {
    # Departures over REST are not noticed.
    "deaf": """
from mlserver_pyfunc.hosts.common import rest_request
rest_request._WATCHED_AFTER = 3600
""",
    # The last item of some streams is lost.
    "lost": """
from mlserver_pyfunc.serving.function import Function
stream = Function.stream
async def stream_less(self, request):
    items = [item async for item in stream(self, request)]
    for item in items[: -1 if len(items) % 3 == 0 else None]:
        yield item
Function.stream = stream_less
""",
    # A task is left over of each REST call whose client has left.
    "task": """
import asyncio
from mlserver_pyfunc.hosts.common.rest_request import Departure
wait, kept = Departure._wait, []
async def wait_and_leave(self):
    await wait(self)
    kept.append(asyncio.ensure_future(asyncio.sleep(3600)))
Departure._wait = wait_and_leave
""",
}
"""Defects of the server, and the code that makes them in its process."""

_APART = {"isolation": "process"}
_BATCH = {"batch": {"max_size": 4, "max_delay_ms": 5}}
SUBJECTS: dict[str, tuple[str, dict[str, Any]]] = {
    "sync": ("whole", {"concurrency": 2}),
    "async": ("whole_async", {"concurrency": 4}),
    "generator": ("items", {"concurrency": 2}),
    "async-generator": ("items_async", {"concurrency": 4}),
    "isolated": ("whole", {**_APART, "workers": 2}),
    "isolated-batched": ("whole", {**_APART, **_BATCH}),
    "isolated-generator": ("items", {**_APART, "concurrency": 2}),
}
STREAMING = {name: "items" in handler for name, (handler, _) in SUBJECTS.items()}
SLOTS = {
    name: serving.get("workers", 1) * serving.get("concurrency", 1)
    for name, (_, serving) in SUBJECTS.items()
}
CLIENTS_AT_A_TIME = 32
STAYING = 0.3
BOUND_SECONDS = 0.2
"""How long a handler may run for somebody who has gone, if it makes more than `MOST_ITEMS`."""

MOST_ITEMS = {False: 1, True: 16}
"""Items that a handler may still make for somebody who has gone; True: quick ones."""

MAX_DEFECTS = 40
REST_SECONDS = 90.0
MOST_GROWTH_MB = 24.0
_SLACK = {"threads": 2, "descriptors": 2, "mappings": 0, "shm": 0, "files": 0, "others": 0}


@dataclass
class Row:
    """What came of the calls of one protocol.

    Attributes:
        stayed: Clients that stayed, or had their whole answer before they left.
        right: Those of them whose answer was right.
        left: Where the others left: in the request, queue, call or stream.
        late: Milliseconds for which a handler ran on for each of them.
        items: Most steps of a handler for one of them.
        begun: Calls that began after their client had left.
    """

    stayed: int = 0
    right: int = 0
    left: Counter[str] = field(default_factory=Counter)
    late: list[float] = field(default_factory=list)
    items: int = 0
    begun: list[float] = field(default_factory=list)

    def cells(self) -> list[str]:
        places = (self.left[place] for place in PLACES)
        late = sorted(self.late) or [0.0]
        return [
            str(self.stayed), str(self.right), str(self.left.total()), *map(str, places),
            f"{late[len(late) // 2]:.0f}", f"{late[-1]:.0f}", str(self.items),
            f"{len(self.begun)}", f"{max(self.begun, default=0):.0f}",
        ]  # fmt: skip


PLACES = ("request", "queue", "call", "stream")
HEAD = (
    "stayed", "right", "left", *PLACES, "late ms median", "late ms most", "items past",
    "begun past", "begun ms most",
)  # fmt: skip


@dataclass
class Report:
    """What came of a run: a row for each protocol, what the server held, and what is wrong."""

    rows: dict[str, Row] = field(default_factory=lambda: {name: Row() for name in PROTOCOLS})
    usages: list[tuple[Usage, int]] = field(default_factory=list)
    defects: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"| Protocol | {' | '.join(HEAD)} |", "|---|" + "---:|" * len(HEAD)]
        lines += [f"| {name} | {' | '.join(row.cells())} |" for name, row in self.rows.items()]
        for number, (usage, tasks) in enumerate(self.usages):
            lines.append(f"held after {number} rounds: {usage}, tasks {tasks}")
        shown = self.defects[:MAX_DEFECTS] or ["nothing wrong, nothing left"]
        return "\n".join([*lines, *shown, f"defects: {len(self.defects)}"])


@dataclass
class Life:
    """What the journals have of one call: when its handler began, stepped and ended."""

    began: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    ended: float = 0.0
    members: tuple[int, ...] = ()


class Run:
    """One server, and rounds of clients.

    Args:
        seed: Decides what the clients do. Their timing is the machine's.
        clients: Clients of each of the two rounds.
        bound: Seconds that a handler may run on for somebody who has gone.
        plant: Defect to plant into the server; empty for none.
    """

    def __init__(
        self, seed: int, clients: int, bound: float = BOUND_SECONDS, plant: str = ""
    ) -> None:
        self.report = Report()
        self._seed, self._clients, self._bound = seed, clients, bound
        self._plant = PLANTS.get(plant, "")
        # What is planted does not go away.
        self._rest_seconds = 10.0 if plant else REST_SECONDS
        self._numbers = itertools.count(1)

    def run(self) -> Report:
        """Runs a server, warms it up, sends clients in two rounds, and ends it."""
        with tempfile.TemporaryDirectory(prefix="leavers") as folder:
            self._run(Path(folder))
        return self.report

    def _run(self, folder: Path) -> None:
        self._journals, self._temporary = folder / "journals", folder / "tmp"
        for each in (self._journals, self._temporary):
            each.mkdir()
        _write(folder / "models", self._journals, self._plant)
        env = {
            "TMPDIR": str(self._temporary),
            "MLSERVER_DEBUG": "false",
            "MLSERVER_PARALLEL_WORKERS": "0",
            **_ONE_ARENA,
        }
        with serving(folder / "models", folder, *SUBJECTS, "tasks", env=env) as server:
            # All threads and connections of the server are there after a few calls.
            chance = random.Random(f"{self._seed} warm")
            self._send(server, [self._draw(chance, stays=1) for _ in range(60)])
            self._rest(server)
            for number in range(2):
                chance = random.Random(f"{self._seed} {number}")
                calls = [self._draw(chance, STAYING) for _ in range(self._clients)]
                done = self._send(server, calls)
                self._rest(server)
                self._judge(done)
                self._fill(server)
            self._end(server)

    def _draw(self, chance: random.Random, stays: float) -> Call:
        return draw(chance, next(self._numbers), STREAMING, stays)

    def _send(
        self, server: ServerProcess, calls: Iterable[Call], together: int = CLIENTS_AT_A_TIME
    ) -> list[tuple[Call, Outcome]]:
        """Sends calls, a number of them at a time; returns them with what came of each."""
        waiting: queue.SimpleQueue[Call] = queue.SimpleQueue()
        for call in calls:
            waiting.put(call)
        done: list[tuple[Call, Outcome]] = []

        def work() -> None:
            while True:
                try:
                    call = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    outcome = send(call, server.rest_address, server.grpc_address)
                except Exception as error:
                    outcome = Outcome(error=f"the client failed: {error!r}")
                done.append((call, outcome))

        threads = [threading.Thread(target=work, daemon=True) for _ in range(together)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return done

    def _judge(self, done: list[tuple[Call, Outcome]]) -> None:
        lives = self._read_journals()
        left = {
            call.number: float("inf") if outcome.left is None else outcome.left
            for call, outcome in done
        }
        for call, outcome in done:
            life, row = lives.get(call.number, Life()), self.report.rows[call.protocol]
            if outcome.left is None:
                row.stayed += 1
                wrong = _wrong(call, outcome, life)
                row.right += not wrong
                if wrong:
                    self._add(call, wrong)
            else:
                self._judge_leaver(call, outcome.left, outcome, life, left)

    def _judge_leaver(
        self, call: Call, gone: float, outcome: Outcome, life: Life, left: dict[int, float]
    ) -> None:
        row = self.report.rows[call.protocol]
        row.left[_place(call, gone, outcome, life)] += 1
        if outcome.items != call.expected[: len(outcome.items)]:
            self._add(call, f"wrong items before its client left: {outcome.items[:2]}"[:300])
        if outcome.error:
            self._add(call, f"an error before its client left: {outcome.error}")
        begun = max(life.began, default=0) - gone
        if begun > 0:
            row.begun.append(begun * 1000)
        if begun > self._bound or (begun > 0 and call.within and call.protocol[:4] == "REST"):
            self._add(call, f"began {begun * 1000:.0f} ms after its client had left")
        # A batch runs on until the last of its members has gone.
        all_gone = max([left.get(member, float("inf")) for member in life.members] or [gone])
        past = [step for step in life.steps if step > all_gone]
        late = max(max(past, default=0), life.ended if life.ended > all_gone else 0) - all_gone
        if life.began and late > 0:
            row.late.append(late * 1000)
            row.items = max(row.items, len(past))
            if len(past) > MOST_ITEMS[call.pause == 0] and late > self._bound:
                self._add(call, f"ran {late * 1000:.0f} ms and {len(past)} items past leaving")

    def _read_journals(self) -> dict[int, Life]:
        lives: dict[int, Life] = defaultdict(Life)
        for path in self._journals.iterdir():
            for line in path.read_text().splitlines():
                when, event, numbers = line.split()
                members = tuple(int(number) for number in numbers.split(","))
                for number in members:
                    life = lives[number]
                    life.members = members
                    if event == "began":
                        life.began.append(float(when))
                    elif event == "step":
                        life.steps.append(float(when))
                    else:
                        life.ended = float(when)
        return lives

    def _rest(self, server: ServerProcess) -> None:
        """Waits until the server holds no more than before, and measures it."""
        deadline = time.monotonic() + self._rest_seconds
        while True:
            tasks = self._tasks(server)
            usage = measure(server.pid, self._temporary, "")
            problems = self._problems(server, usage, tasks)
            if not problems or time.monotonic() > deadline:
                break
            time.sleep(0.5)
        self.report.defects += [f"left over: {problem}" for problem in problems]
        self.report.usages.append((usage, tasks))

    def _problems(self, server: ServerProcess, usage: Usage, tasks: int) -> list[str]:
        found = _busy_gauges(server)
        if not self.report.usages:
            return found
        first, first_tasks = self.report.usages[0]
        if tasks > first_tasks:
            found.append(f"tasks: {first_tasks} at first, {tasks} now")
        # The first round fills what the server keeps for later.
        usages = [usage for usage, _ in self.report.usages]
        for name, slack in _SLACK.items():
            before, now = getattr(usages[-1], name), getattr(usage, name)
            if len(usages) > 1 and now > before + slack:
                found.append(f"{name}: {before} after the first round, {now} after the second")
        for name in ("server_mb", "workers_mb"):
            before, now = getattr(usages[-1], name), getattr(usage, name)
            if len(usages) > 1 and now > before + MOST_GROWTH_MB:
                found.append(f"{name}: {before:.0f} after the first round, {now:.0f} now")
        if usage.workers != first.workers:
            found.append(f"expected {first.workers} workers, got {usage.workers}")
        return found

    def _tasks(self, server: ServerProcess) -> int:
        sent = {"name": "text_input", "datatype": "BYTES", "shape": [1], "data": [""]}
        answer = server.client.post("/v2/models/tasks/infer", json={"inputs": [sent]})
        return int(answer.json()["outputs"][0]["data"][0])

    def _fill(self, server: ServerProcess) -> None:
        """Sends calls until each function runs as many at a time as it has slots."""
        deadline = time.monotonic() + self._rest_seconds
        missing = dict(SLOTS)
        while missing and time.monotonic() < deadline:
            calls = [
                Call(next(self._numbers), name, STREAMING[name], protocol, 10, PAUSE_MS, "abcd")
                for name, slots in missing.items()
                for protocol in ["REST infer_stream"] * (2 * slots)
            ]
            for call, outcome in self._send(server, calls, len(calls)):
                if outcome.items != call.expected:
                    self._add(call, f"wrong after the others had left: {outcome}"[:300])
            lives = self._read_journals()
            for name in list(missing):
                runs = [lives[call.number] for call in calls if call.model == name]
                if _most_at_a_time(runs) >= missing[name]:
                    del missing[name]
        for name, slots in missing.items():
            self.report.defects.append(f"left over: {name} no longer runs {slots} calls at a time")

    def _end(self, server: ServerProcess) -> None:
        code = server.stop()
        if code != 0:
            self.report.defects.append(f"expected exit code 0, got {code}:\n{server.log[-3000:]}")
        self.report.defects += [f"log: {text}" for text in log_defects(server.log)]

    def _add(self, call: Call, text: str) -> None:
        how = "stays" if call.leave is None else f"leaves after {call.leave:.3f} s ({call.how})"
        self.report.defects.append(
            f"call {call.number} of {call.model} by {call.protocol}, {call.steps} steps of "
            f"{call.pause} ms, {how}: {text}"
        )


def _write(folder: Path, journals: Path, plant: str) -> None:
    for name, (handler, options) in {**SUBJECTS, "tasks": ("tasks", {})}.items():
        source: dict[str, Any] = {"code": CODE, "handler": handler}
        if name != "tasks":
            source |= {"init_function": "setup", "unload_function": "teardown"}
        definition = {
            "source": source,
            "init_parameters": {
                "journal": str(journals / name),
                "plant": plant if name == "sync" else "",
            },
            "inputs": [tensor("text_input", "BYTES", [-1], content_type="str")],
            "outputs": [tensor("text_output", "BYTES", [-1])],
            "serving": {"timeout": 100, "max_queue": 1000, **options},
        }
        write_model(folder / name, json.loads(json.dumps(definition)))


def _wrong(call: Call, outcome: Outcome, life: Life) -> str:
    if outcome.error:
        return f"lost: {outcome.error}"[:300]
    if outcome.items != call.expected:
        found = f"{len(outcome.items)} items, {str(outcome.items)[:100]}"
        return f"expected {len(call.expected)} items, got {found}"
    if len(life.began) != 1:
        return f"answered, and ran {len(life.began)} times"
    return ""


def _place(call: Call, gone: float, outcome: Outcome, life: Life) -> str:
    """Returns where a client was when it left."""
    if call.within:
        return "request"
    if not life.began or life.began[0] > gone:
        return "queue"
    return "stream" if outcome.items else "call"


def _most_at_a_time(lives: list[Life]) -> int:
    events = [(life.began[0], 1) for life in lives if life.began]
    events += [(life.ended, -1) for life in lives if life.began]
    return max(itertools.accumulate(change for _, change in sorted(events)), default=0)


def _busy_gauges(server: ServerProcess) -> list[str]:
    """Reads from the metrics what should be zero when nothing is asked of the server."""
    port = server._env["MLSERVER_METRICS_PORT"]
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60).text
    names = ("pyfunc_queue_depth{", "pyfunc_requests_in_flight{", "pyfunc_utilization{")
    lines = [line for line in text.splitlines() if line.startswith(names)]
    return [line for line in lines if float(line.rpartition(" ")[2]) != 0]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.leavers", description=__doc__)
    parser.add_argument("--clients", type=int, default=1000, help="of each of two rounds")
    parser.add_argument(
        "--bound", type=float, default=BOUND_SECONDS,
        help="seconds that a handler may run on for somebody who has gone",
    )  # fmt: skip
    arguments = command_line.read(parser, PLANTS)
    report = Run(arguments.seed, arguments.clients, arguments.bound, arguments.plant).run()
    print(report)
    sys.exit(1 if report.defects else 0)


if __name__ == "__main__":
    main()
