"""What an earlier deployment of the same function left behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .api import Cluster, Object
from .apply import Applied, Target, changed_at
from .errors import ClusterError

# Kinds that options bring and take away; where they stay, they go on acting.
_KINDS = {
    "kubernetes": (
        ("autoscaling/v2", "HorizontalPodAutoscaler"),
        ("policy/v1", "PodDisruptionBudget"),
        ("v1", "Service"),
    )
}
_LABELS = ("app.kubernetes.io/name", "app.kubernetes.io/managed-by")


def prune(cluster: Cluster, platform: str, applied: Sequence[Target]) -> Iterator[Applied]:
    """Deletes objects of ours that carry the function's labels and are no longer asked for.

    Args:
        cluster: Where they are.
        platform: Of the deployment.
        applied: What it consists of now.

    Raises:
        ClusterError: The cluster does not answer.
    """
    kinds = _KINDS.get(platform, ())
    if not kinds or not applied:
        return
    namespace = applied[0].namespace
    labels = applied[0].wanted["metadata"].get("labels") or {}
    if not all(name in labels for name in _LABELS):
        return
    query = {"labelSelector": ",".join(f"{name}={labels[name]}" for name in _LABELS)}
    kept = {target.title for target in applied}
    for api_version, kind in kinds:
        for live in _listed(cluster, api_version, kind, namespace, query):
            target = Target({**live, "kind": kind}, cluster.resource(api_version, kind))
            if target.title not in kept and changed_at(live):
                cluster.delete(target.resource, target.name, namespace, "Background")
                yield Applied(target, target.wanted, "deleted")


def _listed(
    cluster: Cluster, api_version: str, kind: str, namespace: str, query: dict[str, str]
) -> list[Object]:
    try:
        return cluster.list(cluster.resource(api_version, kind), namespace, query)
    except ClusterError as error:
        # What the cluster does not have, or may not be listed, was not made by us either.
        if error.status in (403, 404):
            return []
        raise
