"""Waits until objects serve, or until it is clear that they will not."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from . import pods, readiness
from .api import Cluster, Object, Target, full_name
from .apply import Applied, changed_at
from .errors import ClusterError, UnreachableError, ignored
from .readiness import State

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


@dataclass
class _Watched:
    """An object that is waited for."""

    target: Target
    settles_at: float
    live: Object = field(default_factory=dict)
    state: State = field(default=State(False, "applied"))
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
    live = cluster.find(target)
    if live is None:
        return False, "absent"
    one = _Watched(target, 0.0)
    _update(cluster, one)
    return one.state.is_ready, _line(one)


def until_gone(cluster: Cluster, deleted: Sequence[Applied], seconds: float, show: Show) -> None:
    """Waits until deleted objects and their dependents are gone.

    Raises:
        NotReadyError: The time limit was reached.
    """
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
    one.state = _state(cluster, live)
    now = time.monotonic()
    if now < one.settles_at and live["kind"] in _CONTROLLED:
        one.state = State(False, "waiting for its controller")
    if one.state.is_ready or not one.state.failure:
        one.failing_since = None
    elif one.failing_since is None:
        one.failing_since = now
    one.problem = None
    if not one.state.is_ready:
        # Without the right to list pods, only the object's own state is known.
        with ignored(403):
            one.problem = pods.find_problem(cluster, live, changed_at(live))


def _state(cluster: Cluster, live: Object) -> State:
    """Returns an object's own state, or if that is ready, that of the Deployments beneath it.

    KServe and Seldon call an object ready while its old pods still serve and the new ones start.
    Without the right to list Deployments, only the object's own state is known.
    """
    own = readiness.state(live)
    if not own.is_ready or live["kind"] not in ("InferenceService", "SeldonDeployment"):
        return own
    chosen, found = {"label_selector": pods.selector(live)}, list[Object]()
    with ignored(403):
        resource = cluster.resource("apps/v1", "Deployment")
        found = cluster.find_all(resource, live["metadata"]["namespace"], **chosen)
    return next((judged for judged in map(readiness.state, found) if not judged.is_ready), own)


def _not_ready(one: _Watched, message: str) -> NotReadyError:
    problem, target = one.problem, one.target
    if problem is None:
        kind = full_name(target.resource)
        hint = f"kubectl describe {kind} {target.name} -n {target.namespace}"
        return NotReadyError(f"{target.title}: {message}", hint)
    told = "; ".join(filter(None, [message, problem.cause]))
    return NotReadyError(f"{target.title}: {told}", problem.hint, problem.log)
