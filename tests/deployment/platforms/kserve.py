"""What KServe makes of an InferenceService in raw deployment mode."""

from __future__ import annotations

import json
import re
from pathlib import Path

from .cluster import NAMESPACE, Cluster, Object
from .merge import merged

CONTAINER = "kserve-container"
MODELS = "/mnt/models"
# Fields of a ServingRuntime's spec that go into the pod.
RUNTIME_FIELDS = ("nodeSelector", "affinity", "tolerations", "volumes", "imagePullSecrets")
# Fields of `predictor` and of `model` that are KServe's own, not the pod's or the container's.
PREDICTOR_FIELDS = {
    "model", "containers", "minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "labels",
    "annotations", "timeout", "canaryTrafficPercent", "containerConcurrency", "deploymentStrategy",
    "logger", "batcher", "autoScaling", "scaleMetricType",
}  # fmt: skip
MODEL_FIELDS = {"modelFormat", "protocolVersion", "runtime", "runtimeVersion", "storage",
                "storageUri", "storageUris"}  # fmt: skip
ACTION = re.compile(r"\{\{-?\s*(.*?)\s*-?\}\}", re.DOTALL)
FIELD = re.compile(r"\.(?:(Name|Namespace)|(Labels|Annotations)\.(\w+))")


class KServeError(Exception):
    """What the InferenceService's status would say."""


def pod(cluster: Cluster) -> Object:
    """The pod of the one InferenceService.

    Raises:
        KServeError: KServe refuses it.
    """
    service = cluster.only("InferenceService")
    predictor = service["spec"]["predictor"]
    spec = {key: value for key, value in predictor.items() if key not in PREDICTOR_FIELDS}
    if "model" in predictor:
        spec, container = _by_runtime(cluster, service, spec)
        _mount_model(cluster, predictor["model"], spec, container)
        others = []
    else:
        container, *others = predictor["containers"]
    if container["name"] != CONTAINER:
        raise KServeError(f'expected a container "{CONTAINER}", got "{container["name"]}"')
    container = {"readinessProbe": _default_probe(container), **container}
    name = service["metadata"]["name"]
    env = [*container.get("env", []), {"name": "INFERENCE_SERVICE_NAME", "value": name}]
    spec["containers"] = [{**container, "env": env}, *others]
    metadata = {"name": f"{name}-predictor", "namespace": NAMESPACE}
    return {"metadata": metadata, "spec": {"terminationGracePeriodSeconds": 30, **spec}}


def _by_runtime(cluster: Cluster, service: Object, spec: Object) -> tuple[Object, Object]:
    model = service["spec"]["predictor"]["model"]
    runtime = _runtime(cluster, model)
    (base,) = [each for each in runtime["containers"] if each["name"] == CONTAINER]
    patch = {key: value for key, value in model.items() if key not in MODEL_FIELDS}
    container = merged(base, patch)
    args = [*base.get("args", []), *patch.get("args", [])]
    if args:
        container["args"] = args
    given = {key: runtime[key] for key in RUNTIME_FIELDS if key in runtime}
    return merged(given, spec), fill_in(container, service["metadata"])


def _runtime(cluster: Cluster, model: Object) -> Object:
    """The runtime that is named, or the one that offers itself for the format."""
    protocol, wanted = model.get("protocolVersion"), model["modelFormat"]["name"]
    kinds = ("ServingRuntime", "ClusterServingRuntime")
    runtimes = [each for each in cluster.objects if each["kind"] in kinds]
    if "runtime" in model:
        runtimes = [each for each in runtimes if each["metadata"]["name"] == model["runtime"]]
    else:
        protocol = protocol or "v1"
    for runtime in runtimes:
        spec: Object = runtime["spec"]
        formats = [
            each
            for each in spec["supportedModelFormats"]
            if each["name"] == wanted and ("runtime" in model or each.get("autoSelect"))
        ]
        if formats and (protocol is None or protocol in spec["protocolVersions"]):
            return spec
    raise KServeError(f'no runtime for format "{wanted}", protocol {protocol}')


def _mount_model(cluster: Cluster, model: Object, spec: Object, container: Object) -> None:
    """What the storage initializer has fetched, read-only."""
    if "storageUri" not in model:
        raise KServeError("no storageUri: taken for a multi-model server")
    folder: Path = cluster.storage[model["storageUri"]]
    name = "kserve-provision-location"
    volume = {"name": name, "hostPath": {"path": str(folder)}}
    spec["volumes"] = [*spec.get("volumes", []), volume]
    mount = {"name": name, "mountPath": MODELS, "readOnly": True}
    container["volumeMounts"] = [*container.get("volumeMounts", []), mount]


def fill_in(container: Object, metadata: Object) -> Object:
    """Go's text/template over the container's JSON, with the InferenceService's metadata.

    Raises:
        KServeError: An action other than a field of the metadata.
    """
    text = json.dumps(container)

    def value(match: re.Match[str]) -> str:
        field = FIELD.fullmatch(match[1])
        if field is None:
            raise KServeError(f"template: container-tmpl: cannot execute {match[0]}")
        if field[1]:
            return str({"namespace": NAMESPACE, **metadata}[field[1].lower()])
        return str(metadata.get(field[2].lower(), {}).get(field[3], "<no value>"))

    filled = ACTION.sub(value, text)
    if "{{" in filled:
        raise KServeError("template: container-tmpl: unclosed action")
    result: Object = json.loads(filled)
    return result


def _default_probe(container: Object) -> Object:
    ports = container.get("ports") or [{"containerPort": 8080}]
    probe = {"timeoutSeconds": 1, "periodSeconds": 10, "failureThreshold": 3}
    return {"tcpSocket": {"port": ports[0]["containerPort"]}, **probe}
