"""Plays autoscalers over real servers under a load that rises and falls.

    python -m benchmarks.autoscaling            all functions and autoscalers, about 45 minutes
    python -m benchmarks.autoscaling --quick    each only until a second pod has answered

Real `mlserver start` processes behind a balancer get real calls, half of them over REST and half
over gRPC. A real Prometheus scrapes their metrics. The formulas are those of the
HorizontalPodAutoscaler and of KEDA (hpa.py). What they follow, and how much of it, is read from the
objects that `mlserver-pyfunc manifest` prints.

Two things are scaled, so that it fits on a small machine:

- Time passes PACE times as fast as in a cluster: the periods of the autoscaler, of the scrapes and
  of the kubelet, the age of connections. A call that takes 0.2 s here stands for one of 0.6 s.
- A core is CORE of a real one: a function that computes for 4 ms holds Python's lock for 20 ms, as
  if its core were that slow, and the CPU that a process uses counts five times.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from mlserver_pyfunc.definition import kubernetes_names as names

from . import hpa
from .balancer import KINDS, Balancer
from .cluster import Deployment, Pod, manifest, write_function
from .prometheus import Prometheus
from .traffic import Answer, Traffic

DOCS = Path(__file__).resolve().parents[1] / "docs"
PACE = 3.0
CORE = 0.2
SCRAPE_SECONDS = 15.0
AGE_SECONDS = 30.0
MAX_REPLICAS = 6
CLIENTS = 16
MINUTE = 60.0
CODE = """
import ctypes
import os
import time

holding_the_lock = ctypes.PyDLL(None)


def compute(seconds, share):
    end = time.thread_time() + seconds * share
    while time.thread_time() < end:
        pass
    holding_the_lock.usleep(int(seconds * (1 - share) * 1e6))


def waiting(x):
    time.sleep(0.2)
    return [os.environ["POD"]]


def computing(x):
    compute(0.02, 0.2)
    return [os.environ["POD"]]


def isolated(x):
    compute(0.02, 0.1)
    time.sleep(0.02)
    return [os.environ["POD"]]
