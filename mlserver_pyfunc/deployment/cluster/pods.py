"""Why an object's pods do not run: their own reasons, events and last log lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .api import Cluster, Object
from .errors import ClusterError

LOG_LINES = 15

_LOAD_FAILURE = re.compile(r'function "[^"]*" failed to load: .*')

# Waiting reasons that no patience mends; an image's first failure is none of them.
_LASTING = {
    "ImagePullBackOff": "its image cannot be pulled",
    "InvalidImageName": "its image's name is not valid",
    "ErrImageNeverPull": "its image is not on the node, and may not be pulled",
    "CreateContainerConfigError": "its settings refer to what is not there",
    "CreateContainerError": "it cannot be created",
    "RunContainerError": "it cannot be started",
    "CrashLoopBackOff": "it ends again and again",
}
# What a label of a pod says about the version of its template.
_REVISIONS = (
    "serving.knative.dev/revision",
    "pod-template-hash",
    "controller-revision-hash",
)


@dataclass(frozen=True)
class Trouble:
    """What keeps a pod from running.

    Attributes:
        cause: One line, with the pod's own message.
        is_lasting: Waiting longer does not help.
        log: The last lines that the container wrote.
        hint: What to do next.
    """

    cause: str
    is_lasting: bool
    log: Sequence[str] = ()
    hint: str = ""


def selector(live: Mapping[str, Any]) -> str:
    """Labels that an object's pods carry; empty where it has none."""
    name = live["metadata"]["name"]
    kind = live["kind"]
    if kind == "Deployment":
        labels = live["spec"]["selector"].get("matchLabels") or {}
        return ",".join(f"{key}={value}" for key, value in labels.items())
    label = _LABELS.get(kind)
    return f"{label}={name}" if label else ""


_LABELS = {
    "InferenceService": "serving.kserve.io/inferenceservice",
    "SeldonDeployment": "seldon-deployment-id",
    "Server": "seldon-server-name",
}


def trouble(cluster: Cluster, live: Mapping[str, Any], since: str = "") -> Trouble | None:
    """The worst that befell an object's newest pods; None where nothing did.

    Args:
        cluster: Where they run.
        live: The object.
        since: Pods made before cannot be in lasting trouble, as an apply at that time may have
            replaced them.

    Raises:
        ClusterError: The cluster cannot be asked, or does not allow it.
    """
    chosen = selector(live)
    if not chosen:
        return None
    namespace = live["metadata"]["namespace"]
    pods = cluster.list(cluster.resource("v1", "Pod"), namespace, {"labelSelector": chosen})
    found = [one for pod in _newest(pods) for one in _troubles(cluster, pod, since)]
    return max(found, key=lambda one: one.is_lasting, default=None)


def _newest(pods: Sequence[Object]) -> list[Object]:
    """Those of the newest version of the template."""
    if not pods:
        return []
    last = max(pods, key=_created)
    return [pod for pod in pods if _revision(pod) == _revision(last)]


def _created(pod: Object) -> str:
    return str(pod["metadata"].get("creationTimestamp", ""))


def _revision(pod: Object) -> str:
    labels = pod["metadata"].get("labels") or {}
    return next((labels[name] for name in _REVISIONS if name in labels), "")


def _troubles(cluster: Cluster, pod: Object, since: str) -> Iterator[Trouble]:
    status = pod.get("status") or {}
    name = pod["metadata"]["name"]
    for condition in status.get("conditions") or ():
        if condition.get("reason") == "Unschedulable":
            said = condition.get("message", "no node takes it")
            yield Trouble(f'pod "{name}" has no node: {said}', False, (), _UNSCHEDULABLE)
    containers = (
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    )
    is_new = _created(pod) >= since
    for container in containers:
        found = _container_trouble(cluster, pod, container, is_new=is_new)
        if found:
            yield found
    if status.get("phase") == "Failed" and status.get("message"):
        yield Trouble(f'pod "{name}" failed: {status["message"]}', False)


