"""Measures what traces cost: CPU time of the server for a W1 request over REST, by share of traces.

    python -m benchmarks.tracing --rounds 60

A server without traces and one for each share run side by side, and get bursts of requests in
turns. The spans go to a collector in this process. A ratio is the median over pairs of bursts.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import tempfile
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from mlserver_pyfunc.deployment.server_process import Server

BURST = 400
DEFINITION = """
model_name: w1
source: {handler: same, code: "def same(x): return x"}
inputs: [{name: x, datatype: FP32, shape: [1, 4]}]
outputs: [{name: y, datatype: FP32, shape: [1, 4]}]
"""
_TENSOR = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1.5, 2.5, 3.5, 4.5]}
_BODY = json.dumps({"inputs": [_TENSOR]})
_REQUEST = (
    "POST /v2/models/w1/infer HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    f"Content-Length: {len(_BODY)}\r\n\r\n{_BODY}"
).encode()


class Collector(BaseHTTPRequestHandler):
    """Takes spans, and forgets them."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def cpu_us(pid: int) -> float:
    """Returns the CPU time that all threads of a process have had."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e3


def burst(server: Server, count: int = BURST) -> float:
    """Sends requests one after the other, and returns the CPU time of one."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        before = cpu_us(server.pid)
        for _ in range(count):
            connection.sendall(_REQUEST)
            answer = connection.recv(65536)
            while b'"data"' not in answer:
                more = connection.recv(65536)
                assert more, answer
                answer += more
        return (cpu_us(server.pid) - before) / count


def variables(share: str, port: int) -> dict[str, str]:
    """Returns the environment of a server that records a share of its requests."""
    if share == "off":
        return {"OTEL_TRACES_EXPORTER": "none"}
    return {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": share,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tracing", description=__doc__)
    parser.add_argument("--shares", default="0,0.01,1")
    parser.add_argument("--rounds", type=int, default=60)
    arguments = parser.parse_args()
    names = ["off", *arguments.shares.split(",")]
    collector = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tracing-")))
        (folder / "function.yaml").write_text(DEFINITION)
        servers = {
            name: stack.enter_context(Server(folder, variables(name, collector.server_port)))
            for name in names
        }
        for server in servers.values():
            burst(server)
        found: dict[str, list[float]] = {name: [] for name in names}
        for number in range(arguments.rounds):
            for name in names if number % 2 else names[::-1]:
                found[name].append(burst(servers[name]))
    print("| traces | us | of off |\n|---|---|---|")
    for name, times in found.items():
        ratio = statistics.median(a / b for a, b in zip(times, found["off"], strict=True))
        print(f"| {name} | {statistics.median(times):.0f} | {ratio:.3f} |")


if __name__ == "__main__":
    main()
