"""A run: rounds of mixed calls and faults, rests between them in which the server is measured."""

from __future__ import annotations

import itertools
import os
import random
import tempfile
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import httpx
import numpy as np

from mlserver_pyfunc import settings
from tests.hosts.mlserver.process import ServerProcess, serving

from .calls import FIRST_TOO_LARGE, ROUTES, Call, Outcome, draw, draw_burst, judge, plain
from .clients import HANG_SECONDS, Client
from .faults import WRITE_SECONDS, Faults
from .functions import COLLECT, SUBJECTS, WORKERS, write
from .usage import MARK, Usage, log_defects, measure, none_left

CLIENTS = 8
BURSTS = 0.02
"""Share of bursts among what a client sends."""

FIRST_NUMBER = 1000
"""Smaller numbers are for requests that are not accounted for."""

REST_SECONDS = 90.0
"""How long the server may take until it holds no more than before: calls end, workers start."""

MAX_DEFECTS = 40

_SLACK = {"threads": 6, "descriptors": 6, "shm": 0, "files": 0, "others": 0, "mappings": 0}
_ONE_ARENA = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(settings.MALLOC_MMAP_THRESHOLD),
    "MALLOC_TRIM_THRESHOLD_": str(settings.MALLOC_TRIM_THRESHOLD),
}
"""glibc's malloc returns free memory at the end of the first arena only. Each thread would have
another one, and keep there what it has ever needed at once: 30 to 60 MB a thread of a handler."""

_MOST_MB = {"server_mb": 200.0, "workers_mb": 400.0}
_MOST_GROWTH_MB = {"server_mb": 40.0, "workers_mb": 80.0}


@dataclass
class Report:
    """What came of a run.

    Attributes:
        seed: Seed of the run.
        calls: How many calls ended how.
        faults: How often each fault was done.
        rests: What the server held in each rest.
        untrimmed: Resident memory of the server in MB, with what it keeps for later.
        kinds: How many defects of each kind there are.
        defects: What is wrong, as far as it is shown.
    """

    seed: int
    calls: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    rests: list[Usage] = field(default_factory=list)
    untrimmed: list[int] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    defects: list[str] = field(default_factory=list)

    def add(self, kind: str, text: str) -> None:
        """Notes a defect."""
        self.kinds[kind] += 1
        if len(self.defects) < MAX_DEFECTS:
            self.defects.append(f"{kind}: {text}")

    def __str__(self) -> str:
        return "\n".join(
            [
                f"seed {self.seed}: {sum(self.calls.values())} calls: {_listed(self.calls)}",
                f"faults: {_listed(self.faults)}",
                *(f"rest {number}: {usage}" for number, usage in enumerate(self.rests)),
                f"server_mb before what nobody holds was freed: {self.untrimmed}",
                *self.defects,
                f"defects: {_listed(self.kinds)}" if self.kinds else "nothing wrong, nothing left",
            ]
        )


