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
    forwarded: Address | None = None  # on this machine while that command runs


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
    found = [
        Address("outside", url.rstrip("/"), {})
        for url in (status.get("url", ""),)
        if url and not _is_inside(url)
    ]
    inside = (status.get("address") or {}).get("url") or f"http://{name}-predictor.{namespace}"
    found.append(Address("in the cluster", _base(inside), {}))
    predictor = (status.get("components") or {}).get("predictor") or {}
    grpc = predictor.get("grpcUrl") or ""
    # KServe makes this Service in both modes, but kubectl cannot forward to Knative's, which has
    # no selector.
    is_knative = "latestReadyRevision" in predictor
    forward = "" if is_knative else _forward(f"service/{name}-predictor", namespace, 80)
    return Addresses(model, found, urlsplit(grpc).netloc or grpc, forward, _forwarded(forward))


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
    found = [Address("in the cluster", inside, {})]
    return Addresses(node, found, f"{host}:5001", forward, _forwarded(forward))


def _seldon_model(live: Object, model: str) -> Addresses:
    name, namespace = live["metadata"]["name"], live["metadata"]["namespace"]
    headers = {"Seldon-Model": name}
    host = f"seldon-mesh.{namespace}.svc.cluster.local"
    forward = _forward("service/seldon-mesh", namespace, 80)
    found = [Address("in the cluster", f"http://{host}", headers)]
    return Addresses(name, found, f"{host}:80", forward, _forwarded(forward, headers))


def _service(live: Object, model: str) -> Addresses:
    name, namespace = live["metadata"]["name"], live["metadata"]["namespace"]
    ports = {port.get("name"): port for port in live["spec"]["ports"]}
    rest, grpc = ports["http"]["port"], ports.get("grpc", {}).get("port")
    balanced = ((live.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    found = [
        Address("outside", f"http://{_host(entry)}{_port(rest)}", {})
        for entry in balanced
        if _host(entry)
    ]
    host = f"{name}.{namespace}.svc.cluster.local"
    found.append(Address("in the cluster", f"http://{host}{_port(rest)}", {}))
    node_port = ports["http"].get("nodePort")
    if node_port and live["spec"].get("type") == "NodePort":
        found.insert(0, Address("outside, with a node's address", f"http://NODE:{node_port}", {}))
    forward = _forward(f"service/{name}", namespace, rest)
    return Addresses(model, found, f"{host}:{grpc}" if grpc else "", forward, _forwarded(forward))


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


def _host(entry: Object) -> str:
    return str(entry.get("hostname") or entry.get("ip") or "")


def _port(number: int) -> str:
    return "" if number == 80 else f":{number}"


def _forward(what: str, namespace: str, port: int) -> str:
    return f"kubectl port-forward -n {namespace} {what} {FORWARDED_PORT}:{port}"


def _forwarded(forward: str, headers: Mapping[str, str] | None = None) -> Address | None:
    if not forward:
        return None
    return Address("on this machine", f"http://localhost:{FORWARDED_PORT}", headers or {})
