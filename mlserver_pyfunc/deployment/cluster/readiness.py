"""Whether an object is ready, judged from its status by rules for each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]


@dataclass(frozen=True)
class State:
    """How far an object is on its way to serve."""

    is_ready: bool
    text: str  # of a progress line
    failure: str = ""  # why it will not become ready by itself; empty while it may


READY = State(True, "ready")


def state(live: Object) -> State:
    """Returns the state of an object. A kind without rules is ready once it exists."""
    judge = _JUDGES.get(live["kind"])
    return judge(live) if judge else READY


def _deployment(live: Object) -> State:
    """Judges a Deployment by the rules of `kubectl rollout status`."""
    status = live.get("status") or {}
    if status.get("observedGeneration", 0) < live["metadata"].get("generation", 0):
        return State(False, "waiting for its controller")
    conditions = {entry["type"]: entry for entry in _all_conditions(live)}
    for kind, wrong in (("ReplicaFailure", "True"), ("Progressing", "False")):
        condition = conditions.get(kind, {})
        if condition.get("status") == wrong:
            message = _message(condition)
            return State(False, message, message)
    wanted = live["spec"].get("replicas", 1)
    updated = status.get("updatedReplicas", 0)
    if updated < wanted:
        return State(False, f"{updated} of {wanted} pods updated")
    if status.get("replicas", 0) > updated:
        return State(False, f"{status['replicas'] - updated} old pods are ending")
    ready = status.get("availableReplicas", 0)
    if ready < wanted:
        return State(False, f"{ready} of {wanted} pods ready")
    return READY if wanted else State(True, "scaled to zero")


def _inference_service(live: Object) -> State:
    """Judges an InferenceService. Its `observedGeneration` is that of a child, so it is no help."""
    status = live.get("status") or {}
    model = status.get("modelStatus") or {}
    if model.get("transitionStatus") in ("BlockedByFailedLoad", "InvalidSpec"):
        failed = model.get("lastFailureInfo") or {}
        message = _message(failed) or model["transitionStatus"]
        return State(False, message, message)
    predictor = (status.get("components") or {}).get("predictor") or {}
    created, ready = predictor.get("latestCreatedRevision"), predictor.get("latestReadyRevision")
    if created and created != ready:
        return State(False, f"revision {created} is starting")
    return _conditions(live)


def _seldon_deployment(live: Object) -> State:
    status = live.get("status") or {}
    found = status.get("state", "")
    if found == "Available":
        return READY
    if found == "Failed":
        message = status.get("description") or "Failed, it does not say why"
        return State(False, message, message)
    return State(False, found or "waiting for its controller")


def _seldon_model(live: Object) -> State:
    judged = _conditions(live)
    if judged.is_ready:
        return judged
    for condition in _unmet(live):
        # ScheduleFailed goes away as soon as the server is up.
        if condition.get("reason") in ("ModelFailed", "LoadFailed"):
            return State(False, judged.text, _message(condition))
    return judged


def _conditions(live: Object) -> State:
    """Judges by the condition `Ready`; the first condition that is not met gives the text."""
    found = {entry["type"]: entry for entry in _all_conditions(live)}
    if found.get("Ready", {}).get("status") == "True":
        return READY
    for condition in _unmet(live):
        if condition["type"] != "Ready":
            message = _message(condition)
            text = f"{condition['type']}: {message}" if message else condition["type"]
            return State(False, text)
    return State(False, _message(found.get("Ready", {})) or "waiting for its controller")


def _unmet(live: Object) -> Iterator[Object]:
    for condition in _all_conditions(live):
        if condition.get("status") != "True" and condition.get("severity", "") == "":
            yield condition


def _all_conditions(live: Object) -> list[Object]:
    return list((live.get("status") or {}).get("conditions") or ())


def _message(condition: Object) -> str:
    parts = (condition.get("reason"), condition.get("message"))
    return ": ".join(part for part in parts if part)


_JUDGES: Mapping[str, Callable[[Object], State]] = {
    "Deployment": _deployment,
    "InferenceService": _inference_service,
    "SeldonDeployment": _seldon_deployment,
    "Server": _conditions,
    "Model": _seldon_model,
}
