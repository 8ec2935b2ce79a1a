"""The formulas by which Kubernetes and KEDA choose a number of replicas.

They are those of the HorizontalPodAutoscaler, which KEDA makes from a ScaledObject and gives an
external metric whose target is an `AverageValue`:

- https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/
- https://keda.sh/docs/latest/concepts/scaling-deployments/
- https://keda.sh/docs/latest/scalers/prometheus/
"""

from __future__ import annotations

import math
from collections.abc import Sequence

SYNC_SECONDS = 15.0
TOLERANCE = 0.1
DOWN_SECONDS = 300.0
"""Stabilization window: replicas fall to the highest number that was right in this time."""
UP_PODS, UP_PERCENT, UP_SECONDS = 4, 100, 15.0
"""What may be added in this time: the larger one of both."""


def by_external(total: float, target: float, replicas: int) -> int:
    """Returns the replicas for a metric of the whole service with a target for each of them."""
    if abs(total / (target * replicas) - 1) <= TOLERANCE:
        return replicas
    return math.ceil(total / target)


def by_pods(values: Sequence[float], target: float, replicas: int) -> int:
    """Returns the replicas for a metric that each pod has, such as its CPU in percent.

    Pods that are starting have no value. They count as idle if there is to be more of them.
    """
    if not values:
        return replicas
    ratio = sum(values) / len(values) / target
    starting = replicas - len(values)
    if starting and ratio > 1:
        values = [*values, *[0.0] * starting]
        ratio = sum(values) / len(values) / target
        if ratio < 1 or math.ceil(ratio * len(values)) < replicas:
            return replicas
    if abs(ratio - 1) <= TOLERANCE:
        return replicas
    return math.ceil(ratio * len(values))


class Behavior:
    """Keeps replicas within their bounds, slows them down, and keeps them up for a while."""

    def __init__(self, least: int, most: int) -> None:
        self._least = least
        self._most = most
        self._wanted: list[tuple[float, int]] = []
        self._had: list[tuple[float, int]] = []

    def limit(self, now: float, replicas: int, wanted: int) -> int:
        """Returns the replicas to have at a time in seconds, which comes later each time."""
        self._wanted = [each for each in self._wanted if each[0] > now - DOWN_SECONDS]
        # The controller takes what it finds at first for its own choice.
        self._wanted.append((now, wanted if self._wanted else max(wanted, replicas)))
        chosen = max(wanted, min(replicas, max(number for _, number in self._wanted)))
        before = min([replicas, *(n for then, n in self._had if then > now - UP_SECONDS)])
        faster = max(before + UP_PODS, math.ceil(before * (1 + UP_PERCENT / 100)))
        chosen = max(self._least, min(chosen, self._most, max(faster, replicas)))
        self._had.append((now, replicas))
        return chosen
