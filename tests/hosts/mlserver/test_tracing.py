"""Traces of requests, as a collector gets them."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from mlserver_pyfunc.deployment.server_settings import free_ports

from . import grpc_calls
from .collector import Collector, Span, collecting
from .conftest import GrpcCall
from .models import Definition, inline, tensor, write_repository
from .process import ServerProcess, serving
from .wire import Request, Tensor

CALLER = "00000000000000aa"
SECRET = 98765.4321
CODE = f"""
import os

def double(x, context):
    with context.tracer.start_as_current_span("features", attributes={{"rows": len(x)}}):
        with context.tracer.start_as_current_span("lookup") as span:
            span.add_event("hit")
            context.logger.warning("looking up")
            if x[0] == 13:
                os.kill(os.getpid(), 9)
    if x[0] == {SECRET}:
        raise KeyError(f"no row {{x[0]}}")
    return x * 2

async def wait(x, context):
    with context.tracer.start_as_current_span("waiting"):
        return x * 2

def words(x, context):
    for n in range(3):
        with context.tracer.start_as_current_span("word"):
            item = x + n
        yield item

async def async_words(x, context):
    for n in range(3):
        with context.tracer.start_as_current_span("word"):
            item = x + n
        yield item
"""
_X = {"inputs": [tensor("x", "FP64", [-1])], "outputs": [tensor("y", "FP64", [-1])]}


def _both(name: str, handler: str, **serving: Any) -> dict[str, Definition]:
    apart = inline(CODE, handler, _X, isolation="process", **serving)
    return {name: inline(CODE, handler, _X, **serving), f"{name}_apart": apart}


MODELS = {
    **_both("double", "double"),
    **_both("wait", "wait"),
    **_both("words", "words"),
    **_both("async_words", "async_words"),
    **_both("joined", "double", batch={"max_size": 8, "max_delay_ms": 300}),
}
OWN = {
    "double": ("features", "lookup"), "joined": ("features", "lookup"), "wait": ("waiting",),
    "words": ("word",), "async_words": ("word",),
}  # fmt: skip
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def _variables(collector: Collector) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_SERVICE_NAME": "flowers",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }


@pytest.fixture(scope="module")
def traced(
    collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("repository")
    write_repository(folder, MODELS)
    work = tmp_path_factory.mktemp("server")
    with serving(folder, work, *MODELS, env=_variables(collector)) as server:
        yield server
        assert server.stop() == 0, server.log


def _parent(sampled: bool = True) -> tuple[str, dict[str, str]]:
    trace = f"{next(_numbers):032x}"
    return trace, {"traceparent": f"00-{trace}-{CALLER}-{sampled:02}"}


def _post(
    server: ServerProcess, model: str, x: float, headers: dict[str, str], id_: str = "r"
) -> httpx.Response:
    verb = "infer_stream" if "words" in model else "infer"
    body = {"id": id_, "inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [x]}]}
    return server.client.post(f"/v2/models/{model}/{verb}", json=body, headers=headers)


def _request(model: str, x: float, headers: dict[str, str]) -> Request:
    return Request(model, [Tensor("x", "FP64", (1,), [x])], headers=headers)


def _whole(collector: Collector, trace: str) -> list[Span]:
    """All spans of a trace, once that of the request has come, which ends last."""
    collector.wait_until(lambda: any(span.parent == CALLER for span in collector.tree(trace)))
    return collector.tree(trace)


def _names(model: str) -> set[str]:
    kind = model.removesuffix("_apart")
    return {"decode", *(["worker"] if kind != model else []), "handler", *OWN[kind]}


def _top(spans: Sequence[Span]) -> Span:
    """The one span that no other is above."""
    ids = {span.id for span in spans}
    assert len(ids) == len(spans)
    [top] = [span for span in spans if span.parent not in ids]
    return top


def _root(spans: Sequence[Span]) -> Span:
    """The span of the request. All others are below it, and within it."""
    root, by_id = _top(spans), {span.id: span for span in spans}
    for span in spans:
        above = by_id.get(span.parent, span)
        assert above.start <= span.start <= span.end <= above.end, (span, above)
    steps = [span for span in spans if span.parent == root.id and span.name != "stream"]
    assert sum(span.end - span.start for span in steps) <= root.end - root.start
    return root


def test_the_tree_of_each_request_is_whole(
    traced: ServerProcess, collector: Collector, grpc_call: GrpcCall
) -> None:
    sent: dict[str, tuple[str, float]] = {}
    for model in [*MODELS] * 14:
        trace, headers = _parent()
        sent[trace] = model, time.time()
        assert _post(traced, model, 1, headers).status_code == 200
    over_grpc = []
    for model in [model for model in MODELS if "words" not in model] * 10:
        trace, headers = _parent()
        over_grpc.append(_request(model, 1, headers))
        sent[trace] = model, time.time()
    for reply in grpc_call(grpc_calls.infer_together, traced.grpc_address, over_grpc, True):
        reply.expect_ok()
    for trace, (model, began) in sent.items():
        spans = _whole(collector, trace)
        root = _root(spans)
        assert root.attributes["pyfunc.model"] == model
        assert began <= root.start / 1e9
        last = "stream" if "words" in model else "encode"
        assert root.events == (["first item"] if "words" in model else [])
        by_id = {span.id: span.name for span in spans}
        above = {span.name: by_id.get(span.parent) for span in spans}
        if "joined" in model and "handler" not in above:  # it has run in the batch of another
            assert {"decode", "queue", "batch", "encode"} <= {*above}
            continue
        assert {last, *_names(model)} <= {*above}
        where = "batch" if "joined" in model else root.name
        if "apart" in model:
            assert above["worker"] == where
            where = "worker"
        assert above["handler"] == where
        first, *inner = OWN[model.removesuffix("_apart")]
        assert above[first] == "handler"
        assert [above[name] for name in inner] == [first] * len(inner)
    assert len(sent) == 200
    assert collector.services == {"flowers"}


def test_a_worker_that_dies_leaves_a_whole_tree(
    traced: ServerProcess, collector: Collector
) -> None:
    for _ in range(5):
        (killed, headers), (after, others) = _parent(), _parent()
        assert _post(traced, "double_apart", 13, headers).status_code == 500
        assert _post(traced, "double_apart", 1, others).status_code == 200
        spans = _whole(collector, killed)
        root = _root(spans)
        assert root.failed
        assert root.attributes["error.type"] == "WorkerError"
        assert root.attributes["http.response.status_code"] == 500
        assert {span.name for span in spans} == {root.name, "decode", "worker"}
        spans = _whole(collector, after)
        assert {*_names("double_apart"), "queue"} <= {span.name for span in spans}
        _root(spans)


@pytest.mark.parametrize("model", ["joined", "joined_apart"])
def test_a_batch_is_linked_with_each_member(
    traced: ServerProcess, collector: Collector, model: str
) -> None:
    parents = [_parent() for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        sent = [pool.submit(_post, traced, model, 1, headers) for _, headers in parents]
    assert [each.result().status_code for each in sent] == [200] * 8
    every = [span for trace, _ in parents for span in _whole(collector, trace)]
    roots = {span.id for span in every if span.parent == CALLER}
    batches = {span.id: span for span in every if span.name == "batch"}
    ran = {span.parent for span in every if span.name in ("worker", "handler")} & {*batches}
    assert sum(batches[id_].attributes["pyfunc.batch.requests"] for id_ in ran) == 8
    assert {link for id_ in ran for link in batches[id_].links} == roots
    for id_ in batches.keys() - ran:
        [link] = batches[id_].links
        assert link in ran
    assert len(batches) == 8
    assert sum(span.name == "queue" for span in every) >= 8


def test_a_request_of_an_unsampled_trace_has_no_spans(
    traced: ServerProcess, collector: Collector
) -> None:
    unsampled, headers = _parent(sampled=False)
    for model in MODELS:
        assert _post(traced, model, 1, headers).status_code == 200
    sampled, headers = _parent()
    assert _post(traced, "double", 1, headers).status_code == 200
    collector.wait_for(sampled, "encode")
    assert collector.tree(unsampled) == []


@pytest.mark.parametrize("model", ["double", "double_apart"])
def test_errors_and_log_lines_name_the_trace(
    traced: ServerProcess, collector: Collector, model: str
) -> None:
    trace, headers = _parent()
    reply = _post(traced, model, SECRET, headers, id_=f"bad-{model}")
    assert reply.status_code == 500
    told = f"request bad-{model}, trace {trace}"
    assert f"({told})" in reply.json()["error"]
    traced.wait_for_log(f"{told}] looking up")
    assert re.search(rf'handler of model "{model}" failed \({told}\)', traced.log)
    spans = {span.name: span for span in _whole(collector, trace)}
    assert {*_names(model)} <= {*spans}
    assert spans["handler"].failed
    assert spans["handler"].attributes == {"error.type": "KeyError"}
    assert spans["features"].attributes == {"rows": 1}
    assert spans["lookup"].events == ["hit"]


def test_no_span_has_a_header_or_a_value(
    traced: ServerProcess, collector: Collector, grpc_call: GrpcCall
) -> None:
    for model in ("double", "double_apart", "joined", "wait_apart"):
        trace, headers = _parent()
        secret = {**headers, "authorization": "Bearer hidden-token", "x-key": "hidden-key"}
        _post(traced, model, SECRET, secret, id_="hidden-id")
        _whole(collector, trace)
        trace, headers = _parent()
        secret = {**headers, "authorization": "Bearer hidden-token"}
        grpc_call(grpc_calls.infer, traced.grpc_address, _request(model, SECRET, secret), raw=True)
        _whole(collector, trace)
    text = "".join(span.text for span in collector.spans)
    assert "handler" in text
    assert "hidden" not in text
    assert str(SECRET) not in text  # a part of it may be in a moment


def test_requests_of_a_grpc_stream_have_spans_of_their_own(
    traced: ServerProcess, collector: Collector, grpc_call: GrpcCall
) -> None:
    requests = [_request("words_apart", x, {}) for x in (1, 2)]
    items, end = grpc_call(grpc_calls.stream, traced.grpc_address, requests, raw=True)
    assert (len(items), end.status) == (6, "OK")
    collector.wait_until(lambda: len(_streams(collector)) == 2)
    for root in _streams(collector):
        assert root.events == ["first item"]
        assert _root(collector.wait_for(root.trace, "word", "handler")) == root


def _streams(collector: Collector) -> list[Span]:
    return [span for span in collector.spans if span.name == "infer" and not span.parent]


def test_a_request_below_the_span_of_mlserver_is_a_part_of_it(
    collector: Collector, tmp_path: Path, grpc_call: GrpcCall
) -> None:
    """MLServer sends its spans by itself. A collector that fails or hangs does not matter."""
    write_repository(tmp_path / "models", {name: MODELS[name] for name in ("double", "wait_apart")})
    variables = {
        **_variables(collector),
        "MLSERVER_TRACING_SERVER": collector.grpc_address,
        "OTEL_BSP_MAX_QUEUE_SIZE": "32",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "16",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
    }
    (tmp_path / "work").mkdir()
    with serving(
        tmp_path / "models", tmp_path / "work", "double", "wait_apart", env=variables
    ) as server:
        for model in ("double", "wait_apart"):
            trace, headers = _parent()
            assert _post(server, model, 1, headers).status_code == 200
            spans = collector.wait_for(trace, "encode", "POST /v2/models/{model_name}/infer")
            assert _top(spans).parent == CALLER
            assert _top(spans).name == "POST /v2/models/{model_name}/infer"
            assert [s.name for s in spans if s.parent == _top(spans).id].count("decode") == 1
            trace, headers = _parent()
            request = _request(model, 1, headers)
            grpc_call(grpc_calls.infer, server.grpc_address, request, raw=True).expect_ok()
            name = "/inference.GRPCInferenceService/ModelInfer"
            spans = collector.wait_for(trace, "encode", name)
            assert (_top(spans).name, _top(spans).parent) == (name, CALLER)
        for status, state in ((500, "failed"), (401, "failed"), (0, "dropped"), (200, "exported")):
            collector.status = status
            before = _counted(server, state)
            while _counted(server, state) == before:
                assert _post(server, "wait_apart", 1, {}).status_code == 200
            if not status:
                collector.answer.set()
        assert server.stop() == 0
        assert "Failed to export" in server.log
        assert "Queue full, dropping" in server.log


def test_a_collector_that_nobody_runs_fails_no_request(tmp_path: Path) -> None:
    write_repository(tmp_path / "models", {"double": MODELS["double"]})
    [port] = free_ports(1)
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    (tmp_path / "work").mkdir()
    with serving(tmp_path / "models", tmp_path / "work", "double", env=variables) as server:
        while not _counted(server, "failed"):
            assert _post(server, "double", 1, {}).status_code == 200
        assert not _counted(server, "exported")
        assert server.stop() == 0


def _counted(server: ServerProcess, state: str) -> int:
    """The spans of a state; the dropped ones are those that have none, and cannot wait."""
    text = httpx.get(f"http://127.0.0.1:{server.metrics_port}/metrics").text
    found = re.findall(r'^pyfunc_spans_total{state="(\w+)"} (\S+)$', text, re.MULTILINE)
    counts = {name: int(float(count)) for name, count in found}
    if state != "dropped":
        return counts.get(state, 0)
    rest = counts["ended"] - counts.get("exported", 0) - counts.get("failed", 0)
    return max(rest - 32 - 16, 0)


CALLED = """
import asyncio, sys
from pathlib import Path
from mlserver_pyfunc.definition import FunctionDefinition
from mlserver_pyfunc.protocol.request import InferenceRequest
from mlserver_pyfunc.serving import tracing
from mlserver_pyfunc.serving.function import Function

