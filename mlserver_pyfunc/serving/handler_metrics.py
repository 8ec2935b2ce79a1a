"""What handlers count, as metrics of prometheus_client: see `handler/metrics.py`."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from typing import Any

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client import Metric as Family

from mlserver_pyfunc.handler.metrics import MAX_METRICS, names_of

from .runner import logger

MAX_SERIES = 1000
"""Series that a metric of a function may have: sets of values of its labels."""

DROPS = Counter(
    "pyfunc_handler_metric_drops",
    "Changes of a handler's metric that do not count: it has too many series, or another form.",
    ["model", "version", "metric"],
)
_KINDS: dict[str, Any] = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}


class HandlerMetrics:
    """Metrics of one version of a model, for all its workers and loads. Safe for threads."""

    def __init__(self, model: str, version: str) -> None:
        self._labels = (model, version)
        self._forms: dict[str, Sequence[Any]] = {}
        self._series: dict[str, dict[tuple[str, ...], Any]] = {}
        self.metrics: dict[str, Any] = {}
        self._dropped: set[str] = set()
        _all.append(self)

    def apply(self, record: Sequence[Any]) -> None:
        name, action, *rest = record
        # A call of the load before this one may change what is declared otherwise now.
        try:
            if action in _KINDS:
                with _lock:
                    self._declare(name, action, *rest)
            else:
                values, number = rest
                getattr(self._series_of(name, tuple(values)), action)(number)
        except (ValueError, AttributeError):
            self._drop(name)

    def _series_of(self, name: str, values: tuple[str, ...]) -> Any:
        known = self._series.get(name, {})
        if (series := known.get(values)) is None and name in self.metrics:
            with _lock:
                if len(known) < MAX_SERIES:
                    series = known[values] = self.metrics[name].labels(*self._labels, *values)
        return series

    def taken(self) -> dict[str, str]:
        """Returns the names that metrics of this function cannot have, with who has them."""
        taken = dict.fromkeys(list(getattr(REGISTRY, "_names_to_collectors", ())), "server")
        for each in _all:
            taken |= names_of(each._forms) if each is not self else {}
        return taken

    def _declare(self, name: str, kind: str, text: str, labels: Sequence[str], *of: Any) -> None:
        form, own = (kind, tuple(labels), *map(tuple, of)), f"{kind} {name}"
        # Another function may have taken the name since a worker was told which are free.
        is_taken = self.taken().get(name, own) != own or len({*self._forms, name}) > MAX_METRICS
        if is_taken or self._forms.get(name) == form:
            return
        more: dict[str, Any] = {"multiprocess_mode": "livesum"} if kind == "gauge" else {}
        if any(of):
            more["buckets"] = of[0]
        metric = _KINDS[kind](name, text, ["model", "version", *labels], registry=None, **more)
        self._series[name], self.metrics[name], self._forms[name] = {}, metric, form

    def _drop(self, name: str) -> None:
        name = name if name in self.metrics else ""
        DROPS.labels(*self._labels, name).inc()
        if name not in self._dropped:
            self._dropped.add(name)
            logger.warning(
                'a change of metric "%s" of model "%s" does not count: expected at most %d series, '
                "and the labels and kind declared last; see pyfunc_handler_metric_drops_total",
                name, self._labels[0], MAX_SERIES,
            )  # fmt: skip


_all: list[HandlerMetrics] = []
_lock = threading.Lock()  # one for all functions: they must not declare a name at the same time


class _Families:
    """Shows the metrics of all functions. Those of one name are one family, as Prometheus wants."""

    def collect(self) -> Iterable[Family]:
        families: dict[str, Family] = {}
        for metric in [metric for each in _all for metric in list(each.metrics.values())]:
            for family in metric.collect():
                first = families.setdefault(family.name, family)
                if first is not family:
                    first.samples += family.samples
        return families.values()


# With parallel workers, MLServer shows what metrics write to files, and no registry.
if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    REGISTRY.register(_Families())
