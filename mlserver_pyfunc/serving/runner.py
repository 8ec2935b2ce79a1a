"""The interface of what runs a function's handler, and what its implementations share."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from mlserver_pyfunc.handler.call import printable_id, request_id
from mlserver_pyfunc.handler.signature import Derived
from mlserver_pyfunc.protocol.contract import NamedArray

from .limits import UNLOAD_SECONDS, ActiveCalls

if TYPE_CHECKING:
    from .in_process import InProcessRunner
    from .workers.pool import WorkerRunner

logger = logging.getLogger("mlserver.pyfunc")


def _add_request_id(record: logging.LogRecord) -> bool:
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
        return self.kind in ("generator", "async generator")

    @property
    def can_cancel(self) -> bool:
        return self.kind in ("async", "async generator")


Runner: TypeAlias = "InProcessRunner | WorkerRunner"
"""Runs one loaded function, from `load` to `close`. All methods are for the event loop's thread.

`answer` calls a handler that does not stream, `items` one that does: each raises a RequestError
with the status to answer. A `load` that raises its LoadError leaves nothing loaded.
"""
