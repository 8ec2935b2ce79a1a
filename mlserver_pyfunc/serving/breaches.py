"""The breaches of a contract that are let through: counted, and each kind of them logged once."""

from __future__ import annotations

from .metrics import FunctionMetrics
from .runner import logger


class BreachLog:
    """Counts breaches, and logs the first of each kind and tensor. Safe for threads."""

    def __init__(self, metrics: FunctionMetrics) -> None:
        self._metrics = metrics
        self._logged: set[tuple[str, str]] = set()

    def add(self, kind: str, tensor: str, message: str) -> None:
        """Adds a breach of a kind such as `response_shape`. An undeclared tensor has no name."""
        self._metrics.count_breach(kind)
        if (kind, tensor) in self._logged:
            return
        self._logged.add((kind, tensor))
        side = kind.partition("_")[0]
        logger.warning(
            "%s; let through by contract.%ss: warn. More of this kind are only counted, in "
            "pyfunc_contract_warnings_total",
            message, side,
        )  # fmt: skip
