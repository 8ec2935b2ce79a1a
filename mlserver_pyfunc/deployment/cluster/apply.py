"""Server-side apply of objects, and their removal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .api import FIELD_MANAGER, Cluster, Object, Target, full_name
from .errors import ClusterError, ignored

Change = Literal["created", "updated", "unchanged", "deleted", "absent", "kept"]

# Objects that others refer to come first. Removal runs in reverse order.
_ORDER = (
    "Namespace",
    "ServiceAccount",
    "Secret",
    "ConfigMap",
    "PersistentVolumeClaim",
    "ClusterServingRuntime",
    "ServingRuntime",
    "Server",
    "Service",
    "Deployment",
)

# Kinds that depend on options. An autoscaler, for one, would go on acting if it stayed.
_OF_PODS = (("policy/v1", "PodDisruptionBudget"), ("monitoring.coreos.com/v1", "PodMonitor"))
_PRUNED = {
    "kubernetes": (
        ("autoscaling/v2", "HorizontalPodAutoscaler"),
        ("keda.sh/v1alpha1", "ScaledObject"),
        *_OF_PODS,
        ("v1", "Service"),
    ),
    "kserve": _OF_PODS,
}
# Label by which these select the pods of a platform: a function may be on several platforms.
_SELECTS = {
    "kubernetes": "app.kubernetes.io/instance",
    "kserve": "serving.kserve.io/inferenceservice",
}
_OWN_LABELS = ("app.kubernetes.io/name", "app.kubernetes.io/managed-by")

# Kinds of the services that run on a shared object.
_USERS = {
    "Server": ("mlops.seldon.io/v1alpha1", "Model"),
    "ServingRuntime": ("serving.kserve.io/v1beta1", "InferenceService"),
    "ClusterServingRuntime": ("serving.kserve.io/v1beta1", "InferenceService"),
}


@dataclass(frozen=True)
class Applied:
    """An object as it is on the cluster after a change, and what the change was."""

    target: Target
    live: Object
    change: Change


def targets(cluster: Cluster, objects: Iterable[Mapping[str, Any]]) -> list[Target]:
    """Sorts objects into the order to apply them, and gives each its namespace."""
    rank = {kind: place for place, kind in enumerate(_ORDER)}
    return sorted(map(cluster.target, objects), key=lambda one: rank.get(one.kind, len(rank)))


def apply(
    cluster: Cluster, wanted: Sequence[Target], *, force: bool, dry_run: bool
) -> Iterator[Applied]:
    """Applies objects in order. Changes nothing if the cluster refuses any of them.

    `force` takes over fields that others manage. `dry_run` only lets the cluster check the objects.
    """
    checked = [_checked(cluster, target, force=force) for target in wanted]
    for target, before, rehearsed in checked:
        live = rehearsed if dry_run else cluster.apply(target, force=force, dry_run=False)
        is_equal = before is not None and _content(before) == _content(live)
        yield Applied(target, live, "unchanged" if is_equal else "updated" if before else "created")


def delete(
    cluster: Cluster, unwanted: Sequence[Target], *, force: bool, wait: bool
) -> Iterator[Applied]:
    """Deletes objects, the last applied first.

    `force` deletes also objects that this package did not apply. With `wait`, the cluster keeps
    each object until its dependents are gone.
    """
    found = [(target, cluster.find(target)) for target in reversed(unwanted)]
    for target, live in found:
        if live is not None and not force and _applied_entry(live) is None:
            raise ClusterError(
                f'{target.kind} "{target.name}" was not made by this command',
                f"delete it yourself by kubectl delete {full_name(target.resource)} {target.name}, "
                "or by --force-conflicts",
            )
    for target, live in found:
        if live is None:
            yield Applied(target, target.wanted, "absent")
        elif _is_used(cluster, target):
            yield Applied(target, live, "kept")
        else:
            cluster.remove(target, "Foreground" if wait else "Background")
            yield Applied(target, live, "deleted")


def prune(cluster: Cluster, platform: str, applied: Sequence[Target]) -> Iterator[Applied]:
    """Deletes objects that we applied, that carry the function's labels, and are not wanted now."""
    labelled = [(one, one.wanted["metadata"].get("labels") or {}) for one in applied]
    # A runtime that others may use carries no name of a function.
    own = [(one.namespace, labels) for one, labels in labelled if labels.keys() >= {*_OWN_LABELS}]
    if not own:
        return
    namespace, labels = own[0]
    selector = ",".join(f"{name}={labels[name]}" for name in _OWN_LABELS)
    kept = {target.title for target in applied}
    for api_version, kind in _PRUNED.get(platform, ()):
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


