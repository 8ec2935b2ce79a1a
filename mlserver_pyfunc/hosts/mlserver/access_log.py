"""The line of each request that `serve` shows. Nothing here runs under `mlserver start`."""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import unquote

import grpc
from mlserver.grpc.servicers import InferenceServicer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlserver_pyfunc.serving.metrics import waits
from mlserver_pyfunc.sources.safe_tree import printable

_MODEL_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/[^/]+)?/?(.*)")
_PROBE = re.compile(r"/v2/health/.*|/v2/models/.*/ready|/v2/repository/index")
_REASON_BYTES = 4000
# The last item of a stream that fails, after its status 200.
_FAILED = re.compile(rb'^data: (\{"error".*)$', re.MULTILINE)
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


class AccessLog:
    """Counts the calls in flight, and writes a line for each one that has ended."""

    def __init__(self, write: Callable[..., None]) -> None:
        self.in_flight = 0
        self._write = write

    @contextmanager
    def observe(self, method: str, model: str = "") -> Iterator[dict[str, str]]:
        """Measures one call. The block sets its status, and the reason of an error."""
        call = {"method": method, "model": model, "status": "", "reason": ""}
        waited: list[float] = []
        waits.set(waited)
        self.in_flight += 1
        started = time.perf_counter()
        try:
            yield call
        finally:
            self.in_flight -= 1
            took, queued = (time.perf_counter() - started) * 1000, sum(waited) * 1000
            # A client chooses these texts: they must not control the terminal.
            call = {name: printable(text) for name, text in call.items()}
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
            model, path = (unquote(named[1]), named[2]) if named else ("", scope["path"])
            body = b""

            async def note(message: Message) -> None:
                nonlocal body
                if message["type"] == "http.response.start":
                    call["status"] = str(message["status"])
                elif call["status"] >= "4" and len(body) < _REASON_BYTES:
                    body += message.get("body", b"")
                elif message.get("more_body") and (failed := _FAILED.search(message["body"])):
                    body = failed[1]
                await send(message)

            with self.observe(f"{scope['method']} {path}".rstrip(), model) as call:
                await app(scope, receive, note)
                with suppress(ValueError, AttributeError):
                    call["reason"] = str(json.loads(body).get("error", ""))

        return observed

    def grpc(self) -> type[InferenceServicer]:
        """Returns MLServer's servicer, with the calls of models logged."""
        log = self

        @contextmanager
        def observed(method: str, context: Any, model: str = "") -> Iterator[dict[str, str]]:
            with log.observe(method, model) as call:
                try:
                    yield call
                finally:
                    code = context.code() or 0
                    call["status"] = getattr(code, "name", "") or _CODES[code]
                    call["reason"] = context.details() or ""

        class Servicer(InferenceServicer):
            async def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
                with observed("ModelInfer", context, request.model_name):
                    return await super().ModelInfer(request, context)

            async def ModelStreamInfer(self, requests: Any, context: Any) -> Any:  # noqa: N802
                async def named() -> AsyncIterator[Any]:
                    async for request in requests:
                        call["model"] = request.model_name
                        yield request

                with observed("ModelStreamInfer", context) as call:
                    async for response in super().ModelStreamInfer(named(), context):
                        yield response

        return Servicer
