"""KServe: an InferenceService, with a runtime or a ConfigMap where the image holds no function."""

from __future__ import annotations

import math

from mlserver_pyfunc.definition import ServingDefinition
from mlserver_pyfunc.definition.model_settings import IMPLEMENTATION
from mlserver_pyfunc.deployment.server_settings import METRICS_PATH, PORTS

from . import inline, pod
from .names import ManifestError
from .options import Options
from .workload import MODELS_DIR, SHARED_NAME, Object, Platform, Workload

# Its Deployment is "NAME-predictor", and a label of the pods "isvc.NAME-predictor".
PLATFORM = Platform("kserve", ("image", "storage", "inline"), max_name=48, shared=("storage",))
CONTAINER = "kserve-container"
FORMAT = "pyfunc"

_START_SECONDS = ServingDefinition().init_timeout + pod.FETCH_SECONDS

KNATIVE_TIMEOUT = 300
"""Seconds after which Knative ends a call, unless it is told another number."""

_STORAGE = ("gs://", "s3://", "pvc://", "http://", "https://", "hf://", "oci://", "hdfs://",
            "webhdfs://", "abfs://")  # fmt: skip
_MODES = {"standard": "RawDeployment", "knative": "Serverless"}


def objects(workload: Workload) -> list[Object]:
    """The objects, in the order to apply them.

    Raises:
        ManifestError: KServe would not run what was asked for.
    """
    _check(workload)
    if workload.shape == "storage":
        service = _inference_service(workload, _model(workload))
        return [_runtime(workload), service] if workload.options.with_runtime else [service]
    service = _inference_service(workload, _containers(workload))
    if workload.shape == "inline":
        return [inline.config_map(workload), service]
    return [service]


def _inference_service(workload: Workload, predictor: Object) -> Object:
    options = workload.options
    annotations = {"serving.kserve.io/deploymentMode": _MODES[options.mode]}
    if options.mode == "standard":
        # KServe would write the port of Knative's proxy over ours.
        annotations["serving.kserve.io/enable-prometheus-scraping"] = "false"
        if options.max_replicas is not None:
            annotations["serving.kserve.io/autoscalerClass"] = "hpa"
    spec: Object = {**_scaling(workload), **pod.scheduling(options)}
    if options.mode == "standard":
        spec["terminationGracePeriodSeconds"] = pod.grace_seconds(workload)
        spec["securityContext"] = pod.pod_security(options)
    elif workload.definition.serving.timeout > KNATIVE_TIMEOUT:
        spec["timeout"] = math.ceil(workload.definition.serving.timeout)
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": workload.metadata(None, **annotations),
        "spec": {"predictor": {**spec, **predictor}},
    }


def _containers(workload: Workload) -> Object:
    """A predictor with a container of its own: nothing is merged into it and nothing replaced."""
    options = workload.options
    tmp, tmp_mount = pod.tmp(options)
    volumes, mounts = pod.volumes(options.volumes)
    plain = {
        # Without it KServe takes the container for one of the first protocol.
        "PROTOCOL": "v2",
        "MLSERVER_MODEL_NAME": pod.escaped(workload.model_name),
        **pod.settings(),
        **pod.function_env(workload),
    }
    maps = [inline.name_of(workload)] if workload.shape == "inline" else []
    sources = pod.env_from(options, *maps)
    container = {
        "name": CONTAINER,
        **pod.image(workload),
        "env": pod.env(plain, options),
        **({"envFrom": sources} if sources else {}),
        "ports": _ports(options),
        **_lifecycle(options),
        **_probes(pod.start_seconds(workload), workload.model_name),
        "resources": pod.resources(options),
        "securityContext": pod.security(options),
        "volumeMounts": [tmp_mount, *mounts],
    }
    return {
        "annotations": _metrics(options),
        "containers": [container],
        "volumes": [tmp, *volumes],
    }


def _model(workload: Workload) -> Object:
    """A predictor that a runtime completes: what is the function's own stands here."""
    options = workload.options
    volumes, mounts = pod.volumes(options.volumes)
    sources = pod.env_from(options)
    plain = pod.function_env(workload)
    model: Object = {
        "modelFormat": {"name": FORMAT},
        # Without these two KServe looks for a runtime of the first protocol.
        "runtime": _runtime_name(workload),
        "protocolVersion": "v2",
        "storageUri": workload.storage_uri,
        "resources": pod.resources(options),
    }
    seconds = pod.start_seconds(workload)
    if workload.model_name != workload.name:
        plain = {"MLSERVER_MODEL_NAME": pod.escaped(workload.model_name), **plain}
        model |= _probes(seconds, workload.model_name)
    elif seconds != _START_SECONDS:
        model["startupProbe"] = _probes(seconds, workload.model_name)["startupProbe"]
    listed = pod.env(plain, options)
    if listed:
        model["env"] = listed
    if sources:
        model["envFrom"] = sources
    if mounts:
        model["volumeMounts"] = mounts
    return {"model": model, **({"volumes": volumes} if volumes else {})}


