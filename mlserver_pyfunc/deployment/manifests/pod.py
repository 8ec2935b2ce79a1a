"""The parts of a pod that are the same wherever it runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from mlserver_pyfunc.deployment.server_settings import (
    CONTAINER_VARIABLES,
    METRICS_PATH,
    PORTS,
    Ports,
)

from . import names
from .names import ManifestError
from .options import Options, Volume
from .workload import MODELS_DIR, Object, Workload

DRAIN_SECONDS = 20
"""What a server may take to end once its requests are answered: 10 s for calls that nobody waits
for any more, 10 s for `unload_function`."""
PRE_STOP_SECONDS = 5
"""How long a pod still takes requests that were routed before it was known to end."""
_SPARE_SECONDS = 10

FETCH_SECONDS = 600
"""What fetching a source and making an environment may take, before the function is loaded."""
_PERIOD = 5

TEMPLATE_NAME = "{{.Name}}"
"""What KServe replaces by the InferenceService's name, in the container of a runtime."""


# What images of ours have too: another image may not.
_SETTINGS = {
    name: value
    for name, value in CONTAINER_VARIABLES.items()
    if name == "HOME" or name.startswith("MLSERVER_")
}


def settings(ports: Ports | None = PORTS) -> dict[str, str]:
    """The server's own variables; without ports where the platform sets them."""
    return {**(ports.variables() if ports else {}), **_SETTINGS}


def function_env(workload: Workload) -> dict[str, str]:
    """Variables that the function has besides the server's: an image holds its own already.

    Raises:
        ManifestError: One would show a secret.
    """
    built = {} if workload.shape == "image" else workload.definition.build.env
    for name, value in built.items():
        if names.shows_a_secret(name, value):
            raise ManifestError(
                f"build.env: {name} would show a secret in the manifest; leave it out and give "
                f"--secret {name}=SECRET/KEY"
            )
    return {**{name: escaped(value) for name, value in built.items()}, **workload.options.env}


def env(plain: Mapping[str, str], options: Options) -> list[Object]:
    """Variables as a container lists them, secrets by reference."""
    listed: list[Object] = [{"name": name, "value": value} for name, value in plain.items()]
    for name, source in options.secrets.items():
        reference = {"name": source.secret, "key": source.key}
        listed.append({"name": name, "valueFrom": {"secretKeyRef": reference}})
    return listed


def env_from(options: Options, *config_maps: str) -> list[Object]:
    """Secrets and config maps all of whose keys become variables."""
    kinds = {"secret": "secretRef", "configmap": "configMapRef"}
    listed: list[Object] = [{"configMapRef": {"name": name}} for name in config_maps]
    return [*listed, *({kinds[each.kind]: {"name": each.name}} for each in options.env_from)]


def escaped(value: str) -> str:
    """A value that Kubernetes does not expand: it takes `$(NAME)` for another variable."""
    return value.replace("$", "$$") if "$(" in value or "$$" in value else value


def ports(numbers: Ports = PORTS) -> list[Object]:
    """All ports. The first one is what KServe's service exposes as 80, and a name with grpc in
    it makes KServe speak HTTP/2 there."""
    return [
        {"name": "http", "containerPort": numbers.http, "protocol": "TCP"},
        {"name": "grpc", "containerPort": numbers.grpc, "protocol": "TCP"},
        {"name": "metrics", "containerPort": numbers.metrics, "protocol": "TCP"},
    ]


def start_seconds(workload: Workload) -> float:
    """How long a function may take to start."""
    seconds = workload.definition.serving.init_timeout
    return seconds if workload.shape == "image" else seconds + FETCH_SECONDS


