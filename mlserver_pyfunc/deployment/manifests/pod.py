"""The parts of a pod that are the same on every platform."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote

from mlserver_pyfunc.definition import kubernetes_names as names
from mlserver_pyfunc.definition.deployment import Volume
from mlserver_pyfunc.definition.model_settings import IMPLEMENTATION
from mlserver_pyfunc.deployment.server_settings import (
    CONTAINER_VARIABLES,
    METRICS_PATH,
    PART_SECONDS,
    PORTS,
    Ports,
)

from .options import ManifestError, Options
from .workload import MODELS_DIR, Object, Workload, as_object

DRAIN_SECONDS = 20
"""Time that a server may take to end after its last answer: see docs/operations.md, Draining."""
PRE_STOP_SECONDS = 5
"""Time that a pod goes on serving while the cluster stops sending requests to it."""
_SPARE_SECONDS = 10

FETCH_SECONDS = 600
"""Time that fetching a source and making an environment may take before the function is loaded."""
PULL_SECONDS = 300
"""Time that a node may take to get a pod and to pull its image."""
_PERIOD = 5

STRATEGY = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
"""Starts a new pod before an old one ends."""

TEMPLATE_NAME = "{{.Name}}"
"""KServe replaces it by the InferenceService's name, in the container of a runtime."""

FROM_FOLDER = {
    "MLSERVER_MODEL_IMPLEMENTATION": IMPLEMENTATION,
    "MLSERVER_MODEL_URI": MODELS_DIR,
    "MLSERVER_MODELS_DIR": MODELS_DIR,
}
"""Variables of a server whose function is in the folder of models."""

# Our images set these too, but the user may choose an image of another kind.
_SETTINGS = {
    name: value
    for name, value in CONTAINER_VARIABLES.items()
    if name == "HOME" or name.startswith("MLSERVER_")
}


def settings(ports: Ports | None = PORTS) -> dict[str, str]:
    """Returns the server's own variables, with ports unless the platform sets them."""
    return {**(ports.variables() if ports else {}), **_SETTINGS}


def containers(
    workload: Workload,
    name: str,
    variables: Mapping[str, str],
    serving: Mapping[str, object],
    *,
    config_maps: Sequence[str] = (),
    models: Sequence[tuple[Object, Object]] = (),
) -> Object:
    """Returns the `containers` and `volumes` of a pod that runs the server.

    `variables` are the plain ones, to which those from secrets are added. `serving` is the result
    of the function `serving`, or empty if the platform sets ports and probes. Each key of the
    ConfigMaps becomes a variable. `models` has the volumes of models, each with its mount.
    """
    options = workload.options
    mounted = [
        ({"name": "tmp", "emptyDir": {}}, {"name": "tmp", "mountPath": "/tmp"}),
        *models,
        *volumes(options),
    ]
    assert workload.image is not None
    policy = {"imagePullPolicy": options.image_pull_policy} if options.image_pull_policy else {}
    container = {
        "name": name,
        "image": workload.image.reference,
        **policy,
        **variables_of(variables, options, config_maps),
        **serving,
        "resources": resources(options),
        "securityContext": _security(options),
        "volumeMounts": [mount for _, mount in mounted],
    }
    return {"containers": [container], "volumes": [volume for volume, _ in mounted]}


def spec(workload: Workload, parts: Object, extra: Mapping[str, object] | None = None) -> Object:
    """Returns the specification of a pod, made of the result of `containers`."""
    return {
        **scheduling(workload.options),
        **(extra or {}),
        "terminationGracePeriodSeconds": grace_seconds(workload),
        "securityContext": pod_security(workload.options),
        **parts,
    }


def function_env(workload: Workload) -> dict[str, str]:
    """Returns variables of the function. An image has those of the definition already."""
    built = {} if workload.shape == "image" else workload.definition.build.env
    for name, value in built.items():
        if names.shows_a_secret(name, value):
            raise ManifestError(
                f"build.env: {name} would show a secret in the manifest; leave it out and give "
                f"--secret {name}=SECRET/KEY"
            )
    return {**{name: escaped(value) for name, value in built.items()}, **workload.options.env}


def variables_of(
    plain: Mapping[str, str], options: Options, config_maps: Iterable[str] = ()
) -> Object:
    """Returns `env`, and `envFrom` if it is not empty, of a container. Secrets stay references."""
    env: list[Object] = [{"name": name, "value": value} for name, value in plain.items()]
    for name, source in options.secrets.items():
        reference = {"name": source.secret, "key": source.key}
        env.append({"name": name, "valueFrom": {"secretKeyRef": reference}})
    kinds = {"secret": "secretRef", "configmap": "configMapRef"}
    sources: list[Object] = [{"configMapRef": {"name": name}} for name in config_maps]
    sources += [{kinds[each.kind]: {"name": each.name}} for each in options.env_from]
    return {"env": env, **({"envFrom": sources} if sources else {})}


def escaped(value: str) -> str:
    """Escapes a value in which Kubernetes would replace `$(NAME)` by another variable."""
    return value.replace("$", "$$") if "$(" in value or "$$" in value else value


def serving(
    ports: Sequence[Object],
    seconds: float,
    model_name: str,
    port: int | str,
    lifecycle: Mapping[str, object] | None = None,
) -> Object:
    """Returns the ports, the lifecycle (by default this hook) and the probes of a container."""
    # The pod serves on during the sleep, while services stop sending requests to it.
    sleep = {"preStop": {"exec": {"command": ["sleep", str(PRE_STOP_SECONDS)]}}}
    return {
        "ports": ports,
        **({"lifecycle": sleep} if lifecycle is None else lifecycle),
        **probes(seconds, model_name, port),
    }


