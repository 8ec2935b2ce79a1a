"""Seldon Core 1: a SeldonDeployment of one node, whose container is ours."""

from __future__ import annotations

from mlserver_pyfunc.definition.model_settings import IMPLEMENTATION
from mlserver_pyfunc.deployment.server_settings import Ports

from . import inline, names, pod
from .names import ManifestError
from .workload import MODELS_DIR, Object, Platform, Workload

PLATFORM = Platform("seldon-v1", ("image", "storage", "inline"))
PORTS = Ports(http=9000, grpc=9500, metrics=8082)
"""The ports that Seldon tells the server by its own variables."""
PREDICTOR = "default"


def objects(workload: Workload) -> list[Object]:
    """The objects, in the order to apply them.

    Raises:
        ManifestError: Seldon would not run what was asked for.
    """
    name, explicit = container_name(workload), workload.explicit_name
    if workload.shape == "storage" and explicit not in (None, name):
        raise ManifestError(
            f'model-settings.json: expected no name, or "{name}" as Seldon calls the model, '
            f'got "{explicit}"; remove it'
        )
    deployment = _deployment(workload)
    if workload.shape == "inline":
        return [inline.config_map(workload), deployment]
    return [deployment]


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
    return {
        "apiVersion": "machinelearning.seldon.io/v1",
        "kind": "SeldonDeployment",
        "metadata": workload.metadata(),
        "spec": {"protocol": "v2", "predictors": [predictor]},
    }


def _graph(workload: Workload) -> Object:
    """The node. Without an implementation Seldon takes the container of its name as it is."""
    node: Object = {"name": container_name(workload), "type": "MODEL"}
    if workload.shape == "storage":
        node["modelUri"] = workload.storage_uri
        if workload.options.service_account:
            node["serviceAccountName"] = workload.options.service_account
    return node


def container_name(workload: Workload) -> str:
    """The container's, which Seldon makes the model's name: there is no other."""
    return names.derived_label(workload.model_name)


def _component(workload: Workload) -> Object:
    options = workload.options
    tmp, tmp_mount = pod.tmp(options)
    volumes, mounts = pod.volumes(options.volumes)
    plain = {**_function(workload), **pod.settings(None), **pod.function_env(workload)}
    maps = [inline.name_of(workload)] if workload.shape == "inline" else []
    sources = pod.env_from(options, *maps)
    name = container_name(workload)
    container = {
        "name": name,
        **pod.image(workload),
        "env": pod.env(plain, options),
        **({"envFrom": sources} if sources else {}),
        "ports": pod.ports(PORTS),
        "lifecycle": pod.pre_stop(),
        **pod.probes(pod.start_seconds(workload), name, "http"),
        "resources": pod.resources(options),
        "securityContext": pod.security(options),
        "volumeMounts": [tmp_mount, *mounts],
    }
    component: Object = {
        "spec": {
            **pod.scheduling(options),
            "terminationGracePeriodSeconds": pod.grace_seconds(workload),
            "securityContext": pod.pod_security(options),
            "containers": [container],
            "volumes": [tmp, *volumes],
        }
    }
    return {**component, **_scaling(workload)}


def _function(workload: Workload) -> dict[str, str]:
    if workload.shape != "storage":
        return {}
    return {
        "MLSERVER_MODEL_IMPLEMENTATION": IMPLEMENTATION,
        "MLSERVER_MODELS_DIR": MODELS_DIR,
    }


def _scaling(workload: Workload) -> Object:
    options = workload.options
    if options.max_replicas is None:
        return {"pdbSpec": {"maxUnavailable": 1}} if options.replicas > 1 else {}
    least = 1 if options.min_replicas is None else options.min_replicas
    if least < 1:
        raise ManifestError("min_replicas: expected 1 or more, got 0")
    resource = {"name": "cpu", "targetAverageUtilization": options.target_cpu}
    return {
        "hpaSpec": {
            "minReplicas": least,
            "maxReplicas": options.max_replicas,
            "metrics": [{"type": "Resource", "resource": resource}],
        },
        "pdbSpec": {"maxUnavailable": 1},
    }
