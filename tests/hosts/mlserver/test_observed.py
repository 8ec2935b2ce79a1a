"""One server under load: metrics of handlers, payload events and access lines count the same."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import httpx
import pytest

from tests.sink import Sink
from tests.waiting import wait_until

from . import grpc_calls
from .conftest import GrpcCall
from .models import inline, tensor, write_model
from .process import ServerProcess, serving
from .wire import Request, Tensor, json_request, rest_infer

CODE = """
import os, signal

def setup(context):
    context.rows = context.metrics.counter("rows_total", "Rows.", ["kind"])

def handler(context, x):
    context.rows.labels("ok").inc(len(x))
    if x[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return x * 2

def stream(context, x):
    context.rows.labels("ok").inc(len(x))
    yield x
    yield x * 2
"""
TENSORS = {
    "model_version": "3",
    "inputs": [tensor("x", "FP32", [-1])],
    "outputs": [tensor("y", "FP32", [-1])],
}
SECRET = {"authorization": "Bearer hunter2"}
CALLS = {"here": 40, "apart": 40, "items": 20}
KILLS = 5


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    sink = Sink()
    yield sink
    sink.server.shutdown()
    sink.server.server_close()


@pytest.fixture(scope="module")
def observed(sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    work = tmp_path_factory.mktemp("observed")
    batch = {"max_size": 8, "max_delay_ms": 5}
    options: dict[str, Any] = {
        "here": {"batch": batch, "max_queue": 1000},
        "apart": {"isolation": "process", "workers": 2, "max_queue": 1000},
        "items": {"concurrency": 4, "max_queue": 1000},
    }
    for name, serving_options in options.items():
        definition = inline(CODE, "stream" if name == "items" else "handler", TENSORS)
        definition["source"]["init_function"] = "setup"
        definition["serving"] = serving_options
        write_model(work / "models" / name, definition)
    env = {
        "MLSERVER_PYFUNC_LOG_URL": sink.url,
        "MLSERVER_PYFUNC_LOG_REDACT": "token",
        "MLSERVER_PYFUNC_ACCESS_LOG": "json",
        "MLSERVER_PARALLEL_WORKERS": "1",
    }
    with serving(work / "models", work, *options, env=env) as server:
        yield server


def _requests(protocol: str) -> list[Request]:
    return [
        Request(
            model,
            [Tensor("x", "FP32", (1,), [number + 0.1])],
            id=f"{model}-{number}-{protocol}",
            headers=SECRET,
            parameters={"token": "hunter2", "mode": number},
        )
        for model, count in CALLS.items()
        for number in range(count)
    ]


def _killers() -> list[Request]:
    made = Request("apart", [Tensor("x", "FP32", (1,), [-1.0])])
    return [replace(made, id=f"killer-{number}") for number in range(KILLS)]


def _lines(server: ServerProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log.splitlines() if line.startswith('{"time"')]


def _metrics(server: ServerProcess) -> dict[str, float]:
    port = server._env["MLSERVER_METRICS_PORT"]
    lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
    return {x.rpartition(" ")[0]: float(x.rpartition(" ")[2]) for x in lines if x[0] != "#"}


def test_metrics_events_and_lines_are_those_of_the_calls(
    observed: ServerProcess, sink: Sink, grpc_call: GrpcCall
) -> None:
    def over_rest(request: Request) -> int | str:
        if request.model != "items":
            return rest_infer(observed.client, request).status
        body = json_request(request)
        url = "/v2/models/items/infer_stream"
        return observed.client.post(url, json=body, headers=SECRET).status_code

    def over_grpc(requests: list[Request]) -> list[Any]:
        unary = [request for request in requests if request.model != "items"]
        streams = [[request] for request in requests if request.model == "items"]
        replies = grpc_call(grpc_calls.infer_together, observed.grpc_address, unary, raw=True)
        ends = [
            grpc_call(grpc_calls.stream, observed.grpc_address, stream, raw=False)[1]
            for stream in streams
        ]
        return [reply.status for reply in (*replies, *ends)]

    with ThreadPoolExecutor(9) as pool:
        typed = pool.submit(over_grpc, _requests("grpc"))
        statuses = Counter(pool.map(over_rest, [*_requests("rest"), *_killers()]))
        assert Counter(typed.result()) == {"OK": 100}
    assert statuses == {200: 100, 500: KILLS}, observed.log

    metrics = _metrics(observed)
    for model, count in CALLS.items():
        counted = metrics[f'rows_total{{kind="ok",model="{model}",version="3"}}']
        assert counted == 2 * count + KILLS * (model == "apart")

    calls, items = 2 * (CALLS["here"] + CALLS["apart"]), 2 * CALLS["items"]
    expected = calls + items + KILLS + calls + 2 * items
    wait_until(lambda: len(sink.events) == expected, lambda: (len(sink.events), expected))
    bodies = {kind: sink.bodies(kind) for kind in ("request", "response")}
    assert Counter(body["id"] for body in bodies["request"]) == Counter(
        request.id for request in (*_requests("rest"), *_requests("grpc"), *_killers())
    )
    for kind in ("request", "response"):
        by_protocol: dict[str, list[str]] = {"rest": [], "grpc": []}
        for body in bodies[kind]:
            name, _, protocol = body.pop("id").rpartition("-")
            if protocol in by_protocol:
                by_protocol[protocol].append(json.dumps([name, body], sort_keys=True))
        assert sorted(by_protocol["rest"]) == sorted(by_protocol["grpc"])
    sent = next(body for body in bodies["request"] if body.get("parameters") == {"mode": 7})
    assert sent["inputs"] == [{"name": "x", "shape": [1], "datatype": "FP32", "data": [7.1]}]

    wait_until(lambda: len(_lines(observed)) == 200 + KILLS, lambda: len(_lines(observed)))
    lines = {line["id"]: line for line in _lines(observed)}
    assert len(lines) == 200 + KILLS
    for line in lines.values():
        is_killer = line["id"].startswith("killer")
        assert line["version"] == "3"
        assert line["status"] in (["500"] if is_killer else ["200", "OK"])
        assert ("killed by SIGKILL" in line["reason"]) is is_killer
        assert line["request_bytes"] > 0
        assert line["response_bytes"] > 0
        assert line["ms"] > 0
    assert lines["here-3-rest"]["method"] == "POST infer"
    assert lines["items-3-grpc"]["method"] == "ModelStreamInfer"
    assert any(line["waited_ms"] > 0 for line in lines.values())
    assert "hunter2" not in observed.log
    assert not any(b"hunter2" in body for _, body in sink.events)


HOSTILE = 'a"\n\\\t{"x": 1}\x1b[31m\u2028'


def test_each_line_is_json_whatever_a_client_sends(
    observed: ServerProcess, grpc_call: GrpcCall
) -> None:
    before = len(_lines(observed))
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    x = Tensor("x", "FP32", (1,), [1.0])
    rest_infer(observed.client, Request("here", [x], id=HOSTILE, headers=trace))
    rest_infer(observed.client, Request("here", [x], id="\ud800"))
    rest_infer(observed.client, Request("here", [replace(x, datatype="FP64")], id=HOSTILE))
    name = "".join(f"%{byte:02x}" for byte in HOSTILE.encode())
    observed.client.post(f"/v2/models/{name}/versions/{name}/infer", content=b"{")
    observed.client.post("/v2/models/here/infer", content=b'{"\xff')
    grpc_call(
        grpc_calls.infer, observed.grpc_address, Request(HOSTILE, [x], version=HOSTILE), raw=True
    )
    ok = Request("here", [x], id=HOSTILE, headers=trace)
    grpc_call(grpc_calls.infer, observed.grpc_address, ok, raw=True)
    wait_until(lambda: len(_lines(observed)) == before + 7, lambda: observed.log[-4000:])
    lines = _lines(observed)[before:]
    expected = ["400", "400", "404", "400", "NOT_FOUND", "OK"]
    assert [line["status"] for line in lines] == ["200", *expected]
    assert [line["trace_id"][:4] for line in lines] == ["0af7", *5 * [""], "0af7"]
    assert lines[0]["id"] == lines[6]["id"] == 'a"\\n\\\\t{"x": 1}\\x1b[31m\\u2028'
    assert 'input "x"' in lines[2]["reason"]
    assert lines[3]["model"] == lines[5]["model"] == lines[5]["version"]
    assert lines[3]["model"].startswith('a"\\n')
    assert all("\n" not in value for line in lines for value in map(str, line.values()))
