"""Errors of a cluster, in plain words: who may not do what, which field, and what to do next."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mlserver_pyfunc.errors import PyFuncError

Json = Mapping[str, Any]

_TRANSIENT = {429, 502, 503, 504}
_NO_RIGHT = re.compile(r'User "(?P<user>.*?)" cannot (?P<verb>\w+) resource')
_MANAGER = re.compile(r'conflict with "(?P<manager>.*?)"')

# How to get a kind that the cluster does not have, by its API group.
_PROVIDERS = {
    "serving.kserve.io": "install KServe: https://kserve.github.io/website",
    "machinelearning.seldon.io": "install Seldon Core 1: https://docs.seldon.ai/seldon-core-1",
    "mlops.seldon.io": "install Seldon Core 2: https://docs.seldon.ai/seldon-core-2",
    "autoscaling": "it takes Kubernetes 1.23 or later; or leave autoscaling out",
    "keda.sh": "install KEDA: https://keda.sh, or leave --prometheus out",
    "policy": "it takes Kubernetes 1.21 or later",
}


class ClusterError(PyFuncError):
    """A cluster cannot be reached, or refuses a request. The hint tells what to do next.

    The status is that of HTTP, None if no answer came. `is_transient` tells that the same request
    may succeed a little later, `retry_after` the seconds that the cluster asks to wait.
    """

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        status: int | None = None,
        is_transient: bool = False,
        retry_after: float = 0,
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.status = status
        self.is_transient = is_transient
        self.retry_after = retry_after


class UnreachableError(ClusterError):
    """No cluster answers."""


@contextmanager
def ignored(*statuses: int) -> Iterator[None]:
    """Leaves its block without an error if the cluster answers with one of the HTTP statuses."""
    try:
        yield
    except ClusterError as error:
        if error.status not in statuses:
            raise


@dataclass(frozen=True)
class ApiCall:
    """A request to the API, as an error message names it."""

    verb: str  # of RBAC rules: get, list, patch or delete
    resource: str  # inferenceservices.serving.kserve.io; empty for a request of discovery
    what: str  # the object, such as InferenceService "iris"
    namespace: str  # empty if the kind has none
    server: str  # URL of the cluster

    @property
    def where(self) -> str:
        """The namespace, as the end of a phrase."""
        return f' in namespace "{self.namespace}"' if self.namespace else ""


def missing_kind(api_version: str, kind: str) -> ClusterError:
    """Returns the error for a kind that the cluster does not have."""
    group = api_version.rpartition("/")[0]
    message = f"the cluster has no {kind} of {api_version}: its CRD is not installed"
    if "." not in group:
        message = f"the cluster has no {kind} of {api_version}: it is too old"
    return ClusterError(message, _PROVIDERS.get(group, ""), status=404)


def refused(status: int, body: Json, call: ApiCall, retry_after: float = 0) -> ClusterError:
    """Returns the error for an HTTP status and the Kubernetes `Status` that came with it."""
    details = body.get("details") or {}
    causes: Sequence[Json] = details.get("causes") or ()
    reported = str(body.get("message") or body.get("reason") or f"status {status}")
    message, hint = _explained(status, reported, causes, call)
    return ClusterError(
        message, hint, status=status, is_transient=status in _TRANSIENT, retry_after=retry_after
    )


def _explained(
    status: int, reported: str, causes: Sequence[Json], call: ApiCall
) -> tuple[str, str]:
    if status == 401:
        return (
            f"the cluster at {call.server} does not accept these credentials (401)",
            "log in again, or choose other ones by --context or --kubeconfig",
        )
    if status == 403:
        return _forbidden(reported, call)
    if status == 404 and reported.startswith("namespaces "):
        return (
            f'the cluster has no namespace "{call.namespace}"',
            f"kubectl create namespace {call.namespace}, or choose one by --namespace",
        )
    conflicts = [cause for cause in causes if cause.get("reason") == "FieldManagerConflict"]
    if status == 409 and conflicts:
        return _conflict(conflicts, call)
    if status in (400, 422):
        return _invalid(reported, causes, call), ""
    if status in _TRANSIENT:
        hint = f"it stayed so for several tries; is the cluster at {call.server} healthy?"
        return f"{call.what}: the cluster cannot answer now ({status}): {reported}", hint
    return f"{call.what}: the cluster refused to {call.verb} it ({status}): {reported}", ""


def _forbidden(reported: str, call: ApiCall) -> tuple[str, str]:
    found = _NO_RIGHT.search(reported)
    if found is None:
        return f"{call.what}: the cluster refused it: {_brief(reported)}", ""
    namespace = f" -n {call.namespace}" if call.namespace else ""
    return (
        f'user "{found["user"]}" may not {found["verb"]} {call.resource}{call.where}',
        f"ask for a role with that verb; kubectl auth can-i {found['verb']} {call.resource}"
        f"{namespace} shows when you have it",
    )


def _conflict(causes: Sequence[Json], call: ApiCall) -> tuple[str, str]:
    fields: dict[str, list[str]] = {}
    for cause in causes:
        found = _MANAGER.search(str(cause.get("message", "")))
        manager = found["manager"] if found else "another"
        fields.setdefault(manager, []).append(str(cause.get("field", "")).lstrip("."))
    owners = "; ".join(f'"{manager}" manages {", ".join(f)}' for manager, f in fields.items())
    return (
        f"{call.what}{call.where}: {owners}",
        "leave those fields to it, or take them over by --force-conflicts",
    )


def _invalid(reported: str, causes: Sequence[Json], call: ApiCall) -> str:
    fields = [
        f"{cause['field']}: {cause.get('message', '')}" for cause in causes if "field" in cause
    ]
    reasons = "; ".join(fields) or _brief(reported)
    return f"{call.what}{call.where}: the cluster refused it: {reasons}"


def _brief(reported: str) -> str:
    """Removes the object's name from the front, since our message has it already."""
    return re.sub(r'^\S+ "[^"]*" is (forbidden|invalid): ', "", reported)
