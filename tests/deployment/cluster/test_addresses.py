"""Where a function answers, by what each platform writes into its objects."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from mlserver_pyfunc.definition import parse
from mlserver_pyfunc.deployment.cluster.addresses import Address, addresses, curl

METADATA = {"name": "iris", "namespace": "models"}
SOURCE = {"code": "def predict(x):\n    return x\n", "handler": "predict"}


def service(kind: str, *, node_port: int | None = None, ingress: Any = ()) -> dict[str, Any]:
    ports = [
        {"name": "http", "port": 80, **({"nodePort": node_port} if node_port else {})},
        {"name": "grpc", "port": 8081},
    ]
    return {
        "kind": "Service",
        "metadata": METADATA,
        "spec": {"type": kind, "ports": ports},
        "status": {"loadBalancer": {"ingress": list(ingress)}},
    }


def test_a_service_of_the_cluster_is_reached_by_forwarding() -> None:
    found = addresses([service("ClusterIP")], "iris")
    assert [one.url for one in found.rest] == ["http://iris.models.svc.cluster.local"]
    assert found.grpc == "iris.models.svc.cluster.local:8081"
    assert found.forward == "kubectl port-forward -n models service/iris 8080:80"
    assert found.forwarded == Address("on this machine", "http://localhost:8080", {})


@pytest.mark.parametrize("entry", [{"ip": "203.0.113.7"}, {"hostname": "203.0.113.7"}])
def test_a_load_balancer_is_reached_from_outside(entry: dict[str, str]) -> None:
    found = addresses([service("LoadBalancer", node_port=30080, ingress=[entry])], "iris")
    assert found.rest[0] == Address("outside", "http://203.0.113.7", {})


def test_a_node_port_needs_a_nodes_address() -> None:
    found = addresses([service("NodePort", node_port=30080)], "iris")
    assert found.rest[0] == Address("outside, with a node's address", "http://NODE:30080", {})


def test_a_knative_service_is_called_by_its_url_and_not_forwarded_to() -> None:
    live = {
        "kind": "InferenceService",
        "metadata": METADATA,
        "status": {
            "url": "https://iris.models.example.com",
            "address": {"url": "http://iris.models.svc.cluster.local/v2/models/iris/infer"},
            "components": {
                "predictor": {
                    "latestReadyRevision": "iris-predictor-00001",
                    "grpcUrl": "grpc://iris-predictor.models.example.com:443",
                }
            },
        },
    }
    found = addresses([live], "iris")
    assert [one.url for one in found.rest] == [
        "https://iris.models.example.com",
        "http://iris.models.svc.cluster.local",
    ]
    assert found.grpc == "iris-predictor.models.example.com:443"
    assert not found.forward
    assert found.forwarded is None


def test_a_url_of_the_cluster_is_not_called_one_from_outside() -> None:
    live = {
        "kind": "InferenceService",
        "metadata": METADATA,
        "status": {"url": "http://iris-predictor.models.svc.cluster.local"},
    }
    assert [one.where for one in addresses([live], "iris").rest] == ["in the cluster"]


@pytest.mark.parametrize(
    ("annotations", "host"),
    [({}, "iris-default"), ({"seldon.io/svc-name": "flowers"}, "flowers")],
)
def test_seldon_1_is_called_by_the_name_of_its_node(annotations: dict[str, str], host: str) -> None:
    predictor = {"name": "default", "graph": {"name": "node"}, "annotations": annotations}
    live = {
        "kind": "SeldonDeployment",
        "metadata": METADATA,
        "spec": {"predictors": [predictor]},
    }
    found = addresses([live], "iris")
    assert found.model == "node"
    assert found.rest[0].url == f"http://{host}.models.svc.cluster.local:8000"
    assert found.grpc == f"{host}.models.svc.cluster.local:5001"


def test_seldon_2_is_called_through_its_mesh_with_a_header() -> None:
    server = {"kind": "Server", "metadata": {"name": "s", "namespace": "models"}}
    live = {"kind": "Model", "metadata": METADATA}
    found = addresses([server, live], "other")
    assert found.model == "iris"
    assert found.rest[0].headers == {"Seldon-Model": "iris"}
    assert found.rest[0].url == "http://seldon-mesh.models.svc.cluster.local"


def test_the_command_has_the_declared_tensors_and_is_quoted_for_a_shell() -> None:
    tensors = [
        {"name": "it's", "datatype": "BYTES", "shape": [-1], "content_type": "str"},
        {"name": "left-out", "datatype": "FP32", "shape": [1], "optional": True},
    ]
    definition = parse({"source": SOURCE, "inputs": tensors, "outputs": tensors[:1]})
    address = Address("outside", "http://h", {"Seldon-Model": "a b"})
    words = shlex.split(curl(definition, "a b", address))
    assert words[0] == "curl"
    assert "Seldon-Model: a b" in words
    assert words[-1] == "http://h/v2/models/a%20b/infer"
    (tensor,) = json.loads(words[words.index("-d") + 1])["inputs"]
    assert tensor["name"] == "it's"
    assert tensor["shape"] == [1]


def test_tensors_too_large_to_be_written_are_made_by_our_own_client() -> None:
    tensors = [{"name": "image", "datatype": "UINT8", "shape": [-1, 224, 224, 3]}]
    definition = parse({"source": SOURCE, "inputs": tensors, "outputs": tensors})
    command = curl(definition, "big", Address("outside", "http://h", {}))
    assert command == "mlserver-pyfunc infer http://h -m big --random"
    through_mesh = curl(definition, "big", Address("outside", "http://h", {"Seldon-Model": "big"}))
    assert shlex.split(through_mesh)[-2:] == ["--header", "Seldon-Model: big"]
