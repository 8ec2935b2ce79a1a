"""Waiting until objects serve, or until it is clear that they will not."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from . import pods, readiness
from .api import Cluster, Object
from .apply import Applied, Target, changed_at
from .errors import ClusterError, UnreachableError
from .readiness import State

SETTLE_SECONDS = 3.0
"""A controller may take so long to see a change: until then a status may be of what was before."""

_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 2.0

Show = Callable[[Target, str], None]
"""Takes an object and what it is doing now."""


class NotReadyError(ClusterError):
    """What was applied does not serve.

    Attributes:
        log: The last lines of the container that is to blame.
    """

    def __init__(self, message: str, hint: str = "", log: Sequence[str] = ()) -> None:
        super().__init__(message, hint)
        self.log = tuple(log)


@dataclass
class _Watched:
    """An object that is waited for."""

    applied: Applied
    settles_at: float
    live: Object = field(default_factory=dict)
    state: State = field(default=State(False, "applied"))
    failing_since: float | None = None
    trouble: pods.Trouble | None = None

    @property
    def target(self) -> Target:
        return self.applied.target


def until_ready(
    cluster: Cluster, applied: Sequence[Applied], seconds: float, show: Show
) -> dict[str, Object]:
    """Waits for objects to serve.

    Args:
        cluster: Where they are.
        applied: As `apply` gives them.
        seconds: To wait at most.
        show: Told of every object's progress.

    Returns:
        The objects as they are when ready, by `Target.title`.

    Raises:
        NotReadyError: One will not become ready, or the time is over.
        ClusterError: The cluster cannot be asked any more.
    """
    start = time.monotonic()
    watched = [_Watched(one, start + _settling(one)) for one in applied]
    pause = _FIRST_PAUSE
    while True:
        lost = _look(cluster, watched, show)
        if lost is None and all(one.state.is_ready for one in watched):
            return {one.target.title: one.live for one in watched}
        left = start + seconds - time.monotonic()
        if left <= 0:
            raise lost or _late(watched, seconds)
        time.sleep(min(pause, left))
        pause = min(pause * 1.5, _LONGEST_PAUSE)


def until_gone(cluster: Cluster, deleted: Sequence[Applied], seconds: float, show: Show) -> None:
    """Waits for deleted objects, and what belongs to them, to be gone.

    Raises:
        NotReadyError: The time is over.
    """
    deadline = time.monotonic() + seconds
    for one in deleted:
        target = one.target
        while (live := cluster.get(target.resource, target.name, target.namespace)) is not None:
            # Deleted and made anew by somebody else.
            if live["metadata"].get("uid") != one.live["metadata"].get("uid"):
                break
            show(target, "ending")
            if time.monotonic() > deadline:
                held = ", ".join(live["metadata"].get("finalizers") or ()) or "nothing"
                raise NotReadyError(
                    f"{target.title} is still there after {seconds:g} s, held by {held}",
                    "the controller of that finalizer has to let it go: is it running?",
                )
            time.sleep(_FIRST_PAUSE)
        show(target, "gone")


def _settling(applied: Applied) -> float:
    """Only an object that was there before can have a status that is out of date."""
    return SETTLE_SECONDS if applied.change == "updated" else 0.0


def _look(cluster: Cluster, watched: Sequence[_Watched], show: Show) -> ClusterError | None:
    """Looks at every object once; an error that may pass is given back."""
    for one in watched:
        # What no controller acts on stays ready.
        if one.state.is_ready and time.monotonic() > one.settles_at:
            continue
        try:
            _update(cluster, one)
        except ClusterError as error:
            if not _may_pass(error):
                raise
            return error
        _fail_early(one)
        show(one.target, _line(one))
    return None


def _update(cluster: Cluster, one: _Watched) -> None:
    target = one.target
    live = cluster.get(target.resource, target.name, target.namespace)
    if live is None:
        raise NotReadyError(f"{target.title} was deleted by somebody else")
    one.live = live
    one.state = _state(cluster, live)
    now = time.monotonic()
    if now < one.settles_at and live["kind"] in _BENEATH:
        one.state = State(False, "waiting for its controller")
    if one.state.is_ready or not one.state.failure:
        one.failing_since = None
    elif one.failing_since is None:
        one.failing_since = now
    one.trouble = None if one.state.is_ready else _trouble(cluster, live)


# What a controller makes of an object, whose roll-out its own status may hide.
_BENEATH = {
    "InferenceService": ("apps/v1", "Deployment"),
    "SeldonDeployment": ("apps/v1", "Deployment"),
    "Server": ("apps/v1", "StatefulSet"),
    "Model": None,
}


def _state(cluster: Cluster, live: Object) -> State:
    """An object's own state; where it says ready, that of what is beneath it too."""
    own = readiness.state(live)
    beneath = _BENEATH.get(live["kind"])
    if not own.is_ready or beneath is None:
        return own
    query = {"labelSelector": pods.selector(live)}
    if live["kind"] == "Server":
        # Its set of pods has its name, and not the label that its pods carry.
        query = {"fieldSelector": f"metadata.name={live['metadata']['name']}"}
    try:
        resource = cluster.resource(*beneath)
        found = cluster.list(resource, live["metadata"]["namespace"], query)
    except ClusterError as error:
        # Without the right to look there, the object's own word has to do.
        if error.status == 403:
            return own
        raise
    for entry in found:
        # A list's entries come without their kind.
        judged = readiness.state({**entry, "kind": resource.kind})
        if not judged.is_ready:
            return judged
    return own


def _trouble(cluster: Cluster, live: Object) -> pods.Trouble | None:
    try:
        return pods.trouble(cluster, live, changed_at(live))
    except ClusterError as error:
        if error.status == 403:
            return None
        raise


def _fail_early(one: _Watched) -> None:
    if one.trouble and one.trouble.is_lasting:
        raise NotReadyError(
            f"{one.target.title}: {one.trouble.cause}", one.trouble.hint, one.trouble.log
        )
    # Controllers fail and try again: only what stays is meant.
    now = time.monotonic()
    if one.failing_since is not None and now - one.failing_since >= SETTLE_SECONDS:
        raise _blamed(one, one.state.failure)


def _late(watched: Sequence[_Watched], seconds: float) -> NotReadyError:
    one = next(one for one in watched if not one.state.is_ready)
    return _blamed(one, f"not ready after {seconds:g} s: {one.state.text}")


def _blamed(one: _Watched, said: str) -> NotReadyError:
    trouble = one.trouble
    if trouble is None:
        namespace = one.target.namespace
        hint = f"kubectl describe {one.target.resource.qualified} {one.target.name} -n {namespace}"
        return NotReadyError(f"{one.target.title}: {said}", hint)
    return NotReadyError(f"{one.target.title}: {said}; {trouble.cause}", trouble.hint, trouble.log)


def _line(one: _Watched) -> str:
    return f"{one.state.text} ({one.trouble.cause})" if one.trouble else one.state.text


def _may_pass(error: ClusterError) -> bool:
    return error.may_pass or isinstance(error, UnreachableError)
