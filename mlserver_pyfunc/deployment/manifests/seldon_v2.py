"""Seldon Core 2: a Server that runs our image, and a Model that asks for it."""

from __future__ import annotations

import json

from . import inline, names, pod
from .names import ManifestError
from .workload import SHARED_NAME, Object, Platform, Workload

# A Server's pods are numbered, and labelled by its name and a digest.
MAX_SERVER_NAME = 52
PLATFORM = Platform("seldon-v2", ("storage", "inline"), shared=("storage", "inline"))
CONTAINER = "mlserver"
CAPABILITY = "pyfunc"

# What Seldon's server configuration sets: a second value would stand beside its own.
_THEIRS = frozenset(
    {
        "MLSERVER_GRPC_MAX_MESSAGE_LENGTH",
        "MLSERVER_LOAD_MODELS_AT_STARTUP",
        "MLSERVER_MODEL_PARALLEL_WORKERS",
    }
)


def objects(workload: Workload) -> list[Object]:
    """The objects, in the order to apply them.

    Raises:
        ManifestError: Seldon would not run what was asked for.
    """
    _check(workload)
    model = _model(workload)
    return [_server(workload), model] if workload.options.with_runtime else [model]


def server_name(workload: Workload) -> str:
    """The name of the Server that the model runs on."""
    return workload.options.runtime or SHARED_NAME


def _server(workload: Workload) -> Object:
    """What Seldon's own server configuration gives, ports, probes and the folder of models, is
    left to it: this is merged into it, container by container."""
    options = workload.options
    tmp, tmp_mount = pod.tmp(options)
    volumes, mounts = pod.volumes(options.volumes)
    plain = {**pod.settings(None), **workload.options.env}
    plain = {name: value for name, value in plain.items() if name not in _THEIRS}
    sources = pod.env_from(options)
    container = {
        "name": CONTAINER,
        **pod.image(workload),
        "env": pod.env(plain, options),
        **({"envFrom": sources} if sources else {}),
        "resources": pod.resources(options),
        "securityContext": pod.security(options),
        "volumeMounts": [tmp_mount, *mounts],
    }
    return {
        "apiVersion": "mlops.seldon.io/v1alpha1",
        "kind": "Server",
        "metadata": workload.shared_metadata(server_name(workload)),
        "spec": {
            "serverConfig": "mlserver",
            "extraCapabilities": [CAPABILITY],
            **_scaling(workload),
            "podSpec": {
                **pod.scheduling(options),
                "containers": [container],
                "volumes": [tmp, *volumes],
            },
        },
    }


def _model(workload: Workload) -> Object:
    options = workload.options
    spec: Object = {
        "storageUri": workload.storage_uri,
        "requirements": [CAPABILITY],
        # Of a name that was chosen: another Server may lack what the function requires.
        **({"server": options.runtime} if options.runtime else {}),
        "memory": options.memory,
        **_scaling(workload),
    }
    if workload.shape == "inline":
        function = json.dumps(inline.definition(workload), ensure_ascii=False)
        names.check_config_map({"function": function})
        spec["parameters"] = [{"name": "function", "value": function}]
    return {
        "apiVersion": "mlops.seldon.io/v1alpha1",
        "kind": "Model",
        "metadata": workload.metadata(),
        "spec": spec,
    }


def _scaling(workload: Workload) -> Object:
    options = workload.options
    if options.max_replicas is None:
        return {"replicas": options.replicas}
    least = 1 if options.min_replicas is None else options.min_replicas
    if least < 1:
        raise ManifestError("min_replicas: expected 1 or more, got 0")
    return {"replicas": least, "minReplicas": least, "maxReplicas": options.max_replicas}


def _check(workload: Workload) -> None:
    options = workload.options
    if len(server_name(workload)) > MAX_SERVER_NAME:
        raise ManifestError(
            f'--runtime: expected at most {MAX_SERVER_NAME} characters, got "{options.runtime}"'
        )
    theirs = sorted(_THEIRS.intersection({*options.env, *options.secrets}))
    if theirs:
        raise ManifestError(f"env: {theirs[0]} is what Seldon's ServerConfig sets; change it there")
