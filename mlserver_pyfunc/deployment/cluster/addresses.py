"""Where a deployed function answers, found from its objects on the cluster, and how to call it."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from mlserver_pyfunc.definition import FunctionDefinition, examples_of
from mlserver_pyfunc.deployment.server_settings import PORTS

Object = Mapping[str, Any]

FORWARDED_PORT = PORTS.http

_READABLE = 200
"""Number of elements up to which a command is short enough to read."""


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
    service: tuple[str, str, int] | None = None  # namespace, name and port of one to forward to

    @property
    def forward(self) -> str:
        """The kubectl command that forwards a port of this machine; empty if none works."""
        if self.service is None:
            return ""
        namespace, name, port = self.service
        return f"kubectl port-forward -n {namespace} service/{name} {FORWARDED_PORT}:{port}"

    @property
    def forwarded(self) -> Address | None:
        """The address on this machine while `forward` runs."""
        url = f"http://localhost:{FORWARDED_PORT}"
        return Address("on this machine", url, self.rest[-1].headers) if self.service else None

    @property
    def proxy(self) -> str:
        """Path of the API server's proxy to the Service; may be empty."""
        if self.service is None:
            return ""
        return "/api/v1/namespaces/{}/services/{}:{}/proxy".format(*self.service)


def addresses(live: Sequence[Object], model: str) -> Addresses:
    """Finds where a function answers. `model` is its name, unless the platform gives another."""
    for kind, find in _FINDERS.items():
        for each in live:
            if each["kind"] == kind:
                metadata = each["metadata"]
                return find(each, model, metadata["name"], metadata["namespace"])
    return Addresses(model, ())


def curl(definition: FunctionDefinition, model: str, address: Address) -> str:
    """Returns a `curl` command, or `mlserver-pyfunc infer`, which asks the server for the tensors.

    The latter if they are too large to write, or if only the handler's signature tells them.
    """
    required = [tensor for tensor in definition.inputs if not tensor.optional]
    sizes = [math.prod(1 if size == -1 else size for size in t.sizes) for t in required]
    if sum(sizes) > _READABLE or "inputs" not in definition.written:
        words = ["mlserver-pyfunc", "infer", address.url, "-m", model, "--random"]
        for name, value in address.headers.items():
            words += ["--header", f"{name}: {value}"]
        return shlex.join(words)
    headers = {"Content-Type": "application/json", **address.headers}
    words = ["curl", "--fail-with-body", "-sS"]
    for name, value in headers.items():
        words += ["-H", f"{name}: {value}"]
    body = json.dumps({"inputs": examples_of(required)}, ensure_ascii=False)
    url = f"{address.url}/v2/models/{quote(model, safe='')}/infer"
    return shlex.join([*words, "-d", body, url])


def _inference_service(live: Object, model: str, name: str, namespace: str) -> Addresses:
    status = live.get("status") or {}
    url = status.get("url", "")
    found = [Address("outside", url.rstrip("/"), {})] if url and not _is_inside(url) else []
    inside = (status.get("address") or {}).get("url") or f"http://{name}-predictor.{namespace}"
    found.append(Address("in the cluster", _base(inside), {}))
    predictor = (status.get("components") or {}).get("predictor") or {}
    grpc = predictor.get("grpcUrl") or ""
    # KServe makes this Service in both modes, but kubectl cannot forward to Knative's, which has
    # no selector.
    is_knative = "latestReadyRevision" in predictor
    service = None if is_knative else (namespace, f"{name}-predictor", 80)
    return Addresses(model, found, urlsplit(grpc).netloc or grpc, service)


def _seldon_deployment(live: Object, model: str, name: str, namespace: str) -> Addresses:
    predictor = live["spec"]["predictors"][0]
    node = predictor["graph"]["name"]
    given = predictor.get("annotations") or {}
    service = given.get("seldon.io/svc-name") or f"{name}-{predictor['name']}"
    url = ((live.get("status") or {}).get("address") or {}).get("url")
    inside = _base(url) if url else f"http://{service}.{namespace}.svc.cluster.local:8000"
    grpc = f"{urlsplit(inside).hostname}:5001"
    found = [Address("in the cluster", inside, {})]
    return Addresses(node, found, grpc, (namespace, service, 8000))


def _seldon_model(live: Object, model: str, name: str, namespace: str) -> Addresses:
    host = f"seldon-mesh.{namespace}.svc.cluster.local"
    found = [Address("in the cluster", f"http://{host}", {"Seldon-Model": name})]
    return Addresses(name, found, f"{host}:80", (namespace, "seldon-mesh", 80))


def _service(live: Object, model: str, name: str, namespace: str) -> Addresses:
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
    return Addresses(model, found, f"{host}:{grpc}" if grpc else "", (namespace, name, rest))


# By kind; the first kind that the function has is used.
_FINDERS: Mapping[str, Callable[[Object, str, str, str], Addresses]] = {
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
