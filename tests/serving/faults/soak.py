"""Mixed load on a real server for a long time: nothing may grow.

python -m tests.serving.faults.soak --seconds 1800
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx
import psutil

from tests.hosts.mlserver.models import inline, tensor, write_model
from tests.hosts.mlserver.process import ServerProcess, serving

THREADS = 8

CODE = """
import asyncio, os, time

def double(x):
    if x[0] == -1:
        os._exit(1)
    if x[0] == -2:
        raise ValueError("as asked")
    if x[0] == -3:
        time.sleep(60)
    print("one of many lines")
    return x * 2

async def double_later(x):
    await asyncio.sleep(0.001)
    return x * 2

def stream(x):
    for n in range(5):
        yield x * 2
"""

_TENSORS = {"inputs": [tensor("x", "FP32", [-1])], "outputs": [tensor("y", "FP32", [-1])]}
_APART = {"isolation": "process", "workers": 2, "max_queue": 256}
MODELS = {
    "here": inline(CODE, "double_later", _TENSORS),
    "apart": inline(CODE, "double", _TENSORS, **_APART, timeout=10, max_requests=2000),
    "later": inline(CODE, "double_later", _TENSORS, **_APART, concurrency=4),
    "stream": inline(CODE, "stream", _TENSORS, **_APART),
    "batched": inline(
        CODE, "double", _TENSORS, **_APART, batch={"max_size": 16, "max_delay_ms": 2}
    ),
}
_FAULTS = {-1: 500, -2: 500, -3: 504}


@dataclass(frozen=True)
class Usage:
    """What the server and its workers hold."""

    rss_mb: float
    descriptors: int
    threads: int
    children: int


class Soak:
    """Load by some threads; each checks its answers.

    Args:
        server: Serves `MODELS`.
    """

    def __init__(self, server: ServerProcess) -> None:
        self.answers: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._server = server
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._client, args=(seed,)) for seed in range(THREADS)
        ]

    def run(self, seconds: float) -> list[Usage]:
        """Loads the server for some time; what it held, in regular samples."""
        for thread in self._threads:
            thread.start()
        samples = []
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.wrong:
            time.sleep(max(seconds / 100, 0.5))
            samples.append(_usage(self._server.pid))
        self._stopped.set()
        for thread in self._threads:
            thread.join()
        return samples

    def _client(self, seed: int) -> None:
        chance = random.Random(seed)
        with httpx.Client(base_url=self._server.url, timeout=120) as client:
            while not self._stopped.is_set():
                model = chance.choice(list(MODELS))
                fault = chance.choice(list(_FAULTS)) if chance.random() < 0.002 else 0
                size = chance.choice([1, 10, 1000, 50_000])
                value = float(chance.randrange(1, 1000))
                if fault and model == "apart":
                    value = float(fault)
                try:
                    self._call(client, model, [value] * size)
                except (AssertionError, httpx.HTTPError, ValueError, KeyError) as error:
                    self.wrong.append(f"{model} {value} x {size}: {error!r}")
                    return

    def _call(self, client: httpx.Client, model: str, values: list[float]) -> None:
        body = {
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [len(values)], "data": values}]
        }
        expected = [2 * value for value in values]
        if model == "stream":
            with client.stream("POST", f"/v2/models/{model}/infer_stream", json=body) as response:
                lines = [line for line in response.iter_lines() if line.startswith("data: ")]
            events = [json.loads(line.removeprefix("data: ")) for line in lines]
            assert [event["outputs"][0]["data"] for event in events] == [expected] * 5
        else:
            reply = client.post(f"/v2/models/{model}/infer", json=body)
            status = _FAULTS.get(int(values[0]), 200)
            # A call beside one that kills its worker is on another worker, or waits for it.
            assert reply.status_code == status, reply.text[:300]
            if status == 200:
                assert reply.json()["outputs"][0]["data"] == expected
            self.answers[f"{reply.status_code}"] += 1
            return
        self.answers["streams"] += 1


def _usage(pid: int) -> Usage:
    server = psutil.Process(pid)
    rss = descriptors = threads = children = 0
    for process in [server, *server.children(recursive=True)]:
        try:
            with process.oneshot():
                rss += process.memory_info().rss
                descriptors += process.num_fds()
                threads += process.num_threads()
                children += process.pid != pid
        except psutil.Error:
            continue
    return Usage(rss / 2**20, descriptors, threads, children)


def growth(samples: list[Usage]) -> dict[str, float]:
    """What the last third holds more than the second: medians, so that a worker that is being
    replaced does not count."""
    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[2 * third :]
    return {
        name: median(getattr(s, name) for s in last) - median(getattr(s, name) for s in middle)
        for name in ("rss_mb", "descriptors", "threads", "children")
    }


def soak(seconds: float, folder: Path) -> tuple[Soak, list[Usage]]:
    """Runs a server and its load for some time."""
    for name, definition in MODELS.items():
        write_model(folder / "models" / name, definition)
    env = {"MLSERVER_DEBUG": "false", "MLSERVER_PARALLEL_WORKERS": "0"}
    with serving(folder / "models", folder, *MODELS, env=env) as server:
        run = Soak(server)
        samples = run.run(seconds)
        return run, samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run, samples = soak(arguments.seconds, Path(folder))
    print(f"answers: {dict(run.answers)}; wrong: {run.wrong}")
    print(f"first: {samples[0]}\nlast:  {samples[-1]}\ngrowth: {growth(samples)}")


if __name__ == "__main__":
    main()