def _runtime(workload: Workload) -> Object:
    """A runtime with no function inside, for any number of services: each says itself what it
    takes, and how long its start does."""
    options = workload.options
    tmp, mount = pod.tmp(options)
    plain = {
        "MLSERVER_MODEL_NAME": pod.TEMPLATE_NAME,
        "MLSERVER_MODEL_IMPLEMENTATION": IMPLEMENTATION,
        "MLSERVER_MODEL_URI": MODELS_DIR,
        "MLSERVER_MODELS_DIR": MODELS_DIR,
        **pod.settings(),
    }
    container = {
        "name": CONTAINER,
        **pod.image(workload),
        "env": pod.env(plain, Options()),
        "ports": _ports(options),
        **_lifecycle(options),
        **_probes(_START_SECONDS, pod.TEMPLATE_NAME),
        "securityContext": pod.security(options),
        "volumeMounts": [mount],
    }
    metadata = workload.shared_metadata(_runtime_name(workload))
    if options.cluster_runtime:
        metadata.pop("namespace", None)
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ClusterServingRuntime" if options.cluster_runtime else "ServingRuntime",
        "metadata": metadata,
        "spec": {
            "annotations": _metrics(options),
            "supportedModelFormats": [{"name": FORMAT, "version": "1", "autoSelect": True}],
            "protocolVersions": ["v2"],
            "containers": [container],
            "volumes": [tmp],
        },
    }


def _runtime_name(workload: Workload) -> str:
    return workload.options.runtime or SHARED_NAME


def _ports(options: Options) -> list[Object]:
    if options.mode == "standard":
        return pod.ports()
    # Knative opens one port, and takes its protocol from the port's name.
    if options.protocol == "grpc":
        return [{"name": "h2c", "containerPort": PORTS.grpc, "protocol": "TCP"}]
    return [{"name": "http1", "containerPort": PORTS.http, "protocol": "TCP"}]


def _probes(seconds: float, model_name: str) -> Object:
    return pod.probes(seconds, model_name, PORTS.http)


def _lifecycle(options: Options) -> Object:
    # Knative allows none: its proxy does the same.
    return {"lifecycle": pod.pre_stop()} if options.mode == "standard" else {}


def _metrics(options: Options) -> dict[str, str]:
    ours = {
        "prometheus.kserve.io/port": str(PORTS.metrics),
        "prometheus.kserve.io/path": METRICS_PATH,
    }
    return {**pod.scraped(), **ours} if options.mode == "standard" else ours


def _scaling(workload: Workload) -> Object:
    options = workload.options
    if options.max_replicas is None:
        return {"minReplicas": options.replicas, "maxReplicas": max(options.replicas, 1)}
    least = 1 if options.min_replicas is None else options.min_replicas
    scaling: Object = {"minReplicas": least, "maxReplicas": options.max_replicas}
    if options.mode == "standard":
        return {**scaling, "scaleMetric": "cpu", "scaleTarget": options.target_cpu}
    serving = workload.definition.serving
    calls = serving.concurrency * serving.workers
    return {**scaling, "scaleMetric": "concurrency", "scaleTarget": calls}


def _check(workload: Workload) -> None:
    options = workload.options
    if options.mode == "standard" and 0 in (options.min_replicas, options.replicas):
        raise ManifestError("replicas: expected 1 or more, got 0; --mode knative scales to zero")
    if options.mode == "standard" and options.protocol != "rest":
        raise ManifestError("--protocol is for --mode knative: else both have a port")
    if "PYTHONPATH" in {*options.env, *options.secrets}:
        raise ManifestError("env: KServe refuses PYTHONPATH; build an image that sets it")
    if workload.shape == "storage":
        _check_storage(workload)
    elif options.runtime or options.cluster_runtime or not options.with_runtime:
        raise ManifestError("options of the runtime are for --shape storage: no other has one")


def _check_storage(workload: Workload) -> None:
    uri = workload.storage_uri
    if not uri.startswith(_STORAGE):
        raise ManifestError(f'--storage-uri: expected one of {", ".join(_STORAGE)}, got "{uri}"')
    texts = {"model_name": workload.model_name, **pod.function_env(workload)}
    for name, text in texts.items():
        # KServe makes a Go template of the container: `{{x}}` fails there, or changes silently.
        if "{{" in text:
            raise ManifestError(
                f"{name}: KServe would replace what stands in {{{{ }}}} here; take a secret or a "
                "config map, or --shape image"
            )
