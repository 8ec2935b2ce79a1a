"""What Seldon Core v1's operator makes of a SeldonDeployment with `protocol: v2`."""

from __future__ import annotations

import copy
import json

from .cluster import NAMESPACE, Cluster, Object

HTTP, GRPC, METRICS = 9000, 9500, 6000
MODELS = "/mnt/models"
# The operator's own, where the pod gives none.
USER = 8888
GRACE = 20


class SeldonError(Exception):
    """What the operator's webhook or the scheduler would say."""


def pod(cluster: Cluster) -> Object:
    """The pod of the one predictor of the one SeldonDeployment.

    Raises:
        SeldonError: Seldon refuses it.
    """
    deployment = cluster.only("SeldonDeployment")
    (predictor,) = deployment["spec"]["predictors"]
    node = predictor["graph"]
    (component,) = predictor["componentSpecs"]
    spec = copy.deepcopy(component["spec"])
    if "implementation" in node:
        raise SeldonError(f'"{node["implementation"]}" is no custom image')
    found = [each for each in spec["containers"] if each["name"] == node["name"]]
    if not found:
        raise SeldonError(f'Can\'t find container for Predictive Unit "{node["name"]}"')
    container = found[0]
    _add_ports(container)
    _add_probes(container)
    _add_variables(container, node, deployment)
    if "modelUri" in node:
        name = f"{node['name']}-provision-location"
        folder = str(cluster.storage[node["modelUri"]])
        spec.setdefault("volumes", []).append({"name": name, "hostPath": {"path": folder}})
        mount = {"name": name, "mountPath": MODELS, "readOnly": True}
        container.setdefault("volumeMounts", []).append(mount)
    annotations = {"path": "annotations", "fieldRef": {"fieldPath": "metadata.annotations"}}
    podinfo = {"name": "seldon-podinfo", "downwardAPI": {"items": [annotations]}}
    spec.setdefault("volumes", []).append(podinfo)
    mount = {"name": "seldon-podinfo", "mountPath": "/etc/podinfo"}
    container.setdefault("volumeMounts", []).append(mount)
    spec.setdefault("securityContext", {"runAsUser": USER})
    spec.setdefault("terminationGracePeriodSeconds", GRACE)
    name = f"{deployment['metadata']['name']}-{predictor['name']}-0-{node['name']}"
    return {"metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}


def _port(container: Object, name: str) -> int:
    (found,) = [each for each in container["ports"] if each.get("name") == name]
    return int(found["containerPort"])


def _add_ports(container: Object) -> None:
    """Ports of the names that Seldon knows are kept, others are added."""
    ports = container.setdefault("ports", [])
    names = {each.get("name") for each in ports}
    for name, number in (("http", HTTP), ("grpc", GRPC), ("metrics", METRICS)):
        if name not in names:
            ports.append({"name": name, "containerPort": number})


def _add_probes(container: Object) -> None:
    socket = {"tcpSocket": {"port": _port(container, "http")}, "periodSeconds": 5}
    container.setdefault("livenessProbe", {**socket, "initialDelaySeconds": 60})
    container.setdefault("readinessProbe", {**socket, "initialDelaySeconds": 20})
    sleep = {"exec": {"command": ["/bin/sh", "-c", "/bin/sleep 10"]}}
    container.setdefault("lifecycle", {"preStop": sleep})


def _add_variables(container: Object, node: Object, deployment: Object) -> None:
    env = container.setdefault("env", [])
    given = {each["name"] for each in env}
    http, grpc = str(_port(container, "http")), str(_port(container, "grpc"))
    defaults = {
        "PREDICTIVE_UNIT_SERVICE_PORT": http,
        "PREDICTIVE_UNIT_HTTP_SERVICE_PORT": http,
        "MLSERVER_HTTP_PORT": http,
        "PREDICTIVE_UNIT_GRPC_SERVICE_PORT": grpc,
        "MLSERVER_GRPC_PORT": grpc,
    }
    if node.get("parameters"):
        defaults["PREDICTIVE_UNIT_PARAMETERS"] = json.dumps(node["parameters"])
    if node.get("modelUri"):
        defaults["MLSERVER_MODEL_URI"] = MODELS
    # The last of a name is the one that counts: these are set whatever was given.
    forced = {
        "PREDICTIVE_UNIT_ID": container["name"],
        "MLSERVER_MODEL_NAME": container["name"],
        "PREDICTIVE_UNIT_IMAGE": container["image"],
        "SELDON_DEPLOYMENT_ID": deployment["metadata"]["name"],
        "MLSERVER_METRICS_PORT": str(_port(container, "metrics")),
        "MLSERVER_METRICS_ENDPOINT": "/prometheus",
    }
    added = {name: value for name, value in defaults.items() if name not in given}
    env += [{"name": name, "value": value} for name, value in {**added, **forced}.items()]
