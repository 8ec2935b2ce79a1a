"""What does not fit a platform, and what is allowed but may not be what the user wants."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from mlserver_pyfunc.definition import kubernetes_names as names
from mlserver_pyfunc.definition.model_settings import MODEL_SETTINGS

from . import pod
from .options import ManifestError
from .workload import Workload

# Seldon numbers the pods of a Server, and labels them by its name and a digest.
_MAX_SERVER_NAME = 52
_FETCHED_BY_KSERVE = ("gs://", "s3://", "pvc://", "http://", "https://", "hf://", "oci://",
                      "hdfs://", "webhdfs://", "abfs://")  # fmt: skip


def warnings(platform: str, workload: Workload) -> Iterator[str]:
    """Yields one line for each warning; raises `ManifestError` if the platform cannot serve it."""
    image, options, definition = workload.image, workload.options, workload.definition
    serving = definition.serving
    if platform != "kserve" and options.max_replicas is not None and options.min_replicas == 0:
        raise ManifestError("min_replicas: expected 1 or more, got 0")
    if image and image.why:
        yield f"image {image.reference} is stale: {image.why}; mlserver-pyfunc build makes it anew"
    if image and image.id and "@sha256:" not in image.reference:
        yield (
            f"image {image.reference} was not pushed, so a cluster cannot pull it; "
            "mlserver-pyfunc build --push does"
        )
    python = [f"Python {definition.python_version}"] if definition.python_version else []
    if workload.shape != "image" and (needs := [*python, *definition.requirements]):
        yield (
            f"the function needs {', '.join(needs)}: what the image lacks is installed at each "
            "start, if it has uv and reaches an index; mlserver-pyfunc build puts it into an image"
        )
    if serving.memory_limit and (
        serving.workers * serving.memory_limit > names.amount(options.memory)
    ):
        yield (
            f"{serving.workers} workers may take {serving.memory_limit} bytes each, and the "
            f"container has {options.memory}: --memory gives it more"
        )
    follows = options.scale_on == "cpu" and options.mode == "standard" and options.max_replicas
    wanted = names.amount(options.cpu) * options.target_cpu / 100
    if follows and wanted >= serving.workers:
        yield (
            f"{serving.workers} Python process(es) hardly use {wanted:g} CPUs at once, because of "
            "the GIL, so that the autoscaler may never act: ask for less by --cpu or --target-cpu, "
            "or --scale-on utilization"
        )
    yield from _ABOUT[platform](workload)


def _kserve(workload: Workload) -> Iterator[str]:
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
        _kserve_storage(workload)
    elif options.runtime or options.cluster_runtime or not options.with_runtime:
        raise ManifestError("options of the runtime are for --shape storage: no other has one")
    if workload.model_name != workload.name:
        yield (
            f'clients call "/v2/models/{workload.model_name}", not "{workload.name}" as '
            "KServe's own clients and inference graphs would"
        )


def _kserve_storage(workload: Workload) -> None:
    uri = workload.storage_uri
    if not uri.startswith(_FETCHED_BY_KSERVE):
        listed = ", ".join(_FETCHED_BY_KSERVE)
        raise ManifestError(f'--storage-uri: expected one of {listed}, got "{uri}"')
    texts = {"model_name": workload.model_name, **pod.function_env(workload)}
    for name, text in texts.items():
        # KServe reads the container as a Go template: `{{x}}` fails, or silently becomes another.
        if "{{" in text:
            raise ManifestError(
                f"{name}: KServe would replace what stands in {{{{ }}}} here; take a secret or a "
                "config map, or --shape image"
            )


def _kubernetes(workload: Workload) -> Iterator[str]:
    if workload.shape == "storage" and not workload.storage_uri.startswith("pvc://"):
        raise ManifestError(
            f'--storage-uri: expected pvc://CLAIM/PATH, got "{workload.storage_uri}"; '
            "nothing fetches other URIs without KServe or Seldon"
        )
    yield from ()


def _seldon_v1(workload: Workload) -> Iterator[str]:
    served, explicit = names.derived_label(workload.model_name), workload.explicit_name
    if workload.shape == "storage" and explicit not in (None, served):
        raise ManifestError(
            f'model-settings.json: expected no name, or "{served}" as Seldon calls the model, '
            f'got "{explicit}"; remove it'
        )
    if workload.model_name != served:
        yield f'Seldon names models by containers: "{workload.model_name}" is served as "{served}"'


def _seldon_v2(workload: Workload) -> Iterator[str]:
    options = workload.options
    if len(workload.runtime_name) > _MAX_SERVER_NAME:
        raise ManifestError(
            f'--runtime: expected at most {_MAX_SERVER_NAME} characters, got "{options.runtime}"'
        )
    theirs = sorted({*options.env, *options.secrets}.intersection(pod.SET_BY_SELDON))
    if theirs:
        raise ManifestError(f"env: {theirs[0]} is what Seldon's ServerConfig sets; change it there")
    if options.max_replicas is not None and options.with_runtime:
        yield (
            "Seldon Core 2.6 scales Models only: it does not read a Server's minReplicas and "
            "maxReplicas, so give the Server its replicas by kubectl scale"
        )
    if workload.model_name != workload.name:
        yield f'"{workload.model_name}" is served under the Model\'s name, "{workload.name}"'
    if not (workload.folder / MODEL_SETTINGS).is_file():
        yield (
            f"{workload.storage_uri}: Seldon's agent wants a {MODEL_SETTINGS} there, "
            f"and {workload.folder} has none"
        )


_ABOUT: Mapping[str, Callable[[Workload], Iterator[str]]] = {
    "kserve": _kserve,
    "kubernetes": _kubernetes,
    "seldon-v1": _seldon_v1,
    "seldon-v2": _seldon_v2,
}
