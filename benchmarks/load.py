"""Makes load with h2load, a compiled generator for HTTP/1.1 and, for gRPC, HTTP/2."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path

import grpc

from .systems import LIMIT, Server
from .workloads import Request, Workload, check, request

CLIENT_CORE = "1"


@dataclass(frozen=True)
class Sample:
    """One timed run.

    Attributes:
        requests: Number of requests that succeeded.
        failed: Number of requests that failed.
        rps: Successful requests per second.
        p50_ms: Median latency in milliseconds.
        p99_ms: 99th percentile of the latency in milliseconds.
        cpu_us: CPU time of the server's processes per request, in microseconds.
    """

    requests: int
    failed: int
    rps: float
    p50_ms: float
    p99_ms: float
    cpu_us: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def require_h2load() -> None:
    """Raises SystemExit, which says what to install, if h2load or taskset is missing."""
    if shutil.which("h2load") is None or shutil.which("taskset") is None:
        raise SystemExit("h2load and taskset are needed: apt-get install nghttp2-client util-linux")


def verify(server: Server, workload: Workload, route: str) -> None:
    """Sends one request and checks the value of its answer."""
    sent = request(workload, route)
    if sent.is_grpc:
        sizes = ("grpc.max_receive_message_length", "grpc.max_send_message_length")
        options = [(size, int(LIMIT)) for size in sizes]
        with grpc.insecure_channel(f"127.0.0.1:{server.ports.grpc}", options) as channel:
            body = channel.unary_unary(sent.path)(sent.body[5:], timeout=60)
        check(workload, route, {}, body)
        return
    url = f"http://127.0.0.1:{server.ports.http}{sent.path}"
    posted = urllib.request.Request(url, data=sent.body, headers=sent.headers)
    try:
        with urllib.request.urlopen(posted, timeout=60) as response:
            headers = {key.lower(): value for key, value in response.headers.items()}
            check(workload, route, headers, response.read())
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{error.code}: {error.read()[:300]!r}") from None


def measure(server: Server, workload: Workload, route: str, clients: int, seconds: float) -> Sample:
    """Measures a workload over a route."""
    return time_requests(server, request(workload, route), clients, seconds)


def time_requests(server: Server, sent: Request, clients: int, seconds: float) -> Sample:
    """Warms a server up, and then sends as many requests as take the given seconds."""
    with tempfile.TemporaryDirectory() as folder:
        count = 2 * clients
        for step in range(2):
            started = time.perf_counter()
            _h2load(server, sent, clients, count, Path(folder, f"warm-up-{step}"))
            rate = count / (time.perf_counter() - started)
            count = max(2 * clients, int(rate * (seconds / 5 if step == 0 else seconds)))
        cpu = server.cpu_seconds()
        log = _h2load(server, sent, clients, count, Path(folder, "log"))
        cpu = server.cpu_seconds() - cpu
    rows = [[int(part) for part in line.split()] for line in log.splitlines()]
    good = [row for row in rows if row[1] == 200]
    if not good:
        raise RuntimeError(f"{server.system.name} {sent.path}: no request succeeded")
    start = min(row[0] for row in rows)
    end = max(row[0] + row[2] for row in rows)
    latencies = sorted(row[2] / 1000 for row in good)
    return Sample(
        requests=len(good),
        failed=len(rows) - len(good),
        rps=len(good) / ((end - start) / 1e6),
        p50_ms=statistics.median(latencies),
        p99_ms=latencies[min(len(latencies) - 1, int(len(latencies) * 0.99))],
        cpu_us=cpu / len(good) * 1e6,
    )


def _h2load(server: Server, sent: Request, clients: int, count: int, log: Path) -> str:
    body = log.with_suffix(".body")
    body.write_bytes(sent.body)
    port = server.ports.grpc if sent.is_grpc else server.ports.http
    command = ["taskset", "-c", CLIENT_CORE, "h2load", "-c", str(clients), "-t", "1", "-m", "1"]
    command += ["-n", str(count), "-d", str(body), "--log-file", str(log)]
    command += ["-w", "30", "-W", "30"] if sent.is_grpc else ["--h1"]
    for key, value in sent.headers.items():
        command += ["-H", f"{key}: {value}"]
    command.append(f"http://127.0.0.1:{port}{sent.path}")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=300)
    return log.read_text()
