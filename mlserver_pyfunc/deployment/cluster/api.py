"""A connection to a cluster: Kubernetes' own dynamic client, with retries and clear errors."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import tenacity
from kubernetes.client import ApiClient, ApiException
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import ResourceNotFoundError
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError

from .errors import ClusterError, UnreachableError, ignored, missing_kind, refused

Object = dict[str, Any]
Resource = Any
"""A kind as the cluster serves it: a `kubernetes.dynamic.Resource`."""

FIELD_MANAGER = "mlserver-pyfunc"
"""Manager of the fields that this package applies."""
ATTEMPTS = 4
CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0

# The dynamic client keeps what it discovers in a file, by default /tmp/osrcp-<hash of the URL>.json
# for every user of the machine. Its name can be guessed, so another user could place a file there
# that sends our requests elsewhere, and it would stay behind. None cannot be passed (it means the
# default), and an empty file makes the client log an error. A path below a device never exists and
# cannot be written; the client ignores the failed write (kubernetes/dynamic/discovery.py).
_NO_CACHE_FILE = os.path.join(os.devnull, "none")


class Target(NamedTuple):
    """An object to apply or delete, and how the cluster serves its kind."""

    wanted: Object
    resource: Resource
    kind: str
    name: str
    namespace: str  # empty if the kind has none

    @property
    def title(self) -> str:
        return f"{self.kind}/{self.name}"


class Cluster(DynamicClient):  # type: ignore[misc]
    """A cluster, and the namespace for objects that name none.

    Its methods raise `ClusterError` if the cluster refuses a request or does not answer.
    """

    def __init__(self, client: ApiClient, namespace: str) -> None:
        # `request` repeats requests, so the connection must not.
        self.namespace = namespace
        self.server = str(client.configuration.host)
        super().__init__(client, cache_file=_NO_CACHE_FILE)

    def close(self) -> None:
        self.client.close()

    def resource(self, api_version: str, kind: str) -> Resource:
        """Returns how the cluster serves a kind; raises `ClusterError` if it has no such kind."""
        # Without the prefix, the client asks every group that has a version "v1".
        prefix = "apis" if "/" in api_version else "api"
        with ignored(404), suppress(ResourceNotFoundError):
            return self.resources.get(prefix=prefix, api_version=api_version, kind=kind)
        raise missing_kind(api_version, kind)

    def target(self, wanted: Mapping[str, Any]) -> Target:
        """Returns an object with its namespace, and how the cluster serves its kind."""
        resource = self.resource(wanted["apiVersion"], wanted["kind"])
        metadata = dict(wanted["metadata"])
        if resource.namespaced:
            metadata.setdefault("namespace", self.namespace)
        else:
            metadata.pop("namespace", None)
        place = (metadata["name"], metadata.get("namespace", ""))
        return Target({**wanted, "metadata": metadata}, resource, wanted["kind"], *place)

    def find(self, target: Target) -> Object | None:
        """Returns an object as it is on the cluster, or None if it is not there."""
        place = (target.name, target.namespace)
        with ignored(404):
            return dict(self.get(target.resource, *place, what=target.title).to_dict())
        return None

    def find_all(self, resource: Resource, namespace: str, **selectors: str) -> list[Object]:
        """Returns the objects of a namespace, or of all namespaces if it is empty.

        The selectors are `label_selector` and `field_selector`.
        """
        found = self.get(resource, namespace=namespace, what=resource.kind, **selectors)
        return list(found.to_dict()["items"])

    def apply(self, target: Target, *, force: bool, dry_run: bool) -> Object:
        """Applies an object on the server's side, and returns it as it is now."""
        live = self.server_side_apply(
            target.resource,
            target.wanted,
            namespace=target.namespace,
            force_conflicts=str(force).lower(),
            field_manager=FIELD_MANAGER,
            dry_run="All" if dry_run else None,
            query_params=[("fieldValidation", "Strict")],
            what=target.title,
        )
        return dict(live.to_dict())

    def remove(self, target: Target, propagation: str) -> None:
        """Deletes an object; does nothing if there is none."""
        place = (target.name, target.namespace)
        with ignored(404):
            self.delete(target.resource, *place, propagation_policy=propagation, what=target.title)

    def log(self, pod: str, namespace: str, **query: object) -> str:
        """Returns the log of a pod, by parameters of the API such as `container`."""
        path = self.resource("v1", "Pod").path(pod, namespace) + "/log"
        # As bytes: the client would parse a log that happens to be JSON.
        params = [*query.items()]
        answer = self.request("get", path, query_params=params, serialize=False, what=path)
        return str(answer.data.decode(errors="replace"))

    def request(
        self, method: str, path: str, body: Any = None, *, what: str = "", **params: Any
    ) -> Any:
        """Sends a request, and repeats it after a transient failure.

        The dynamic client sends everything through this method, discovery too. `what` names the
        object in errors. Every request of this package may be repeated.
        """
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: getattr(error, "is_transient", False)),
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=_pause,
            reraise=True,
        )
        return attempts(self._send, what, method, path, body, params)

    def _send(self, what: str, method: str, path: str, body: Any, params: dict[str, Any]) -> Any:
        timeout = (CONNECT_SECONDS, READ_SECONDS)
        try:
            return super().request(method, path, body, _request_timeout=timeout, **params)
        # AttributeError: see _transport_error.
        except (ApiException, HTTPError, AttributeError) as error:
            if isinstance(error, ApiException) and error.status:
                raise _refusal(error, what, self.server) from None
            failed = _transport_error(error)
            if failed is None:
                raise
            # What comes first names an object in memory, or a pool of connections.
            cause = re.sub(r"^(<.*?>|\w+\(.*?\)): ", "", str(failed))
            raise UnreachableError(
                f"the cluster at {self.server} does not answer: {cause}",
                "is it up, and is it the one you mean? --context and --kubeconfig choose another",
                # These two come after a connection was made.
                is_transient=isinstance(failed, ProtocolError | ReadTimeoutError),
            ) from None


def full_name(resource: Resource) -> str:
    """Returns `inferenceservices.serving.kserve.io`, as RBAC and kubectl write a kind."""
    return f"{resource.name}.{resource.group}" if resource.group else str(resource.name)


_growing = tenacity.wait_random_exponential(multiplier=0.25, max=8)


def _pause(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    requested = error.retry_after if isinstance(error, ClusterError) else 0.0
    return max(requested, _growing(state))


def _refusal(error: ApiException, what: str, server: str) -> ClusterError:
    status: Any = {}
    with suppress(ValueError):
        status = json.loads(error.body)
    said = status.get("message") or status.get("reason") if isinstance(status, dict) else None
    after = str((error.headers or {}).get("Retry-After") or "")
    seconds = float(after) if after.isdigit() else 0
    return refused(error.status, str(said or ""), what, server, seconds)


def _transport_error(error: BaseException | None) -> HTTPError | None:
    """Finds the error of the connection behind an error of the client.

    The generated client turns a TLS error into an `ApiException` of status 0 without a body, and
    then fails as it decodes that (kubernetes/client/api_client.py, `e.body.decode`). The error that
    we want to name is still in the chain of contexts.
    """
    while error is not None and not isinstance(error, HTTPError):
        error = error.__context__
    return error
