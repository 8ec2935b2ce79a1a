"""Every shape, with and without every option, is what the platforms' schemas take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlserver_pyfunc import manifests
from mlserver_pyfunc.folder import open_folder

from . import schemas

EXAMPLES = Path(__file__).parents[2] / "examples"
SHAPES = {
    ("kserve", "image"): {},
    ("kserve", "storage"): {"storage_uri": "gs://models/iris"},
    ("kserve", "inline"): {"shape": "inline"},
    ("seldon-v1", "image"): {},
    ("seldon-v1", "storage"): {"storage_uri": "gs://models/iris"},
    ("seldon-v1", "inline"): {"shape": "inline"},
    ("seldon-v2", "storage"): {"storage_uri": "gs://models/iris"},
    ("seldon-v2", "inline"): {"storage_uri": "gs://models/empty", "shape": "inline"},
    ("kubernetes", "image"): {},
    ("kubernetes", "storage"): {"storage_uri": "pvc://models/iris"},
    ("kubernetes", "inline"): {"shape": "inline"},
}
EVERYTHING = {
    "name": "flowers",
    "namespace": "team-a",
    "runtime": "team-runtime",
    "min_replicas": 2,
    "max_replicas": 5,
    "target_cpu": 60,
    "cpu": "500m",
    "memory": "2Gi",
    "cpu_limit": "2",
    "gpus": 1,
    "tmp_size": "5Gi",
    "env": {"LOG_LEVEL": "info"},
    "secrets": {"AWS_SECRET_ACCESS_KEY": {"secret": "s3", "key": "secret"}},
    "env_from": [{"kind": "secret", "name": "all"}, {"kind": "configmap", "name": "more"}],
    "volumes": [
        {"kind": "pvc", "name": "data", "path": "/data", "read_only": True},
        {"kind": "secret", "name": "keys", "path": "/keys"},
        {"kind": "configmap", "name": "conf", "path": "/conf"},
        {"kind": "emptydir", "path": "/scratch"},
    ],
    "service_type": "LoadBalancer",
    "service_name": "flowers-service",
    "node_selector": {"disk": "ssd"},
    "tolerations": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}, {"key": "spot"}],
    "service_account": "model-reader",
    "image_pull_secrets": ["registry"],
    "image_pull_policy": "Always",
    "labels": {"team": "a"},
    "annotations": {"a.org/b": "c"},
}
OPTIONS = {
    "plain": {},
    "everything": EVERYTHING,
    "replicas": {"replicas": 3},
    "any user": {"run_as_user": None},
    "knative": {"mode": "knative", "max_replicas": 4, "min_replicas": 0},
    "knative grpc": {"mode": "knative", "protocol": "grpc"},
    "cluster runtime": {"cluster_runtime": True},
    "own runtime": {"with_runtime": False},
}


def made(platform: str, shape: str, given: dict[str, Any]) -> list[dict[str, Any]]:
    opened = open_folder(EXAMPLES / "iris")
    options = manifests.parse(
        {"image": "registry.example.com/iris:1", **SHAPES[platform, shape], **given}
    )
    return manifests.objects(platform, opened.definition, opened.located.folder, options)


@pytest.mark.parametrize("given", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize(("platform", "shape"), SHAPES)
def test_custom_objects_are_valid(platform: str, shape: str, given: dict[str, Any]) -> None:
    if given.get("min_replicas") == 0 and platform != "kserve":
        given = {**given, "min_replicas": 1}
    for found in made(platform, shape, given):
        if schemas.knows(found):
            schemas.check(found)
        else:
            assert found["apiVersion"] in ("v1", "apps/v1", "autoscaling/v2", "policy/v1")
