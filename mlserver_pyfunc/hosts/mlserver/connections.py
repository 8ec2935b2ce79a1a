"""The age and the end of connections and streams, over REST and gRPC: see docs/operations.md."""

from __future__ import annotations

import asyncio
import math
import random
import time
import traceback
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from typing import Any

import grpc
from starlette.types import Scope, Send

from mlserver_pyfunc import settings
from mlserver_pyfunc.deployment.server_settings import PART_SECONDS
from mlserver_pyfunc.hosts.common.tuning import KEEP_ALIVE
from mlserver_pyfunc.serving.runner import logger

from . import models

AGE = settings.connection_age()
_QUIET_SECONDS = 1.0
_REST_SECONDS = 2.0
_DUE = "pyfunc_due"
_CLOSE = (b"connection", b"close")
_has_to_part = _ages_grpc = False


def age_grpc_connections(stock: Any) -> Any:
    def _get_options(self: Any) -> Any:
        global _ages_grpc
        _ages_grpc = True
        # gRPC varies the age by a tenth, and waits for the calls in flight without a limit.
        return list({"grpc.max_connection_age_ms": int(AGE * 1000), **dict(stock(self))}.items())

    return _get_options


def age_rest_connections(stock: Any) -> Any:
    """Notes when a connection over REST is due to end, and keeps it open while it is idle."""

    def connection_made(self: Any, transport: Any) -> None:
        stock(self, transport)
        self.timeout_keep_alive = max(self.timeout_keep_alive, KEEP_ALIVE)
        # Each request has a copy of it as `state` in its scope.
        due = time.monotonic() + AGE * random.uniform(0.9, 1.1)
        self.app_state = {**self.app_state, _DUE: due}

    return connection_made


def is_due(scope: Scope) -> bool:
    return _has_to_part or time.monotonic() > scope.get("state", {}).get(_DUE, math.inf)


def last_answer(send: Send) -> Send:
    """Tells a client by its answer to connect again. uvicorn closes the connection after it."""

    async def send_last(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], _CLOSE]}
        await send(message)

    return send_last


async def part(rest: Any) -> None:
    """Parts from clients before uvicorn's server and gRPC's end: docs/operations.md, Draining."""
    global _has_to_part
    _has_to_part = True
    # uvicorn has heard of the signal itself, and looks ten times a second whether it is to end.
    rest.should_exit = False
    begun = time.monotonic()
    while rest.server_state.connections and time.monotonic() < begun + _REST_SECONDS:
        await asyncio.sleep(0.02)
    rest.should_exit = True
    longest = begun + min(AGE * 1.1 + _QUIET_SECONDS, PART_SECONDS) if _ages_grpc else 0
    while time.monotonic() < min(models.last_call + _QUIET_SECONDS, longest):
        await asyncio.sleep(0.02)


def leave_context_anywhere(stock: Any) -> Any:
    """Ends a stream whose client has left without an error in the log."""

    @contextmanager
    def model_context(model_settings: Any) -> Iterator[None]:
        context = stock(model_settings)
        context.__enter__()
        try:
            yield
        finally:
            with suppress(ValueError):
                context.__exit__(None, None, None)

    return model_context


def limit_rest_writes(stock: Any) -> Any:
    seconds = settings.write_timeout()

    async def drain(self: Any) -> None:
        try:
            await asyncio.wait_for(stock(self), seconds)
        except asyncio.TimeoutError:
            _log_unread("a client of REST", seconds)
            self._transport.abort()
            # uvicorn sets the event when it notices that the connection is gone.
            await stock(self)

    return drain


def end_grpc_streams(stock: Any) -> Any:
    """Ends a gRPC stream that has no request or no answer, or whose client does not read it."""
    seconds = settings.write_timeout()
    closing: set[asyncio.Task[None]] = set()

    async def f(self: Any, requests_stream: Any, context: Any) -> AsyncIterator[Any]:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        answered = False

        def cancel() -> None:
            _log_unread("a client of gRPC", seconds)
            status = loop.create_task(_send_status(context, seconds))
            closing.add(status)
            status.add_done_callback(closing.discard)
            task.cancel()

        try:
            async for response in stock(self, requests_stream, context):
                answered = True
                # gRPC asks for the next item when it has sent this one, in the task of the call.
                timer = loop.call_later(seconds, cancel)
                try:
                    yield response
                finally:
                    timer.cancel()
        except UnboundLocalError as error:
            *_, (frame, _) = traceback.walk_tb(error.__traceback__)
            if answered or frame.f_code is not getattr(stock, "__code__", None):
                raise

    return f


async def _send_status(context: Any, seconds: float) -> None:
    # abort raises an error for the code that handles the call, which has been cancelled.
    with suppress(Exception):
        await context.abort(
            grpc.StatusCode.DEADLINE_EXCEEDED,
            f"the client has read nothing for {seconds:g} s ({settings.WRITE_TIMEOUT})",
        )


def _log_unread(client: str, seconds: float) -> None:
    logger.warning(
        "%s has read nothing for %g s (%s): its stream is closed",
        client, seconds, settings.WRITE_TIMEOUT,
    )  # fmt: skip
