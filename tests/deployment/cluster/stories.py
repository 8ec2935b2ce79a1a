"""What controllers and kubelets make of objects, as the platforms' own do."""

from __future__ import annotations

import itertools
import math
from typing import Any

from .fake_api import FakeCluster, Object, Story

POD = "iris-7d9f-abcde"
LOAD_FAILURE = (
    'function "iris" failed to load: import: ModuleNotFoundError: No module named "sklearn"'
)
LOG = f"""\
2026-11-22 10:00:00 [mlserver] INFO - starting
Traceback (most recent call last):
  File "/srv/model.py", line 3, in <module>
2026-11-22 10:00:01 [mlserver.pyfunc] ERROR - {LOAD_FAILURE}
"""


def rolls_out(seconds: float = 0) -> Story:
    """A Deployment whose pods become ready after a while."""

    def story(cluster: FakeCluster, live: Object, age: float) -> None:
        if age < seconds:
            return
        live["status"] = rolled_out(live)

    return story


def rolled_out(live: Object) -> Object:
    wanted = live["spec"].get("replicas", 1)
    return {
        "observedGeneration": live["metadata"]["generation"],
        "replicas": wanted,
        "updatedReplicas": wanted,
        "availableReplicas": wanted,
    }


def serves(url: str = "http://iris-default.example.com", seconds: float = 0) -> Story:
    """An InferenceService of KServe's standard mode that becomes ready after a while."""

    def story(cluster: FakeCluster, live: Object, age: float) -> None:
        is_ready = "True" if age >= seconds else "False"
        why = {} if age >= seconds else {"reason": "MinimumReplicasUnavailable"}
        conditions = [
            {"type": "IngressReady", "status": "True"},
            {"type": "PredictorReady", "status": is_ready, **why},
            {"type": "Ready", "status": is_ready, **why},
            {"type": "Stopped", "status": "False", "severity": "Info"},
        ]
        name = live["metadata"]["name"]
        live["status"] = {
            "conditions": conditions,
            "url": url,
            "address": {"url": f"http://{name}-predictor.default.svc.cluster.local"},
            "modelStatus": {"transitionStatus": "UpToDate" if age >= seconds else "InProgress"},
        }

    return story


def serves_after(looks: int) -> Story:
    """An InferenceService that becomes ready when it was looked at so often."""
    seen = itertools.count(1)

    def story(cluster: FakeCluster, live: Object, age: float) -> None:
        serves(seconds=0 if next(seen) > looks else math.inf)(cluster, live, age)

    return story


def is_available(seconds: float = 0) -> Story:
    """A SeldonDeployment."""

    def story(cluster: FakeCluster, live: Object, age: float) -> None:
        state = "Available" if age >= seconds else "Creating"
        live["status"] = {"state": state}

    return story


def has_condition(status: str = "True", reason: str = "", message: str = "") -> Story:
    """A Server or a Model of Seldon Core 2."""

    def story(cluster: FakeCluster, live: Object, age: float) -> None:
        own = {"type": f"{live['kind']}Ready", "status": status}
        ready = {"type": "Ready", "status": status}
        if reason:
            own |= {"reason": reason, "message": message}
        live["status"] = {"conditions": [own, ready]}

    return story


def has_pod(status: Object, labels: dict[str, str], story: Story | None = None) -> Story:
    """An object whose one pod has a status."""

    def told(cluster: FakeCluster, live: Object, age: float) -> None:
        if story:
            story(cluster, live, age)
        if cluster.find("Pod", POD) is None:
            cluster.pod(POD, labels, status)

    return told


def waiting(reason: str, message: str = "", **container: Any) -> Object:
    """The status of a pod whose container waits."""
    state = {"waiting": {"reason": reason, "message": message}}
    return _pod_status({"name": "mlserver", "ready": False, "state": state, **container})


def crashing(exit_code: int = 0, reason: str = "Completed") -> Object:
    """The status of a pod whose server ends again and again, as MLServer's does: with code 0."""
    ended = {"terminated": {"exitCode": exit_code, "reason": reason}}
    back_off = "back-off 10s restarting failed container"
    return waiting("CrashLoopBackOff", back_off, restartCount=2, lastState=ended)


def unschedulable(message: str) -> Object:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
    }
    return {"phase": "Pending", "conditions": [condition]}


def initialising(message: str) -> Object:
    """The status of a pod whose model cannot be fetched."""
    ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": message}}
    init = {
        "name": "storage-initializer",
        "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": ended,
    }
    return {"phase": "Pending", "initContainerStatuses": [init]}


def _pod_status(container: Object) -> Object:
    return {"phase": "Running", "containerStatuses": [container]}
