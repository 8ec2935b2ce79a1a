"""KServe: an InferenceService, with a runtime or a ConfigMap if the image holds no function."""

from __future__ import annotations

import math
from dataclasses import replace

from mlserver_pyfunc.definition import ServingDefinition
from mlserver_pyfunc.deployment.server_settings import METRICS_PATH, PORTS

from . import inline, pod
from .options import ManifestError, Options
from .workload import Object, Platform, Workload, as_object

# KServe adds to names: Deployments are "NAME-predictor", labels of pods "isvc.NAME-predictor".
PLATFORM = Platform("kserve", ("image", "storage", "inline"), max_name=48, shared=("storage",))
CONTAINER = "kserve-container"
FORMAT = "pyfunc"
POD_LABEL = "serving.kserve.io/inferenceservice"

_START_SECONDS = ServingDefinition().init_timeout + pod.FETCH_SECONDS

KNATIVE_TIMEOUT = 300
"""Seconds after which Knative ends a call by default."""

_STORAGE = ("gs://", "s3://", "pvc://", "http://", "https://", "hf://", "oci://", "hdfs://",
            "webhdfs://", "abfs://")  # fmt: skip
_MODES = {"standard": "RawDeployment", "knative": "Serverless"}


def objects(workload: Workload) -> list[Object]:
    """Returns the objects in the order to apply them."""
    _check(workload)
    options = workload.options
    # Without a limit, KServe's webhook sets one of 1, even below the request.
    limited = options.model_copy(update={"cpu_limit": options.cpu_limit or options.cpu})
    workload = replace(workload, options=limited)
    if workload.shape == "storage":
        found = [_inference_service(workload, _model(workload))]
        if options.with_runtime:
            found.insert(0, _runtime(workload))
    else:
        service = _inference_service(workload, _containers(workload))
        found = [*inline.config_maps(workload), service]
    if options.mode == "standard":
        # Named as the Deployment that KServe makes: a plain Deployment's budget has the bare name.
        pods = {POD_LABEL: workload.name}
        found += pod.selecting(workload, f"{workload.name}-predictor", pods)
    return found


def _inference_service(workload: Workload, predictor: Object) -> Object:
    options = workload.options
    annotations = {"serving.kserve.io/deploymentMode": _MODES[options.mode]}
    if options.mode == "standard":
        # KServe's scraping writes the port of Knative's proxy over MLServer's, in this mode too.
        annotations["serving.kserve.io/enable-prometheus-scraping"] = "false"
        if options.max_replicas is not None:
            by_keda = options.scale_on == "utilization"
            annotations["serving.kserve.io/autoscalerClass"] = "keda" if by_keda else "hpa"
    else:
        deadline = f"{pod.progress_seconds(workload)}s"
        annotations["serving.knative.dev/progress-deadline"] = deadline
    spec: Object = {**_scaling(workload), **pod.scheduling(options)}
    if options.mode == "standard":
        spec["terminationGracePeriodSeconds"] = pod.grace_seconds(workload)
        spec["securityContext"] = pod.pod_security(options)
        spec["deploymentStrategy"] = pod.STRATEGY
    elif workload.definition.serving.timeout > KNATIVE_TIMEOUT:
        spec["timeout"] = math.ceil(workload.definition.serving.timeout)
    return as_object(
        "serving.kserve.io/v1beta1",
        "InferenceService",
        workload.metadata(None, **annotations),
        {"predictor": {**spec, **predictor}},
    )


def _containers(workload: Workload) -> Object:
    """Returns a predictor with a container of its own, which KServe takes as it is."""
    variables = {
        # Without it, KServe takes the container for a server of the first protocol.
        "PROTOCOL": "v2",
        "MLSERVER_MODEL_NAME": pod.escaped(workload.model_name),
        **pod.settings(),
        **pod.function_env(workload),
    }
    serving = _serving(workload.options, pod.start_seconds(workload), workload.model_name)
    maps = inline.names_of_maps(workload)
    parts = pod.containers(workload, CONTAINER, variables, serving, config_maps=maps)
    return {"annotations": {**_metrics(workload.options), **inline.digest(workload)}, **parts}


