"""What a client asks, and what may come of it."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import functions
from .functions import COLUMNS, SUBJECTS, Subject

ROUTES = ("JSON", "binary", "gRPC raw", "gRPC typed")
BIG_ROWS = 8 * 2**20 // (4 * COLUMNS)
FIRST_TOO_LARGE = 2**23
"""Numbers of calls have to be exact in FP32, also when they are doubled."""

GRPC_STATUS = {
    "OK": 200, "INVALID_ARGUMENT": 400, "NOT_FOUND": 404, "ABORTED": 409,
    "RESOURCE_EXHAUSTED": 413, "CANCELLED": 499, "INTERNAL": 500, "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}  # fmt: skip

_BY_DEED = {
    functions.RAISE: (500, r'handler of model "{model}" raised ValueError: as asked {number}\b'),
    functions.REFUSE: (409, r"refused as asked {number}$"),
    functions.BREAK: (500, r'output "y" of model "{model}": expected shape \[-1, 4\], got '),
    functions.HANG: (504, r'call of model "{model}" passed its time limit'),
}
_OF_LOAD = (
    (503, r'model "{model}" is at its limit: '),
    (504, r'call of model "{model}" (passed its time limit|waited until .* it was not begun$)'),
)
_OF_WORKERS = (
    (
        500,
        r'the call was on worker \d+ of model "{model}", which (exited with code \d|was killed by '
        r"SIG(KILL|ABRT|TERM)|was stopped when another call passed its limit)",
    ),
    (503, r'model "{model}" has no worker: worker \d .*times in a row$'),
)
_OF_CHURN = (
    (404, r'model "{model}" not found'),
    (503, r'model "{model}" is not (ready|loaded)'),
)


@dataclass
class Outcome:
    """What came of a call.

    Attributes:
        status: HTTP status; 0 for an event of a stream that has an error, and for no answer.
        error: Message of the server.
        items: Outputs of the answer, or of each item of a stream.
        lost: Why there was no answer; empty if there was one.
    """

    status: int = 0
    error: str = ""
    items: list[dict[str, Any]] = field(default_factory=list)
    lost: str = ""


@dataclass(frozen=True)
class Call:
    """One call.

    Attributes:
        number: Number of the call.
        model: Name of the model.
        route: How to send it.
        x: Input.
        words: Second input; None without one.
        leave: Seconds after which the client leaves; 0 if it stays.
    """

    number: int
    model: str
    route: str
    x: np.ndarray[Any, Any]
    words: tuple[bytes, ...] | None
    leave: float

    @property
    def subject(self) -> Subject:
        return SUBJECTS[self.model]

    @property
    def deed(self) -> int:
        return int(self.x[0, 1])

    def __str__(self) -> str:
        leaves = f", leaves after {self.leave:.3f} s" if self.leave else ""
        words = "" if self.words is None else f", {len(self.words)} words"
        return (
            f"call {self.number} of {self.model} by {self.route}: {len(self.x)} rows, "
            f"deed {self.deed}{words}{leaves}"
        )


def draw(chance: random.Random, number: int) -> Call:
    """Draws a call."""
    model, route = chance.choice(list(SUBJECTS)), chance.choice(ROUTES)
    x = _draw_x(chance, number, SUBJECTS[model], _draw_rows(chance, SUBJECTS[model], route))
    words = None
    if not SUBJECTS[model].batches and chance.random() < 0.2:
        bits = 4 * chance.choice([0, 3, 40]) + 1
        count = chance.choice([1, 9, 2000])
        words = tuple(b"%x" % chance.getrandbits(bits) for _ in range(count))
    return Call(number, model, route, x, words, _draw_leave(chance))


def draw_burst(chance: random.Random, numbers: Iterator[int]) -> list[Call]:
    """Draws calls of one function for the same moment, more of them at times than may wait."""
    plain = [name for name, subject in SUBJECTS.items() if not subject.streams]
    model = chance.choice(plain)
    return [
        Call(
            number,
            model,
            "gRPC raw",
            _draw_x(chance, number, SUBJECTS[model], 1),
            None,
            _draw_leave(chance),
        )
        for number in itertools.islice(numbers, chance.choice([5, 30, 100]))
    ]


def plain(chance: random.Random, number: int, model: str, route: str, deed: int = 0) -> Call:
    """Draws a call of a few rows whose client stays."""
    x = np.zeros((3, COLUMNS), dtype=np.float32)
    x[:, 0] = number
    x[0, 1] = deed
    x[:, 3] = [chance.randrange(2**20) for _ in x]
    return Call(number, model, route, x, None, 0)


def _draw_rows(chance: random.Random, subject: Subject, route: str) -> int:
    rows = chance.choice([1, 1, 1, 2, 10])
    if subject.batches:
        return rows
    # As JSON and in typed messages, the client would be slower than the server.
    if chance.random() < (0.04 if route in ("binary", "gRPC raw") else 0.004):
        return BIG_ROWS
    return chance.choice([400, 4000, 20_000]) if chance.random() < 0.1 else rows


def _draw_x(
    chance: random.Random, number: int, subject: Subject, rows: int
) -> np.ndarray[Any, Any]:
    x = np.zeros((rows, COLUMNS), dtype=np.float32)
    x[:, 0] = number
    x[0, 1:3] = _draw_deed(chance, subject)
    x[:, 3] = np.random.default_rng(chance.getrandbits(32)).integers(0, 2**20, rows)
    return x


def _draw_leave(chance: random.Random) -> float:
    if chance.random() < 0.95:
        return 0
    return max(chance.choice([0.001, 0.01, 0.1, 1]) * chance.random(), 0.0001)


def _draw_deed(chance: random.Random, subject: Subject) -> tuple[int, int]:
    isolated = (functions.EXIT, functions.ABORT, functions.SPAWN) if subject.isolated else ()
    deeds = {
        functions.SLEEP: 0.06, functions.RAISE: 0.02, functions.REFUSE: 0.02,
        functions.BREAK: 0.01, functions.PRINT: 0.01, functions.KEEP: 0.05,
        functions.HANG: 0.001, **dict.fromkeys(isolated, 0.002),
    }  # fmt: skip
    drawn = chance.random()
    deed = 0
    for each, share in deeds.items():
        if 0 <= drawn < share:
            deed = each
        drawn -= share
    arguments = {
        functions.SLEEP: chance.randrange(200),
        functions.HANG: int(subject.timeout * 1300),
        functions.EXIT: chance.choice([0, 1, 3]),
    }
    return deed, arguments.get(deed, 0)


def judge(call: Call, outcome: Outcome) -> tuple[str, str]:
    """Judges what came of a call.

    Returns:
        A word for the account, and what is wrong; empty if nothing is.
    """
    wrong = _wrong_items(call, outcome)
    if wrong:
        return "wrong", f"{call}: {wrong}"
    if outcome.lost:
        return ("left", "") if call.leave else ("lost", f"{call}: {outcome.lost}")
    if not outcome.error:
        if outcome.status != 200:
            return "undocumented", f"{call}: status {outcome.status} without an error"
        return "right", ""
    if call.leave and outcome.status in (0, 499, 504):
        return "left", ""
    for status, pattern in _documented(call):
        text = pattern.format(model=call.model, number=call.number)
        if outcome.status in (0, status) and re.match(text, outcome.error):
            return f"error {status}", ""
    return "undocumented", f"{call}: {outcome.status} {outcome.error[:300]}"


def _wrong_items(call: Call, outcome: Outcome) -> str:
    if outcome.error and outcome.items and not call.subject.streams:
        return "an error with outputs"
    for place, item in enumerate(outcome.items):
        addend = place if call.subject.streams else 0
        if not np.array_equal(item.get("y"), call.x * 2 + addend):
            return f"item {place} is wrong: {str(item.get('y'))[:200]}"
        said = item.get("said")
        if (None if said is None else tuple(said)) != call.words:
            return f"the words of item {place} are wrong: {str(said)[:200]}"
    if outcome.error or outcome.lost:
        return ""
    expected = 1 + call.number % 5 if call.subject.streams else 1
    if len(outcome.items) != expected:
        return f"expected {expected} items, got {len(outcome.items)}"
    if call.deed in (functions.RAISE, functions.REFUSE, functions.BREAK):
        return "expected an error, got an answer"
    return ""


def _documented(call: Call) -> list[tuple[int, str]]:
    subject, found = call.subject, list(_OF_LOAD)
    if call.deed in _BY_DEED:
        found.append(_BY_DEED[call.deed])
    if subject.isolated:
        found += _OF_WORKERS
    if subject.churns:
        found += _OF_CHURN
    return found
