"""Plain Kubernetes: a Deployment, a Service and what keeps them up."""

from __future__ import annotations

from mlserver_pyfunc.definition.model_settings import IMPLEMENTATION
from mlserver_pyfunc.deployment.server_settings import PORTS

from . import inline, pod
from .names import ManifestError
from .workload import MODELS_DIR, Object, Platform, Workload

PLATFORM = Platform("kubernetes", ("image", "storage", "inline"))
CONTAINER = "mlserver"
SELECTOR = "app.kubernetes.io/instance"


def objects(workload: Workload) -> list[Object]:
    """The objects, in the order to apply them.

    Raises:
        ManifestError: Kubernetes would not run what was asked for.
    """
    options = workload.options
    found = [inline.config_map(workload)] if workload.shape == "inline" else []
    found += [_deployment(workload), _service(workload)]
    if options.max_replicas is not None:
        found.append(_autoscaler(workload))
    if max(options.replicas, options.max_replicas or 0) > 1:
        found.append(_disruption_budget(workload))
    return found


def _deployment(workload: Workload) -> Object:
    options = workload.options
    metadata: Object = {
        "labels": {**workload.metadata()["labels"], **_selector(workload)},
        "annotations": {**pod.scraped(), **options.annotations},
    }
    spec: Object = {
        "selector": {"matchLabels": _selector(workload)},
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
        },
        "template": {"metadata": metadata, "spec": _pod(workload)},
    }
    # The autoscaler's own number would be undone by each apply.
    if options.max_replicas is None:
        spec = {"replicas": options.replicas, **spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": workload.metadata(),
        "spec": spec,
    }


def _pod(workload: Workload) -> Object:
    options = workload.options
    tmp, tmp_mount = pod.tmp(options)
    volumes, mounts = pod.volumes(options.volumes)
    if workload.shape == "storage":
        volume, mount = _models(workload)
        volumes, mounts = [volume, *volumes], [mount, *mounts]
    plain = {**_function(workload), **pod.settings(), **pod.function_env(workload)}
    maps = [inline.name_of(workload)] if workload.shape == "inline" else []
    sources = pod.env_from(options, *maps)
    container = {
        "name": CONTAINER,
        **pod.image(workload),
        "env": pod.env(plain, options),
        **({"envFrom": sources} if sources else {}),
        "ports": pod.ports(),
        "lifecycle": pod.pre_stop(),
        **pod.probes(pod.start_seconds(workload), workload.model_name, "http"),
        "resources": pod.resources(options),
        "securityContext": pod.security(options),
        "volumeMounts": [tmp_mount, *mounts],
    }
    # A server asks nothing of the cluster, unless its account was chosen for that.
    token = {} if options.service_account else {"automountServiceAccountToken": False}
    return {
        **pod.scheduling(options),
        **token,
        "terminationGracePeriodSeconds": pod.grace_seconds(workload),
        "securityContext": pod.pod_security(options),
        "containers": [container],
        "volumes": [tmp, *volumes],
    }


def _models(workload: Workload) -> tuple[Object, Object]:
    if not workload.storage_uri.startswith("pvc://"):
        raise ManifestError(
            f'--storage-uri: expected pvc://CLAIM/PATH, got "{workload.storage_uri}"; '
            "nothing fetches other URIs without KServe or Seldon"
        )
    return pod.claimed_models(workload.storage_uri)


def _function(workload: Workload) -> dict[str, str]:
    name = {"MLSERVER_MODEL_NAME": pod.escaped(workload.model_name)}
    if workload.shape != "storage":
        return name
    return {
        **name,
        "MLSERVER_MODEL_IMPLEMENTATION": IMPLEMENTATION,
        "MLSERVER_MODEL_URI": MODELS_DIR,
        "MLSERVER_MODELS_DIR": MODELS_DIR,
    }


def _service(workload: Workload) -> Object:
    options = workload.options
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": workload.metadata(options.service_name),
        "spec": {
            "type": options.service_type,
            "selector": _selector(workload),
            "ports": [
                {"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"},
                {
                    "name": "grpc",
                    "port": PORTS.grpc,
                    "targetPort": "grpc",
                    "protocol": "TCP",
                    "appProtocol": "kubernetes.io/h2c",
                },
            ],
        },
    }


def _autoscaler(workload: Workload) -> Object:
    options = workload.options
    least = 1 if options.min_replicas is None else options.min_replicas
    if least < 1:
        raise ManifestError("min_replicas: expected 1 or more, got 0")
    target = {"type": "Utilization", "averageUtilization": options.target_cpu}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": workload.metadata(),
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": workload.name,
            },
            "minReplicas": least,
            "maxReplicas": options.max_replicas,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        },
    }


def _disruption_budget(workload: Workload) -> Object:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": workload.metadata(),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": _selector(workload)}},
    }


def _selector(workload: Workload) -> dict[str, str]:
    return {SELECTOR: workload.name}
