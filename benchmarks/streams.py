"""Measures streams: short texts (S1), tensors of 4 KiB (S2), texts every 5 ms (S3).

    python -m benchmarks.streams [--systems pyfunc,...] [--repeats 3] [--output FILE.json]
    python -m benchmarks.streams --soak 1800 --systems pyfunc-async,pyfunc,pyfunc-isolated

For each system and protocol: CPU of the server for an item, items a second, the time to the first
item, and how long a generator runs on when its client has left. The server has one core, and the
client another; the other servers are stopped meanwhile. `--soak` streams for so many seconds
instead, with clients that leave among them, and shows whether memory, threads or files grow.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import environments
from .load import CLIENT_CORE
from .systems import LEAN, SERVERS, Ports, Server, System

FOLDER = SERVERS / "streams"
PATH = {"PYTHONPATH": str(FOLDER)}
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
CANCELLED_AFTER = 20


@dataclass(frozen=True)
class Load:
    """Streams that are read at the same time: each of `count` items of `size` numbers."""

    count: int
    size: int = 0
    pause_us: int = 0
    clients: int = 1

    @property
    def kind(self) -> str:
        return "array" if self.size else "text"

    def inputs(self) -> list[dict[str, Any]]:
        asked = {"count": self.count, "size": self.size, "pause_us": self.pause_us}
        return [
            {"name": name, "datatype": "INT64", "shape": [1], "data": [value]}
            for name, value in asked.items()
        ]


LOADS = {
    "s1": Load(count=10_000),
    "s2": Load(count=2_000, size=1024),
    "s3": Load(count=200, pause_us=5_000, clients=32),
}


def _models(folder: Path, settings: dict[str, dict[str, Any]]) -> list[str]:
    for name, model in settings.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "model-settings.json").write_text(json.dumps({"name": name, **model}))
    (folder / "settings.json").write_text(json.dumps(LEAN))
    return ["start", str(folder)]


def _ours(handler: str, serving: dict[str, Any]) -> Callable[[Path, Path, Ports], list[str]]:
    def command(interpreter: Path, folder: Path, ports: Ports) -> list[str]:
        models = {}
        for kind, shape, datatype in (("text", [1], "BYTES"), ("array", [-1], "FP32")):
            function = {
                "source": {"source": str(FOLDER / "functions.py"), "handler": handler},
                "outputs": [{"name": "y", "datatype": datatype, "shape": shape}],
                "serving": {"concurrency": 32, **serving},
            }
            models[kind] = {
                "implementation": "mlserver_pyfunc.PyFuncRuntime",
                "parameters": {"extra": {"function": function}},
            }
        return [str(interpreter.parent / "mlserver"), *_models(folder / "models", models)]

    return command


def _hand_written(interpreter: Path, folder: Path, ports: Ports) -> list[str]:
    model = {"implementation": "mlserver_runtime.Streamed"}
    models = _models(folder / "models", {"text": model, "array": model})
    return [str(interpreter.parent / "mlserver"), *models]


def _script(name: str) -> Callable[[Path, Path, Ports], list[str]]:
    def command(interpreter: Path, folder: Path, ports: Ports) -> list[str]:
        given = ["--http", str(ports.http)]
        if name == "pytriton":
            given += ["--grpc", str(ports.grpc), "--metrics", str(ports.metrics)]
        return [str(interpreter), str(FOLDER / f"{name}_server.py"), *given]

    return command


def _bento(interpreter: Path, folder: Path, ports: Ports) -> list[str]:
    serve = [str(interpreter.parent / "bentoml"), "serve", "bento_service:Streamed"]
    return [*serve, "--working-dir", str(FOLDER), "--port", str(ports.http)]


BOTH = ("rest", "grpc")
MODELS = ("text", "array")
ISOLATED = {"isolation": "process"}
SYSTEMS = {
    system.name: system
    for system in (
        System("pyfunc-async", "server", _ours("items_async", {}), ("json", *BOTH), MODELS),
        System("pyfunc", "server", _ours("items", {}), ("json", *BOTH), MODELS),
        System("pyfunc-isolated", "server", _ours("items", ISOLATED), ("json", *BOTH), MODELS),
        System("hand-written", "server", _hand_written, ("json", *BOTH), MODELS, PATH),
        System("litserve", "litserve", _script("litserve"), ("json", "rest"), MODELS),
        System("bentoml", "bentoml", _bento, ("json", "rest"), MODELS),
        System("pytriton", "pytriton", _script("pytriton"), ("grpc",), MODELS),
    )
}


class RestStream:
    """One stream over REST, read from a socket. Counts its events."""

    def __init__(self, server: Server, load: Load) -> None:
        model = "hand" if server.system.environment in ("litserve", "bentoml") else load.kind
        body = json.dumps({"inputs": load.inputs()}).encode()
        head = (
            f"POST /v2/models/{model}/infer_stream HTTP/1.1\r\nhost: 127.0.0.1\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        self.items = 0
        self.ended = False
        self.first = 0.0
        self._tail = b""
        self.socket = socket.create_connection(("127.0.0.1", server.ports.http))
        self.began = time.perf_counter()
        self.socket.sendall(head.encode() + body)

    def read(self) -> None:
        data = self.socket.recv(1 << 18)
        if not data:
            raise RuntimeError(f"the stream broke off after {self.items} items: {self._tail!r}")
        text = self._tail + data
        self.items += text.count(b"data: ")
        if self.items and not self.first:
            self.first = time.perf_counter() - self.began
        self.ended = text.endswith(b"0\r\n\r\n")
        # Shorter than a mark, so that none is counted twice; long enough for the end.
        self._tail = text[-5:]

    def leave(self) -> None:
        self.socket.close()


def _rest(server: Server, load: Load) -> tuple[int, list[float]]:
    """Reads all streams of a load. Returns the number of items, and the times to each first one."""
    streams = [RestStream(server, load) for _ in range(load.clients)]
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream.socket, selectors.EVENT_READ, stream)
        while selector.get_map():
            for key, _ in selector.select(60):
                key.data.read()
                if key.data.ended:
                    selector.unregister(key.fileobj)
                    key.data.leave()
    return sum(stream.items for stream in streams), [stream.first for stream in streams]


def _grpc_request(load: Load) -> bytes:
    from tritonclient.grpc import service_pb2 as pb

    message = pb.ModelInferRequest(model_name=load.kind)
    for one in load.inputs():
        message.inputs.add(name=one["name"], datatype="INT64", shape=[1])
        message.raw_input_contents.append(struct.pack("<q", one["data"][0]))
    return bytes(message.SerializeToString())


def _grpc(server: Server, load: Load) -> tuple[int, list[float]]:
    """Like `_rest`, over gRPC. The messages are not parsed."""
    import asyncio

    from grpc import aio

    async def read(channel: Any) -> tuple[int, float]:
        call = channel.stream_stream(STREAM)(iter([_grpc_request(load)]))
        began, count, first = time.perf_counter(), 0, 0.0
        async for message in call:
            # Triton ends a decoupled stream with an empty response.
            count += b"BYTES" in message or b"FP32" in message
            first = first or time.perf_counter() - began
        return count, first

    async def run() -> tuple[int, list[float]]:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [
            aio.insecure_channel(f"127.0.0.1:{server.ports.grpc}", options)
            for _ in range(load.clients)
        ]
        ended = await asyncio.gather(*map(read, channels))
        for channel in channels:
            await channel.close()
        return sum(count for count, _ in ended), [first for _, first in ended]

    return asyncio.run(run())


READ = {"rest": _rest, "grpc": _grpc}


def _cancelled(server: Server) -> float:
    """Leaves a stream over REST, and returns the seconds until its generator is closed."""
    mark = Path(tempfile.gettempdir(), f"stream-closed-{server.ports.http}")
    stream = RestStream(server, Load(count=2_000, pause_us=5_000))
    while stream.items < CANCELLED_AFTER:
        stream.read()
    left = time.time()
    mark.unlink(missing_ok=True)
    stream.leave()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if mark.exists() and (text := mark.read_text()):
            mark.unlink()
            return float(text) - left
        time.sleep(0.005)
    return float("inf")


def _wait_until_it_streams(server: Server) -> None:
    """Some servers are ready before their models are."""
    read = READ[next(protocol for protocol in BOTH if protocol in server.system.routes)]
    deadline = time.monotonic() + 120
    for size in (0, 1024):
        while read(server, Load(count=1, size=size))[0] != 1:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{server.system.name} does not stream")
            time.sleep(0.2)


def measure(server: Server, name: str, protocol: str) -> dict[str, float]:
    """Reads a load once to warm up and once for the figures."""
    load, read = LOADS[name], READ[protocol]
    read(server, Load(load.count // 10, load.size, load.pause_us, load.clients))
    cpu, began = server.cpu_seconds(), time.perf_counter()
    count, first = read(server, load)
    seconds, cpu = time.perf_counter() - began, server.cpu_seconds() - cpu
    if count != load.count * load.clients:
        raise RuntimeError(f"{count} items, expected {load.count * load.clients}")
    figures = {
        "cpu_us": cpu / count * 1e6,
        "items_per_s": count / seconds,
        "first_ms": statistics.median(first) * 1e3,
    }
    if name == "s1" and protocol == "rest":
        figures["left_ms"] = _cancelled(server) * 1e3
    return figures


def _measure_all(names: list[str], loads: list[str], repeats: int) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        servers = []
        try:
            for name in names:
                servers.append(Server(SYSTEMS[name], Path(folder) / name))
                _wait_until_it_streams(servers[-1])
                servers[-1].pause()
            for load in loads:
                for protocol in BOTH:
                    able = [s for s in servers if protocol in s.system.routes]
                    samples: dict[str, list[dict[str, float]]] = {s.system.name: [] for s in able}
                    for _ in range(repeats):
                        for server in list(able):
                            server.resume()
                            try:
                                samples[server.system.name].append(measure(server, load, protocol))
                            except RuntimeError as error:
                                print(f"{server.system.name} {load} {protocol}: left out: {error}")
                                able.remove(server)
                                del samples[server.system.name]
                            server.pause()
                    for name, runs in samples.items():
                        medians = {k: statistics.median(r[k] for r in runs) for k in runs[0]}
                        yield {"load": load, "protocol": protocol, "system": name, **medians}
        finally:
            for server in servers:
                server.stop()


def _soak(names: list[str], seconds: float) -> None:
    """Streams over both protocols, and prints what each server holds once a minute."""
    print("| minute | system | items | memory, MB | threads | files |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        servers = [Server(SYSTEMS[name], Path(folder) / name) for name in names]
        items = dict.fromkeys(names, 0)
        began, minute = time.monotonic(), 0
        try:
            while (spent := time.monotonic() - began) < seconds or minute * 60 <= seconds:
                for server in servers:
                    for protocol in BOTH:
                        for load in SOAK:
                            items[server.system.name] += READ[protocol](server, load)[0]
                    _cancelled(server)
                if spent >= minute * 60:
                    for server in servers:
                        held = server.processes()
                        print(
                            f"| {minute} | {server.system.name} | {items[server.system.name]} "
                            f"| {server.memory('VmRSS') / 1e6:.1f} "
                            f"| {sum(one.num_threads() for one in held)} "
                            f"| {sum(one.num_fds() for one in held)} |",
                            flush=True,
                        )
                    minute += 1
        finally:
            for server in servers:
                server.stop()


SOAK = (Load(count=5_000), Load(count=500, size=1024), Load(count=20, pause_us=5_000, clients=16))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--loads", default=",".join(LOADS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--soak", type=float, help="seconds to stream, for the servers' memory")
    parser.add_argument("--output", type=Path, help="also write the figures there, as JSON")
    arguments = parser.parse_args()
    driver = environments.python("driver")
    if Path(sys.prefix) != driver.parent.parent:
        os.execv(driver, [str(driver), "-m", "benchmarks.streams", *sys.argv[1:]])
    os.sched_setaffinity(0, {int(CLIENT_CORE)})
    if arguments.soak:
        _soak(arguments.systems.split(","), arguments.soak)
        return
    rows = []
    print("| load | protocol | system | CPU us an item | items/s | first item, ms | left, ms |")
    print("|---|---|---|---|---|---|---|")
    for row in _measure_all(
        arguments.systems.split(","), arguments.loads.split(","), arguments.repeats
    ):
        rows.append(row)
        left = f"{row['left_ms']:.0f}" if "left_ms" in row else "-"
        print(
            f"| {row['load'].upper()} | {row['protocol']} | {row['system']} | {row['cpu_us']:.0f} "
            f"| {row['items_per_s']:.0f} | {row['first_ms']:.1f} | {left} |",
            flush=True,
        )
    if arguments.output:
        arguments.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
