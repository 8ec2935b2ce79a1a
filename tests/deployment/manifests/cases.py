"""Every way a function can get to a platform, and sets of options for each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlserver_pyfunc.definition import FunctionDefinition, parse
from mlserver_pyfunc.definition.locate import open_folder
from mlserver_pyfunc.deployment import manifests
from tests.places import IRIS

IMAGE = "registry.example.com/team/iris:1"

SHAPES: dict[tuple[str, str], dict[str, Any]] = {
    ("kserve", "image"): {},
    ("kserve", "storage"): {"storage_uri": "gs://models/iris"},
    ("kserve", "inline"): {"shape": "inline"},
    ("seldon-v1", "image"): {},
    ("seldon-v1", "storage"): {"storage_uri": "gs://models/iris"},
    ("seldon-v1", "inline"): {"shape": "inline"},
    ("seldon-v2", "storage"): {"storage_uri": "gs://models/iris"},
    ("seldon-v2", "inline"): {"storage_uri": "gs://models/settings", "shape": "inline"},
    ("kubernetes", "image"): {},
    ("kubernetes", "storage"): {"storage_uri": "pvc://models/iris/1"},
    ("kubernetes", "inline"): {"shape": "inline"},
}

_EVERYWHERE: dict[str, Any] = {
    "name": "flowers",
    "namespace": "team-a",
    "min_replicas": 2,
    "max_replicas": 5,
    "cpu": "500m",
    "memory": "2Gi",
    "cpu_limit": "2",
    "gpus": 1,
    "env": {"LOG_LEVEL": "info", "EMPTY": "", "YES": "y", "NUMBER": "1e3"},
    "secrets": {"AWS_SECRET_ACCESS_KEY": {"secret": "s3", "key": "secret"}},
    "env_from": [{"kind": "secret", "name": "all"}, {"kind": "configmap", "name": "more"}],
    "volumes": [
        {"kind": "pvc", "name": "data", "path": "/data", "read_only": True},
        {"kind": "pvc", "name": "out", "path": "/out"},
        {"kind": "secret", "name": "keys", "path": "/keys"},
        {"kind": "configmap", "name": "conf", "path": "/conf"},
        {"kind": "emptydir", "path": "/scratch"},
    ],
    "node_selector": {"disk": "ssd"},
    "tolerations": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}, {"key": "spot"}],
    "service_account": "model-reader",
    "image_pull_secrets": ["registry"],
    "image_pull_policy": "Always",
    "labels": {"team": "a"},
    "annotations": {"a.org/b": "c"},
}
_OWN: dict[tuple[str, str], dict[str, Any]] = {
    ("kserve", "image"): {"target_cpu": 60, "monitor": True},
    ("kserve", "storage"): {"target_cpu": 60, "runtime": "team-runtime"},
    ("kserve", "inline"): {"target_cpu": 60},
    ("seldon-v1", "image"): {"target_cpu": 60, "service_name": "flowers-rest"},
    ("seldon-v2", "storage"): {"runtime": "team-server"},
    ("kubernetes", "image"): {
        "target_cpu": 60,
        "service_name": "flowers-rest",
        "service_type": "LoadBalancer",
        "monitor": True,
    },
}
_KNATIVE = {"mode": "knative", "max_replicas": 4, "min_replicas": 0}


def option_sets(platform: str, shape: str) -> dict[str, dict[str, Any]]:
    """What is asked for besides, by a name for it."""
    sets: dict[str, dict[str, Any]] = {
        "plain": {},
        "everything": {**_EVERYWHERE, **_OWN.get((platform, shape), {})},
        "replicas": {"replicas": 3},
        "any user": {"run_as_user": "any"},
    }
    if platform == "kserve":
        sets["knative"] = _KNATIVE
        sets["knative grpc"] = {**_KNATIVE, "protocol": "grpc"}
    if (platform, shape) == ("kserve", "storage"):
        sets["cluster runtime"] = {"cluster_runtime": True, "namespace": "team-a"}
        sets["knative cluster runtime"] = {**_KNATIVE, "cluster_runtime": True}
    if shape == "storage" and platform in ("kserve", "seldon-v2"):
        sets["runtime that is there"] = {"with_runtime": False}
    return sets


CASES = [
    (platform, shape, name) for platform, shape in SHAPES for name in option_sets(platform, shape)
]


def made(platform: str, shape: str, case: str = "plain") -> list[dict[str, Any]]:
    """The objects of the iris example."""
    return objects(platform, shape, **option_sets(platform, shape)[case])


def objects(platform: str, shape: str, **given: Any) -> list[dict[str, Any]]:
    opened = open_folder(IRIS)
    return of(opened.definition, opened.folder, platform, shape, **given)


def of(
    definition: FunctionDefinition, folder: Path, platform: str, shape: str, **given: Any
) -> list[dict[str, Any]]:
    options = manifests.options.parse({"image": IMAGE, **SHAPES[platform, shape], **given})
    return manifests.derive(platform, definition, folder, options).objects


def function(**values: Any) -> FunctionDefinition:
    """A small function with its code inside."""
    source = {"code": "def f(x):\n    return x\n", "handler": "f"}
    return parse({"model_name": "m", "source": source, **values})


def one(found: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (only,) = [each for each in found if each["kind"] == kind]
    return only


def pods(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pod specifications within objects, whole ones and parts alike."""
    specs = []
    for each in found:
        spec = each.get("spec", {})
        match each["kind"]:
            case "InferenceService":
                specs.append(spec["predictor"])
            case "ServingRuntime" | "ClusterServingRuntime":
                specs.append(spec)
            case "SeldonDeployment":
                specs += [part["spec"] for part in spec["predictors"][0]["componentSpecs"]]
            case "Server":
                specs.append(spec["podSpec"])
            case "Deployment":
                specs.append(spec["template"]["spec"])
    return specs


def containers(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [each for spec in pods(found) for each in spec.get("containers", [])]


def env(container: dict[str, Any]) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container["env"] if "value" in each}


def strings(value: Any) -> list[str]:
    """Every text in an object, keys included."""
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in (key, *strings(item))]
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []
