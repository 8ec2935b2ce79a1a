"""Waits until objects serve, or until it is clear that they will not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from . import pods
from .api import Cluster, Object, Target, full_name
from .apply import Applied, changed_at
from .errors import ClusterError, UnreachableError, ignored

SETTLE_SECONDS = 3.0
"""Time that a controller may take to see a change. Until then, the status may be the old one."""

_CONTROLLED = ("InferenceService", "SeldonDeployment", "Server", "Model")
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 2.0

Show = Callable[[str, str], object]
"""Called with the title of an object and the text of its progress line."""


class NotReadyError(ClusterError):
    """What was applied does not serve. `log` has the last lines of the container that failed."""

    def __init__(self, message: str, hint: str = "", log: Sequence[str] = ()) -> None:
        super().__init__(message, hint)
        self.log = tuple(log)


@dataclass(frozen=True)
class _State:
    is_ready: bool
    text: str  # of a progress line
    failure: str = ""  # why it will not become ready by itself; empty while it may


_READY = _State(True, "ready")


@dataclass
class _Watched:
    target: Target
    settles_at: float
    live: Object = field(default_factory=dict)
    state: _State = field(default=_State(False, "applied"))
    failing_since: float | None = None
    problem: pods.PodProblem | None = None


def until_ready(cluster: Cluster, applied: Sequence[Applied], seconds: float, show: Show) -> None:
    """Waits until objects serve.

    Raises:
        NotReadyError: An object will not become ready, or the time limit was reached.
        ClusterError: The cluster no longer answers.
    """
    start = time.monotonic()
    # The status of an object that existed before may be out of date for a while.
    settling = {"updated": SETTLE_SECONDS}
    watched = [_Watched(one.target, start + settling.get(one.change, 0.0)) for one in applied]
    pause = _FIRST_PAUSE
    while True:
        lost = _look(cluster, watched, show)
        if lost is None and all(one.state.is_ready for one in watched):
            return
        left = start + seconds - time.monotonic()
        if left <= 0:
            if lost is not None:
                raise lost
            late = next(one for one in watched if not one.state.is_ready)
            raise _not_ready(late, f"not ready after {seconds:g} s: {late.state.text}")
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, _LONGEST_PAUSE)


def look(cluster: Cluster, target: Target) -> tuple[bool, str]:
    """Returns whether an object serves now, and its state in words."""
    if cluster.find(target) is None:
        return False, "absent"
    one = _Watched(target, 0.0)
    _update(cluster, one)
    return one.state.is_ready, _line(one)


def until_gone(cluster: Cluster, deleted: Sequence[Applied], seconds: float, show: Show) -> None:
    """Waits until deleted objects and their dependents are gone, or raises a NotReadyError."""
    deadline = time.monotonic() + seconds
    for one in deleted:
        target = one.target
        while (live := cluster.find(target)) is not None:
            # Somebody else created a new object of that name.
            if live["metadata"].get("uid") != one.live["metadata"].get("uid"):
                break
            show(target.title, "ending")
            if time.monotonic() > deadline:
                holders = ", ".join(live["metadata"].get("finalizers") or ()) or "nothing"
                raise NotReadyError(
                    f"{target.title} is still there after {seconds:g} s, held by {holders}",
                    "the controller of that finalizer has to let it go: is it running?",
                )
            time.sleep(_FIRST_PAUSE)
        show(target.title, "gone")


def _look(cluster: Cluster, watched: Sequence[_Watched], show: Show) -> ClusterError | None:
    """Looks at every object once. Returns a transient error, raises any other."""
    for one in watched:
        # A ready object stays ready once the status cannot be the old one.
        if one.state.is_ready and time.monotonic() > one.settles_at:
            continue
        try:
            _update(cluster, one)
        except ClusterError as error:
            if error.is_transient or isinstance(error, UnreachableError):
                return error
            raise
        if one.problem and one.problem.is_lasting:
            raise _not_ready(one, "")
        # Controllers fail and try again, so a failure counts only if it stays.
        now = time.monotonic()
        if one.failing_since is not None and now - one.failing_since >= SETTLE_SECONDS:
            raise _not_ready(one, one.state.failure)
        show(one.target.title, _line(one))
    return None


def _line(one: _Watched) -> str:
    return f"{one.state.text} ({one.problem.cause})" if one.problem else one.state.text


def _update(cluster: Cluster, one: _Watched) -> None:
    target = one.target
    live = cluster.find(target)
    if live is None:
        raise NotReadyError(f"{target.title} was deleted by somebody else")
    one.live = live
    one.state = _served_state(cluster, live)
    now = time.monotonic()
    if now < one.settles_at and live["kind"] in _CONTROLLED:
        one.state = _State(False, "waiting for its controller")
    if one.state.is_ready or not one.state.failure:
        one.failing_since = None
    elif one.failing_since is None:
        one.failing_since = now
    one.problem = None
    if not one.state.is_ready:
        # Without the right to list pods, only the object's own state is known.
        with ignored(403):
            one.problem = pods.find_problem(cluster, live, changed_at(live))


def _served_state(cluster: Cluster, live: Object) -> _State:
    """Returns an object's own state, or if that is ready, that of the Deployments beneath it.

    KServe and Seldon call an object ready while its old pods still serve and the new ones start.
    Without the right to list Deployments, only the object's own state is known.
    """
    own = _state(live)
    if not own.is_ready or live["kind"] not in ("InferenceService", "SeldonDeployment"):
        return own
    chosen, found = {"label_selector": pods.selector(live)}, list[Object]()
    with ignored(403):
        resource = cluster.resource("apps/v1", "Deployment")
        found = cluster.find_all(resource, live["metadata"]["namespace"], **chosen)
    return next((judged for judged in map(_state, found) if not judged.is_ready), own)


def _not_ready(one: _Watched, message: str) -> NotReadyError:
    problem, target = one.problem, one.target
    if problem is None:
        kind = full_name(target.resource)
        hint = f"kubectl describe {kind} {target.name} -n {target.namespace}"
        return NotReadyError(f"{target.title}: {message}", hint)
    told = "; ".join(filter(None, [message, problem.cause]))
    return NotReadyError(f"{target.title}: {told}", problem.hint, problem.log)


def _state(live: Object) -> _State:
    """Returns the state of an object. A kind without rules is ready once it exists."""
    judge = _JUDGES.get(live["kind"])
    return judge(live) if judge else _READY


def _deployment(live: Object) -> _State:
    """Judges a Deployment by the rules of `kubectl rollout status`."""
    status = live.get("status") or {}
    if status.get("observedGeneration", 0) < live["metadata"].get("generation", 0):
        return _State(False, "waiting for its controller")
    conditions = {entry["type"]: entry for entry in _all_conditions(live)}
    for kind, wrong in (("ReplicaFailure", "True"), ("Progressing", "False")):
        condition = conditions.get(kind, {})
        if condition.get("status") == wrong:
            message = _message(condition)
            return _State(False, message, message)
    wanted = live["spec"].get("replicas", 1)
    updated = status.get("updatedReplicas", 0)
    if updated < wanted:
        return _State(False, f"{updated} of {wanted} pods updated")
    if status.get("replicas", 0) > updated:
        return _State(False, f"{status['replicas'] - updated} old pods are ending")
    ready = status.get("availableReplicas", 0)
    if ready < wanted:
        return _State(False, f"{ready} of {wanted} pods ready")
    return _READY if wanted else _State(True, "scaled to zero")


def _inference_service(live: Object) -> _State:
    """Judges an InferenceService. Its `observedGeneration` is that of a child, so it is no help."""
    status = live.get("status") or {}
    model = status.get("modelStatus") or {}
    if model.get("transitionStatus") in ("BlockedByFailedLoad", "InvalidSpec"):
        failed = model.get("lastFailureInfo") or {}
        message = _message(failed) or model["transitionStatus"]
        return _State(False, message, message)
    predictor = (status.get("components") or {}).get("predictor") or {}
    created, ready = predictor.get("latestCreatedRevision"), predictor.get("latestReadyRevision")
    if created and created != ready:
        return _State(False, f"revision {created} is starting")
    return _conditions(live)


def _seldon_deployment(live: Object) -> _State:
    status = live.get("status") or {}
    found = status.get("state", "")
    if found == "Available":
        return _READY
    if found == "Failed":
        message = status.get("description") or "Failed, it does not say why"
        return _State(False, message, message)
    return _State(False, found or "waiting for its controller")


def _seldon_model(live: Object) -> _State:
    judged = _conditions(live)
    if judged.is_ready:
        return judged
    for condition in _unmet(live):
        # ScheduleFailed goes away as soon as the server is up.
        if condition.get("reason") in ("ModelFailed", "LoadFailed"):
            return _State(False, judged.text, _message(condition))
    return judged


def _conditions(live: Object) -> _State:
    """Judges by the condition `Ready`; the first condition that is not met gives the text."""
    found = {entry["type"]: entry for entry in _all_conditions(live)}
    if found.get("Ready", {}).get("status") == "True":
        return _READY
    for condition in _unmet(live):
        if condition["type"] != "Ready":
            message = _message(condition)
            text = f"{condition['type']}: {message}" if message else condition["type"]
            return _State(False, text)
    return _State(False, _message(found.get("Ready", {})) or "waiting for its controller")


def _unmet(live: Object) -> Iterator[Object]:
    for condition in _all_conditions(live):
        if condition.get("status") != "True" and condition.get("severity", "") == "":
            yield condition


def _all_conditions(live: Object) -> list[Object]:
    return list((live.get("status") or {}).get("conditions") or ())


def _message(condition: Object) -> str:
    parts = (condition.get("reason"), condition.get("message"))
    return ": ".join(part for part in parts if part)


_JUDGES: Mapping[str, Callable[[Object], _State]] = {
    "Deployment": _deployment,
    "InferenceService": _inference_service,
    "SeldonDeployment": _seldon_deployment,
    "Server": _conditions,
    "Model": _seldon_model,
}
