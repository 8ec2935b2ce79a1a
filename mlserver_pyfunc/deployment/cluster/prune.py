"""Removal of what an earlier deployment of the same function left behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .api import Cluster, Object, Target
from .apply import Applied, changed_at
from .errors import ignored

# Kinds that depend on options. An autoscaler, for one, would go on acting if it stayed.
_KINDS = {
    "kubernetes": (
        ("autoscaling/v2", "HorizontalPodAutoscaler"),
        ("keda.sh/v1alpha1", "ScaledObject"),
        ("policy/v1", "PodDisruptionBudget"),
        ("v1", "Service"),
    ),
    "kserve": (("policy/v1", "PodDisruptionBudget"),),
}
# Label by which a budget selects the pods of a platform: a function may be on several of them.
_SELECTS = {
    "kubernetes": "app.kubernetes.io/instance",
    "kserve": "serving.kserve.io/inferenceservice",
}
_LABELS = ("app.kubernetes.io/name", "app.kubernetes.io/managed-by")


def prune(cluster: Cluster, platform: str, applied: Sequence[Target]) -> Iterator[Applied]:
    """Deletes objects that we applied, that carry the function's labels, and are not wanted now."""
    labelled = [(one, one.wanted["metadata"].get("labels") or {}) for one in applied]
    # A runtime that others may use carries no name of a function.
    own = [(one.namespace, labels) for one, labels in labelled if labels.keys() >= {*_LABELS}]
    if not own:
        return
    namespace, labels = own[0]
    selector = ",".join(f"{name}={labels[name]}" for name in _LABELS)
    kept = {target.title for target in applied}
    for api_version, kind in _KINDS.get(platform, ()):
        found: list[Object] = []
        # Objects of a kind that does not exist, or that we may not list, were not made by us.
        with ignored(403, 404):
            resource = cluster.resource(api_version, kind)
            found = cluster.find_all(resource, namespace, label_selector=selector)
        for live in found:
            target = cluster.target(live)
            pods = ((live.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
            if pods and _SELECTS[platform] not in pods:
                continue
            if target.title not in kept and changed_at(live):
                cluster.remove(target, "Background")
                yield Applied(target, target.wanted, "deleted")
