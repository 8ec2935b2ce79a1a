"""`context.metrics`: what a handler counts, with the names and methods of prometheus_client.

Each change is a record, which the server applies (`serving/handler_metrics.py`): a worker has no
prometheus_client, and sends its records. Needs only the standard library.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

SUFFIXES = {
    "counter": ("", "_total", "_created"),
    "gauge": ("",),
    "histogram": ("", "_bucket", "_sum", "_count", "_created"),
}
"""Kinds of metrics, with the endings of the names that Prometheus sees."""
MAX_METRICS = 200
"""Metrics that a function may have: their names must not come from requests."""

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r"(?!__|(model|version|le)$)[a-zA-Z_][a-zA-Z0-9_]*")

Names = Sequence[str]
Bounds = Iterable[float]
Send = Callable[[Sequence[Any]], None]
"""Takes a record: name, kind, documentation, labels and buckets of a metric that is declared; name,
method, values of the labels and number of a change."""


class Metric:
    """A metric, or a series of it: that with certain values of the labels."""

    def __init__(self, send: Send, name: str, labels: Names, values: Names | None = None) -> None:
        self._send = send
        self._name = name
        self._labels = labels
        self._values = values if labels else ()

    def labels(self: M, *values: Any, **named: Any) -> M:
        """Returns the series with these values of the labels, of which 200 characters count."""
        given = values or [named.pop(label) for label in self._labels if label in named]
        if named or len(given) != len(self._labels):
            expected = ", ".join(self._labels) or "none"
            raise ValueError(f'labels of metric "{self._name}": expected {expected}')
        return type(self)(self._send, self._name, self._labels, [_text(each) for each in given])

    def _change(self, method: str, number: float) -> None:
        if self._values is None:
            expected = f".labels({', '.join(self._labels)}).{method}"
            raise ValueError(f'metric "{self._name}" has labels: expected {expected}')
        self._send((self._name, method, self._values, float(number)))


M = TypeVar("M", bound=Metric)


class Counter(Metric):
    """A number that only grows."""

    def inc(self, amount: float = 1) -> None:
        if amount < 0:
            raise ValueError(f'counter "{self._name}": expected to add at least 0, got {amount}')
        self._change("inc", amount)


class Gauge(Metric):
    """A number that goes up and down. Of several workers, the one that sets it last wins."""

    def set(self, value: float) -> None:
        self._change("set", value)

    def inc(self, amount: float = 1) -> None:
        self._change("inc", amount)

    def dec(self, amount: float = 1) -> None:
        self._change("dec", amount)


class Histogram(Metric):
    """How many values there were, their sum, and how many were up to each bucket's bound."""

    def observe(self, amount: float) -> None:
        self._change("observe", amount)


class Metrics:
    """Makes the metrics of a function. The same arguments name the same metric.

    Raises ValueError for a name or label that cannot be. `taken` tells who has which names.
    """

    def __init__(self, send: Send, taken: Callable[[], Mapping[str, str]] = dict) -> None:
        self._send = send
        self._taken = taken
        self._forms: dict[str, tuple[Any, ...]] = {}

    def counter(self, name: str, documentation: str = "", labelnames: Names = ()) -> Counter:
        """Returns a counter, which Prometheus sees with the ending `_total`."""
        return self._declare(Counter, name.removesuffix("_total"), documentation, labelnames)

    def gauge(self, name: str, documentation: str = "", labelnames: Names = ()) -> Gauge:
        return self._declare(Gauge, name, documentation, labelnames)

    def histogram(
        self, name: str, documentation: str = "", labelnames: Names = (), buckets: Bounds = ()
    ) -> Histogram:
        """Returns a histogram with the ascending bounds of its buckets; by default as upstream."""
        bounds = tuple(each for each in map(float, buckets) if each < math.inf)
        return self._declare(Histogram, name, documentation, labelnames, bounds)

    def _declare(self, of: type[M], name: str, text: str, labels: Names, *buckets: Bounds) -> M:
        kind, names = of.__name__.lower(), tuple([labels] if isinstance(labels, str) else labels)
        form = (kind, names, *buckets)
        if self._forms.get(name) != form:
            if problem := self._problem(kind, name, names, *buckets):
                raise ValueError(f'{kind} "{name}": {problem}')
            # First to the server: another thread that finds the form may send a change at once.
            self._send((name, kind, _text(text), names, *buckets))
            self._forms[name] = form
        return of(self._send, name, names)

    def _problem(self, kind: str, name: str, labels: Names, buckets: Bounds = ()) -> str:
        if name in self._forms:
            first, own, *bounds = self._forms[name]
            also = f" and buckets {', '.join(map(str, bounds[0]))}" if any(bounds) else ""
            return f"it was declared as {first} with labels {', '.join(own) or 'none'}{also}"
        if not _NAME.fullmatch(name):
            return "expected a name of letters, digits, _ and :"
        if len(set(labels)) < len(labels) or not all(map(_LABEL.fullmatch, labels)):
            expected = "different labels of letters, digits and _, but model, version and le"
            return f"expected {expected}, got {labels}"
        if list(buckets) != sorted(set(buckets)):
            return f"expected ascending buckets, got {buckets}"
        if len(self._forms) >= MAX_METRICS:
            return f"expected at most {MAX_METRICS} metrics in a function"
        taken, own = {**self._taken(), **names_of(self._forms)}, f"{kind} {name}"
        owners = [(taken.get(name + end, own), name + end) for end in SUFFIXES[kind]]
        return next((f"{each} is taken by the {one}" for one, each in owners if one != own), "")


def names_of(forms: dict[str, Any]) -> dict[str, str]:
    """Returns the names that Prometheus sees of metrics, with the metric of each."""
    owned = [(name, kind) for name, (kind, *_) in forms.copy().items()]
    return {name + end: f"{kind} {name}" for name, kind in owned for end in SUFFIXES[kind]}


def _text(value: Any) -> str:
    # A lone surrogate would end each answer of /metrics with an error.
    return str(value)[:200].encode("utf-8", "replace").decode()