class Run:
    """One server, and what is done to it.

    Args:
        seed: Decides which calls and faults there are. Their timing is the machine's.
        seconds: How long calls are made.
        plant: Defect to plant into the server; empty for none.
    """

    def __init__(self, seed: int, seconds: float, plant: str = "") -> None:
        self.report = Report(seed)
        self._seconds = seconds
        self._plant = plant
        self._numbers = itertools.count(FIRST_NUMBER)
        self._answered: set[int] = set()
        self._calls: dict[int, Call] = {}
        # Never ends by itself, and no other process has this argument.
        self._sleep = f"31557600.{os.getpid()}{random.SystemRandom().randrange(10**6)}"
        # Without its guardian, a worker's processes are found by a variable of their environment.
        self._hides = seed % 2 == 1
        self._mark = uuid.uuid4().hex
        self._lock = threading.Lock()

    def run(self) -> Report:
        """Runs a server under load and faults, then ends it."""
        with tempfile.TemporaryDirectory(prefix="chaos") as folder:
            self._run(Path(folder))
        return self.report

    def _run(self, folder: Path) -> None:
        self._journals, temporary = folder / "journals", folder / "tmp"
        self._temporary = temporary
        for each in (self._journals, temporary):
            each.mkdir()
        write(folder / "models", self._journals, self._sleep, self._hides, self._plant)
        env = {
            MARK: self._mark,
            "TMPDIR": str(temporary),
            "MLSERVER_DEBUG": "false",
            "MLSERVER_PARALLEL_WORKERS": "0",
            "MLSERVER_GRPC_MAX_MESSAGE_LENGTH": str(2**28),
            "MLSERVER_PYFUNC_WRITE_TIMEOUT": str(WRITE_SECONDS),
            **_ONE_ARENA,
        }
        seed = self.report.seed
        with serving(folder / "models", folder, *SUBJECTS, env=env) as server:
            rounds = max(2, round(self._seconds / 60))
            for number in range(rounds):
                self._round(server, number, self._seconds / rounds)
                if not server.running:
                    self.report.add("lost", f"the server has ended:\n{server.log[-5000:]}")
                    return
                self._rest(server)
                self._calm(server, random.Random(f"{seed} {number} calm"))
            self._end(server)
        self._read_journals()
        self._judge_growth()

    def _round(self, server: ServerProcess, number: int, seconds: float) -> None:
        stopped = threading.Event()
        seed = self.report.seed
        chance = random.Random(f"{seed} {number} faults")
        faults = Faults(server, chance, kills_guardians=not self._hides)
        clients = [
            threading.Thread(
                target=self._client,
                args=(server, random.Random(f"{seed} {number} {client}"), stopped),
                daemon=True,
            )
            for client in range(CLIENTS)
        ]
        faulty = threading.Thread(target=faults.run, daemon=True)
        for thread in (*clients, faulty):
            thread.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end and server.running:
            time.sleep(0.1)
        faults.stop()
        faulty.join(2 * HANG_SECONDS)
        stopped.set()
        deadline = time.monotonic() + HANG_SECONDS + 30
        for thread in clients:
            thread.join(max(deadline - time.monotonic(), 0))
        for call in list(self._calls.values()):
            self.report.add("hung", str(call))
        self.report.faults += faults.counts
        for wrong in faults.wrong:
            self.report.add("repository", wrong)

    def _client(
        self, server: ServerProcess, chance: random.Random, stopped: threading.Event
    ) -> None:
        client = Client(server.rest_address, server.grpc_address)
        try:
            while not stopped.is_set():
                is_burst = chance.random() < BURSTS
                calls = (
                    draw_burst(chance, self._numbers)
                    if is_burst
                    else [draw(chance, next(self._numbers))]
                )
                self._calls |= {call.number: call for call in calls}
                outcomes = client.send_together(calls) if is_burst else [client.send(calls[0])]
                for call, outcome in zip(calls, outcomes, strict=True):
                    self._account(call, outcome)
        except BaseException as error:
            self.report.add("chaos", f"a client ended: {error!r}")
            raise
        finally:
            client.close()

    def _account(self, call: Call, outcome: Outcome) -> None:
        assert call.number < FIRST_TOO_LARGE
        del self._calls[call.number]
        word, wrong = judge(call, outcome)
        with self._lock:
            self.report.calls[word] += 1
            if wrong:
                self.report.add(word, wrong)
            elif word == "right":
                self._answered.add(call.number)

    def _rest(self, server: ServerProcess) -> None:
        """Waits until the server holds no more than it should, and measures it."""
        with httpx.Client(base_url=server.url, timeout=60) as client:
            client.post("/v2/repository/models/churn/load")
        # What is planted does not go away.
        deadline = time.monotonic() + (10 if self._plant else REST_SECONDS)
        peak = measure(server.pid, self._temporary, self._sleep).server_mb
        while True:
            self._collect(server)
            usage = measure(server.pid, self._temporary, self._sleep)
            problems = self._problems(server, usage)
            if not problems:
                break
            if time.monotonic() > deadline:
                for problem in problems:
                    self.report.add("left", problem)
                break
            time.sleep(0.5)
        self.report.rests.append(usage)
        self.report.untrimmed.append(round(peak))

    def _calm(self, server: ServerProcess, chance: random.Random) -> None:
        """Calls each function by each route, one call at a time: all answers must be right."""
        client = Client(server.rest_address, server.grpc_address)
        for model, route in itertools.product(SUBJECTS, ROUTES):
            call = plain(chance, next(self._numbers), model, route)
            word, wrong = judge(call, client.send(call))
            self.report.calls[f"calm {word}"] += 1
            if word != "right":
                self.report.add("calm", wrong or f"{call}: {word}")
        client.close()

    def _collect(self, server: ServerProcess) -> None:
        """Frees what nobody holds: what Python and the C library keep for later is no leak."""
        client = Client(server.rest_address, server.grpc_address)
        call = plain(random.Random(0), next(self._numbers), "here", "JSON", COLLECT)
        client.send(call)
        client.close()

    def _problems(self, server: ServerProcess, usage: Usage) -> list[str]:
        found = [f"{model} is not ready" for model in SUBJECTS if not server.is_ready(model)]
        found += _busy_gauges(server)
        if usage.workers != WORKERS:
            found.append(f"expected {WORKERS} workers, got {usage.workers}")
        if usage.mappings != 2 * WORKERS:
            found.append(f"expected {2 * WORKERS} shared memories, got {usage.mappings}")
        for name, slack in _SLACK.items():
            first, now = (getattr(each, name) for each in (self._first(usage), usage))
            if now > first + slack:
                found.append(f"{name}: {first} in the first rest, {now} now")
        return found

    def _first(self, usage: Usage) -> Usage:
        return self.report.rests[0] if self.report.rests else usage

    def _end(self, server: ServerProcess) -> None:
        code = server.stop()
        if code != 0:
            self.report.add("end", f"expected exit code 0, got {code}:\n{server.log[-3000:]}")
        for process in none_left(self._mark, self._sleep, 10):
            self.report.add("left", f"process after the end: {process}")
        for text in log_defects(server.log):
            self.report.add("log", text)

    def _read_journals(self) -> None:
        """Compares what handlers have noted with what clients got."""
        for name, subject in SUBJECTS.items():
            path = self._journals / name
            begun = Counter(np.fromfile(path, dtype="<u8").tolist() if path.exists() else [])
            if subject.batches:
                continue  # members of a batch that failed run once more, alone
            most = 2 if subject.serving.get("idempotent") else 1
            for number, count in begun.items():
                if number >= FIRST_NUMBER and count > most:
                    self.report.add("twice", f"call {number} of {name} ran {count} times")
            self._answered -= begun.keys()
        # What is left are calls of functions that batch, whose journals were not compared.
        for name, subject in SUBJECTS.items():
            if subject.batches and (self._journals / name).exists():
                self._answered -= set(np.fromfile(self._journals / name, dtype="<u8").tolist())
        for number in sorted(self._answered):
            self.report.add("not run", f"call {number} was answered, and never ran")

    def _judge_growth(self) -> None:
        rests = self.report.rests
        if not rests:
            return
        for name, most in _MOST_MB.items():
            grown = getattr(rests[-1], name) - getattr(rests[0], name)
            if grown > most:
                self.report.add("left", f"{name} has grown by {grown:.0f}, more than {most:g}")
        third = len(rests) // 3
        if third < 3:
            return
        for name, most in _MOST_GROWTH_MB.items():
            middle, last = (
                median(getattr(each, name) for each in part)
                for part in (rests[third : 2 * third], rests[2 * third :])
            )
            if last - middle > most:
                self.report.add("left", f"{name} still grows: {middle:.0f}, then {last:.0f}")


def _busy_gauges(server: ServerProcess) -> list[str]:
    """Reads from the metrics what should be zero when nothing is asked of the server."""
    port = server._env["MLSERVER_METRICS_PORT"]
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=60).text
    lines = [line for line in text.splitlines() if line.startswith("pyfunc_queue_depth{")]
    return [line for line in lines if float(line.rpartition(" ")[2]) != 0]


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"
