"""What runs a function's handler: the interface of a runner, and what all of them share."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mlserver_pyfunc.handler.call import InferenceCall, printable_id, request_id
from mlserver_pyfunc.protocol.contract import NamedArray

UNLOAD_SECONDS = 10.0
"""How long calls in flight, and then the unload function, may hold up an unload."""

logger = logging.getLogger("mlserver.pyfunc")


def _tag(record: logging.LogRecord) -> bool:
    """Puts the request's id before what is logged in its call."""
    shown = printable_id(request_id.get())
    if shown and shown not in record.getMessage():
        record.msg = f"[request {shown.replace('%', '%%') if record.args else shown}] {record.msg}"
    return True


logger.addFilter(_tag)


def warn_of_running_calls(model_name: str) -> None:
    """Tells that calls in flight were waited for in vain."""
    logger.warning(
        'function "%s": calls still run after %g s, unloading all the same',
        model_name,
        UNLOAD_SECONDS,
    )


@dataclass(slots=True)
class Answer:
    """Checked outputs in declared order, and the response's own parameters."""

    arrays: list[NamedArray]
    parameters: Mapping[str, Any]


class Runner(Protocol):
    """Runs one loaded function. All methods are for the event loop's thread."""

    @property
    def ready(self) -> bool:
        """Whether a call could run now."""

    @property
    def accepts_calls(self) -> bool:
        """Whether a call is taken, if only to wait."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """How the function runs, for the model's metadata."""

    @property
    def streams(self) -> bool:
        """Whether the handler is a generator."""

    @property
    def required_fields(self) -> frozenset[str]:
        """As `CallPlan.required_fields`."""

    async def load(self) -> None:
        """Imports, initialises and binds.

        Raises:
            LoadError: Names the function, the phase and the cause.
        """

    async def answer(self, call: InferenceCall) -> Answer:
        """Calls a handler that does not stream.

        Raises:
            RequestError: With the status to answer.
        """

    def items(self, call: InferenceCall) -> AsyncGenerator[Answer, None]:
        """Calls a handler that streams.

        Raises:
            RequestError: With the status to answer.
        """

    async def close(self) -> None:
        """Waits for calls in flight, runs the unload function, leaves nothing loaded."""
