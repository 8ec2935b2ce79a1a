"""What a cluster refuses, in words: who may not do what, which field, and what to do next."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlserver_pyfunc.errors import PyFuncError

Json = Mapping[str, Any]

_MAY_PASS = {429, 502, 503, 504}
_NO_RIGHT = re.compile(r'User "(?P<user>.*?)" cannot (?P<verb>\w+) resource')
_MANAGER = re.compile(r'conflict with "(?P<manager>.*?)"')

# What brings a kind that a cluster does not have.
_PROVIDERS = {
    "serving.kserve.io": "install KServe: https://kserve.github.io/website",
    "machinelearning.seldon.io": "install Seldon Core 1: https://docs.seldon.ai/seldon-core-1",
    "mlops.seldon.io": "install Seldon Core 2: https://docs.seldon.ai/seldon-core-2",
    "autoscaling": "it takes Kubernetes 1.23 or later; or leave autoscaling out",
    "policy": "it takes Kubernetes 1.21 or later",
}


class ClusterError(PyFuncError):
    """A cluster cannot be reached, or does not do what it was asked.

    Args:
        message: What is wrong.
        hint: What to do next.
        status: HTTP status; None where no answer came.
        may_pass: Whether the same request may succeed a little later.
        retry_after: Seconds the cluster asks to wait.
    """

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        status: int | None = None,
        may_pass: bool = False,
        retry_after: float = 0,
    ) -> None:
        super().__init__(message)
        self.hint = hint
        self.status = status
        self.may_pass = may_pass
        self.retry_after = retry_after


class UnreachableError(ClusterError):
    """No cluster answers."""


@dataclass(frozen=True)
class Asked:
    """A request, as an error message names it.

    Attributes:
        verb: As in RBAC rules: `get`, `list`, `patch` or `delete`.
        resource: `inferenceservices.serving.kserve.io`; empty for what is no object.
        what: `InferenceService "iris"`.
        namespace: Empty for what has none.
        server: URL of the cluster.
    """

    verb: str
    resource: str
    what: str
    namespace: str
    server: str

    @property
    def where(self) -> str:
        return f' in namespace "{self.namespace}"' if self.namespace else ""


def missing_kind(api_version: str, kind: str) -> ClusterError:
    """The cluster has no such kind."""
    group = api_version.rpartition("/")[0]
    message = f"the cluster has no {kind} of {api_version}: its CRD is not installed"
    if "." not in group:
        message = f"the cluster has no {kind} of {api_version}: it is too old"
    return ClusterError(message, _PROVIDERS.get(group, ""), status=404)


def refused(status: int, body: Json, asked: Asked, retry_after: float = 0) -> ClusterError:
    """An error status of the cluster as an error of ours.

    Args:
        status: HTTP status.
        body: The Kubernetes `Status` object that came with it.
        asked: The request.
        retry_after: Seconds, of the header.
    """
    details = body.get("details") or {}
    causes: Sequence[Json] = details.get("causes") or ()
    said = str(body.get("message") or body.get("reason") or f"status {status}")
    message, hint = _explained(status, said, causes, asked)
    passing = status in _MAY_PASS
    return ClusterError(message, hint, status=status, may_pass=passing, retry_after=retry_after)


def _explained(status: int, said: str, causes: Sequence[Json], asked: Asked) -> tuple[str, str]:
    if status == 401:
        return (
            f"the cluster at {asked.server} does not accept these credentials (401)",
            "log in again, or choose other ones by --context or --kubeconfig",
        )
    if status == 403:
        return _forbidden(said, asked)
    if status == 404 and said.startswith("namespaces "):
        return (
            f'the cluster has no namespace "{asked.namespace}"',
            f"kubectl create namespace {asked.namespace}, or choose one by --namespace",
        )
    conflicts = [cause for cause in causes if cause.get("reason") == "FieldManagerConflict"]
    if status == 409 and conflicts:
        return _conflict(conflicts, asked)
    if status in (400, 422):
        return _invalid(said, causes, asked), ""
    if status in _MAY_PASS:
        hint = f"it stayed so for several tries; is the cluster at {asked.server} healthy?"
        return f"{asked.what}: the cluster cannot answer now ({status}): {said}", hint
    return f"{asked.what}: the cluster refused to {asked.verb} it ({status}): {said}", ""


def _forbidden(said: str, asked: Asked) -> tuple[str, str]:
    found = _NO_RIGHT.search(said)
    if found is None:
        return f"{asked.what}: the cluster refused it: {_brief(said)}", ""
    namespace = f" -n {asked.namespace}" if asked.namespace else ""
    return (
        f'user "{found["user"]}" may not {found["verb"]} {asked.resource}{asked.where}',
        f"ask for a role with that verb; kubectl auth can-i {found['verb']} {asked.resource}"
        f"{namespace} tells when you have it",
    )


def _conflict(causes: Sequence[Json], asked: Asked) -> tuple[str, str]:
    fields: dict[str, list[str]] = {}
    for cause in causes:
        found = _MANAGER.search(str(cause.get("message", "")))
        manager = found["manager"] if found else "another"
        fields.setdefault(manager, []).append(str(cause.get("field", "")).lstrip("."))
    held = "; ".join(f'"{manager}" manages {", ".join(f)}' for manager, f in fields.items())
    return (
        f"{asked.what}{asked.where}: {held}",
        "leave those fields to it, or take them over by --force-conflicts",
    )


def _invalid(said: str, causes: Sequence[Json], asked: Asked) -> str:
    fields = [
        f"{cause['field']}: {cause.get('message', '')}" for cause in causes if "field" in cause
    ]
    reasons = "; ".join(fields) or _brief(said)
    return f"{asked.what}{asked.where}: the cluster refused it: {reasons}"


def _brief(said: str) -> str:
    """Without the object's name in front, which the message has already."""
    return re.sub(r'^\S+ "[^"]*" is (forbidden|invalid): ', "", said)
