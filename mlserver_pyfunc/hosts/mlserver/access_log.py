"""The line of each request: `serve` shows it, and `mlserver start` if a variable asks for it."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from contextvars import ContextVar
from datetime import datetime
from typing import Any

import grpc
from mlserver.grpc.utils import STATUS_CODE_MAPPING
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlserver_pyfunc.errors import describe
from mlserver_pyfunc.serving.metrics import GONE, waits
from mlserver_pyfunc.settings import ACCESS_LOG
from mlserver_pyfunc.sources.safe_tree import printable

_MODEL_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/?(.*)")
_PROBE = re.compile(r"/v2/health/.*|/v2/models/.*/ready|/v2/repository/index")
_REASON_BYTES, _TEXT_CHARS = 4000, 1000
_TEXTS = ("method", "model", "version", "status", "reason", "id", "trace_id")
_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-")
# The last item of a stream that fails, after its status 200.
_FAILED = re.compile(rb'^data: (\{"error".*)$', re.MULTILINE)
_observed: ContextVar[dict[str, Any] | None] = ContextVar("observed", default=None)


class AccessLog:
    """Counts the calls in flight, and writes a line for each one that has ended."""

    def __init__(self, write: Callable[..., None]) -> None:
        self.in_flight = 0
        self._write = write

    @contextmanager
    def observe(self, method: str, traceparent: str) -> Iterator[dict[str, Any]]:
        """Measures one call. The block sets what it knows of it, and the reason of an error."""
        call: dict[str, Any] = dict.fromkeys(_TEXTS, "")
        call |= {"method": method, "request_bytes": 0, "response_bytes": 0}
        if trace := _TRACE.match(traceparent):
            call["trace_id"] = trace[1]
        _observed.set(call)
        waited = [0.0]
        waits.set(waited)
        self.in_flight += 1
        started = time.perf_counter()
        try:
            yield call
        finally:
            self.in_flight -= 1
            took, queued = (time.perf_counter() - started) * 1000, waited[0] * 1000
            # A client chooses these texts: they must not control the terminal, or break JSON.
            call |= {name: printable(call[name][:_TEXT_CHARS]) for name in _TEXTS}
            parts = [f"{call['method']:12}", call["model"], call["status"], f"{took:.1f} ms"]
            parts += [f"waited {queued:.1f} ms" if queued else "", call["reason"]]
            text = "  ".join(filter(None, parts))
            self._write("call", text, **call, ms=round(took, 3), waited_ms=round(queued, 3))

    def rest(self, app: ASGIApp) -> ASGIApp:
        """Wraps an application so that its requests are logged, but for probes."""

        async def observed(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or _PROBE.fullmatch(scope["path"]):
                await app(scope, receive, send)
                return
            named = _MODEL_PATH.fullmatch(scope["path"])
            model, version, path = named.groups("") if named else ("", "", scope["path"])
            trace = dict(scope["headers"]).get(b"traceparent", b"").decode("latin-1")
            body = b""

            async def read() -> Message:
                message = await receive()
                call["request_bytes"] += len(message.get("body", b""))
                return message

            async def note(message: Message) -> None:
                nonlocal body
                call["response_bytes"] += len(message.get("body", b""))
                if message["type"] == "http.response.start":
                    call["status"] = str(message["status"])
                elif call["status"] >= "4" and len(body) < _REASON_BYTES:
                    body += message.get("body", b"")
                elif message.get("more_body") and (failed := _FAILED.search(message["body"])):
                    body = failed[1]
                await send(message)

            method = f"{scope['method']} {path}".rstrip()
            with self.observe(method, trace) as call:
                call |= {"model": model, "version": version, "status": f"{GONE}"}
                try:
                    await app(scope, read, note)
                except Exception as error:
                    # Starlette's outermost middleware answers with 500.
                    call["status"], call["reason"] = "500", describe(error)
                    raise
                with suppress(ValueError, AttributeError):
                    call["reason"] = str(json.loads(body).get("error", ""))

        return observed

    @contextmanager
    def grpc(self, method: str, context: Any) -> Iterator[dict[str, Any]]:
        """Measures one call over gRPC. An error that passes the block is its status."""
        trace = dict(context.invocation_metadata() or ()).get("traceparent", "")
        with self.observe(method, trace) as call:
            call["status"] = "CANCELLED"
            try:
                yield call
                call["status"] = "OK"
            except Exception as error:
                status = getattr(error, "status_code", 500)
                call["status"] = STATUS_CODE_MAPPING.get(status, grpc.StatusCode.UNKNOWN).name
                call["reason"] = str(error)
                raise


def _write(event: str, _: str, **fields: Any) -> None:
    if os.environ[ACCESS_LOG].lower() == "json":
        now = datetime.now().astimezone().isoformat(timespec="milliseconds")
        # A reader that is gone must not end the call.
        with suppress(OSError, ValueError):
            print(json.dumps({"time": now, "event": event, **fields}), flush=True)
    else:
        text = " ".join(f"{name}={json.dumps(value)}" for name, value in fields.items())
        logging.getLogger("mlserver.pyfunc").info("%s %s", event, text)


log = AccessLog(_write) if os.environ.get(ACCESS_LOG, "").lower() in ("json", "text") else None
"""What writes the lines; None if nobody asks for them. `serve` sets it before the patches."""


def note(request: Any, version: str | None) -> None:
    """Adds the id of a request, of its trace and the version of its model to the line."""
    if (call := _observed.get()) is not None:
        call |= {"id": request.id or "", "version": version or ""}
        if trace := getattr(request, "trace", None):
            call["trace_id"] = f"{trace.span.get_span_context().trace_id:032x}"


def log_grpc_calls(stock: Any) -> Any:
    if log is None:
        return stock
    observe = log.grpc

    async def f(self: Any, request: Any, context: Any) -> Any:
        with observe("ModelInfer", context) as call:
            call |= {"model": request.model_name, "version": request.model_version}
            call["request_bytes"] = request.ByteSize()
            response = await stock(self, request, context)
            call["response_bytes"] = response.ByteSize()
            return response

    return f


def log_grpc_streams(stock: Any) -> Any:
    if log is None:
        return stock
    observe = log.grpc

    async def f(self: Any, requests_stream: Any, context: Any) -> AsyncIterator[Any]:
        with observe("ModelStreamInfer", context) as call:

            async def noted() -> AsyncIterator[Any]:
                async for request in requests_stream:
                    call["model"] = request.model_name
                    call["request_bytes"] += request.ByteSize()
                    yield request

            async with aclosing(stock(self, noted(), context)) as responses:
                async for response in responses:
                    call["response_bytes"] += response.ByteSize()
                    yield response

    return f
