"""The age and the end of connections, over REST and gRPC: see docs/operations.md, Connections."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.types import Scope, Send

from mlserver_pyfunc.deployment.server_settings import PART_SECONDS
from mlserver_pyfunc.settings import connection_age

from . import models

AGE = connection_age()
_QUIET_SECONDS = 1.0
_REST_SECONDS = 2.0
_KEEP_ALIVE = 75
_DUE = "pyfunc_due"
_CLOSE = (b"connection", b"close")
_has_to_part = _ages_grpc = False


def age_grpc_connections(stock: Any) -> Any:
    """Ends connections over gRPC of an age, each after its calls.

    Without it, a client over gRPC sends all calls to the server that it has first connected to,
    and a new server gets none.
    """

    def _get_options(self: Any) -> Any:
        global _ages_grpc
        _ages_grpc = True
        # gRPC varies the age by a tenth, and waits for the calls in flight without a limit.
        return list({"grpc.max_connection_age_ms": int(AGE * 1000), **dict(stock(self))}.items())

    return _get_options


def age_rest_connections(stock: Any) -> Any:
    """Notes when a connection over REST is due to end, and keeps it open while it is idle.

    Without it, a client over REST sends all requests to the server that it has first connected to,
    and a request is lost if it comes as uvicorn closes the connection, idle for 5 s. Balancers
    keep idle connections for 60 s.
    """

    def connection_made(self: Any, transport: Any) -> None:
        stock(self, transport)
        self.timeout_keep_alive = max(self.timeout_keep_alive, _KEEP_ALIVE)
        # Each request has a copy of it as `state` in its scope.
        due = time.monotonic() + AGE * random.uniform(0.9, 1.1)
        self.app_state = {**self.app_state, _DUE: due}

    return connection_made


def is_due(scope: Scope) -> bool:
    """Returns whether a request is to be the last one of its connection."""
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