def _model(workload: Workload) -> Object:
    """Returns a predictor with the function's own settings. A runtime gives the rest."""
    options = workload.options
    variables = pod.function_env(workload)
    model: Object = {
        "modelFormat": {"name": FORMAT},
        # Without these two, KServe looks for a runtime of the first protocol.
        "runtime": workload.runtime_name,
        "protocolVersion": "v2",
        "storageUri": workload.storage_uri,
        "resources": pod.resources(options),
    }
    probes = pod.probes(pod.start_seconds(workload), workload.model_name, PORTS.http)
    if workload.model_name != workload.name:
        variables = {"MLSERVER_MODEL_NAME": pod.escaped(workload.model_name), **variables}
        model |= probes
    elif pod.start_seconds(workload) != _START_SECONDS:
        model["startupProbe"] = probes["startupProbe"]
    mounted = pod.volumes(options)
    lists = {
        **pod.variables_of(variables, options),
        "volumeMounts": [mount for _, mount in mounted],
    }
    model |= {name: entries for name, entries in lists.items() if entries}
    return {"model": model, **({"volumes": [volume for volume, _ in mounted]} if mounted else {})}


def _runtime(workload: Workload) -> Object:
    """Returns a runtime without a function, for any number of services.

    Each service has its own resources, variables and volumes, and the time that its start takes.
    """
    options = workload.options
    own: Object = {"env": {}, "secrets": {}, "env_from": [], "volumes": []}
    shared = replace(workload, options=options.model_copy(update=own))
    variables = {"MLSERVER_MODEL_NAME": pod.TEMPLATE_NAME, **pod.FROM_FOLDER, **pod.settings()}
    serving = _serving(options, _START_SECONDS, pod.TEMPLATE_NAME)
    parts = pod.containers(shared, CONTAINER, variables, serving)
    del parts["containers"][0]["resources"]
    metadata = workload.shared_metadata(workload.runtime_name)
    if options.cluster_runtime:
        metadata.pop("namespace", None)
    return as_object(
        "serving.kserve.io/v1alpha1",
        "ClusterServingRuntime" if options.cluster_runtime else "ServingRuntime",
        metadata,
        {
            "annotations": _metrics(options),
            "supportedModelFormats": [{"name": FORMAT, "version": "1", "autoSelect": True}],
            "protocolVersions": ["v2"],
            **parts,
        },
    )


def _serving(options: Options, seconds: float, model_name: str) -> Object:
    if options.mode == "standard":
        return pod.serving(pod.container_ports(), seconds, model_name, PORTS.http)
    # Knative opens one port, and takes its protocol from the port's name. It allows no lifecycle,
    # because its proxy waits for requests in flight itself.
    name, number = ("h2c", PORTS.grpc) if options.protocol == "grpc" else ("http1", PORTS.http)
    port = {"name": name, "containerPort": number, "protocol": "TCP"}
    return pod.serving([port], seconds, model_name, PORTS.http, lifecycle={})


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
    if options.scale_on == "utilization":
        query, share = pod.utilization(workload)
        metric = {"backend": "prometheus", "serverAddress": options.prometheus, "query": query}
        # KServe passes the value on as KEDA's threshold for one pod.
        external = {"metric": metric, "target": {"type": "Value", "value": share}}
        return {**scaling, "autoScaling": {"metrics": [{"type": "External", "external": external}]}}
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
    if options.mode == "knative" and options.scale_on != "cpu":
        raise ManifestError("--scale-on is for --mode standard: Knative scales by concurrent calls")
    if options.mode == "knative" and options.monitor:
        raise ManifestError("--monitor is for --mode standard: Knative opens no port of metrics")
    if options.scale_on == "utilization" and not options.prometheus:
        raise ManifestError(
            "--scale-on utilization: expected --prometheus, which KEDA asks, got none"
        )
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
        # KServe reads the container as a Go template: `{{x}}` fails, or silently becomes another.
        if "{{" in text:
            raise ManifestError(
                f"{name}: KServe would replace what stands in {{{{ }}}} here; take a secret or a "
                "config map, or --shape image"
            )
