"""Server-side apply of objects, and their removal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .api import FIELD_MANAGER, Cluster, Object, Target, full_name
from .errors import ClusterError

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


@dataclass(frozen=True)
class Applied:
    """An object as it is on the cluster after a change, and what the change was."""

    target: Target
    live: Object
    change: Change


def targets(cluster: Cluster, objects: Iterable[Mapping[str, Any]]) -> list[Target]:
    """Sorts objects into the order to apply them, and gives each its namespace."""
    return sorted(map(cluster.target, objects), key=_rank)


def apply(
    cluster: Cluster, wanted: Sequence[Target], *, force: bool, dry_run: bool
) -> Iterator[Applied]:
    """Applies objects in order. Changes nothing if the cluster refuses any of them.

    `force` takes over fields that others manage. `dry_run` only lets the cluster check the objects.
    """
    checked = [_checked(cluster, target, force=force) for target in wanted]
    for target, before, rehearsed in checked:
        live = rehearsed if dry_run else cluster.apply(target, force=force, dry_run=False)
        yield Applied(target, live, _change(before, live))


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
        yield _delete(cluster, target, live, "Foreground" if wait else "Background")


def changed_at(live: Mapping[str, Any]) -> str:
    """Returns when our apply last changed an object; empty if the object does not say."""
    entry = _applied_entry(live)
    return str(entry.get("time", "")) if entry else ""


def _rank(target: Target) -> int:
    return _ORDER.index(target.kind) if target.kind in _ORDER else len(_ORDER)


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


def _change(before: Object | None, live: Object) -> Change:
    if before is None:
        return "created"
    return "unchanged" if _content(before) == _content(live) else "updated"


def _content(live: Object) -> Object:
    """Removes what the cluster itself writes: a dry run gives no new resourceVersion."""
    metadata = live["metadata"]
    kept = {key: metadata.get(key) for key in ("labels", "annotations", "ownerReferences")}
    rest = {key: value for key, value in live.items() if key not in ("metadata", "status")}
    return {**rest, "metadata": kept}


def _delete(cluster: Cluster, target: Target, live: Object | None, propagation: str) -> Applied:
    if live is None:
        return Applied(target, target.wanted, "absent")
    if _is_used(cluster, target):
        return Applied(target, live, "kept")
    cluster.remove(target, propagation)
    return Applied(target, live, "deleted")


def _is_used(cluster: Cluster, target: Target) -> bool:
    """Tells whether other services run on a shared runtime or server."""
    if target.kind == "Server":
        kind, is_for = (target.wanted["apiVersion"], "Model"), _is_for_server
    elif target.kind in ("ClusterServingRuntime", "ServingRuntime"):
        kind, is_for = ("serving.kserve.io/v1beta1", "InferenceService"), _is_for_runtime
    else:
        return False
    users = cluster.find_all(cluster.resource(*kind), target.namespace)
    staying = [user for user in users if not user["metadata"].get("deletionTimestamp")]
    return any(is_for(user, target.wanted) for user in staying)


def _is_for_runtime(user: Object, shared: Object) -> bool:
    model = user["spec"].get("predictor", {}).get("model") or {}
    return bool(model.get("runtime") == shared["metadata"]["name"])


def _is_for_server(user: Object, shared: Object) -> bool:
    """Tells whether a model asks for a server, by its name or by one of its capabilities."""
    if named := user["spec"].get("server"):
        return bool(named == shared["metadata"]["name"])
    own = set(shared["spec"].get("extraCapabilities") or shared["spec"].get("capabilities") or ())
    return bool(own & set(user["spec"].get("requirements") or ()))


def _applied_entry(live: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for entry in live["metadata"].get("managedFields") or ():
        if entry.get("manager") == FIELD_MANAGER and entry.get("operation") == "Apply":
            return dict(entry)
    return None
