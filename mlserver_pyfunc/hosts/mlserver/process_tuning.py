"""The process: output, logging, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import logging
import os
import signal
import sys
from collections import deque
from typing import Any

from mlserver.errors import MLServerError
from mlserver.grpc.logging import logger as grpc_logger

from . import connections, models

_STOPPING = "_pyfunc_stopping"
_STOCK_GRACE = 5.0


def line_buffer_stdout() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def drop_trailers(stock: Any) -> Any:
    def on_headers_complete(self: Any) -> None:
        stock(self)
        # The request has the list from before. What comes now is a trailer.
        self.headers = []

    return on_headers_complete


def write_valid_json(stock: Any) -> Any:
    """Escapes the text of structured log lines, and takes tracebacks into it."""

    def format_record(self: Any, record: logging.LogRecord) -> Any:
        if not self.use_structured_logging:
            return stock(self, record)
        shown: Any = copy.copy(record)
        text = record.getMessage()
        if record.exc_info:
            text += f"\n{self.formatException(record.exc_info)}"
        shown.msg, shown.args = json.dumps(text, ensure_ascii=False)[1:-1], ()
        shown.exc_info = shown.exc_text = None
        line = stock(self, shown)
        # MLServer writes the model there, and other handlers of the record may read it.
        vars(record)["model"] = shown.model
        return line

    return format_record


def shorten_host_log() -> None:
    for name in ("mlserver", "mlserver.parallel", grpc_logger.name, "uvicorn.error"):
        logging.getLogger(name).addFilter(_concerns_users)


def _concerns_users(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, MLServerError):
        if record.name != grpc_logger.name:
            # Our own errors are raised `from None`: their text is all there is to say.
            if error.__suppress_context__:
                record.exc_info = None
        elif error.status_code != 500:
            record.exc_info = None
            record.levelno, record.levelname = logging.INFO, "INFO"
    # uvicorn says at WARNING and ERROR what is wrong, and MLServer says the addresses.
    is_routine = record.name == "uvicorn.error" and record.levelno < logging.WARNING
    return not is_routine and "`parallel_workers` setting at the model-level" not in str(record.msg)


def drain_grpc_on_shutdown(stock: Any) -> Any:
    """Waits at shutdown for calls of functions over gRPC as long as their time limits are."""

    async def stop(self: Any, sig: int | None = None) -> None:
        grpc_logger.info("Waiting up to %g s for gRPC server shutdown", models.longest_call)
        stopped = asyncio.create_task(self._server.stop(grace=models.longest_call))
        await asyncio.wait([stopped], timeout=_STOCK_GRACE)
        while not stopped.done() and models.running:
            await asyncio.wait([stopped], timeout=0.1)
        await self._server.stop(None)
        await stopped
        grpc_logger.info("gRPC server shutdown complete")

    return stop


def drain_on_interrupt(stock: Any) -> Any:
    """Answers the calls in flight after SIGINT as after SIGTERM. A second SIGINT ends them."""

    async def stop(self: Any, sig: int | None = None) -> None:
        rest: Any = getattr(self._rest_server, "_server", None)
        if sig is None or rest is None:
            await stock(self, sig)
            return
        if getattr(self, _STOPPING, False):
            # uvicorn may raise a signal again, and MLServer's pool cannot be closed twice.
            if sig == signal.SIGINT:
                rest.force_exit = True
                await self._grpc_server._server.stop(None)
            return
        setattr(self, _STOPPING, True)
        for server in (rest, getattr(self._metrics_server, "_server", None)):
            if hasattr(server, "_captured_signals"):
                # It stays empty: a server may end, and raise what it has, before `stop` ends.
                vars(server)["_captured_signals"] = deque(maxlen=0)
        if sig != signal.SIGINT:
            await connections.part(rest)
        # Accept no new requests over REST while calls over gRPC are waited for.
        rest.should_exit = True
        await stock(self, signal.SIGTERM)

    return stop


def reap_only_pool_workers(stock: Any) -> Any:
    """Waits for the processes of MLServer's pool one by one, and for no other process."""

    async def _handle_worker_stop(self: Any, signum: int, frame: Any) -> None:
        for pool in [self._default_pool, *self._pools.values()]:
            for pid in list(pool._workers):
                try:
                    stopped, status = os.waitpid(pid, os.WNOHANG)
                except ChildProcessError:
                    continue
                if stopped and status:
                    await pool.on_worker_stop(pid, status)

    return _handle_worker_stop
