"""A connection to a cluster: requests, retries and what its API offers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLError
from typing import Any
from urllib.parse import quote, urlencode

import tenacity

from .errors import Asked, ClusterError, UnreachableError, missing_kind, refused

Object = dict[str, Any]

ATTEMPTS = 4
CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0

_VERBS = {"GET": "get", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True)
class Resource:
    """A kind, as the cluster's API serves it."""

    api_version: str
    kind: str
    plural: str
    is_namespaced: bool

    @property
    def qualified(self) -> str:
        """`inferenceservices.serving.kserve.io`, as RBAC and kubectl write it."""
        group = self.api_version.rpartition("/")[0]
        return f"{self.plural}.{group}" if group else self.plural

    def path(self, namespace: str, name: str = "") -> str:
        """Of the collection, or of one object."""
        parts = [_group_path(self.api_version)]
        if self.is_namespaced:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name:
            parts.append(quote(name, safe=""))
        return "/".join(parts)


class Cluster:
    """A cluster, and the namespace that objects without one go to.

    Args:
        client: A `kubernetes.client.ApiClient` that repeats nothing by itself.
        namespace: For objects that name none.
    """

    def __init__(self, client: Any, namespace: str) -> None:
        self._client = client
        self._resources: dict[tuple[str, str], Resource] = {}
        self.namespace = namespace
        self.server = str(client.configuration.host)

    def close(self) -> None:
        """Closes its connections."""
        self._client.close()

    def resource(self, api_version: str, kind: str) -> Resource:
        """How the cluster serves a kind.

        Raises:
            ClusterError: It does not.
        """
        if (api_version, kind) not in self._resources:
            self._discover(api_version, kind)
        found = self._resources.get((api_version, kind))
        if found is None:
            raise missing_kind(api_version, kind)
        return found

    def get(self, resource: Resource, name: str, namespace: str = "") -> Object | None:
        """An object; None where there is none."""
        try:
            return self._object_request("GET", resource, name, namespace)
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    def list(self, resource: Resource, namespace: str, query: Mapping[str, str]) -> list[Object]:
        """Objects of a namespace, or of all where it is empty and the kind has one."""
        path = resource.path(namespace)
        if resource.is_namespaced and not namespace:
            path = f"{_group_path(resource.api_version)}/{resource.plural}"
        asked = Asked("list", resource.qualified, resource.kind, namespace, self.server)
        found = json.loads(self._request("GET", path, asked, query=query))
        return list(found.get("items") or ())

    def patch(
        self, resource: Resource, body: Object, namespace: str, query: Mapping[str, str]
    ) -> Object:
        """Server-side apply of an object; returns it as it is now."""
        name = body["metadata"]["name"]
        return self._object_request("PATCH", resource, name, namespace, query=query, body=body)

    def delete(self, resource: Resource, name: str, namespace: str, propagation: str) -> bool:
        """Deletes an object; False where there was none."""
        options = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": propagation}
        try:
            self._object_request("DELETE", resource, name, namespace, body=options)
        except ClusterError as error:
            if error.status == 404:
                return False
            raise
        return True

    def log(self, pod: str, namespace: str, query: Mapping[str, str]) -> str:
        """The log of a container of a pod."""
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(pod, safe='')}/log"
        asked = Asked("get", "pods/log", f'the log of pod "{pod}"', namespace, self.server)
        return self._request("GET", path, asked, query=query).decode(errors="replace")

    def _object_request(
        self,
        method: str,
        resource: Resource,
        name: str,
        namespace: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
    ) -> Object:
        where = (namespace or self.namespace) if resource.is_namespaced else ""
        what = f'{resource.kind} "{name}"'
        asked = Asked(_VERBS[method], resource.qualified, what, where, self.server)
        answer = self._request(method, resource.path(where, name), asked, query=query, body=body)
        found: Object = json.loads(answer)
        return found

    def _discover(self, api_version: str, kind: str) -> None:
        asked = Asked("get", "", f"the API {api_version}", "", self.server)
        try:
            listed = json.loads(self._request("GET", _group_path(api_version), asked))
        except ClusterError as error:
            if error.status == 404:
                raise missing_kind(api_version, kind) from None
            raise
        for entry in listed.get("resources") or ():
            # Such as `deployments/status`.
            if "/" not in entry["name"]:
                key = (api_version, entry["kind"])
                self._resources[key] = Resource(*key, entry["name"], entry["namespaced"])

    def _request(
        self,
        method: str,
        path: str,
        asked: Asked,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
    ) -> bytes:
        """Sends a request, again where that may help: all that are sent here may be repeated."""
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_may_pass),
            stop=tenacity.stop_after_attempt(ATTEMPTS),
            wait=_pause,
            reraise=True,
        )
        return attempts(self._send, method, path, asked, query or {}, body)

    def _send(
        self, method: str, path: str, asked: Asked, query: Mapping[str, str], body: Object | None
    ) -> bytes:
        """Sends a request once, past the client's own calls: those lose the cause of TLS errors."""
        from urllib3 import Timeout
        from urllib3.exceptions import HTTPError

        headers = {"Accept": "application/json, */*", **self._client.default_headers}
        if body is not None:
            headers["Content-Type"] = _CONTENT_TYPES[method]
        self._client.update_params_for_auth(headers, [], ["BearerToken"])
        try:
            answer = self._client.rest_client.pool_manager.request(
                method,
                f"{self.server}{path}" + (f"?{urlencode(query)}" if query else ""),
                body=None if body is None else json.dumps(body),
                headers=headers,
                timeout=Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS),
            )
        except HTTPError as error:
            raise _unreachable(self.server, error) from None
        if not 200 <= answer.status < 300:
            raise _refusal(answer, asked)
        data: bytes = answer.data
        return data


