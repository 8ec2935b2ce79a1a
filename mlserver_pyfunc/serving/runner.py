"""The interface of what runs a function's handler, and what its implementations share."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from mlserver_pyfunc.handler.call import InferenceCall, printable_id, request_id
from mlserver_pyfunc.handler.signature import Derived
from mlserver_pyfunc.protocol.contract import NamedArray

from .limits import UNLOAD_SECONDS, ActiveCalls

logger = logging.getLogger("mlserver.pyfunc")


def _add_request_id(record: logging.LogRecord) -> bool:
    """Puts the id of the current request before the message of a log record."""
    shown = printable_id(request_id.get())
    if shown and shown not in record.getMessage():
        record.msg = f"[request {shown.replace('%', '%%') if record.args else shown}] {record.msg}"
    return True


logger.addFilter(_add_request_id)


async def drain(active: ActiveCalls, model_name: str) -> None:
    """Waits for active calls to end, at most `UNLOAD_SECONDS`; logs a warning if some still run."""
    if not await active.drain(UNLOAD_SECONDS):
        logger.warning(
            'function "%s": calls still run after %g s, unloading all the same',
            model_name, UNLOAD_SECONDS,
        )  # fmt: skip


@dataclass(slots=True)
class Answer:
    """The answer to one request, or one item of a stream."""

    arrays: list[NamedArray]
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class HandlerInfo:
    """What is known of a handler: nothing until it is loaded. Workers report their versions."""

    kind: str = ""
    required_fields: frozenset[str] = frozenset()
    python: str = ""
    numpy: str = ""
    derived: Derived = field(default_factory=Derived)

    @property
    def streams(self) -> bool:
        """Whether the handler is a generator."""
        return self.kind in ("generator", "async generator")

    @property
    def can_cancel(self) -> bool:
        """Whether a call can be cancelled: the handler is async."""
        return self.kind in ("async", "async generator")


class Runner(Protocol):
    """Runs one loaded function. All methods are for the event loop's thread."""

    handler: HandlerInfo

    @property
    def ready(self) -> bool:
        """Whether a call could run now."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """How the function runs, for the model's metadata."""

    async def load(self) -> None:
        """Imports the source, runs the init function, binds the handler.

        Raises a LoadError, and leaves nothing loaded then.
        """

    async def answer(self, call: InferenceCall) -> Answer:
        """Calls a handler that does not stream. Raises a RequestError with the status to answer."""

    def items(self, call: InferenceCall) -> AsyncGenerator[Answer, None]:
        """Calls a handler that streams; otherwise like `answer`."""

    async def close(self) -> None:
        """Waits for calls in flight, runs the unload function and leaves nothing loaded."""
