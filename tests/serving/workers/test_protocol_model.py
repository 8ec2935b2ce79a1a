"""In every order of events no call is lost or runs twice, and every place is free at the end."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from mlserver_pyfunc.serving.workers import dispatcher as dispatching
from mlserver_pyfunc.serving.workers.child import channel
from mlserver_pyfunc.serving.workers.child.channel import Channel
from mlserver_pyfunc.serving.workers.connection import Connection
from mlserver_pyfunc.serving.workers.dispatcher import Dispatcher
from mlserver_pyfunc.serving.workers.wire import shared_memory

from . import protocol_model
from .protocol_model import Setting, explore

heavy = pytest.mark.heavy


@pytest.fixture(autouse=True)
def all_calls_are_brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time decides about nothing."""
    monkeypatch.setattr(dispatching, "BRIEF_SECONDS", 3600)
    monkeypatch.setattr(channel, "COALESCE_SECONDS", math.inf)
    monkeypatch.setattr(shared_memory, "SIZE", 2**16)


DIES, LEAVES, EXPIRES = (("die", 1),), (("leave", 1),), (("expire", 1),)


# With each setting, the least number of states: a model that explores nothing proves nothing.
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("setting", "states"),
    [
        pytest.param(Setting(), 400, id="three calls"),
        pytest.param(Setting(max_queue=0), 80, id="no queue"),
        pytest.param(Setting(workers=1), 50, id="one worker"),
        pytest.param(Setting(calls=2, faults=DIES * 2), 100, id="a worker dies, two calls"),
        pytest.param(
            Setting(calls=2, faults=DIES + LEAVES + EXPIRES), 2000, id="all faults, two calls"
        ),
        pytest.param(Setting(faults=LEAVES), 1900, id="a client leaves", marks=heavy),
        pytest.param(Setting(faults=DIES), 3000, id="a worker dies", marks=heavy),
        pytest.param(Setting(faults=EXPIRES), 5000, id="a limit passes", marks=heavy),
        pytest.param(
            Setting(faults=DIES, idempotent=True), 10_000, id="a call is repeated", marks=heavy
        ),
    ],
)
def test_no_order_of_events_loses_a_call_or_runs_one_twice(setting: Setting, states: int) -> None:
    assert explore(setting) >= states


def _claim_all(self: Any, message: Any) -> bool:
    return True


def _has_room_for_more(stock: Any) -> Any:
    def has_room(self: Any, worker: Any) -> bool:
        taken_back, worker.taken_back = worker.taken_back, 0
        try:
            return bool(stock(self, worker))
        finally:
            worker.taken_back = taken_back

    return has_room


def _close_at_once(self: Any) -> None:
    self.abandon()


def _forget_what_was_taken_back(self: Any, worker: Any) -> None:
    taken = worker.process.connection.take_back()
    worker.taken_back += taken
    for number in list(worker.calls)[: -taken - 1 : -1]:
        del worker.calls[number]


def _take_all_for_not_begun(stock: Any) -> Any:
    def on_exit(self: Any, worker: Any, exit_: Any) -> None:
        serving = self._serving
        self._serving = serving.model_copy(update={"concurrency": 0})
        try:
            stock(self, worker, exit_)
        finally:
            self._serving = serving

    return on_exit


def _end_nothing(self: Any, pending: Any) -> None:
    self._stop_timer(pending)


@pytest.mark.parametrize(
    ("owner", "name", "broken", "message"),
    [
        (Channel, "claim", lambda stock: _claim_all, "has run 2 times|a token is left"),
        (Dispatcher, "_has_room", _has_room_for_more, "goes on for ever"),
        (Connection, "close", lambda stock: _close_at_once, "is lost|still count"),
        (Dispatcher, "_take_back", lambda stock: _forget_what_was_taken_back, "is lost|count"),
        (Dispatcher, "on_exit", _take_all_for_not_begun, "has run 2 times"),
        (Dispatcher, "_end", lambda stock: _end_nothing, "still count"),
    ],
    ids=[
        "claims without a token",
        "sends calls before all are dropped",
        "loses results of the dead",
        "forgets what it took back",
        "repeats what had begun",
        "keeps the place of a call",
    ],
)
def test_the_model_finds_a_broken_protocol(
    owner: type, name: str, broken: Callable[[Any], Any], message: str, monkeypatch: Any
) -> None:
    monkeypatch.setattr(owner, name, broken(getattr(owner, name)))
    # The longest way of three calls without faults has 20 steps.
    monkeypatch.setattr(protocol_model, "MOST_STEPS", 25)
    with pytest.raises(AssertionError, match=message):
        explore(Setting(faults=() if name == "_has_room" else DIES))
