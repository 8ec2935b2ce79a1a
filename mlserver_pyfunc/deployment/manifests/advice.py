"""Warnings about a manifest: what is allowed, but may not be what the user wants."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from mlserver_pyfunc.definition import kubernetes_names as names
from mlserver_pyfunc.definition.model_settings import MODEL_SETTINGS

from .workload import Workload


def warnings(platform: str, workload: Workload) -> Iterator[str]:
    """Yields one line for each warning."""
    image, options, definition = workload.image, workload.options, workload.definition
    serving = definition.serving
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


def _about_kserve(workload: Workload) -> Iterator[str]:
    if workload.model_name != workload.name:
        yield (
            f'clients call "/v2/models/{workload.model_name}", not "{workload.name}" as '
            "KServe's own clients and inference graphs would"
        )


def _about_seldon_v1(workload: Workload) -> Iterator[str]:
    served = names.derived_label(workload.model_name)
    if workload.model_name != served:
        yield f'Seldon names models by containers: "{workload.model_name}" is served as "{served}"'


def _about_seldon_v2(workload: Workload) -> Iterator[str]:
    if workload.options.max_replicas is not None and workload.options.with_runtime:
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
    "kserve": _about_kserve,
    "seldon-v1": _about_seldon_v1,
    "seldon-v2": _about_seldon_v2,
    "kubernetes": lambda _: iter(()),
}