_UNSCHEDULABLE = "ask for less by --cpu, --memory or --gpus, or give the cluster a node that fits"


def _container_trouble(
    cluster: Cluster, pod: Object, container: Object, *, is_new: bool
) -> Trouble | None:
    found = container.get("state") or {}
    waiting = found.get("waiting") or {}
    reason = waiting.get("reason", "")
    where = f'container "{container["name"]}" of pod "{pod["metadata"]["name"]}"'
    if reason == "CrashLoopBackOff":
        return _crash(cluster, pod, container, where, is_lasting=is_new)
    if reason in _LASTING:
        said = _event(cluster, pod) or waiting.get("message", "")
        cause = f"{where}: {_LASTING[reason]} ({reason}): {said}"
        return Trouble(cause, is_new, (), _HINTS.get(reason, ""))
    if reason == "ErrImagePull":
        return Trouble(f"{where}: {reason}: {waiting.get('message', '')}", False)
    ended = found.get("terminated") or {}
    if ended and (ended.get("exitCode") or ended.get("reason") == "OOMKilled"):
        return _crash(cluster, pod, container, where, is_lasting=False)
    if "running" in found and not container.get("ready", True):
        said = _event(cluster, pod)
        return Trouble(f"{where} is not ready: {said}", False) if said else None
    return None


_HINTS = {
    "ImagePullBackOff": "is the image pushed, its name right, and does the cluster have the "
    "registry's credentials? --image-pull-secret names them",
    "CreateContainerConfigError": "make the secret or config map it names, in the same namespace",
}


_MEND = "mend the function; mlserver-pyfunc validate shows what is wrong by file and line"


def _crash(
    cluster: Cluster, pod: Object, container: Object, where: str, *, is_lasting: bool
) -> Trouble:
    log = _log(cluster, pod, container)
    for line in reversed(log):
        failure = _LOAD_FAILURE.search(line)
        if failure:
            return Trouble(f"{where}: {failure[0]}", is_lasting, log, _MEND)
    ended = {**(container.get("lastState") or {}), **(container.get("state") or {})}
    last = ended.get("terminated") or {}
    code = f" with exit code {last['exitCode']}" if "exitCode" in last else ""
    if last.get("reason") == "OOMKilled":
        return Trouble(f"{where} ran out of memory{code}", is_lasting, log, "raise --memory")
    said = f": {last['message'].strip()}" if last.get("message") else ""
    return Trouble(f"{where} ended{code}{said}", is_lasting, log)


def _log(cluster: Cluster, pod: Object, container: Object) -> list[str]:
    """Of the run that ended: the one before, where the container was started again."""
    metadata = pod["metadata"]
    query = {"container": container["name"], "tailLines": str(4 * LOG_LINES)}
    runs = ({"previous": "true"}, {}) if container.get("restartCount") else ({},)
    for run in runs:
        try:
            text = cluster.log(metadata["name"], metadata["namespace"], {**query, **run})
        except ClusterError:
            continue
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        if lines:
            return lines[-LOG_LINES:]
    return []


def _event(cluster: Cluster, pod: Object) -> str:
    """What the last warning about a pod said; empty without one, or without the right."""
    metadata = pod["metadata"]
    query = {"fieldSelector": f"involvedObject.name={metadata['name']},type=Warning"}
    try:
        events = cluster.list(cluster.resource("v1", "Event"), metadata["namespace"], query)
    except ClusterError:
        return ""
    # `Error: ImagePullBackOff` and its like repeat what the status says.
    telling = [event for event in events if not _repeats(str(event.get("message", "")))]
    last = max(telling, key=_seen, default={})
    return " ".join(str(last.get("message", "")).split())


def _repeats(message: str) -> bool:
    return bool(re.fullmatch(r"(Error: )?\w+|Back-off .*", message))


def _seen(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")
