"""`Deployment`: a function on a Kubernetes cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from mlserver_pyfunc.client import CallError
from mlserver_pyfunc.client.connection import Model
from mlserver_pyfunc.client.rest import RestClient, worded
from mlserver_pyfunc.deployment.cluster.addresses import Addresses, addresses
from mlserver_pyfunc.deployment.cluster.errors import ClusterError

try:
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    from mlserver_pyfunc.deployment.cluster import apply, kubeconfig, pods, waiting
    from mlserver_pyfunc.deployment.cluster.api import Cluster, Target
    from mlserver_pyfunc.deployment.cluster.apply import Applied

    _HAS_CLIENT = True
except ImportError:
    _HAS_CLIENT = False

if TYPE_CHECKING:
    from .function import Function


@dataclass(frozen=True)
class Status:
    """Whether all of a deployment serves, and the state of each object in words."""

    is_ready: bool
    objects: Mapping[str, str]  # by KIND/NAME


class Deployment:
    """The objects of a function on a cluster, which `Function.deploy` returns.

    Each method connects anew, so that a deployment may be kept for long. Each raises `ClusterError`
    if the cluster does not answer or refuses.

    Attributes:
        on_change: Called with each object as it is applied or deleted.
        on_progress: Called with `KIND/NAME` and what the object is doing, while it is waited for.
    """

    def __init__(
        self,
        function: Function,
        platform: str,
        options: Mapping[str, Any],
        kubeconfig: str | Path | None = None,
        context: str | None = None,
    ) -> None:
        self.function = function
        self.platform = platform
        self.options = dict(options)
        self.on_change: Callable[[Applied], object] = lambda one: None
        self.on_progress: Callable[[str, str], object] = lambda title, text: None
        self._kubeconfig = Path(kubeconfig) if kubeconfig else None
        self._context = context
        self._applied: list[Applied] = []
        self.warnings = function.objects(platform, **options).warnings

    def apply(
        self, *, dry_run: bool = False, force: bool = False, **options: Any
    ) -> dict[str, str]:
        """Applies the objects, with these options in place of earlier ones.

        `dry_run` lets the cluster check the objects, and changes nothing. `force` takes over fields
        that others manage.

        Returns:
            `created`, `updated`, `unchanged` or `deleted`, by `KIND/NAME`.
        """
        with self._connected(**options) as (cluster, targets):
            self.options |= {} if dry_run else options
            applied = self._told(apply.apply(cluster, targets, force=force, dry_run=dry_run))
            if dry_run:
                return _changes(applied)
            self._applied = applied
            return _changes(applied + self._told(apply.prune(cluster, self.platform, targets)))

    def wait(self, seconds: float = 600) -> None:
        """Waits until all objects serve, or raises `ClusterError` if one will not."""
        with self._connected() as (cluster, targets):
            applied = self._applied or _found(cluster, targets)
            waiting.until_ready(cluster, applied, seconds, self.on_progress)

    def status(self) -> Status:
        """Looks at the objects as they are now."""
        with self._connected() as (cluster, targets):
            looks = {target.title: waiting.look(cluster, target) for target in targets}
        is_ready = all(is_ready for is_ready, _ in looks.values())
        return Status(is_ready, {title: text for title, (_, text) in looks.items()})

    def logs(self, lines: int = 100) -> str:
        """Returns the last lines that each container of the pods has written."""
        with self._connected() as (cluster, targets):
            return "\n".join(
                f"==> {title} <==\n{text}"
                for one in _found(cluster, targets)
                for title, text in pods.logs(cluster, one.live, lines)
            )

    def addresses(self) -> Addresses:
        """Finds where the function answers."""
        with self._connected() as (cluster, targets):
            return self._addresses(cluster, targets)

    def infer(self, inputs: Any = None, /, **named: Any) -> Any:
        """Calls the function by the API server's proxy, so that no port need be forwarded.

        Raises:
            CallError: The function answers with an error, or does not answer.
        """
        with self._connected() as (cluster, targets):
            found = self._addresses(cluster, targets)
            headers = found.rest[-1].headers if found.rest else {}
            with Model(found.model, partial(_ProxyClient, cluster, found.proxy, headers)) as model:
                return model.infer(inputs, **named)

    def stop(self) -> None:
        """Ends the pods, and keeps the objects: `apply(replicas=1)` starts them again.

        Raises:
            ManifestError: The platform keeps at least one replica.
        """
        self.apply(replicas=0, min_replicas=None, max_replicas=None)

    def delete(self, wait: float = 600, *, force: bool = False) -> dict[str, str]:
        """Removes the objects, and waits until they are gone, for so many seconds.

        `force` removes also objects that this package did not apply.

        Returns:
            `deleted`, `absent`, or `kept` if others use the object, by `KIND/NAME`.
        """
        with self._connected() as (cluster, targets):
            removed = self._told(apply.delete(cluster, targets, force=force, wait=bool(wait)))
            removed += self._told(apply.prune(cluster, self.platform, targets))
            if wait:
                gone = [one for one in removed if one.change == "deleted"]
                waiting.until_gone(cluster, gone, wait, self.on_progress)
        return _changes(removed)

    def __repr__(self) -> str:
        return f"Deployment({self.function.name} on {self.platform}, {self.options})"

    @contextmanager
    def _connected(self, **options: Any) -> Iterator[tuple[Cluster, list[Target]]]:
        if not _HAS_CLIENT:
            hint = 'pip install "mlserver-pyfunc[deploy]"'
            raise ClusterError("the Kubernetes client is not installed", hint)
        objects = self.function.objects(self.platform, **self.options | options).objects
        with closing(kubeconfig.connect(self._kubeconfig, self._context)) as cluster:
            yield cluster, apply.targets(cluster, objects)

    def _told(self, changes: Iterable[Applied]) -> list[Applied]:
        made = []
        for one in changes:
            self.on_change(one)
            made.append(one)
        return made

    def _addresses(self, cluster: Cluster, targets: list[Target]) -> Addresses:
        return addresses([one.live for one in _found(cluster, targets)], self.function.name)


def _found(cluster: Cluster, targets: list[Target]) -> list[Applied]:
    looked = [(one, cluster.find(one)) for one in targets]
    return [Applied(target, live, "unchanged") for target, live in looked if live is not None]


def _changes(made: list[Applied]) -> dict[str, str]:
    return {one.target.title: one.change for one in made}


class _ProxyClient(RestClient):
    """Calls a Service by the proxy of the API server, with the credentials of the kubeconfig."""

    def __init__(self, cluster: Cluster, service: str, headers: Mapping[str, str]) -> None:
        super().__init__(cluster.server)
        if not service:
            raise CallError("the platform gives the function no Service that the proxy can call")
        self._cluster = cluster
        self._service = service
        self._sent = {"Content-Type": "application/json", **headers}

    def _json(self, method: str, path: str, body: bytes | None = None) -> Any:
        try:
            answer = self._cluster.client.call_api(
                self._service + path,
                method,
                header_params=self._sent,
                body=orjson.loads(body) if body else None,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _return_http_data_only=True,
                _request_timeout=60,
            )
        except ApiException as error:
            text = error.body.decode() if isinstance(error.body, bytes) else str(error.body or "")
            raise CallError(worded(text) or str(error.reason), error.status) from None
        except HTTPError as error:
            raise CallError(f"{self._cluster.server} does not answer: {error}") from None
        return orjson.loads(answer.data)