"""


@dataclass(frozen=True)
class Load:
    """A function, and the calls per second that it gets at rest and at its peak."""

    serving: dict[str, Any]
    rest: float
    peak: float


LOADS = {
    "waiting": Load({"concurrency": 4}, 5, 40),
    "computing": Load({}, 10, 70),
    "isolated": Load({"isolation": "process", "workers": 2}, 10, 70),
}
# By simulated minutes.
RISE, FALL, END = 1, 4, 11

UTILIZATION = ("--scale-on", "utilization")
AUTOSCALERS = {
    "KEDA": (*UTILIZATION, "--prometheus", "http://prometheus:9090"),
    "custom metric": UTILIZATION,
    "CPU of 1 core": ("--cpu", "1"),
    "CPU of 2 cores": ("--cpu", "2"),
}


@dataclass(frozen=True)
class Autoscaler:
    """What a printed object makes of the metrics.

    Attributes:
        least: Lower bound.
        most: Upper bound.
        follows: What it follows, in a few words.
        wanted: Returns the replicas for pods that are ready, and for a number of all.
    """

    least: int
    most: int
    follows: str
    wanted: Callable[[list[Pod], int], int]


def autoscaler(
    printed: dict[str, dict[str, Any]], prometheus: Prometheus, pace: float
) -> Autoscaler:
    """Reads a ScaledObject or a HorizontalPodAutoscaler."""
    if "ScaledObject" in printed:
        return _by_keda(printed["ScaledObject"]["spec"], prometheus, pace)
    spec = printed["HorizontalPodAutoscaler"]["spec"]
    (metric,) = spec["metrics"]
    if metric["type"] == "Pods":
        return _by_custom_metric(spec, metric["pods"], prometheus, pace)
    (container,) = printed["Deployment"]["spec"]["template"]["spec"]["containers"]
    return _by_cpu(spec, metric["resource"], container["resources"]["requests"]["cpu"])


def _by_keda(spec: dict[str, Any], prometheus: Prometheus, pace: float) -> Autoscaler:
    (trigger,) = spec["triggers"]
    query, threshold = trigger["metadata"]["query"], float(trigger["metadata"]["threshold"])

    def wanted(pods: list[Pod], replicas: int) -> int:
        # KEDA takes no result for 0.
        total = prometheus.ask(_paced(query, pace)).get("", 0)
        return hpa.by_external(total, threshold, replicas)

    text = f"`{query}`, {threshold:g} for each pod"
    return Autoscaler(spec["minReplicaCount"], spec["maxReplicaCount"], text, wanted)


def _by_custom_metric(
    spec: dict[str, Any], metric: dict[str, Any], prometheus: Prometheus, pace: float
) -> Autoscaler:
    query = _adapted(metric["metric"]["name"])
    target = names.amount(metric["target"]["averageValue"])

    def wanted(pods: list[Pod], replicas: int) -> int:
        found = prometheus.ask(_paced(query, pace))
        values = [found[pod.name] for pod in pods if pod.name in found]
        return hpa.by_pods(values, target, replicas)

    text = f"`{query}`, {target:g} for each pod"
    return Autoscaler(spec["minReplicas"], spec["maxReplicas"], text, wanted)


def _by_cpu(spec: dict[str, Any], metric: dict[str, Any], request: str) -> Autoscaler:
    percent = metric["target"]["averageUtilization"]
    used: dict[str, tuple[float, float]] = {}

    def wanted(pods: list[Pod], replicas: int) -> int:
        values = []
        for pod in pods:
            now, cpu = time.monotonic(), pod.cpu_seconds()
            if before := used.get(pod.name):
                cores = (cpu - before[1]) / (now - before[0]) / CORE
                values.append(100 * cores / names.amount(request))
            used[pod.name] = now, cpu
        return hpa.by_pods(values, percent, replicas)

    text = f"{percent} % of the {request} CPU that each pod requests"
    return Autoscaler(spec["minReplicas"], spec["maxReplicas"], text, wanted)


def _paced(query: str, pace: float) -> str:
    """Shortens the times of a query."""

    def shortened(match: re.Match[str]) -> str:
        seconds = float(match[1]) * {"s": 1, "m": 60}[match[2]]
        return f"{seconds / pace * 1000:.0f}ms"

    return re.sub(r"\[[^]]*\]", lambda times: re.sub(r"(\d+)([sm])", shortened, times[0]), query)


def _adapted(series: str) -> str:
    """Returns the query that prometheus-adapter makes by the rule in docs/kserve.md."""
    rule = re.search("metricsQuery: '(.*)'", (DOCS / "kserve.md").read_text())
    assert rule
    query = rule[1].replace("<<.Series>>", series).replace("<<.LabelMatchers>>", 'pod!=""')
    return query.replace("<<.GroupBy>>", "pod")


@dataclass(frozen=True)
class Result:
    """What a run has shown.

    Attributes:
        follows: What the autoscaler followed.
        replicas: Pods that were ready, at the end of each simulated minute.
        answers: All answers, by the simulated minute in which the call was sent.
    """

    follows: str
    replicas: list[int]
    answers: list[tuple[float, Answer]]

    def failures(self) -> Counter[str]:
        """Counts what else than 503 has failed."""
        answers = [answer for _, answer in self.answers]
        return Counter(a.status for a in answers if a.status != "OK" and not a.was_refused)

    def row(self) -> str:
        refused = [minute for minute, answer in self.answers if answer.was_refused]
        at_once = sum(RISE <= minute < RISE + 1 for minute in refused)
        failed = self.failures().total()
        cells = [" ".join(map(str, self.replicas)), f"{len(self.answers):,}"]
        return " | ".join([*cells, f"{at_once:,}", f"{len(refused) - at_once:,}", f"{failed:,}"])


async def run(
    function: str, options: tuple[str, ...], kind: str, work: Path, pace: float, *, is_quick: bool
) -> Result:
    """Plays the load, or, if it is to be quick, its peak until a second pod has answered."""
    load = LOADS[function]
    definition = {
        "model_name": function,
        "source": {"code": CODE, "handler": function},
        "inputs": [{"name": "x", "datatype": "FP64", "shape": [1]}],
        "outputs": [{"name": "pod", "datatype": "BYTES", "shape": [1]}],
        "serving": load.serving,
    }
    folder = write_function(work / function, definition)
    printed = manifest(folder, "--max-replicas", str(MAX_REPLICAS), *options)
    variables = {"MLSERVER_PYFUNC_CONNECTION_AGE": f"{AGE_SECONDS / pace:g}"}
    with Balancer(kind, work) as balancer, Prometheus(SCRAPE_SECONDS / pace, work) as prometheus:
        found = autoscaler(printed, prometheus, pace)
        deployment = Deployment(
            printed["Deployment"], folder, work, [balancer, prometheus], variables, pace
        )
        try:
            deployment.scale(found.least)
            await deployment.settle()
            async with Traffic(function, balancer.rest, balancer.grpc, CLIENTS) as traffic:
                begun = time.monotonic()

                def minute(now: float) -> float:
                    return (now - begun) * pace / MINUTE

                def rate() -> float:
                    is_high = is_quick or RISE <= minute(time.monotonic()) < FALL
                    return (load.peak if is_high else load.rest) / 2

                traffic.start(rate)
                until = partial(_has_scaled, traffic) if is_quick else None
                replicas = await _follow(found, deployment, pace, until)
        finally:
            await deployment.close()
    answers = [(minute(answer.sent), answer) for answer in traffic.answers]
    return Result(found.follows, replicas, answers)


async def _follow(
    found: Autoscaler, deployment: Deployment, pace: float, until: Callable[[], bool] | None
) -> list[int]:
    """Is the loop of the controller. Returns the pods at the end of each simulated minute."""
    behavior = hpa.Behavior(found.least, found.most)
    begun = time.monotonic()
    syncs = int(MINUTE / hpa.SYNC_SECONDS)
    replicas = []
    for sync in count(1):
        due = begun + sync * hpa.SYNC_SECONDS / pace
        await asyncio.sleep(max(0, due - time.monotonic()))
        wanted = found.wanted(deployment.pods, deployment.replicas)
        now = sync * hpa.SYNC_SECONDS
        deployment.scale(behavior.limit(now, deployment.replicas, wanted))
        if sync % syncs == 0:
            replicas.append(len(deployment.pods))
        if until() if until else sync == END * syncs:
            break
    return replicas


def _has_scaled(traffic: Traffic) -> bool:
    answered = {(each.protocol, each.pod) for each in traffic.answers if each.status == "OK"}
    return {("REST", "pod-2"), ("gRPC", "pod-2")} <= answered


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--functions", default=",".join(LOADS), help="comma-separated")
    parser.add_argument("--autoscalers", default=",".join(AUTOSCALERS), help="comma-separated")
    parser.add_argument("--balancer", choices=KINDS, default="requests")
    parser.add_argument("--pace", type=float, default=PACE, help="how fast time passes")
    parser.add_argument("--quick", action="store_true", help="only until a second pod has answered")
    arguments = parser.parse_args()
    print(
        f"The load rises after {RISE} minute and falls after {FALL}; one minute takes "
        f"{MINUTE / arguments.pace:g} s.\n\n"
        "| function | autoscaler | pods after each minute | calls "
        "| 503 within a minute of the rise | 503 later | failed otherwise |\n"
        "|---|---|---|---|---|---|---|",
        flush=True,
    )
    followed = []
    for function in arguments.functions.split(","):
        for name in arguments.autoscalers.split(","):
            with tempfile.TemporaryDirectory(prefix="autoscaling-") as work:
                options, kind, pace = AUTOSCALERS[name], arguments.balancer, arguments.pace
                played = run(function, options, kind, Path(work), pace, is_quick=arguments.quick)
                found = asyncio.run(played)
            print(f"| {function} | {name} | {found.row()} |", flush=True)
            for status, times in found.failures().items():
                followed.append(f"{function} by {name}: {times} x {status}")
            followed.append(f"{function} by {name}: {found.follows}")
    print("", *followed, sep="\n")
    if arguments.quick:
        print("\nA second pod has answered over REST and gRPC.")
    print(f"\nload average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
