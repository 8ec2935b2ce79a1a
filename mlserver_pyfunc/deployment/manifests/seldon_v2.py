"""Seldon Core 2: a Server that runs our image, and a Model that asks for it."""

from __future__ import annotations

import json

from . import inline, pod
from .options import ManifestError
from .workload import Object, Platform, Workload, as_object

# Seldon numbers the pods of a Server, and labels them by its name and a digest.
MAX_SERVER_NAME = 52
PLATFORM = Platform("seldon-v2", ("storage", "inline"), shared=("storage", "inline"))
CONTAINER = "mlserver"
CAPABILITY = "pyfunc"

# Seldon's server configuration sets these, and merges lists of variables by appending: a second
# value would stand beside its own.
_THEIRS = frozenset(
    {
        "MLSERVER_GRPC_MAX_MESSAGE_LENGTH",
        "MLSERVER_LOAD_MODELS_AT_STARTUP",
        "MLSERVER_MODEL_PARALLEL_WORKERS",
    }
)


def objects(workload: Workload) -> list[Object]:
    """Returns the objects in the order to apply them."""
    _check(workload)
    model = _model(workload)
    return [_server(workload), model] if workload.options.with_runtime else [model]


def _server(workload: Workload) -> Object:
    """Returns the Server, which Seldon merges into its own server configuration.

    That configuration has the ports, the probes and the folder of models, so they are left out.
    """
    options = workload.options
    plain = {**pod.settings(None), **options.env}
    plain = {name: value for name, value in plain.items() if name not in _THEIRS}
    parts = pod.containers(workload, CONTAINER, plain, {})
    spec = {
        "serverConfig": "mlserver",
        "extraCapabilities": [CAPABILITY],
        **_scaling(workload),
        "podSpec": {**pod.scheduling(options), **parts},
    }
    metadata = workload.shared_metadata(workload.runtime_name)
    return as_object("mlops.seldon.io/v1alpha1", "Server", metadata, spec)


def _model(workload: Workload) -> Object:
    options = workload.options
    spec: Object = {
        "storageUri": workload.storage_uri,
        "requirements": [CAPABILITY],
        # If the user chose a Server, another one may lack the requirements of the function.
        **({"server": options.runtime} if options.runtime else {}),
        "memory": options.memory,
        **_scaling(workload),
    }
    if workload.shape == "inline":
        function = json.dumps(inline.definition(workload), ensure_ascii=False)
        spec["parameters"] = [{"name": "function", "value": function}]
    return as_object("mlops.seldon.io/v1alpha1", "Model", workload.metadata(), spec)


def _scaling(workload: Workload) -> Object:
    options = workload.options
    if options.max_replicas is None:
        return {"replicas": options.replicas}
    least = pod.min_replicas(options)
    return {"replicas": least, "minReplicas": least, "maxReplicas": options.max_replicas}


def _check(workload: Workload) -> None:
    options = workload.options
    if len(workload.runtime_name) > MAX_SERVER_NAME:
        raise ManifestError(
            f'--runtime: expected at most {MAX_SERVER_NAME} characters, got "{options.runtime}"'
        )
    theirs = sorted(_THEIRS.intersection({*options.env, *options.secrets}))
    if theirs:
        raise ManifestError(f"env: {theirs[0]} is what Seldon's ServerConfig sets; change it there")
