"""A function under each platform, by the manifest that the command prints for it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.deployment.image.dockerfile import parse

from . import kserve, kubernetes, seldon_v1
from .cluster import Cluster, Object, StoredImage
from .functions import CODE, inline, write_definition, write_folder

COMMAND = Path(sys.executable).with_name("mlserver-pyfunc")
IMAGE = "registry.example/iris:1"
MODEL = "iris"

_URIS = {"kubernetes": "pvc://models/iris"}
_PODS: dict[str, tuple[Callable[[Cluster], Object], int, int]] = {
    "kserve": (kserve.pod, 8080, 8081),
    "seldon-v1": (seldon_v1.pod, 9000, 9500),
    "kubernetes": (kubernetes.pod, 8080, 8081),
}
SHAPES = [(platform, shape) for platform in _PODS for shape in ("image", "storage", "inline")]


@dataclass(frozen=True)
class Deployment:
    """What a platform runs of a manifest, and where it is called."""

    cluster: Cluster
    pod: Object
    rest: int
    grpc: int
    model: str = MODEL


def deploy(
    platform: str, shape: str, work: Path, image: StoredImage, code: str = CODE, *options: str
) -> Deployment:
    """Writes a function, prints its manifest and applies the platform's rules to it.

    Args:
        platform: "kserve", "seldon-v1" or "kubernetes".
        shape: Of the manifest.
        work: An empty folder.
        image: That of the manifest's container.
        code: The function's.
        options: More of the command's.
    """
    folder = write_function(shape, work, code)
    uri = _URIS.get(platform, "s3://models/iris")
    given = ["--storage-uri", uri] if shape == "storage" else []
    objects = printed(platform, folder, "--shape", shape, *given, *options)
    # A claim may hold more than the one function.
    claims = {"models": folder.parent}
    cluster = Cluster(objects, {IMAGE: image}, storage={uri: folder}, claims=claims)
    derive, rest, grpc = _PODS[platform]
    return Deployment(cluster, derive(cluster), rest, grpc)


def write_function(shape: str, work: Path, code: str) -> Path:
    """The function's folder, without a model-settings.json."""
    folder = work / "artifacts" / MODEL
    if shape == "inline":
        return write_definition(folder, inline(code))
    return write_folder(folder, code)


def printed(platform: str, folder: Path, *options: str) -> list[Object]:
    """The objects that `mlserver-pyfunc manifest` prints."""
    done = subprocess.run(
        [COMMAND, "manifest", platform, folder, "--image", IMAGE, *options],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def built_image(work: Path) -> StoredImage:
    """The image that `mlserver-pyfunc build` would make of the function, without an engine."""
    context = work / "context"
    done = subprocess.run(
        [COMMAND, "build", write_function("image", work, CODE), "-t", IMAGE, "--output", context],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = parse((context / "Dockerfile").read_text())
    root = work / "image"
    for *sources, target in config.copies:
        for source in sources:
            shutil.copytree(context / source, root / target.lstrip("/"), dirs_exist_ok=True)
    # What is inside of another one comes with it.
    targets = {target for *_, target in config.copies}
    outer = [one for one in targets if not any(one.startswith(f"{two}/") for two in targets)]
    return StoredImage(config, {target: root / target.lstrip("/") for target in outer})
