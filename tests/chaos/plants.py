"""Defects for the server under chaos, to see that each is found. `here` plants them as it loads.

Runs in the server's process. The product has no code for this.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable
from typing import Any

_kept: list[Any] = []
_planted: list[str] = []


def plant(name: str) -> None:
    """Plants a defect, once in a process."""
    if not _planted:
        _planted.append(name)
        PLANTS[name]()


def _every(count: int) -> Callable[[], bool]:
    numbers = itertools.count(1)
    return lambda: next(numbers) % count == 0


def _spoil_answers(count: int, spoil: Callable[[Any], None]) -> None:
    """Does something to one of so many answers of workers."""
    from mlserver_pyfunc.serving.workers import pending

    stock, is_next = pending.Answer, _every(count)

    def spoilt(*args: Any) -> Any:
        answer = stock(*args)
        if is_next():
            spoil(answer)
        return answer

    pending.Answer = spoilt  # type: ignore[assignment, misc]


def _wrong() -> None:
    from mlserver_pyfunc.protocol.contract import NamedArray

    def spoil(answer: Any) -> None:
        first = answer.arrays[0]
        answer.arrays[0] = NamedArray(first.spec, first.array + 1)

    _spoil_answers(100, spoil)


def _lost() -> None:
    """Ends a response within its body."""
    from mlserver_pyfunc.hosts.common.rest_response import ArrayResponse

    stock, is_next = ArrayResponse.__call__, _every(50)

    async def call(self: Any, scope: Any, receive: Any, send: Any) -> None:
        if not is_next():
            await stock(self, scope, receive, send)
            return
        headers = [(b"content-length", b"100")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})

    ArrayResponse.__call__ = call  # type: ignore[method-assign]


def _undocumented() -> None:
    def spoil(answer: Any) -> None:
        raise RuntimeError("planted")

    _spoil_answers(100, spoil)


def _twice() -> None:
    from mlserver_pyfunc.serving.workers.connection import Connection
    from mlserver_pyfunc.serving.workers.wire.messages import Kind

    stock, is_next = Connection.send, _every(50)

    def send(self: Any, kind: Any, *args: Any, **options: Any) -> None:
        stock(self, kind, *args, **options)
        if kind is Kind.CALL and is_next():
            stock(self, kind, *args, **options)

    Connection.send = send  # type: ignore[method-assign]


def _process() -> None:
    from mlserver_pyfunc.serving.workers.worker import Worker

    stock, is_next = Worker.unload, _every(2)

    async def unload(self: Any) -> None:
        if not is_next():
            await stock(self)

    Worker.unload = unload  # type: ignore[method-assign]


def _slot() -> None:
    from mlserver_pyfunc.serving.workers.dispatcher import Dispatcher

    stock = Dispatcher._has_room

    def has_room(self: Any, worker: Any) -> bool:
        return stock(self, worker) and worker.served < 40

    Dispatcher._has_room = has_room  # type: ignore[method-assign]


PLANTS: dict[str, Callable[[], None]] = {
    "wrong": _wrong,
    "lost": _lost,
    "undocumented": _undocumented,
    "twice": _twice,
    "process": _process,
    "slot": _slot,
    "descriptor": lambda: _spoil_answers(20, lambda _: _kept.append(os.dup(0))),
    "thread": lambda: _spoil_answers(
        20, lambda _: threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
    ),
    "memory": lambda: _spoil_answers(10, lambda _: _kept.append(b"x" * 2**24)),
}
