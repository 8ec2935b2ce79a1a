"""Where a deployed function answers, found from its objects on the cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mlserver_pyfunc.deployment.server_settings import PORTS

Object = Mapping[str, Any]

FORWARDED_PORT = PORTS.http


@dataclass(frozen=True)
class Address:
    """A URL for calls by REST."""

    where: str  # from which it can be reached
    url: str  # without /v2
    headers: Mapping[str, str]  # that a call must carry


@dataclass(frozen=True)
class Addresses:
    """Where a function answers."""

    model: str  # name in URLs
    rest: Sequence[Address]  # the one that can be reached from furthest away first
    grpc: str = ""  # HOST:PORT inside the cluster; empty if not known
    forward: str = ""  # kubectl command that forwards a port of this machine; empty if none works

    @property
    def forwarded(self) -> Address | None:
        """The address on this machine while `forward` runs."""
        url = f"http://localhost:{FORWARDED_PORT}"
        return Address("on this machine", url, self.rest[-1].headers) if self.forward else None

    @property
    def proxy(self) -> str:
        """Path of the API server's proxy to the Service that `forward` names; may be empty."""
        if not self.forward:
            return ""
        *_, namespace, service, ports = self.forward.split()
        name, port = service.partition("/")[2], ports.partition(":")[2]
        return f"/api/v1/namespaces/{namespace}/services/{name}:{port}/proxy"


def addresses(live: Mapping[str, Object], model: str) -> Addresses:
    """Finds where a function answers. `model` is its name, unless the platform gives another."""
    for kind, find in _FINDERS.items():
        for each in live.values():
            if each["kind"] == kind:
                return find(each, model)
    return Addresses(model, ())


def _inference_service(live: Object, model: str) -> Addresses:
    status = live.get("status") or {}
    name, namespace = live["metadata"]["name"], live["metadata"]["namespace"]
    url = status.get("url", "")
    found = [Address("outside", url.rstrip("/"), {})] if url and not _is_inside(url) else []
    inside = (status.get("address") or {}).get("url") or f"http://{name}-predictor.{namespace}"
    found.append(Address("in the cluster", _base(inside), {}))
    predictor = (status.get("components") or {}).get("predictor") or {}
    grpc = predictor.get("grpcUrl") or ""
    # KServe makes this Service in both modes, but kubectl cannot forward to Knative's, which has
    # no selector.
    is_knative = "latestReadyRevision" in predictor
    forward = "" if is_knative else _forward(f"service/{name}-predictor", namespace, 80)
    return Addresses(model, found, urlsplit(grpc).netloc or grpc, forward)


def _seldon_deployment(live: Object, model: str) -> Addresses:
    name, namespace = live["metadata"]["name"], live["metadata"]["namespace"]
    predictor = live["spec"]["predictors"][0]
    node = predictor["graph"]["name"]
    given = predictor.get("annotations") or {}
    service = given.get("seldon.io/svc-name") or f"{name}-{predictor['name']}"
    url = ((live.get("status") or {}).get("address") or {}).get("url")
    inside = _base(url) if url else f"http://{service}.{namespace}.svc.cluster.local:8000"
    host = urlsplit(inside).hostname
    forward = _forward(f"service/{service}", namespace, 8000)
    return Addresses(node, [Address("in the cluster", inside, {})], f"{host}:5001", forward)


def _seldon_model(live: Object, model: str) -> Addresses:
    name, namespace = live["metadata"]["name"], live["metadata"]["namespace"]
    host = f"seldon-mesh.{namespace}.svc.cluster.local"
    forward = _forward("service/seldon-mesh", namespace, 80)
    found = [Address("in the cluster", f"http://{host}", {"Seldon-Model": name})]
    return Addresses(name, found, f"{host}:80", forward)


def _service(live: Object, model: str) -> Addresses:
    name, namespace = live["metadata"]["name"], live["metadata"]["namespace"]
    ports = {port.get("name"): port for port in live["spec"]["ports"]}
    rest, grpc = ports["http"]["port"], ports.get("grpc", {}).get("port")
    balanced = ((live.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    hosts = [entry.get("hostname") or entry.get("ip") for entry in balanced]
    port = "" if rest == 80 else f":{rest}"
    found = [Address("outside", f"http://{host}{port}", {}) for host in hosts if host]
    host = f"{name}.{namespace}.svc.cluster.local"
    found.append(Address("in the cluster", f"http://{host}{port}", {}))
    node_port = ports["http"].get("nodePort")
    if node_port and live["spec"].get("type") == "NodePort":
        found.insert(0, Address("outside, with a node's address", f"http://NODE:{node_port}", {}))
    forward = _forward(f"service/{name}", namespace, rest)
    return Addresses(model, found, f"{host}:{grpc}" if grpc else "", forward)


# By kind; the first kind that the function has is used.
_FINDERS: Mapping[str, Callable[[Object, str], Addresses]] = {
    "InferenceService": _inference_service,
    "SeldonDeployment": _seldon_deployment,
    "Model": _seldon_model,
    "Service": _service,
}


def _is_inside(url: str) -> bool:
    return (urlsplit(url).hostname or "").endswith((".svc", ".svc.cluster.local"))


def _base(url: str) -> str:
    """Returns a URL without its path: some platforms give the URL of a call."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _forward(what: str, namespace: str, port: int) -> str:
    return f"kubectl port-forward -n {namespace} {what} {FORWARDED_PORT}:{port}"