async def called(code, isolation):
    tensors = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [-1]}]}
    tensors["outputs"] = [{"name": "y", "datatype": "FP64", "shape": [-1]}]
    source = {"code": code, "handler": "double"}
    definition = {"source": source, "serving": {"isolation": isolation}, **tensors}
    function = Function(FunctionDefinition.model_validate(definition), Path("."), "m")
    await function.load()
    body = {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [1]}]}
    answer = await function.infer(InferenceRequest.from_json(body))
    assert answer.arrays[0].array.tolist() == [2]
    await function.close()
"""
"""Begins a program that calls a function of its own."""


WITHOUT_SDK = f"""{CALLED}
code = '''
def double(x, context):
    with context.tracer.start_as_current_span("features"):
        return x * 2
'''

tracing.start()
sys.executable = sys.argv[1]  # of the worker
asyncio.run(called(code, "process"))
"""


@pytest.mark.parametrize("has_sdk", [True, False])
def test_a_worker_without_opentelemetry_has_a_span_of_its_handler(
    tmp_path: Path, has_sdk: bool
) -> None:
    venv.create(tmp_path / "worker", symlinks=True)
    [site] = (tmp_path / "worker").glob("lib/python*/site-packages")
    absent = "" if has_sdk else "import sys; sys.modules['opentelemetry'] = None\n"
    (site / "more.pth").write_text(f"{sysconfig.get_path('purelib')}\n{absent}")
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_SDK, str(tmp_path / "worker/bin/python")],
        env={**os.environ, "OTEL_TRACES_EXPORTER": "console"},
        capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    names = re.findall(r'^    "name": "(\w+)"', ran.stdout, re.MULTILINE)
    own = ["features"] if has_sdk else []
    assert sorted(names) == ["decode", *own, "handler", "infer", "worker"]


OFF = f"""{CALLED}
code = '''
import sys
def double(x, context):
    @context.tracer.start_as_current_span("decorated")
    def doubled():
        with context.tracer.start_as_current_span("features") as span:
            span.set_attribute("rows", 1)
            span.set_status("ERROR")
            assert not span.is_recording()
            assert span.get_span_context().trace_id == 0
        context.tracer.start_span("apart").end()
        return x * 2
    assert "opentelemetry" not in sys.modules
    return doubled()
'''

for isolation in ("none", "process"):
    asyncio.run(called(code, isolation))
assert "opentelemetry" not in sys.modules
"""


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_nothing_of_opentelemetry_is_imported_while_it_is_off(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    subprocess.run([sys.executable, "-c", OFF], check=True, cwd=tmp_path, timeout=120)
