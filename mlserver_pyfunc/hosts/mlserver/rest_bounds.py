"""What REST requests may be: bounded in size, also unpacked, and not from another site."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi import Request as FastAPIRequest
from mlserver.rest.responses import Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from mlserver_pyfunc.errors import safe_message
from mlserver_pyfunc.hosts.common.rest_request import BODY_TOO_LARGE, MAX_BODY, bounded
from mlserver_pyfunc.protocol.types import short_repr

from . import access_log, connections, models
from .rest_route import once_for_app

_CHUNK_BYTES = 64 * 1024
_INLINE_BYTES = 1024
"""Largest compressed body that is inflated on the event loop: it is at most 1 MiB inflated."""

_ENCODINGS = ("gzip", "x-gzip", "deflate")
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_OF_MODEL = re.compile(r"/v2/models/([^/]+)/")


class BodyTooLargeError(HTTPException):
    """The body of a request is larger than the bound. Status 413."""

    def __init__(self) -> None:
        super().__init__(413, BODY_TOO_LARGE)


@once_for_app
def guard_requests(server: Any) -> None:
    """Bounds the size of REST bodies, and refuses requests that another site's page sends."""
    app = server._app
    # OpenTelemetry's instrumentation sets this method of the application, before or after us.
    stock = app.build_middleware_stack

    async def too_large(request: Any, error: Any) -> Response:
        return Response({"error": error.detail}, error.status_code)

    def build_middleware_stack() -> Any:
        # It traces nothing if the outermost one is not Starlette's.
        stack = stock()
        stack.app = Guard(stack.app, app)
        if access_log.log is not None:
            stack.app = access_log.log.rest(stack.app)
        return stack

    app.exception_handlers[BodyTooLargeError] = too_large
    app.build_middleware_stack = build_middleware_stack
    app.middleware_stack = None  # Starlette makes it again at the next request.


def inflate_bodies(stock: Any) -> Any:
    async def body(self: Any) -> Any:
        encodings = [value for key, value in self.scope["headers"] if key == b"content-encoding"]
        if encodings and is_of_another_runtime(self.app, self.scope):
            return await stock(self)
        if not hasattr(self, "_body"):
            body = await FastAPIRequest.body(self)
            self._body = await decompressed(body, encodings) if encodings else body
        return self._body

    return body


class Guard:
    """ASGI middleware that bounds and refuses requests, before all routes: docs/architecture.md."""

    def __init__(self, app: ASGIApp, owner: FastAPI) -> None:
        self._app = app
        self._owner = owner
        self._allowed = _cors_origins(owner)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if connections.is_due(scope):
            send = connections.last_answer(send)
        if scope["type"] == "http" and scope["method"] not in _SAFE_METHODS:
            length = origin = site = b""
            for name, value in scope["headers"]:
                if name == b"content-length":
                    length = value
                elif name == b"origin":
                    origin = value
                elif name == b"sec-fetch-site":
                    site = value
            browser = origin or site
            if browser and (refusal := self._foreign(scope, origin.decode("latin-1"), site)):
                await Response({"error": refusal}, 403)(scope, receive, send)
                return
            # The HTTP parsers see to it that a body is as long as it says.
            is_over = len(length) > 18 or int(length or -1) > MAX_BODY
            if (is_over or not length) and not is_of_another_runtime(self._owner, scope):
                receive = bounded(receive, BodyTooLargeError, is_over=is_over)
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            return

    def _foreign(self, scope: Scope, origin: str, site: bytes) -> str:
        if site in (b"same-origin", b"none") or self._allowed(origin):
            return ""
        host = urlsplit(origin).netloc.lower()
        # A page of another site cannot set X-Forwarded-Host, but a proxy can.
        hosts = [
            value.decode("latin-1").lower()
            for name, value in scope["headers"]
            if name in (b"host", b"x-forwarded-host")
        ]
        if site != b"cross-site" and host and host in hosts:
            return ""
        if site in (b"", b"same-site") and not origin:
            return ""
        if is_of_another_runtime(self._owner, scope):
            return ""
        return safe_message(
            f"expected a request from the server's own pages, got one from "
            f'"{origin[:200] or "another site"}": allow the origin in MLServer\'s cors_settings'
        )


async def decompressed(body: bytes, encodings: list[bytes]) -> bytes:
    """Returns a body without its compression, given the values of `Content-Encoding`.

    Inflates on a thread, and up to the bound only. Raises BodyTooLargeError if the body is larger,
    and json.JSONDecodeError if it is not of that encoding, or the encoding is not known.
    """
    names = b" ".join(encodings).decode("latin-1").lower().replace(",", " ").split()
    for name in reversed(names):
        if name == "identity":
            continue
        if name not in _ENCODINGS:
            problem = f"Content-Encoding: expected gzip or deflate, got {short_repr(name)}"
            raise json.JSONDecodeError(problem, "", 0)
        try:
            if len(body) <= _INLINE_BYTES:
                body = inflate(body, name)
            else:
                body = await asyncio.to_thread(inflate, body, name)
        except (EOFError, OSError, zlib.error) as error:
            raise json.JSONDecodeError(f"body is not {name}: {error}", "", 0) from None
    return body


def inflate(body: bytes, encoding: str) -> bytes:
    """Inflates a body. Raises BodyTooLargeError, or EOFError, OSError or zlib.error if broken."""
    if encoding == "deflate":
        # Some clients leave out zlib's header (RFC 9110, section 8.4.1.2).
        stream = zlib.decompressobj(zlib.MAX_WBITS if _has_zlib_header(body) else -zlib.MAX_WBITS)
        pieces = [stream.decompress(body, MAX_BODY + 1)]
        size = len(pieces[0])
        if size <= MAX_BODY and not stream.eof:
            raise EOFError("it ends too early")
    else:
        # It may have more members, and zeros after them as padding.
        file = gzip.GzipFile(fileobj=io.BytesIO(body))
        pieces, size = [], 0
        while size <= MAX_BODY and (piece := file.read1(_CHUNK_BYTES)):
            pieces.append(piece)
            size += len(piece)
    if size > MAX_BODY:
        raise BodyTooLargeError
    return b"".join(pieces)


def _has_zlib_header(body: bytes) -> bool:
    return len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0


def _cors_origins(app: FastAPI) -> Callable[[str], bool]:
    stack: list[Any] = app.user_middleware
    for middleware in stack:
        if middleware.cls is CORSMiddleware:
            return CORSMiddleware(app, **middleware.kwargs).is_allowed_origin
    return lambda origin: False


def is_of_another_runtime(app: FastAPI, scope: Scope) -> bool:
    found = _OF_MODEL.match(scope["path"].removeprefix(scope.get("root_path", "")))
    return found is not None and models.has_others(models.registry_of(app), found[1])
