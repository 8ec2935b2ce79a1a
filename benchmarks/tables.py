"""Measures tables: frames made by us and by others, over the routes that each has.

    python -m benchmarks.tables [--systems pyfunc-hand,...] [--seconds 1.5] [--repeats 3]

| | table | handler |
|---|---|---|
| T1 | 10 rows of 39 mixed columns | adds two columns |
| T2 | 100,000 rows of 10 columns of FP64 | adds two columns |
| T3 | 10 rows of text, category and numbers | a pipeline of scikit-learn |

Every handler gets a DataFrame, looks at its columns, and answers one column. The systems are
measured in turns, in rounds, with one core for the server and another for the client. A ratio is
the median of the ratios within each round, so what else the machine does is in both of its parts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import struct
import sys
import tempfile
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import orjson

from . import environments
from .load import Sample, require_h2load, time_requests
from .systems import LEAN, LIMIT, SERVERS, Ports, Server, System
from .workloads import GRPC_PATH, Request

FOLDER = SERVERS / "tables"
sys.path.insert(0, str(FOLDER))

from columns import ROWS, columns  # noqa: E402

MODELS = tuple(ROWS)
ARROW = "application/vnd.apache.arrow.stream"
JSON = {"content-type": "application/json"}
CLIENTS = {"t1": 8, "t2": 1, "t3": 8}
BASE = "mlserver-pandas"
READY = {"tables-bentoml": "/readyz", "tables-mlflow": "/ping"}
DATATYPES = {bool: "BOOL", int: "INT64", float: "FP64", str: "BYTES"}
DTYPES = {"BOOL": "?", "INT64": "<i8", "FP64": "<f8"}


class TableServer(Server):
    def _is_ready(self) -> bool:
        path = READY.get(self.system.environment)
        return self._get(path) if path else super()._is_ready()


def _models(folder: Path, settings: Callable[[str], dict[str, Any]]) -> str:
    for name in MODELS:
        (folder / name).mkdir(parents=True)
        (folder / name / "model-settings.json").write_text(
            json.dumps({"name": name, **settings(name)})
        )
    (folder / "settings.json").write_text(json.dumps(LEAN))
    return str(folder)


def _ours(way: str) -> Callable[[Path, Path, Ports], list[str]]:
    def settings(model: str) -> dict[str, Any]:
        source = str(FOLDER / "functions.py")
        function: dict[str, Any] = {
            "source": {"source": source, "handler": f"{model}_{way}"},
            "outputs": [{"name": "y", "datatype": "FP64", "shape": [-1]}],
        }
        if way == "hand":
            function["inputs"] = [_declared(*each) for each in _tensors(model)]
        implementation = "mlserver_pyfunc.PyFuncRuntime"
        return {"implementation": implementation, "parameters": {"extra": {"function": function}}}

    def command(interpreter: Path, folder: Path, ports: Ports) -> list[str]:
        program = str(interpreter.parent / "mlserver")
        return [program, "start", _models(folder / "models", settings)]

    return command


def _declared(name: str, datatype: str, _: Any) -> dict[str, Any]:
    text = {"content_type": "str"} if datatype == "BYTES" else {}
    return {"name": name, "datatype": datatype, "shape": [-1], **text}


def _pandas_codec(interpreter: Path, folder: Path, ports: Ports) -> list[str]:
    settings = {"implementation": "mlserver_runtime.Framed"}
    program = str(interpreter.parent / "mlserver")
    return [program, "start", _models(folder / "models", lambda _: settings)]


def _kserve(interpreter: Path, folder: Path, ports: Ports) -> list[str]:
    given = ["--http_port", str(ports.http), "--grpc_port", str(ports.grpc)]
    return [str(interpreter), str(FOLDER / "kserve_server.py"), *given]


def _bento(interpreter: Path, folder: Path, ports: Ports) -> list[str]:
    serve = [str(interpreter.parent / "bentoml"), "serve", "bento_service:Framed"]
    return [*serve, "--working-dir", str(FOLDER), "--port", str(ports.http)]


def _mlflow(model: str) -> Callable[[Path, Path, Ports], list[str]]:
    def command(interpreter: Path, folder: Path, ports: Ports) -> list[str]:
        return [str(interpreter), str(FOLDER / "mlflow_server.py"), model, str(ports.http)]

    return command


PATH = {"PYTHONPATH": str(FOLDER), "OMP_NUM_THREADS": "1"}
OUR_ROUTES = ("json", "binary", "raw", "arrow")
SYSTEMS = {
    system.name: system
    for system in (
        System("pyfunc-frame", "tables", _ours("frame"), OUR_ROUTES, MODELS, PATH),
        System("pyfunc-hand", "tables", _ours("hand"), OUR_ROUTES, MODELS, PATH),
        System("pyfunc-rows", "tables", _ours("rows"), OUR_ROUTES, MODELS, PATH),
        System(BASE, "tables", _pandas_codec, ("json", "raw"), MODELS, PATH),
        System("kserve", "tables-kserve", _kserve, ("json", "binary"), MODELS, PATH),
        System("bentoml", "tables-bentoml", _bento, ("json",), MODELS, PATH),
        *(
            System(f"mlflow-{model}", "tables-mlflow", _mlflow(model), ("json",), (model,), PATH)
            for model in MODELS
        ),
    )
}


def _tensors(model: str) -> list[tuple[str, str, list[Any]]]:
    found = columns(model)
    return [(name, DATATYPES[type(values[0])], values) for name, values in found.items()]


def _raw(datatype: str, values: list[Any]) -> bytes:
    if datatype == "BYTES":
        encoded = [value.encode() for value in values]
        return b"".join(struct.pack("<I", len(value)) + value for value in encoded)
    return np.array(values, DTYPES[datatype]).tobytes()


def request(system: System, model: str, route: str) -> Request:
    """Makes the request that a client of a system sends for a workload over a route."""
    kind = system.environment.removeprefix("tables-")
    if kind == "bentoml":
        body = orjson.dumps({"frame": columns(model)})
        return Request(f"/{model}", JSON, body, is_grpc=False)
    if kind == "mlflow":
        names, rows = list(columns(model)), list(zip(*columns(model).values(), strict=True))
        body = orjson.dumps({"dataframe_split": {"columns": names, "data": rows}})
        return Request("/invocations", JSON, body, is_grpc=False)
    if route == "raw":
        return _grpc(model, is_codec=system.name == BASE)
    if route == "arrow":
        return _arrow(model)
    binary: list[bytes] = []
    inputs: list[dict[str, Any]] = []
    for name, datatype, values in _tensors(model):
        tensor = {"name": name, "datatype": datatype, "shape": [len(values)]}
        if route == "binary":
            binary.append(_raw(datatype, values))
            tensor["parameters"] = {"binary_data_size": len(binary[-1])}
        else:
            tensor["data"] = values
            if system.name == BASE and datatype == "BYTES":
                tensor["parameters"] = {"content_type": "str"}
        inputs.append(tensor)
    sent: dict[str, Any] = {"inputs": inputs}
    if system.name == BASE:
        sent["parameters"] = {"content_type": "pd"}
    if route == "binary":
        sent["outputs"] = [{"name": "y", "parameters": {"binary_data": True}}]
    return _rest(model, sent, binary)


def _rest(model: str, sent: dict[str, Any], binary: list[bytes]) -> Request:
    head = orjson.dumps(sent)
    headers = JSON
    if binary:
        headers = {
            "content-type": "application/octet-stream",
            "inference-header-content-length": str(len(head)),
        }
    return Request(f"/v2/models/{model}/infer", headers, b"".join([head, *binary]), is_grpc=False)


def _arrow(model: str) -> Request:
    import pyarrow

    table, sink = pyarrow.table(columns(model)), pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    stream = sink.getvalue().to_pybytes()
    raw = struct.pack("<I", len(stream)) + stream
    parameters = {"content_type": ARROW, "binary_data_size": len(raw)}
    tensor = {"name": "rows", "datatype": "BYTES", "shape": [1], "parameters": parameters}
    asked = {"binary_data_output": True, "output_content_type": ARROW}
    return _rest(model, {"parameters": asked, "inputs": [tensor]}, [raw])


def _grpc(model: str, *, is_codec: bool) -> Request:
    from tritonclient.grpc import service_pb2 as pb

    message = pb.ModelInferRequest(model_name=model)
    for name, datatype, values in _tensors(model):
        tensor = message.inputs.add(name=name, datatype=datatype, shape=[len(values)])
        if is_codec and datatype == "BYTES":
            tensor.parameters["content_type"].string_param = "str"
        message.raw_input_contents.append(_raw(datatype, values))
    if is_codec:
        message.parameters["content_type"].string_param = "pd"
    wire = message.SerializeToString()
    headers = {"content-type": "application/grpc", "te": "trailers"}
    return Request(GRPC_PATH, headers, struct.pack(">BI", 0, len(wire)) + wire, is_grpc=True)


def answer_of(server: Server, sent: Request) -> list[float]:
    """Sends one request, and returns the column `y` of its answer."""
    if sent.is_grpc:
        from tritonclient.grpc import service_pb2 as pb

        sizes = ("grpc.max_receive_message_length", "grpc.max_send_message_length")
        options = [(size, int(LIMIT)) for size in sizes]
        with grpc.insecure_channel(f"127.0.0.1:{server.ports.grpc}", options) as channel:
            wire = channel.unary_unary(sent.path)(sent.body[5:], timeout=120)
        message = pb.ModelInferResponse.FromString(wire)
        if message.raw_output_contents:
            return np.frombuffer(message.raw_output_contents[0], "<f8").tolist()
        return list(message.outputs[0].contents.fp64_contents)
    url = f"http://127.0.0.1:{server.ports.http}{sent.path}"
    posted = urllib.request.Request(url, data=sent.body, headers=sent.headers)
    try:
        with urllib.request.urlopen(posted, timeout=120) as response:
            body, length = response.read(), response.headers["inference-header-content-length"]
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{error.code}: {error.read()[:300]!r}") from None
    head = orjson.loads(body[: int(length)] if length else body)
    if "predictions" in head:
        return [row["y"] for row in head["predictions"]]
    if "y" in head:
        return list(head["y"])
    output = head["outputs"][0]
    if output["datatype"] == "BYTES":
        import pyarrow

        answer = pyarrow.ipc.open_stream(body[int(length) + 4 :]).read_all()
        return list(answer["y"].to_pylist())
    return np.frombuffer(body[int(length) :], "<f8").tolist() if length else output["data"]


def _expected(model: str, seen: dict[str, list[float]], answer: list[float]) -> None:
    """Raises an AssertionError if an answer is not the right one: of T3, that of the others."""
    table = columns(model)
    if model != "t3":
        last = "i0" if model == "t1" else "f9"
        seen[model] = (np.array(table["f0"]) + np.array(table[last])).tolist()
    np.testing.assert_allclose(answer, seen.setdefault(model, answer), rtol=1e-9)


def _measure(
    names: list[str], models: list[str], seconds: float, repeats: int
) -> dict[tuple[str, str, str], list[Sample]]:
    """Returns the samples of each round, by model, route and system."""
    samples: defaultdict[tuple[str, str, str], list[Sample]] = defaultdict(list)
    seen: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        servers: list[Server] = []
        try:
            for name in names:
                servers.append(TableServer(SYSTEMS[name], Path(folder) / name))
                print(f"{name}: ready after {servers[-1].seconds_to_ready:.1f} s", flush=True)
                servers[-1].pause()
            for model in models:
                able = []
                for server in servers:
                    for route in server.system.routes if model in server.system.models else ():
                        sent = request(server.system, model, route)
                        server.resume()
                        try:
                            _expected(model, seen, answer_of(server, sent))
                            able.append((server, route, sent))
                        except Exception as error:
                            text = f"{server.system.name} {model} {route}: left out: {error}"
                            print(text[:500], flush=True)
                        server.pause()
                for _ in range(repeats):
                    for server, route, sent in able:
                        server.resume()
                        sample = time_requests(server, sent, CLIENTS[model], seconds)
                        server.pause()
                        samples[model, route, server.system.name].append(sample)
        finally:
            for server in servers:
                server.stop()
    return samples


def _ratio(runs: list[Sample], base: list[Sample]) -> float:
    return statistics.median(b.cpu_us / a.cpu_us for a, b in zip(runs, base, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--seconds", type=float, default=1.5, help="length of each timed run")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    driver = environments.python("tables-driver")
    if Path(sys.prefix) != driver.parent.parent:
        os.execv(driver, [str(driver), "-m", "benchmarks.tables", *sys.argv[1:]])
    require_h2load()
    samples = _measure(
        arguments.systems.split(","),
        arguments.models.split(","),
        arguments.seconds,
        arguments.repeats,
    )
    print(f"\n| table | route | system | CPU us a request | requests/s | CPU of {BASE} / its |")
    print("|---|---|---|---|---|---|")
    for (model, route, name), runs in samples.items():
        base = samples.get((model, "json", BASE))
        ratio = f"{_ratio(runs, base):.2f} x" if base else "-"
        cpu, rps = (statistics.median(getattr(r, key) for r in runs) for key in ("cpu_us", "rps"))
        shown = f"{rps:.0f}" if rps >= 10 else f"{rps:.2f}"
        print(f"| {model.upper()} | {route} | {name} | {cpu:.0f} | {shown} | {ratio} |")


if __name__ == "__main__":
    main()