def container_ports(numbers: Ports = PORTS) -> list[Object]:
    """Returns all ports of a container. KServe goes by their order and names: docs/kserve.md."""
    return [
        {"name": name, "containerPort": number, "protocol": "TCP"}
        for name, number in vars(numbers).items()
    ]


def start_seconds(workload: Workload) -> float:
    """Returns how long a function may take to start."""
    seconds = workload.definition.serving.init_timeout
    return seconds if workload.shape == "image" else seconds + FETCH_SECONDS


def probes(seconds: float, model_name: str, port: int | str) -> Object:
    """Returns the probes of a container (docs/operations.md) that may take `seconds` to start."""
    path = model_name if model_name == TEMPLATE_NAME else quote(model_name, safe="")
    attempts = _attempts(seconds)

    def probe(path: str, period: int, failures: int) -> Object:
        times = {"periodSeconds": period, "timeoutSeconds": 5, "failureThreshold": failures}
        return {"httpGet": {"path": path, "port": port}, **times}

    return {
        "startupProbe": probe(f"/v2/models/{path}/ready", _PERIOD, attempts),
        "readinessProbe": probe(f"/v2/models/{path}/ready", _PERIOD, 3),
        "livenessProbe": probe("/v2/health/live", 10, 6),
    }


def progress_seconds(workload: Workload) -> int:
    """Returns how long a rollout may take for one pod: longer than the startup probe waits."""
    return _attempts(start_seconds(workload)) * _PERIOD + PULL_SECONDS


def _attempts(seconds: float) -> int:
    return math.ceil(seconds / _PERIOD) + 6


def grace_seconds(workload: Workload) -> int:
    """Returns how long a pod may take to end, so that requests in flight reach their time limit."""
    timeout = math.ceil(workload.definition.serving.timeout)
    return PRE_STOP_SECONDS + PART_SECONDS + timeout + DRAIN_SECONDS + _SPARE_SECONDS


def _security(options: Options) -> Object:
    found: Object = {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    if options.user_id is not None:
        found["runAsUser"] = options.user_id
    return found


def pod_security(options: Options) -> Object:
    """Returns a pod's security context, without a user: docs/operations.md says why."""
    found: Object = {"seccompProfile": {"type": "RuntimeDefault"}}
    if options.user_id is not None:
        found["fsGroup"] = options.user_id
    return found


def resources(options: Options) -> Object:
    """Returns the requests and limits of a container."""
    requests: Object = {"cpu": options.cpu, "memory": options.memory}
    limits: Object = {"memory": options.memory}
    if options.cpu_limit:
        limits["cpu"] = options.cpu_limit
    if options.gpus:
        requests[options.gpu_resource] = limits[options.gpu_resource] = str(options.gpus)
    return {"requests": requests, "limits": limits}


def volumes(options: Options) -> list[tuple[Object, Object]]:
    """Returns the volumes of the user, each with its mount."""
    found = []
    for index, volume in enumerate(options.volumes):
        name = f"volume-{index}"
        mount: Object = {"name": name, "mountPath": volume.path}
        if volume.read_only or volume.kind in ("secret", "configmap"):
            mount["readOnly"] = True
        found.append(({"name": name, **_source(volume)}, mount))
    return found


def scheduling(options: Options) -> Object:
    """Returns where pods may run, and under which account."""
    tolerations = [
        {
            "key": each.key,
            "operator": "Equal" if each.value is not None else "Exists",
            **each.model_dump(exclude={"key"}, exclude_none=True),
        }
        for each in options.tolerations
    ]
    given = {
        "serviceAccountName": options.service_account,
        "imagePullSecrets": [{"name": name} for name in options.image_pull_secrets],
        "nodeSelector": dict(options.node_selector),
        "tolerations": tolerations,
    }
    return {name: value for name, value in given.items() if value}


def selecting(workload: Workload, name: str, labels: dict[str, str]) -> list[Object]:
    """Returns the disruption budget and the monitor of pods with labels, each if needed."""
    options, chosen, found = workload.options, {"selector": {"matchLabels": labels}}, []
    metadata = workload.metadata(name)
    if max(options.replicas, options.max_replicas or 0) > 1:
        budget = {"maxUnavailable": 1, **chosen}
        found.append(as_object("policy/v1", "PodDisruptionBudget", metadata, budget))
    if options.monitor:
        monitor = {**chosen, "podMetricsEndpoints": [{"port": "metrics", "path": METRICS_PATH}]}
        found.append(as_object("monitoring.coreos.com/v1", "PodMonitor", metadata, monitor))
    return found


def utilization(workload: Workload) -> tuple[str, str]:
    """Returns the query of Prometheus for the utilization of all pods, and its target for each."""
    options = workload.options
    # The namespace in the metric is that of the pod, if Prometheus adds it as its operator does.
    namespace = f',namespace="{options.namespace}"' if options.namespace else ""
    now = f"sum(pyfunc_utilization{{model={json.dumps(workload.model_name)}{namespace}}})"
    # docs/kserve.md says why averaged. An average for each pod would count ended ones, too.
    return f"avg_over_time({now}[1m:15s])", f"{options.target_utilization / 100:g}"


def min_replicas(options: Options) -> int:
    """Returns the lower bound of autoscaling, which only Knative scales to zero."""
    if options.min_replicas == 0:
        raise ManifestError("min_replicas: expected 1 or more, got 0")
    return options.min_replicas or 1


def scraped() -> dict[str, str]:
    """Returns the annotations by which Prometheus finds a pod's metrics."""
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
    read_only = {"readOnly": True} if volume.read_only else {}
    return {"persistentVolumeClaim": {"claimName": volume.name, **read_only}}
