"""What the templates of manifests compute: times, variables, and the query of an autoscaler."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from mlserver_pyfunc.definition import ServingDefinition
from mlserver_pyfunc.definition import kubernetes_names as names
from mlserver_pyfunc.definition.model_settings import IMPLEMENTATION as IMPLEMENTATION
from mlserver_pyfunc.deployment.server_settings import CONTAINER_VARIABLES, PART_SECONDS

from .options import ManifestError
from .workload import Workload

MODELS_DIR = "/mnt/models"
DRAIN_SECONDS = 20
"""Time that a server may take to end after its last answer: see docs/operations.md, Draining."""
PRE_STOP_SECONDS = 5
"""Time that a pod goes on serving while the cluster stops sending requests to it."""
_SPARE_SECONDS = 10

FETCH_SECONDS = 600
"""Time that fetching a source and making an environment may take before the function is loaded."""
PULL_SECONDS = 300
"""Time that a node may take to get a pod and to pull its image."""
RUNTIME_SECONDS = ServingDefinition().init_timeout + FETCH_SECONDS
"""Time that a function may take to start on a runtime which functions share."""
PERIOD_SECONDS = 5
KNATIVE_TIMEOUT = 300
"""Seconds after which Knative ends a call by default."""

# Our images set these too, but the user may choose an image of another kind.
SETTINGS = {
    name: value
    for name, value in CONTAINER_VARIABLES.items()
    if name == "HOME" or name.startswith("MLSERVER_")
}
"""The server's own variables, without ports."""

# Seldon merges lists of variables by appending: a second value would stand beside its own.
SET_BY_SELDON = (
    "MLSERVER_GRPC_MAX_MESSAGE_LENGTH",
    "MLSERVER_LOAD_MODELS_AT_STARTUP",
    "MLSERVER_MODEL_PARALLEL_WORKERS",
)
"""Variables that the server configuration of Seldon Core 2 sets."""


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


def merged(*parts: Mapping[str, str]) -> dict[str, str]:
    """Merges variables, of which the last of a name counts."""
    return {name: value for part in parts for name, value in part.items()}


def escaped(value: str) -> str:
    """Escapes a value in which Kubernetes would replace `$(NAME)` by another variable."""
    return value.replace("$", "$$") if "$(" in value or "$$" in value else value


def start_seconds(workload: Workload) -> float:
    """Returns how long a function may take to start."""
    seconds = workload.definition.serving.init_timeout
    return seconds if workload.shape == "image" else seconds + FETCH_SECONDS


def attempts(seconds: float) -> int:
    """Returns how often the startup probe of a function that may take so long has to fail."""
    return math.ceil(seconds / PERIOD_SECONDS) + 6


def progress_seconds(workload: Workload) -> int:
    """Returns how long a rollout may take for one pod: longer than the startup probe waits."""
    return attempts(start_seconds(workload)) * PERIOD_SECONDS + PULL_SECONDS


def grace_seconds(workload: Workload) -> int:
    """Returns how long a pod may take to end, so that requests in flight reach their time limit."""
    timeout = math.ceil(workload.definition.serving.timeout)
    return PRE_STOP_SECONDS + PART_SECONDS + timeout + DRAIN_SECONDS + _SPARE_SECONDS


def utilization(workload: Workload) -> str:
    """Returns the query of Prometheus for the utilization of all pods."""
    options = workload.options
    # The namespace in the metric is that of the pod, if Prometheus adds it as its operator does.
    namespace = f',namespace="{options.namespace}"' if options.namespace else ""
    now = f"sum(pyfunc_utilization{{model={json.dumps(workload.model_name)}{namespace}}})"
    # docs/kserve.md says why averaged. An average for each pod would count ended ones, too.
    return f"avg_over_time({now}[1m:15s])"
