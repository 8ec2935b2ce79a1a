"""The configuration and the statistics of a model, in the JSON form of Triton's messages.

Models of this runtime are described by their definition and counted by this package's metrics.
Models of other runtimes are described by their metadata and counted by MLServer's metrics.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mlserver.handlers import DataPlane
from mlserver.types import Datatype

from mlserver_pyfunc.definition import BatchDefinition
from mlserver_pyfunc.hosts.mlserver import models
from mlserver_pyfunc.protocol.contract import TensorSpec
from mlserver_pyfunc.serving.metrics import Counts, Measured, metrics_of

from .messages import DATA_TYPES, DURATIONS, UNKNOWN_TYPE

EXTENSIONS = ("model_configuration", "statistics")
"""Triton's names of the extensions, for the server's metadata."""

Document = dict[str, Any]


async def model_config(data_plane: DataPlane, name: str, version: str | None) -> Document:
    """Returns the configuration of a model."""
    metadata = await data_plane.model_metadata(name, version)
    config: Document = {"name": name, "platform": metadata.platform, "max_batch_size": 0}
    model: Any = await data_plane._model_registry.get_model(name, version)
    if models.is_pyfunc(model) and model.definition is not None:
        return config | _function_config(model)
    for field, tensors in (("input", metadata.inputs), ("output", metadata.outputs)):
        config[field] = [
            _tensor(t.name, Datatype(t.datatype).value, t.shape) for t in tensors or ()
        ]
    return config


async def model_statistics(data_plane: DataPlane, name: str, version: str | None) -> Document:
    """Returns the statistics of a model, or of all models if the name is empty."""
    registry = data_plane._model_registry
    if name:
        chosen = [await registry.get_model(name, version)]
    else:
        registered = await registry.get_models()
        chosen = sorted(registered, key=lambda model: (model.name, model.version or ""))
    return {"model_stats": [await _statistics(data_plane, model) for model in chosen]}


def _function_config(model: Any) -> Document:
    definition = model.definition
    batch: BatchDefinition | None = definition.serving.batch
    config: Document = {"model_transaction_policy": {"decoupled": model.streams}}
    # Triton leaves the axis of the batch out of the dimensions, if it makes the batches.
    first = 1 if batch else 0
    for field, tensors in (("input", definition.inputs), ("output", definition.outputs)):
        specs: list[TensorSpec] = [tensor.spec for tensor in tensors]
        config[field] = [_tensor(s.name, s.datatype.name, s.shape[first:]) for s in specs]
        if field == "input":
            for shown, spec in zip(config[field], specs, strict=True):
                shown["optional"] = spec.optional
    if batch:
        config["max_batch_size"] = batch.max_size
        config["dynamic_batching"] = {
            "max_queue_delay_microseconds": round(batch.max_delay_ms * 1000)
        }
    return config


def _tensor(name: str, datatype: str, shape: Iterable[int]) -> Document:
    data_type = DATA_TYPES.get(datatype, UNKNOWN_TYPE)
    return {"name": name, "data_type": data_type, "dims": list(shape)}


async def _statistics(data_plane: DataPlane, model: Any) -> Document:
    if models.is_pyfunc(model):
        counts = metrics_of(model.name, model.version).counts()
    else:
        counts = await _host_counts(data_plane, model)
    succeeded, queued, batches = counts.succeeded, counts.queued, counts.batches
    handled = Measured(succeeded.count, max(succeeded.total - queued.total, 0.0))
    durations = dict.fromkeys(DURATIONS, Measured()) | {
        "success": succeeded,
        "fail": counts.failed,
        "queue": queued,
        "compute_infer": handled,
    }
    return {
        "name": model.name,
        "version": model.version or "",
        "inference_count": int(batches.total) or succeeded.count,
        "execution_count": batches.count or succeeded.count,
        "inference_stats": {
            name: {"count": measured.count, "ns": round(measured.total * 1e9)}
            for name, measured in durations.items()
        },
    }


async def _host_counts(data_plane: DataPlane, model: Any) -> Counts:
    """Returns what MLServer has counted for a model of another runtime.

    MLServer counts by the version that requests ask for: a version, "" or "None". It measures the
    time of successful and failed requests together.
    """
    asked = {model.version or ""}
    if await data_plane._model_registry.get_model(model.name) is model:
        asked |= {"", "None"}

    def total(metric: Any, suffix: str) -> float:
        return sum(
            float(sample.value)
            for family in metric.collect()
            for sample in family.samples
            if sample.name.endswith(suffix)
            and sample.labels["model"] == model.name
            and sample.labels["version"] in asked
        )

    succeeded = int(total(data_plane._ModelInferRequestSuccess, "_total"))
    failed = int(total(data_plane._ModelInferRequestFailure, "_total"))
    seconds = total(data_plane._ModelInferRequestDuration, "_sum")
    return Counts(Measured(succeeded, seconds), Measured(failed), Measured(), Measured())
