"""`context.metrics`: the same in the server's process and in workers."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from prometheus_client import REGISTRY, generate_latest

from mlserver_pyfunc.errors import RequestError, WorkerError
from mlserver_pyfunc.handler.metrics import MAX_METRICS, Metrics
from mlserver_pyfunc.serving.handler_metrics import MAX_SERIES, HandlerMetrics
from mlserver_pyfunc.serving.local import load

CODE = """
import os, signal, threading

def setup(context):
    context.calls = context.metrics.counter("calls_total", "Calls.", ["kind"])
    context.last = context.metrics.gauge("last_value", "The last value.")
    context.sizes = context.metrics.histogram("sizes", "Sizes.", buckets=[1, 10])
    context.metrics.counter("loads").inc()

def handler(context, action, x):
    kind = action[0].decode()
    context.calls.labels(kind).inc()
    context.last.set(x[0])
    context.sizes.observe(x[0])
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "many":
        for number in range(MOST):
            context.calls.labels(kind=f"n{number}").inc()
    if kind == "clash":
        context.metrics.gauge("pyfunc_slots")
    if kind == "thread":
        thread = threading.Thread(target=context.last.dec)
        thread.start()
        thread.join()
    if kind == "hostile":
        context.calls.labels("\\ud800\\n\\"" + 1000 * "x").inc()
    return x
""".replace("MOST", str(MAX_SERIES + 500))
_names = (f"counting{number}" for number in itertools.count())


@pytest.fixture(params=["none", "process"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    (tmp_path / "m.py").write_text(CODE)
    definition = {
        "model_name": next(_names),
        "model_version": "7",
        "source": {"source": "m.py", "handler": "handler", "init_function": "setup"},
        "inputs": [
            {"name": "action", "datatype": "BYTES", "shape": [1]},
            {"name": "x", "datatype": "FP32", "shape": [1]},
        ],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1]}],
        "serving": {"isolation": request.param},
    }
    (tmp_path / "function.yaml").write_text(yaml.safe_dump(definition))
    return tmp_path


@pytest.fixture
def seen(folder: Path) -> Callable[..., float | None]:
    model = yaml.safe_load((folder / "function.yaml").read_text())["model_name"]

    def value(name: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(name, {"model": model, "version": "7", **labels})

    return value


def is_isolated(folder: Path) -> bool:
    return "isolation: process" in (folder / "function.yaml").read_text()


def test_each_change_is_seen_when_its_call_is_answered(
    folder: Path, seen: Callable[..., float | None]
) -> None:
    with load(folder) as function:
        for number in range(5):
            function(action=["some"], x=[number])
            assert seen("calls_total", kind="some") == number + 1
            assert seen("last_value") == number
        function(action=["thread"], x=[8])
        assert seen("last_value") == 7
        assert seen("sizes_count") == 6
        assert seen("sizes_sum") == 18
        assert [seen("sizes_bucket", le=le) for le in ("1.0", "10.0", "+Inf")] == [2, 6, 6]
        function(action=["hostile"], x=[1])
        label = '?\\n\\"' + 197 * "x"
        assert f'calls_total{{kind="{label}",' in generate_latest().decode()


def test_counts_go_on_after_a_reload_and_a_worker_s_death(
    folder: Path, seen: Callable[..., float | None]
) -> None:
    for number in (1, 2):
        with load(folder) as function:
            function(action=["some"], x=[1])
            if is_isolated(folder):
                with pytest.raises(WorkerError):
                    function(action=["kill"], x=[1])
                # What was counted before the signal is not lost.
                assert seen("calls_total", kind="kill") == number
                function(action=["some"], x=[1])
        calls = number * (1 + is_isolated(folder))
        assert seen("calls_total", kind="some") == calls
        assert seen("loads_total") == calls


def test_series_are_bounded_and_what_is_dropped_is_counted(
    folder: Path, seen: Callable[..., float | None], caplog: pytest.LogCaptureFixture
) -> None:
    with load(folder) as function, caplog.at_level(logging.WARNING, "mlserver.pyfunc"):
        function(action=["many"], x=[1])
        function(action=["many"], x=[1])
    assert seen("calls_total", kind=f"n{MAX_SERIES - 2}") == 2
    assert seen("calls_total", kind=f"n{MAX_SERIES - 1}") is None
    assert seen("pyfunc_handler_metric_drops_total", metric="calls") == 2 * 501
    assert caplog.text.count('metric "calls" of model') == 1


def test_a_name_of_the_server_is_refused_at_the_call(folder: Path) -> None:
    with load(folder) as function, pytest.raises(RequestError) as caught:
        function(action=["clash"], x=[1])
    assert 'gauge "pyfunc_slots": pyfunc_slots is taken by the server' in str(caught.value)


def test_a_kind_that_another_function_has_given_a_name_is_refused() -> None:
    def new() -> Metrics:
        counted = HandlerMetrics(next(_names), "")
        return Metrics(counted.apply, counted.taken)

    first, second = new(), new()
    first.counter("shared", "Shared.", ["a"]).labels(1).inc()
    second.counter("shared", "Shared.", ["b", "c"]).labels(b=1, c=2).inc(2)
    lines = [line for line in generate_latest().decode().splitlines() if "shared_total" in line]
    assert [line[0] == "#" for line in lines] == [True, True, False, False]
    for change in (lambda: new().gauge("shared"), lambda: new().gauge("shared_total")):
        with pytest.raises(ValueError, match="is taken by the counter shared"):
            change()
    # A reload may change what a function alone has declared.
    counted = HandlerMetrics(next(_names), "")
    made = []
    for labels in (["a"], ["a", "b"]):
        made.append(Metrics(counted.apply, counted.taken).gauge("changed", "", labels))
        made[-1].labels(*labels).set(1)
    assert generate_latest().decode().count("changed{") == 1
    # A call of the load before it may still run.
    made[0].labels("a").set(2)
    assert generate_latest().decode().count("changed{") == 1
    counter = Metrics(counted.apply, counted.taken).counter("changed")
    made[1].labels("a", "b").set(3)
    counter.inc()
    assert "changed_total{" in generate_latest().decode()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda m: m.counter("a b"), 'counter "a b": expected a name of letters'),
        (lambda m: m.counter("x", "", ["model"]), "expected different labels .* but model"),
        (lambda m: (m.gauge("x_total"), m.counter("x")), "x_total is taken by the gauge x_total"),
        (lambda m: [m.gauge(f"x{n}") for n in range(201)], "expected at most 200 metrics"),
        (lambda m: m.gauge("x", "", ["a", "b"]).labels(1, a=2), "expected a, b"),
        (lambda m: m.histogram("x", buckets=["low"]), "could not convert"),
        (lambda m: m.gauge("x", "", ["a", "a"]), "expected different labels"),
        (lambda m: m.gauge("x", "", ["__a"]), "expected different labels"),
        (lambda m: m.histogram("x", buckets=[2, 1]), "expected ascending buckets"),
        (lambda m: (m.gauge("x"), m.counter("x")), 'counter "x": it was declared as'),
        (lambda m: (m.gauge("x", "", "ab"), m.gauge("x")), "was declared as gauge with labels ab$"),
        (
            lambda m: [m.histogram("x", buckets=b) for b in ([1, 2], [1])],
            "none and buckets 1.0, 2.0",
        ),
        (lambda m: m.counter("x").inc(-1), "expected to add at least 0, got -1"),
        (lambda m: m.counter("x", "", "a").inc(), r"has labels: expected \.labels\(a\)\.inc"),
        (lambda m: m.counter("x", "", ["a"]).labels(b=1), 'labels of metric "x": expected a$'),
        (lambda m: m.counter("x").labels(1), 'labels of metric "x": expected none'),
        (lambda m: m.gauge("x").set("many"), "could not convert"),
    ],
)
def test_a_wrong_use_is_an_error_at_its_place(
    wrong: Callable[[Metrics], object], message: str
) -> None:
    sent: list[object] = []
    with pytest.raises(ValueError, match=message):
        wrong(Metrics(sent.append))


def test_a_metric_is_declared_before_another_thread_may_change_it() -> None:
    sent: list[str] = []

    def send(record: Sequence[Any]) -> None:
        if not sent and record[1] == "counter":
            sent.append("is sent")
            metrics.counter("x").inc()  # as another thread may at this moment
        sent.append(record[1])

    metrics = Metrics(send)
    metrics.counter("x").inc()
    assert sent == ["is sent", "counter", "inc", "counter", "inc"]


def test_what_the_server_cannot_declare_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    counted = HandlerMetrics(next(_names), "")
    # Workers that come one after the other may each declare some.
    for number in range(MAX_METRICS + 2):
        counted.apply((f"each{number}", "gauge", "", []))
        counted.apply((f"each{number}", "set", [], 1))
    assert len(counted.metrics) == MAX_METRICS
    counted.apply(("wide", "histogram", "", [], [float("inf")]))
    assert caplog.text.count("does not count: expected at most") == 1
    Metrics(counted.apply).histogram("each1", buckets=[np.float32(1), float("inf")]).observe(2)


def test_numbers_of_numpy_are_numbers() -> None:
    sent: list[object] = []
    metrics = Metrics(sent.append)
    metrics.gauge("x").set(np.float32(1.5))
    metrics.gauge("x").inc(np.int64(2))
    assert sent[1:] == [("x", "set", (), 1.5), ("x", "inc", (), 2.0)]
