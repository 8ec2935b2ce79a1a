"""The line of a request: its forms, and how requests end that have no answer."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import runpy
import sys
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import grpc
import pytest
from mlserver.errors import MLServerError
from starlette.responses import JSONResponse, Response

from mlserver_pyfunc.hosts.mlserver import access_log
from mlserver_pyfunc.hosts.mlserver.access_log import AccessLog
from mlserver_pyfunc.serving import metrics

PATH = '/v2/models/a%22"b/versions/2/infer'


def lines_of(app: Any, path: str = PATH) -> list[dict[str, Any]]:
    """Calls an application once by POST, and returns its lines."""
    lines: list[dict[str, Any]] = []
    log = AccessLog(lambda event, text, **fields: lines.append({**fields, "text": text}))
    bodies = iter([b"ab", b"c"])

    async def receive() -> dict[str, Any]:
        body = next(bodies)
        return {"type": "http.request", "body": body, "more_body": body == b"ab"}

    async def send(message: Any) -> None:
        pass

    scope = {"type": "http", "method": "POST", "path": path, "headers": []}
    with contextlib.suppress(ZeroDivisionError):
        asyncio.run(log.rest(app)(scope, receive, send))
    assert log.in_flight == 0
    return lines


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    while (await receive())["more_body"]:
        pass
    await JSONResponse({"error": "expected x"}, 400)(scope, receive, send)


async def fail(scope: Any, receive: Any, send: Any) -> None:
    raise ZeroDivisionError("by x")


async def leave(scope: Any, receive: Any, send: Any) -> None:
    pass


@pytest.mark.parametrize(
    ("app", "status", "reason"),
    [
        (Response("ok"), "200", ""),
        (refuse, "400", "expected x"),
        (fail, "500", "ZeroDivisionError: by x"),
        (leave, "499", ""),
    ],
)
def test_each_end_of_a_request_has_its_status(app: Any, status: str, reason: str) -> None:
    [line] = lines_of(app)
    assert (line["status"], line["reason"]) == (status, reason)
    assert (line["method"], line["model"], line["version"]) == ("POST infer", 'a%22"b', "2")
    assert line["request_bytes"] == (3 if app is refuse else 0)
    assert line["text"].startswith('POST infer    a%22"b  ')


def test_probes_have_no_line() -> None:
    for path in ("/v2/health/ready", "/v2/models/m/ready", "/v2/repository/index"):
        assert not lines_of(leave, path)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MLServerError("no", 400), "INVALID_ARGUMENT"),
        (MLServerError("no", 799), "UNKNOWN"),
        (ValueError("no"), "INTERNAL"),
        (asyncio.CancelledError(), "CANCELLED"),
    ],
)
def test_errors_over_grpc_have_the_code_that_the_client_gets(
    error: BaseException, status: str
) -> None:
    class Context:
        def invocation_metadata(self) -> list[tuple[str, str]]:
            return [("traceparent", "00-\n")]

    lines: list[dict[str, Any]] = []
    log = AccessLog(lambda event, text, **fields: lines.append(fields))
    with pytest.raises(type(error)), log.grpc("ModelInfer", Context()):
        raise error
    assert lines[0]["status"] == status
    assert lines[0]["trace_id"] == ""
    assert status in grpc.StatusCode.__members__


def test_the_form_for_people_has_the_same_fields(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLSERVER_PYFUNC_ACCESS_LOG", "text")
    log = AccessLog(access_log._write)
    with caplog.at_level(logging.INFO, "mlserver.pyfunc"), log.observe("POST infer", "") as call:
        call["model"] = 'a"\nb'
    assert 'call method="POST infer" model="a\\"\\\\nb" version="" status=""' in caplog.text
    assert "request_bytes=0" in caplog.text


def test_a_line_is_written_at_once_and_ends_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLSERVER_PYFUNC_ACCESS_LOG", "json")
    log, raw = AccessLog(access_log._write), io.BytesIO()
    gone = MagicMock(**{"write.side_effect": BrokenPipeError})
    outputs: list[Any] = [io.TextIOWrapper(io.BufferedWriter(raw)), gone]
    for output in outputs:
        monkeypatch.setattr(sys, "stdout", output)
        with log.observe("POST infer", "") as call:
            trace = MagicMock()
            trace.span.get_span_context.return_value = SimpleNamespace(trace_id=10)
            access_log.note(SimpleNamespace(id="r", trace=trace), "1")
        assert call["trace_id"] == f"{10:032x}"
        assert b'"id": "r"' in raw.getvalue()


def test_a_stream_s_waits_are_one_number() -> None:
    log = AccessLog(lambda event, text, **fields: None)
    with log.observe("ModelStreamInfer", ""):
        for _ in range(3):
            metrics.Wait(MagicMock(), MagicMock(), None).end()
        assert len(metrics.waits.get() or ()) == 1


@pytest.mark.parametrize(("form", "is_on"), [("JSON", True), ("text", True), ("0", False)])
def test_only_a_form_switches_the_log_on(
    form: str, is_on: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLSERVER_PYFUNC_ACCESS_LOG", form)
    assert (runpy.run_path(access_log.__file__)["log"] is not None) is is_on


def test_nothing_is_patched_without_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access_log, "log", None)
    for patch in (access_log.log_grpc_calls, access_log.log_grpc_streams):
        assert patch(lines_of) is lines_of
