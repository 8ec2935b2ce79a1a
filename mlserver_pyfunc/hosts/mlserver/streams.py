"""How streams end: without an item, with a client that leaves, or with one that does not read.

A stream makes its next item when the last one is sent. If its client does not read, the stream
would keep its slot for as long as the client likes. So its connection or stream is closed.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import grpc

from mlserver_pyfunc import settings

logger = logging.getLogger("mlserver.pyfunc")


def leave_context_anywhere(stock: Any) -> Any:
    """Ends a stream whose client has left without an error in the log.

    Without it, each stream that a client leaves logs the traceback of a ValueError.
    """

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
    """Closes a connection whose client does not read for the write limit.

    Without it, a client that does not read its stream over REST holds a slot for ever: uvicorn
    waits without a limit until the client has room for the next item.
    """
    seconds = settings.write_timeout()

    async def drain(self: Any) -> None:
        try:
            await asyncio.wait_for(stock(self), seconds)
        except asyncio.TimeoutError:
            _log("a client of REST", seconds)
            self._transport.abort()
            # uvicorn sets the event when it notices that the connection is gone.
            await stock(self)

    return drain


def end_grpc_streams(stock: Any) -> Any:
    """Ends a gRPC stream that has no request or no answer, or whose client does not read it.

    Without it, a stream without a request or without an answer ends with INTERNAL, because
    MLServer reads a variable that it sets only in the loop over them, and a client that does not
    read its stream holds a slot for ever: gRPC waits without a limit until it has room.
    """
    seconds = settings.write_timeout()
    closing: set[asyncio.Task[None]] = set()

    async def f(self: Any, requests_stream: Any, context: Any) -> AsyncIterator[Any]:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        answered = False

        def cancel() -> None:
            _log("a client of gRPC", seconds)
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


def _log(client: str, seconds: float) -> None:
    logger.warning(
        "%s has read nothing for %g s (%s): its stream is closed",
        client, seconds, settings.WRITE_TIMEOUT,
    )  # fmt: skip
