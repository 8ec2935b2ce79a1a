"""Why the pods of an object do not run: from their states, their events and their logs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .api import Cluster, Object
from .errors import ClusterError

LOG_LINES = 15

_LOAD_FAILURE = re.compile(r'function "[^"]*" failed to load: .*')

# Reasons of waiting, with what to do. Only ErrImagePull, the first failed pull, may go away.
_WAITING = {
    "ErrImagePull": ("its image cannot be pulled", ""),
    "ImagePullBackOff": (
        "its image cannot be pulled",
        "is the image pushed, its name right, and does the cluster have the registry's "
        "credentials? --image-pull-secret names them",
    ),
    "InvalidImageName": ("its image's name is not valid", ""),
    "ErrImageNeverPull": ("its image is not on the node, and may not be pulled", ""),
    "CreateContainerConfigError": (
        "its settings refer to what is not there",
        "make the secret or config map it names, in the same namespace",
    ),
    "CreateContainerError": ("it cannot be created", ""),
    "RunContainerError": ("it cannot be started", ""),
}
_UNSCHEDULABLE = "ask for less by --cpu, --memory or --gpus, or give the cluster a node that fits"
_MEND = "mend the function; mlserver-pyfunc validate shows what is wrong by file and line"
# Labels that identify the version of a pod's template.
_REVISIONS = ("serving.knative.dev/revision", "pod-template-hash", "controller-revision-hash")


@dataclass(frozen=True)
class PodProblem:
    """What keeps a pod from running, and what to do next."""

    cause: str  # one line, with the message of the pod itself
    is_lasting: bool  # whether waiting longer does not help
    log: Sequence[str] = ()  # last lines that the container wrote
    hint: str = ""


def selector(live: Mapping[str, Any]) -> str:
    """Returns the label selector of an object's pods; empty if the object has no pods."""
    if live["kind"] == "Deployment":
        labels = live["spec"]["selector"].get("matchLabels") or {}
        return ",".join(f"{key}={value}" for key, value in labels.items())
    label = _LABELS.get(live["kind"])
    return f"{label}={live['metadata']['name']}" if label else ""


_LABELS = {
    "InferenceService": "serving.kserve.io/inferenceservice",
    "SeldonDeployment": "seldon-deployment-id",
    "Server": "seldon-server-name",
}


def find_problem(cluster: Cluster, live: Mapping[str, Any], since: str = "") -> PodProblem | None:
    """Returns the worst problem of an object's newest pods; None if they have none.

    `since` is the time of the last apply. A problem of an older pod is never lasting, because the
    apply may replace that pod.
    """
    if not selector(live):
        return None
    pods = _pods(cluster, live)
    last = _revision(max(pods, key=_created)) if pods else ""
    newest = [pod for pod in pods if _revision(pod) == last]
    found = [one for pod in newest for one in _problems(cluster, pod, since)]
    if not found and (message := _event(cluster, live, since)):
        # A webhook or a quota may keep the controller from making pods at all.
        return PodProblem(message, False)
    return max(found, key=lambda one: one.is_lasting, default=None)


def logs(cluster: Cluster, live: Mapping[str, Any], lines: int) -> Iterator[tuple[str, str]]:
    """Yields the name of each container of an object's pods, and its last lines."""
    for pod in _pods(cluster, live):
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        for container in (pod.get("status") or {}).get("containerStatuses") or ():
            query = {"container": container["name"], "tailLines": lines}
            yield f"{name}/{container['name']}", cluster.log(name, namespace, **query)


def _pods(cluster: Cluster, live: Mapping[str, Any]) -> list[Object]:
    if not (chosen := selector(live)):
        return []
    resource, namespace = cluster.resource("v1", "Pod"), live["metadata"]["namespace"]
    return cluster.find_all(resource, namespace, label_selector=chosen)


def _created(pod: Object) -> str:
    return str(pod["metadata"].get("creationTimestamp", ""))


def _revision(pod: Object) -> str:
    labels = pod["metadata"].get("labels") or {}
    return next((labels[name] for name in _REVISIONS if name in labels), "")