def changed_at(live: Mapping[str, Any]) -> str:
    """Returns when our apply last changed an object; empty if the object does not say."""
    entry = _applied_entry(live)
    return str(entry.get("time", "")) if entry else ""


def _checked(
    cluster: Cluster, target: Target, *, force: bool
) -> tuple[Target, Object | None, Object]:
    """Returns an object to apply, as it is now (None if absent), and as it would be."""
    before = cluster.find(target)
    if before and before["metadata"].get("deletionTimestamp"):
        raise ClusterError(
            f'{target.kind} "{target.name}" is being deleted', "try again when it is gone"
        )
    target = _keeping_replicas(target, before)
    try:
        return target, before, cluster.apply(target, force=force, dry_run=True)
    except ClusterError as error:
        # Admission webhooks with side effects cannot be asked in a dry run. The cluster then
        # refuses the dry run, not the object: only the apply itself can tell.
        if error.status == 400 and "does not support dry run" in str(error):
            return target, before, target.wanted
        raise


def _keeping_replicas(target: Target, before: Object | None) -> Target:
    """Keeps the number of replicas of a Deployment that an autoscaler is to decide on from now.

    Server-side apply removes a field that we applied before and no longer do: the Deployment would
    fall to one replica, until the autoscaler acts. Once it has acted, the field is no longer ours.
    """
    entry = _applied_entry(before) if before else None
    owned = ((entry or {}).get("fieldsV1") or {}).get("f:spec") or {}
    if before is None or target.kind != "Deployment" or "f:replicas" not in owned:
        return target
    spec = {"replicas": before["spec"]["replicas"], **target.wanted["spec"]}
    return target._replace(wanted={**target.wanted, "spec": spec})


def _content(live: Object) -> Object:
    """Removes what the cluster itself writes: a dry run gives no new resourceVersion."""
    metadata = live["metadata"]
    kept = {key: metadata.get(key) for key in ("labels", "annotations", "ownerReferences")}
    rest = {key: value for key, value in live.items() if key not in ("metadata", "status")}
    return {**rest, "metadata": kept}


def _is_used(cluster: Cluster, target: Target) -> bool:
    """Tells whether other services run on a shared runtime or server."""
    if target.kind not in _USERS:
        return False
    users = cluster.find_all(cluster.resource(*_USERS[target.kind]), target.namespace)
    staying = [user for user in users if not user["metadata"].get("deletionTimestamp")]
    return any(_asks_for(user["spec"], target) for user in staying)


def _asks_for(spec: Object, shared: Target) -> bool:
    """Tells whether a service asks for a runtime or server, by its name or by a capability."""
    model = (spec.get("predictor") or {}).get("model") or {}
    if named := spec.get("server") or model.get("runtime"):
        return bool(named == shared.name)
    offers = shared.wanted["spec"]
    own = offers.get("extraCapabilities") or offers.get("capabilities") or ()
    return not {*own}.isdisjoint(spec.get("requirements") or ())


def _applied_entry(live: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for entry in live["metadata"].get("managedFields") or ():
        if entry.get("manager") == FIELD_MANAGER and entry.get("operation") == "Apply":
            return dict(entry)
    return None
