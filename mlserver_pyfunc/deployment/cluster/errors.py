"""Errors of a cluster, in plain words: who may not do what, which field, and what to do next."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from mlserver_pyfunc.errors import PyFuncError

_TRANSIENT = {429, 502, 503, 504}

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


def missing_kind(api_version: str, kind: str) -> ClusterError:
    """Returns the error for a kind that the cluster does not have."""
    group = api_version.rpartition("/")[0]
    message = f"the cluster has no {kind} of {api_version}: its CRD is not installed"
    if "." not in group:
        message = f"the cluster has no {kind} of {api_version}: it is too old"
    return ClusterError(message, _PROVIDERS.get(group, ""), status=404)


def refused(
    status: int, reported: str, what: str, server: str, retry_after: float = 0
) -> ClusterError:
    """Returns the error for an HTTP status and the message that came with it.

    `what` is the object that the request was about; empty for the server itself.
    """
    reported = " ".join(reported.split()) or "it gives no reason"
    is_transient = status in _TRANSIENT
    lost = re.match(r'namespaces "([^"]*)" not found', reported)
    message = f"{what or server}: the cluster refused it ({status}): {reported}"
    hint = ""
    if status == 401:
        message = f"the cluster at {server} does not accept these credentials (401)"
        hint = "log in again, or choose other ones by --context or --kubeconfig"
    elif lost:
        message = f'the cluster has no namespace "{lost[1]}"'
        hint = f"kubectl create namespace {lost[1]}, or choose one by --namespace"
    elif is_transient:
        message = f"{what or server}: the cluster cannot answer now ({status}): {reported}"
        hint = f"it stayed so for several tries; is the cluster at {server} healthy?"
    elif status == 403 and " cannot " in reported:
        hint = "ask for a role with that right; kubectl auth can-i shows when you have it"
    elif status == 409 and "Apply failed" in reported:
        hint = "leave those fields to it, or take them over by --force-conflicts"
    return ClusterError(
        message, hint, status=status, is_transient=is_transient, retry_after=retry_after
    )