def _problems(cluster: Cluster, pod: Object, since: str) -> Iterator[PodProblem]:
    status = pod.get("status") or {}
    name = pod["metadata"]["name"]
    for condition in status.get("conditions") or ():
        if condition.get("reason") == "Unschedulable":
            message = condition.get("message", "no node takes it")
            yield PodProblem(f'pod "{name}" has no node: {message}', False, (), _UNSCHEDULABLE)
    is_new = _created(pod) >= since
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(kind) or ():
            if found := _container_problem(cluster, pod, container, is_new=is_new):
                yield found
    if status.get("phase") == "Failed" and status.get("message"):
        yield PodProblem(f'pod "{name}" failed: {status["message"]}', False)


def _container_problem(
    cluster: Cluster, pod: Object, container: Object, *, is_new: bool
) -> PodProblem | None:
    found = container.get("state") or {}
    waiting = found.get("waiting") or {}
    reason = waiting.get("reason", "")
    where = f'container "{container["name"]}" of pod "{pod["metadata"]["name"]}"'
    if reason == "CrashLoopBackOff":
        return _crash(cluster, pod, container, where, is_lasting=is_new)
    if reason in _WAITING:
        message = _event(cluster, pod) or waiting.get("message", "")
        words, hint = _WAITING[reason]
        lasts = is_new and reason != "ErrImagePull"
        return PodProblem(f"{where}: {words} ({reason}): {message}", lasts, (), hint)
    ended = found.get("terminated") or {}
    if ended and (ended.get("exitCode") or ended.get("reason") == "OOMKilled"):
        return _crash(cluster, pod, container, where, is_lasting=False)
    if "running" in found and not container.get("ready", True):
        message = _event(cluster, pod)
        return PodProblem(f"{where} is not ready: {message}", False) if message else None
    return None


def _crash(
    cluster: Cluster, pod: Object, container: Object, where: str, *, is_lasting: bool
) -> PodProblem:
    log = _log(cluster, pod, container)
    for line in reversed(log):
        if failure := _LOAD_FAILURE.search(line):
            return PodProblem(f"{where}: {failure[0]}", is_lasting, log, _MEND)
    ended = {**(container.get("lastState") or {}), **(container.get("state") or {})}
    last = ended.get("terminated") or {}
    code = f" with exit code {last['exitCode']}" if "exitCode" in last else ""
    if last.get("reason") == "OOMKilled":
        return PodProblem(f"{where} ran out of memory{code}", is_lasting, log, "raise --memory")
    message = f": {last['message'].strip()}" if last.get("message") else ""
    return PodProblem(f"{where} ended{code}{message}", is_lasting, log)


def _log(cluster: Cluster, pod: Object, container: Object) -> list[str]:
    """Returns the last lines of the run that ended: the previous one if there was a restart."""
    metadata = pod["metadata"]
    query = {"container": container["name"], "tailLines": 4 * LOG_LINES}
    runs: Sequence[Object] = ({"previous": "true"}, {}) if container.get("restartCount") else ({},)
    for run in runs:
        try:
            text = cluster.log(metadata["name"], metadata["namespace"], **query, **run)
        except ClusterError:
            continue
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        if lines:
            return lines[-LOG_LINES:]
    return []


def _event(cluster: Cluster, live: Mapping[str, Any], since: str = "") -> str:
    """Returns the last warning about an object; empty if there is none, or no right to list any."""
    metadata = live["metadata"]
    kind = live.get("kind", "Pod")
    selector = f"involvedObject.name={metadata['name']},involvedObject.kind={kind},type=Warning"
    try:
        resource = cluster.resource("v1", "Event")
        events = cluster.find_all(resource, metadata["namespace"], field_selector=selector)
    except ClusterError:
        return ""
    for event in sorted(events, key=_seen, reverse=True):
        message = str(event.get("message", ""))
        # `Error: ImagePullBackOff` and the like only repeat what the status says.
        if _seen(event) >= since and not re.fullmatch(r"(Error: )?\w+|Back-off .*", message):
            return " ".join(message.split())
    return ""


def _seen(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or "")
