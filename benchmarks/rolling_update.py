"""Replaces and adds pods under load, behind a balancer of connections and one of requests.

    python -m benchmarks.rolling_update --rate 370 --runs 3

Real servers, two pods of them, get --rate requests per second over REST and as many over gRPC, in
real time and with the settings that `mlserver-pyfunc manifest` prints. Both pods are replaced by a
rolling update, then a third pod is added. What counts is how many calls were lost, and the share
of the calls that the added pod answers once connections have come of age.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from mlserver_pyfunc.settings import connection_age

from .balancer import KINDS, Balancer
from .cluster import Deployment, manifest, write_function
from .traffic import Answer, Traffic

MODEL = "quick"
CODE = """
import os
import time


def where(x):
    time.sleep(0.01)
    return [os.environ["POD"]]
"""
DEFINITION = {
    "model_name": MODEL,
    "source": {"code": CODE, "handler": "where"},
    "inputs": [{"name": "x", "datatype": "FP64", "shape": [1]}],
    "outputs": [{"name": "pod", "datatype": "BYTES", "shape": [1]}],
    "serving": {"concurrency": 32, "max_queue": 512},
}
PODS = 2
CLIENTS = 16
WARM_UP_SECONDS = 5.0
SHARE_SECONDS = 20.0


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        answers: All answers.
        seconds: Time in which calls were sent.
        added: Name of the pod that was added.
        since: Time from which its share counts.
        killed: Pods that did not end within their time.
    """

    answers: list[Answer]
    seconds: float
    added: str
    since: float
    killed: list[str]

    def row(self, protocol: str) -> tuple[int, float, int, float]:
        """Returns calls, calls per second, lost ones, and the share of the added pod."""
        answers = [answer for answer in self.answers if answer.protocol == protocol]
        lost = sum(answer.status != "OK" for answer in answers)
        late = Counter(answer.pod for answer in answers if answer.sent >= self.since)
        return len(answers), len(answers) / self.seconds, lost, late[self.added] / late.total()


async def run(kind: str, rate: float, work: Path) -> Run:
    folder = write_function(work / MODEL, DEFINITION)
    printed = manifest(folder, "--replicas", str(PODS))["Deployment"]
    with Balancer(kind, work) as balancer:
        deployment = Deployment(printed, folder, work, [balancer])
        try:
            deployment.scale(PODS)
            await deployment.settle()
            async with Traffic(MODEL, balancer.rest, balancer.grpc, CLIENTS) as traffic:
                begun = time.monotonic()
                traffic.start(lambda: rate)
                await asyncio.sleep(WARM_UP_SECONDS)
                await deployment.roll()
                deployment.scale(PODS + 1)
                await deployment.settle()
                # Ages vary by a tenth.
                await asyncio.sleep(connection_age() * 1.1 + 1)
                since = time.monotonic()
                await asyncio.sleep(SHARE_SECONDS)
                seconds = time.monotonic() - begun
        finally:
            await deployment.close()
    killed = [pod.name for pod in deployment.ended if pod.was_killed]
    return Run(traffic.answers, seconds, deployment.pods[-1].name, since, killed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rate", type=float, default=370, help="calls per second and protocol")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--balancers", default=",".join(KINDS), help="comma-separated")
    arguments = parser.parse_args()
    print("| balancer of | run | protocol | sent | per second | lost | share of the new pod |")
    print("|---|---|---|---|---|---|---|")
    for number in range(1, arguments.runs + 1):
        for kind in arguments.balancers.split(","):
            with tempfile.TemporaryDirectory(prefix="rolling-") as work:
                found = asyncio.run(run(kind, arguments.rate, Path(work)))
            for protocol in ("REST", "gRPC"):
                sent, rate, lost, share = found.row(protocol)
                cells = f"{kind} | {number} | {protocol} | {sent:,} | {rate:.0f} | {lost}"
                print(f"| {cells} | {share:.0%} of {1 / (PODS + 1):.0%} |", flush=True)
            for text, times in Counter(each.status for each in found.answers).items():
                if text != "OK":
                    print(f"{times} x {text}")
            if found.killed:
                print(f"killed: {', '.join(found.killed)}")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
