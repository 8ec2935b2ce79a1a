"""Payload events: what the sink gets, and what becomes of them if it does not take them."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock
from urllib.parse import unquote

import numpy as np
import orjson
import pytest
import yaml
from prometheus_client import REGISTRY

from mlserver_pyfunc.errors import LoadError, RequestError
from mlserver_pyfunc.protocol.request import InferenceRequest
from mlserver_pyfunc.serving import payload_events, tracing
from mlserver_pyfunc.serving.local import LocalFunction, load
from tests.sink import Sink
from tests.waiting import wait_until

CODE = """
def handler(name, x):
    x = x.copy()
    x += 1
    return {"y": x, "greeting": name}
"""
_names = (f"events{number}" for number in itertools.count())


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sink]:
    sink = Sink()
    monkeypatch.setenv("MLSERVER_PYFUNC_LOG_URL", sink.url)
    yield sink
    sink.released.set()
    sink.server.shutdown()
    sink.server.server_close()


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[], LocalFunction]:
    def open_() -> LocalFunction:
        (tmp_path / "m.py").write_text(CODE)
        definition = {
            "model_name": next(_names),
            "model_version": "3",
            "source": {"source": "m.py", "handler": "handler"},
            "inputs": [
                {"name": "name", "datatype": "BYTES", "shape": [-1]},
                {"name": "x", "datatype": "FP16", "shape": [-1], "nullable": True},
            ],
            "outputs": [
                {"name": "y", "datatype": "FP32", "shape": [-1]},
                {"name": "greeting", "datatype": "BYTES", "shape": [-1]},
            ],
        }
        (tmp_path / "function.yaml").write_text(yaml.safe_dump(definition))
        return load(tmp_path)

    return open_


def counts(function: LocalFunction) -> dict[str, float]:
    outcomes = ("sent", "full", "failed", "invalid", "unloaded")
    labels = {"model": function.model_name, "version": "3"}
    found = {
        each: REGISTRY.get_sample_value("pyfunc_payload_events_total", {**labels, "outcome": each})
        for each in outcomes
    }
    return {outcome: value for outcome, value in found.items() if value}


def test_an_event_has_the_payload_and_the_attributes_of_kserve_s_logger(
    sink: Sink, opened: Callable[[], LocalFunction], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLSERVER_PYFUNC_LOG_NAMESPACE", "shop")
    monkeypatch.setenv("MLSERVER_PYFUNC_LOG_ENDPOINT", "canary")
    with opened() as function:
        request = {
            "id": 'a\n"%é\ud800',
            "parameters": {"k": [1]},
            "inputs": [
                {"name": "name", "datatype": "BYTES", "shape": [2], "data": ["ann", "é"]},
                {
                    "name": "x",
                    "datatype": "FP16",
                    "shape": [2],
                    "data": [1, None],
                    "parameters": {"unit": "cm"},
                },
            ],
            "outputs": [{"name": "y"}],
        }
        answer = function.request(request)
    [(headers, _)] = [each for each in sink.events if each[0]["ce-type"].endswith("request")]
    assert unquote(headers["ce-id"]) == 'a\n"%é?'
    assert headers["ce-inferenceservicename"] == function.model_name
    assert headers["ce-source"] == f"/v2/models/{function.model_name}"
    given = [headers[f"ce-{name}"] for name in ("namespace", "endpoint", "component")]
    assert given == ["shop", "canary", "predictor"]
    assert (headers["ce-specversion"], headers["content-type"]) == ("1.0", "application/json")
    assert sink.bodies("request") == [{**request, "id": 'a\n"%é?'}]
    assert sink.bodies("response") == [orjson.loads(orjson.dumps({**answer, "id": 'a\n"%é?'}))]
    assert counts(function) == {"sent": 2}


def test_an_event_of_a_traced_request_names_its_span(
    sink: Sink, opened: Callable[[], LocalFunction], monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = MagicMock()
    trace.span.get_span_context.return_value = SimpleNamespace(trace_id=10, span_id=11)
    with opened() as function:
        monkeypatch.setattr(tracing, "active", MagicMock())
        request = InferenceRequest.from_values(function.contract, {"name": ["a"], "x": [1]})
        request.trace = trace
        function.infer(request)
    for headers, _ in sink.events:
        assert headers["ce-traceparent"] == f"00-{10:032x}-{11:016x}-01"


def test_a_refused_request_has_an_event_without_data(
    sink: Sink, opened: Callable[[], LocalFunction], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLSERVER_PYFUNC_LOG_REDACT", "token")
    x = {"name": "x", "datatype": "FP64", "shape": [1]}
    secret = {"data": [7531], "parameters": {"k": 7531}}
    body = {"id": "r", "parameters": {"token": "7531", "k": 1}, "inputs": [{**x, **secret}]}
    with opened() as function, pytest.raises(RequestError):
        function.request(body)
    told = {**x, "parameters": {"omitted": "refused"}, "data": []}
    assert sink.bodies("request") == [{"id": "r", "parameters": {"k": 1}, "inputs": [told]}]
    assert len(sink.events) == 1
    assert b"7531" not in sink.events[0][1]


def test_secrets_are_not_sent(
    sink: Sink,
    opened: Callable[[], LocalFunction],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("MLSERVER_PYFUNC_LOG_URL", sink.url.replace("//", "//me:pass%2Fword@"))
    monkeypatch.setenv("MLSERVER_PYFUNC_LOG_REDACT", "name, greeting token")
    sink.answer = lambda number: 403 if number else 200
    with opened() as function:
        body = {
            "parameters": {"token": "hunter2", "headers": {"authorization": "hunter2"}},
            "inputs": [
                {"name": "name", "datatype": "BYTES", "shape": [1], "data": ["hunter2"]},
                {"name": "x", "datatype": "FP16", "shape": [1], "data": [1]},
            ],
        }
        function.request(body)
        # The whole answer in one tensor has no name that is redacted.
        body["parameters"]["output_content_type"] = "application/vnd.apache.arrow.stream"
        function.request(body)
    assert len(sink.events) == 4
    for headers, content in sink.events:
        assert b"hunter2" not in content
        assert headers["authorization"] == "Basic bWU6cGFzcy93b3Jk"
    hidden = {"parameters": {"omitted": "redacted"}, "data": []}
    request, response = sink.bodies("request")[0], sink.bodies("response")[1]
    assert request["inputs"][0] == {"name": "name", "datatype": "BYTES", "shape": [1], **hidden}
    assert response["outputs"][1]["parameters"] == {"omitted": "redacted"}
    assert "is dropped (failed): status 403" in caplog.text
    assert "pass" not in caplog.text


def test_a_large_payload_is_told_by_shape_and_datatype(
    sink: Sink, opened: Callable[[], LocalFunction], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLSERVER_PYFUNC_LOG_MAX_BYTES", "1K")
    with opened() as function:
        function(name=["a"], x=np.ones(1000, np.float16))
        function(name=["a" * 1100], x=[1])
        # Its JSON is larger than it seems: the data of all tensors is left out.
        function(name=["a"], x=np.full(400, 0.1, np.float16))
        function.infer(InferenceRequest.from_values(function.contract, {"name": ["a"], "x": [1]}))
        body = {
            "parameters": {"much": "x" * 1100},
            "inputs": [{"name": "name", "datatype": "BYTES", "shape": [0], "data": []}],
        }
        with pytest.raises(Exception, match="missing"):
            function.request(body)
        body["inputs"] += [{"name": "x", "datatype": "FP16", "shape": [0], "data": []}]
        function.request(body)
    assert all(len(content) <= 1024 for _, content in sink.events)
    told = {"parameters": {"omitted": "larger than 1024 bytes"}, "data": []}
    sent = {body["inputs"][1]["shape"][0]: body["inputs"] for body in sink.bodies("request")}
    assert sent[1000][1] == {"name": "x", "datatype": "FP16", "shape": [1000], **told}
    assert sent[1000][0]["data"] == ["a"]
    assert [each["data"] for each in sent[400]] == [[], []]
    assert counts(function) == {"sent": 9, "invalid": 2}


def test_what_cannot_be_an_event_is_counted_and_the_request_goes_on(
    sink: Sink, opened: Callable[[], LocalFunction], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> object:
        raise AttributeError("x")

    with opened() as function:
        with monkeypatch.context() as patch:
            patch.setattr(payload_events, "json_output", fail)
            for _ in range(4):  # as many as there are senders
                function(name=["a"], x=[1])
            wait_until(lambda: counts(function) == {"invalid": 8})
            patch.setattr(payload_events, "tensor_head", fail)
            function(name=["a"], x=[1])
        function(name=["a"], x=[1])
    assert counts(function) == {"invalid": 10, "sent": 2}


def test_mode_and_share_choose_what_is_sent(
    sink: Sink, opened: Callable[[], LocalFunction], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLSERVER_PYFUNC_LOG_MODE", "response")
    monkeypatch.setenv("MLSERVER_PYFUNC_LOG_SAMPLE", "0.5")
    with opened() as function:
        for _ in range(100):
            function(name=["a"], x=[1])
    assert not sink.bodies("request")
    assert 10 < len(sink.bodies("response")) < 90


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MODE", "some"),
        ("SAMPLE", "much"),
        ("MAX_BYTES", "big"),
        ("SAMPLE", "1.5"),
        ("URL", "ftp://x"),
    ],
)
def test_a_wrong_setting_does_not_load(
    name: str,
    value: str,
    sink: Sink,
    opened: Callable[[], LocalFunction],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(f"MLSERVER_PYFUNC_LOG_{name}", value)
    with pytest.raises(LoadError, match=f"MLSERVER_PYFUNC_LOG_.*expected MODE all.*{value}"):
        opened()


def test_a_sink_that_fails_for_a_moment_gets_the_event_again(
    sink: Sink, opened: Callable[[], LocalFunction]
) -> None:
    sink.answer = lambda number: 500 if number < 2 else 200
    with opened() as function:
        function(name=["a"], x=[1])
    assert len(sink.events) == 4
    assert counts(function) == {"sent": 2}


def test_a_sink_that_hangs_holds_no_request_up_and_takes_no_memory(
    sink: Sink,
    opened: Callable[[], LocalFunction],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(payload_events, "QUEUE_EVENTS", 20)
    monkeypatch.setattr(payload_events, "_CLOSE_SECONDS", 0.1)
    sink.answer = sink.hang
    with caplog.at_level(logging.WARNING, "mlserver.pyfunc"), opened() as function:
        for _ in range(50):
            function(name=["a"], x=[1])
        assert counts(function) == {"full": 80}
    assert counts(function) == {"full": 80, "unloaded": 20}
    assert caplog.text.count("the sink is too slow") == 1


def test_the_bytes_that_wait_are_bounded(
    sink: Sink, opened: Callable[[], LocalFunction], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payload_events, "QUEUE_BYTES", 100_000)
    monkeypatch.setattr(payload_events, "_CLOSE_SECONDS", 0.1)
    monkeypatch.setenv("MLSERVER_PYFUNC_LOG_MODE", "request")
    sink.answer = sink.hang
    with opened() as function:
        for _ in range(10):
            function(name=["a"], x=np.ones(10_000, np.float16))
        assert counts(function) == {"full": 8}
        # An object of Python takes more than its text.
        function(name=["a"] * 1000, x=[1])
        assert counts(function) == {"full": 9}


@pytest.mark.parametrize("status", [404, 500])
def test_what_the_sink_refuses_is_counted(
    status: int,
    sink: Sink,
    opened: Callable[[], LocalFunction],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(payload_events, "_RETRY_SECONDS", (0, 0.01))
    sink.answer = lambda number: status
    with opened() as function:
        function(name=["a"], x=[1])
    assert counts(function) == {"failed": 2}
    assert len(sink.events) == (4 if status == 500 else 2)
    assert f"is dropped (failed): status {status}" in caplog.text


def test_without_a_sink_events_are_counted_as_failed(
    sink: Sink, opened: Callable[[], LocalFunction], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payload_events, "_RETRY_SECONDS", (0, 0.01))
    sink.server.shutdown()
    sink.server.server_close()
    with opened() as function:
        function(name=["a"], x=[1])
        wait_until(lambda: counts(function) == {"failed": 2})
