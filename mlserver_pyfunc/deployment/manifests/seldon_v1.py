"""Seldon Core 1: a SeldonDeployment of one node, with a container of ours."""

from __future__ import annotations

from mlserver_pyfunc.definition import kubernetes_names as names
from mlserver_pyfunc.deployment.server_settings import Ports

from . import inline, pod
from .options import ManifestError
from .workload import Object, Platform, Workload, as_object

PLATFORM = Platform("seldon-v1", ("image", "storage", "inline"))
PORTS = Ports(http=9000, grpc=9500, metrics=8082)
"""The ports that Seldon gives the server by its own variables."""
PREDICTOR = "default"


def objects(workload: Workload) -> list[Object]:
    """Returns the objects in the order to apply them."""
    name, explicit = container_name(workload), workload.explicit_name
    if workload.shape == "storage" and explicit not in (None, name):
        raise ManifestError(
            f'model-settings.json: expected no name, or "{name}" as Seldon calls the model, '
            f'got "{explicit}"; remove it'
        )
    return [*inline.config_maps(workload), _deployment(workload)]


def _deployment(workload: Workload) -> Object:
    options = workload.options
    predictor: Object = {
        "name": PREDICTOR,
        "graph": _graph(workload),
        "componentSpecs": [_component(workload)],
    }
    if options.max_replicas is None:
        predictor["replicas"] = options.replicas
    if options.service_name:
        predictor["annotations"] = {"seldon.io/svc-name": options.service_name}
    return as_object(
        "machinelearning.seldon.io/v1",
        "SeldonDeployment",
        workload.metadata(),
        {"protocol": "v2", "predictors": [predictor]},
    )


def _graph(workload: Workload) -> Object:
    # With an `implementation`, Seldon would run its own image. Without one, it runs the container
    # that has the node's name.
    node: Object = {"name": container_name(workload), "type": "MODEL"}
    if workload.shape == "storage":
        node["modelUri"] = workload.storage_uri
        if workload.options.service_account:
            node["serviceAccountName"] = workload.options.service_account
    return node


def container_name(workload: Workload) -> str:
    """Returns the name of the container, which Seldon makes the only name of the model."""
    return names.derived_label(workload.model_name)


def _component(workload: Workload) -> Object:
    variables = {**pod.settings(None), **pod.function_env(workload)}
    if workload.shape == "storage":
        # Seldon sets the URI itself.
        folder = {name: pod.FROM_FOLDER[name] for name in pod.FROM_FOLDER if "URI" not in name}
        variables = {**folder, **variables}
    name, ports = container_name(workload), pod.container_ports(PORTS)
    serving = pod.serving(ports, pod.start_seconds(workload), name, "http")
    maps = inline.names_of_maps(workload)
    parts = pod.containers(workload, name, variables, serving, config_maps=maps)
    digest = inline.digest(workload)
    metadata = {"metadata": {"annotations": digest}} if digest else {}
    return {**metadata, "spec": pod.spec(workload, parts), **_scaling(workload)}


def _scaling(workload: Workload) -> Object:
    options = workload.options
    if options.max_replicas is None:
        return {"pdbSpec": {"maxUnavailable": 1}} if options.replicas > 1 else {}
    resource = {"name": "cpu", "targetAverageUtilization": options.target_cpu}
    return {
        "hpaSpec": {
            "minReplicas": pod.min_replicas(options),
            "maxReplicas": options.max_replicas,
            "metrics": [{"type": "Resource", "resource": resource}],
        },
        "pdbSpec": {"maxUnavailable": 1},
    }