_CONTENT_TYPES = {"PATCH": "application/apply-patch+yaml", "DELETE": "application/json"}


def connect(kubeconfig: Path | None = None, context: str | None = None) -> Cluster:
    """Connects as kubectl would: by a kubeconfig, or by a pod's own service account.

    Args:
        kubeconfig: In place of $KUBECONFIG and ~/.kube/config.
        context: In place of the current one.

    Raises:
        ClusterError: The client is not installed, or there is no configuration to connect by.
    """
    try:
        from kubernetes import client
    except ImportError:
        raise ClusterError(
            "the Kubernetes client is not installed", 'pip install "mlserver-pyfunc[kserve]"'
        ) from None
    from .kubeconfig import configure

    configuration = client.Configuration()
    # Requests are repeated here, by what the answer says.
    configuration.retries = False
    namespace = configure(configuration, kubeconfig, context)
    return Cluster(client.ApiClient(configuration), namespace)


def _group_path(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, ClusterError) and error.may_pass


_growing = tenacity.wait_random_exponential(multiplier=0.25, max=8)


def _pause(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked_for = error.retry_after if isinstance(error, ClusterError) else 0.0
    return max(asked_for, _growing(state))


def _refusal(answer: Any, asked: Asked) -> ClusterError:
    try:
        body = json.loads(answer.data)
    except ValueError:
        body = None
    after = str(answer.headers.get("Retry-After") or "")
    found = body if isinstance(body, dict) else {}
    return refused(answer.status, found, asked, float(after) if after.isdigit() else 0)


def _unreachable(server: str, error: Exception) -> UnreachableError:
    from urllib3.exceptions import ProtocolError, ReadTimeoutError

    return UnreachableError(
        f"the cluster at {server} does not answer: {_cause(error)}",
        "is it up, and is it the one you mean? --context and --kubeconfig choose another",
        # It was connected before it failed.
        may_pass=isinstance(error, ProtocolError | ReadTimeoutError),
    )


def _cause(error: Exception) -> str:
    """`Connection refused` and the like, without the client's object addresses."""
    from urllib3.exceptions import ConnectTimeoutError, NameResolutionError

    if isinstance(error, NameResolutionError):
        return "its name has no address"
    if isinstance(error, ConnectTimeoutError) and not error.__cause__:
        return f"no connection within {CONNECT_SECONDS:g} s"
    reason = error.__cause__ or (error.args[-1] if error.args else error)
    if isinstance(reason, SSLError):
        return str(reason)
    if isinstance(reason, OSError) and reason.errno:
        return os.strerror(reason.errno)
    return str(reason)
