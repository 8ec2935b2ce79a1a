"""Server-side apply of objects, and their removal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .api import Cluster, Object, Resource
from .errors import ClusterError

FIELD_MANAGER = "mlserver-pyfunc"

Change = Literal["created", "updated", "unchanged", "deleted", "absent", "kept"]

# What others refer to comes first; removal runs the other way.
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
class Target:
    """An object to apply or delete, and how the cluster serves its kind.

    Attributes:
        wanted: As the manifest has it, with its namespace.
        resource: Of its kind.
    """

    wanted: Object
    resource: Resource

    @property
    def kind(self) -> str:
        return self.resource.kind

    @property
    def name(self) -> str:
        return str(self.wanted["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """Empty where the kind has none."""
        return str(self.wanted["metadata"].get("namespace", ""))

    @property
    def title(self) -> str:
        return f"{self.kind}/{self.name}"


@dataclass(frozen=True)
class Applied:
    """An object as it is on the cluster after a change."""

    target: Target
    live: Object
    change: Change


def targets(cluster: Cluster, objects: Iterable[Mapping[str, Any]]) -> list[Target]:
    """Objects in the order to apply them in, each with its namespace.

    Raises:
        ClusterError: The cluster lacks a kind, or cannot be asked.
    """
    found = []
    for wanted in objects:
        resource = cluster.resource(wanted["apiVersion"], wanted["kind"])
        metadata = dict(wanted["metadata"])
        if resource.is_namespaced:
            metadata.setdefault("namespace", cluster.namespace)
        else:
            metadata.pop("namespace", None)
        found.append(Target({**wanted, "metadata": metadata}, resource))
    return sorted(found, key=_rank)


def apply(
    cluster: Cluster, wanted: Sequence[Target], *, force: bool, dry_run: bool
) -> Iterator[Applied]:
    """Applies objects in order; nothing is changed where the cluster refuses any of them.

    Args:
        cluster: To apply them on.
        wanted: As `targets` gives them.
        force: Take over fields that others manage.
        dry_run: Let the cluster check them, and change nothing.

    Raises:
        ClusterError: The cluster refuses one.
    """
    checked = [_checked(cluster, target, force=force) for target in wanted]
    for target, (before, rehearsed) in zip(wanted, checked, strict=True):
        live = rehearsed if dry_run else _patch(cluster, target, force=force)
        yield Applied(target, live, _change(before, live))


def delete(
    cluster: Cluster, unwanted: Sequence[Target], *, force: bool, wait: bool
) -> Iterator[Applied]:
    """Deletes objects, the last applied first.

    Args:
        cluster: To delete them from.
        unwanted: As `targets` gives them.
        force: Also those that were not applied by us.
        wait: Keep each until what belongs to it is gone.

    Raises:
        ClusterError: The cluster refuses, or an object is another's.
    """
    found = [(target, _existing(cluster, target)) for target in reversed(unwanted)]
    for target, live in found:
        if live is not None and not force and _applied_entry(live) is None:
            raise ClusterError(
                f'{target.kind} "{target.name}" was not made by this command',
                f"delete it yourself by kubectl delete {target.resource.qualified} {target.name}, "
                "or by --force-conflicts",
            )
    for target, live in found:
        yield _delete(cluster, target, live, "Foreground" if wait else "Background")


def changed_at(live: Mapping[str, Any]) -> str:
    """When our apply last changed an object; empty where that is not told."""
    entry = _applied_entry(live)
    return str(entry.get("time", "")) if entry else ""


def _rank(target: Target) -> int:
    return _ORDER.index(target.kind) if target.kind in _ORDER else len(_ORDER)


def _checked(cluster: Cluster, target: Target, *, force: bool) -> tuple[Object | None, Object]:
    """An object as it was, and as it would be."""
    before = _existing(cluster, target)
    if before and before["metadata"].get("deletionTimestamp"):
        raise ClusterError(
            f'{target.kind} "{target.name}" is being deleted', "try again when it is gone"
        )
    try:
        return before, _patch(cluster, target, force=force, dry_run=True)
    except ClusterError as error:
        # A webhook that cannot rehearse says so; the apply itself will tell.
        if error.status == 400 and "does not support dry run" in str(error):
            return before, target.wanted
        raise


def _existing(cluster: Cluster, target: Target) -> Object | None:
    return cluster.get(target.resource, target.name, target.namespace)


def _patch(cluster: Cluster, target: Target, *, force: bool, dry_run: bool = False) -> Object:
    query = {
        "fieldManager": FIELD_MANAGER,
        "force": "true" if force else "false",
        "fieldValidation": "Strict",
    }
    if dry_run:
        query["dryRun"] = "All"
    return cluster.patch(target.resource, target.wanted, target.namespace, query)


def _change(before: Object | None, live: Object) -> Change:
    if before is None:
        return "created"
    same = _content(before) == _content(live)
    return "unchanged" if same else "updated"


def _content(live: Object) -> Object:
    """Without what the cluster writes by itself: a rehearsal has no new resourceVersion."""
    metadata = live["metadata"]
    kept = {key: metadata.get(key) for key in ("labels", "annotations", "ownerReferences")}
    rest = {key: value for key, value in live.items() if key not in ("metadata", "status")}
    return {**rest, "metadata": kept}


def _delete(cluster: Cluster, target: Target, live: Object | None, propagation: str) -> Applied:
    if live is None:
        return Applied(target, target.wanted, "absent")
    if _is_used(cluster, target):
        return Applied(target, live, "kept")
    cluster.delete(target.resource, target.name, target.namespace, propagation)
    return Applied(target, live, "deleted")


def _is_used(cluster: Cluster, target: Target) -> bool:
    """Whether other services run on a runtime or server, which others may share."""
    if target.kind in ("ClusterServingRuntime", "ServingRuntime"):
        services = cluster.resource("serving.kserve.io/v1beta1", "InferenceService")
        users = cluster.list(services, target.namespace, {})
        return any(_runtime(user) == target.name for user in users if not _is_going(user))
    if target.kind == "Server":
        models = cluster.resource(target.wanted["apiVersion"], "Model")
        users = cluster.list(models, target.namespace, {})
        return any(_serves(target.wanted, user) for user in users if not _is_going(user))
    return False


def _runtime(service: Object) -> str | None:
    model = service["spec"].get("predictor", {}).get("model") or {}
    runtime: str | None = model.get("runtime")
    return runtime


def _serves(server: Object, model: Object) -> bool:
    """Whether a model is meant for a server: by name, or by a capability of its own."""
    named = model["spec"].get("server")
    if named:
        return bool(named == server["metadata"]["name"])
    own = set(server["spec"].get("extraCapabilities") or server["spec"].get("capabilities") or ())
    return bool(own & set(model["spec"].get("requirements") or ()))


def _is_going(live: Object) -> bool:
    return bool(live["metadata"].get("deletionTimestamp"))


def _applied_entry(live: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for entry in live["metadata"].get("managedFields") or ():
        if entry.get("manager") == FIELD_MANAGER and entry.get("operation") == "Apply":
            return dict(entry)
    return None
