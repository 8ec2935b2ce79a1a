"""Measures an ONNX file served by us, by a runtime written by hand, and by a bare gRPC server.

    python -m benchmarks.onnx_files [--seconds 1] [--repeats 7]

ONNX Runtime computes in all of them, with one thread, in the server's process. They are measured in
turns, in rounds. A ratio is the median of the ratios within each round, so what else the machine
does is in both of its parts. W1 and W3 are those of the suite, as ONNX; MLP is a classifier of
[1, 784] with a hidden layer of 256.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .load import Sample, measure, require_h2load, verify
from .systems import LEAN, SERVERS, Ports, Server, System
from .workloads import Workload, workloads

CASES = [
    (model, route, clients)
    for model, counts in (("w1", (1, 32)), ("mlp", (1, 32)), ("w3", (1,)))
    for route in ("json", "typed", "raw")
    for clients in counts
]
OURS, BY_HAND, BARE = "model.onnx by us", "written by hand", "bare gRPC"


def files(folder: Path) -> dict[str, Workload]:
    """Writes an ONNX file for each workload, and returns the workloads."""
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    draw = np.random.default_rng(1)
    weights = {
        "two": np.full(1, 2, np.float32),
        "a": draw.normal(0, 0.05, (784, 256)).astype(np.float32),
        "b": draw.normal(0, 0.05, (256, 10)).astype(np.float32),
    }
    double = [helper.make_node("Mul", ["x", "two"], ["y"])]
    layers = [
        helper.make_node("MatMul", ["x", "a"], ["hidden"]),
        helper.make_node("Relu", ["hidden"], ["kept"]),
        helper.make_node("MatMul", ["kept", "b"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["y"], axis=1),
    ]
    given = workloads()
    pixels = draw.random((1, 784), dtype=np.float32)
    made = {}
    for name, x, nodes in (
        ("w1", given["w1"].values, double),
        ("w3", given["w3"].values, double),
        ("mlp", pixels, layers),
    ):
        taken = {each for node in nodes for each in node.input}
        sizes = {"x": ["rows", x.shape[1]], "y": ["rows", 10 if name == "mlp" else x.shape[1]]}
        told = {k: helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in sizes.items()}
        kept = [numpy_helper.from_array(w, k) for k, w in weights.items() if k in taken]
        graph = helper.make_graph(nodes, name, [told["x"]], [told["y"]], kept)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, folder / f"{name}.onnx")
        session = onnxruntime.InferenceSession(str(folder / f"{name}.onnx"))
        made[name] = Workload(name, x, session.run(["y"], {"x": x})[0])
    return made


def _mlserver(
    settings: Callable[[Path], dict[str, Any]], onnx: Path
) -> Callable[[Path, Path, Ports], list[str]]:
    def command(interpreter: Path, folder: Path, ports: Ports) -> list[str]:
        models = folder / "models"
        for file in onnx.glob("*.onnx"):
            (models / file.stem).mkdir(parents=True)
            text = json.dumps({"name": file.stem, **settings(file)})
            (models / file.stem / "model-settings.json").write_text(text)
        (models / "settings.json").write_text(json.dumps(LEAN))
        return [str(interpreter.parent / "mlserver"), "start", str(models)]

    return command


def _ours(file: Path) -> dict[str, Any]:
    function = {"source": str(file), "serving": {"max_queue": 256}}
    return {
        "implementation": "mlserver_pyfunc.PyFuncRuntime",
        "parameters": {"extra": {"function": function}},
    }


def _by_hand(file: Path) -> dict[str, Any]:
    return {"implementation": "onnx_runtime.OnnxFile", "parameters": {"uri": str(file)}}


def _systems(onnx: Path) -> list[System]:
    def bare(interpreter: Path, folder: Path, ports: Ports) -> list[str]:
        script = str(SERVERS / "bare_grpc.py")
        return [str(interpreter), script, "--grpc", str(ports.grpc), "--onnx", str(onnx)]

    models, path = ("w1", "mlp", "w3"), {"PYTHONPATH": str(SERVERS)}
    json_and_grpc = ("json", "typed", "raw")
    return [
        System(OURS, "onnx", _mlserver(_ours, onnx), json_and_grpc, models),
        System(BY_HAND, "onnx", _mlserver(_by_hand, onnx), json_and_grpc, models, path),
        System(BARE, "onnx", bare, ("typed", "raw"), models),
    ]


def _measured(seconds: float, repeats: int) -> dict[tuple[str, str, int], dict[str, list[Sample]]]:
    found: dict[tuple[str, str, int], dict[str, list[Sample]]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as root:
        onnx = Path(root, "onnx")
        onnx.mkdir()
        loads = files(onnx)
        servers: list[Server] = []
        try:
            for system in _systems(onnx):
                servers.append(Server(system, Path(root, system.name)))
                servers[-1].pause()
            for model, route, clients in CASES:
                samples = found[model, route, clients] = defaultdict(list)
                able = [server for server in servers if route in server.system.routes]
                for number in range(repeats):
                    # Each is first in some rounds.
                    turn = number % len(able)
                    for server in [*able[turn:], *able[:turn]]:
                        server.resume()
                        if number == 0:
                            verify(server, loads[model], route)
                        sample = measure(server, loads[model], route, clients, seconds)
                        server.pause()
                        if sample.failed:
                            raise RuntimeError(f"{server.system.name}: {sample.failed} failed")
                        samples[server.system.name].append(sample)
                print(_row(model, route, clients, samples), flush=True)
        finally:
            for server in servers:
                server.stop()
    return found


def _ratio(samples: dict[str, list[Sample]], other: str, key: str) -> str:
    if other not in samples:
        return "-"
    pairs = zip(samples[OURS], samples[other], strict=True)
    ratios = [getattr(ours, key) / (getattr(theirs, key) or math.nan) for ours, theirs in pairs]
    return f"{statistics.median(ratios):.2f} x"


def _row(model: str, route: str, clients: int, samples: dict[str, list[Sample]]) -> str:
    cells = [model.upper(), route, str(clients)]
    for other in (BY_HAND, BARE):
        cells += [_ratio(samples, other, "rps"), _ratio(samples, other, "cpu_us")]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=1, help="length of each timed run")
    parser.add_argument("--repeats", type=int, default=7, help="rounds")
    arguments = parser.parse_args()
    require_h2load()
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")
    print("| | route | clients | by hand: requests/s | CPU | bare gRPC: requests/s | CPU |")
    print("|---|---|---|---|---|---|---|", flush=True)
    _measured(arguments.seconds, arguments.repeats)
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