def probes(seconds: float, model_name: str, port: int | str) -> Object:
    """Alive as the server says; ready as the model itself says, since the server is ready too
    while no model is loaded.

    Args:
        seconds: That a start may take.
        model_name: To ask for.
        port: Of REST.
    """
    path = model_name if model_name == TEMPLATE_NAME else quote(model_name, safe="")
    ready = {"httpGet": {"path": f"/v2/models/{path}/ready", "port": port}}
    live = {"httpGet": {"path": "/v2/health/live", "port": port}}
    attempts = math.ceil(seconds / _PERIOD) + 6
    return {
        "startupProbe": {
            **ready,
            "periodSeconds": _PERIOD,
            "timeoutSeconds": 5,
            "failureThreshold": attempts,
        },
        "readinessProbe": {
            **ready,
            "periodSeconds": _PERIOD,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "livenessProbe": {
            **live,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
    }


def grace_seconds(workload: Workload) -> int:
    """How long a pod may take to end: requests in flight are answered, up to their limit."""
    timeout = math.ceil(workload.definition.serving.timeout)
    return PRE_STOP_SECONDS + timeout + DRAIN_SECONDS + _SPARE_SECONDS


def pre_stop() -> Object:
    """Goes on serving while the pod is taken out of its services."""
    return {"preStop": {"exec": {"command": ["sleep", str(PRE_STOP_SECONDS)]}}}


def security(options: Options) -> Object:
    """No root, no rights, nothing to write to but what is mounted."""
    found: Object = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if options.run_as_user is not None:
        found["runAsUser"] = options.run_as_user
    return found


def pod_security(options: Options) -> Object:
    """The pod's: volumes belong to the server's group. Containers that the platform adds have
    users of their own."""
    found: Object = {"seccompProfile": {"type": "RuntimeDefault"}}
    if options.run_as_user is not None:
        found["fsGroup"] = options.run_as_user
    return found


def resources(options: Options) -> Object:
    """Requests and limits."""
    requests: Object = {"cpu": options.cpu, "memory": options.memory}
    limits: Object = {"memory": options.memory}
    if options.cpu_limit:
        limits["cpu"] = options.cpu_limit
    if options.gpus:
        requests[options.gpu_resource] = limits[options.gpu_resource] = str(options.gpus)
    return {"requests": requests, "limits": limits}


def tmp(options: Options) -> tuple[Object, Object]:
    """The one folder that can be written to: its volume and its mount."""
    limit = {"sizeLimit": options.tmp_size} if options.tmp_size else {}
    return {"name": "tmp", "emptyDir": limit}, {"name": "tmp", "mountPath": "/tmp"}


def volumes(given: Sequence[Volume]) -> tuple[list[Object], list[Object]]:
    """What the user mounts: volumes and mounts."""
    listed, mounts = [], []
    for index, volume in enumerate(given):
        name = f"volume-{index}"
        listed.append({"name": name, **_source(volume)})
        mount: Object = {"name": name, "mountPath": volume.path}
        if volume.read_only or volume.kind in ("secret", "configmap"):
            mount["readOnly"] = True
        mounts.append(mount)
    return listed, mounts


def claimed_models(uri: str) -> tuple[Object, Object]:
    """A claim's folder as the models folder: `pvc://claim/path`."""
    claim, _, path = uri.removeprefix("pvc://").partition("/")
    volume = {
        "name": "models",
        "persistentVolumeClaim": {"claimName": claim, "readOnly": True},
    }
    mount: Object = {"name": "models", "mountPath": MODELS_DIR, "readOnly": True}
    if path.strip("/"):
        mount["subPath"] = path.strip("/")
    return volume, mount


def scheduling(options: Options) -> Object:
    """Where pods may run, and as whom."""
    found: Object = {}
    if options.service_account:
        found["serviceAccountName"] = options.service_account
    if options.image_pull_secrets:
        found["imagePullSecrets"] = [{"name": name} for name in options.image_pull_secrets]
    if options.node_selector:
        found["nodeSelector"] = dict(options.node_selector)
    if options.tolerations:
        found["tolerations"] = [
            {
                "key": each.key,
                "operator": "Equal" if each.value is not None else "Exists",
                **each.model_dump(exclude={"key"}, exclude_none=True),
            }
            for each in options.tolerations
        ]
    return found


def image(workload: Workload) -> Object:
    """The image and when it is pulled."""
    assert workload.image is not None
    policy = workload.options.image_pull_policy
    return {"image": workload.image.reference, **({"imagePullPolicy": policy} if policy else {})}


def scraped() -> dict[str, str]:
    """Annotations by which Prometheus finds a pod's metrics."""
    return {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(PORTS.metrics),
        "prometheus.io/path": METRICS_PATH,
    }


def _source(volume: Volume) -> Object:
    if volume.kind == "emptydir":
        return {"emptyDir": {}}
    if volume.kind == "secret":
        return {"secret": {"secretName": volume.name}}
    if volume.kind == "configmap":
        return {"configMap": {"name": volume.name}}
    return {
        "persistentVolumeClaim": {
            "claimName": volume.name,
            **({"readOnly": True} if volume.read_only else {}),
        }
    }
