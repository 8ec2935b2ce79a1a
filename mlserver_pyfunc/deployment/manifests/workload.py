"""What the objects of all platforms are made from: the function, its names and its image."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mlserver_pyfunc.definition import FunctionDefinition
from mlserver_pyfunc.definition import kubernetes_names as names
from mlserver_pyfunc.definition.model_settings import (
    MODEL_SETTINGS,
    SERVER_SETTINGS,
    explicit_settings,
    read_settings,
    served_name,
)
from mlserver_pyfunc.deployment.image import record

from .options import ManifestError, Options, image_name

SHARED_NAME = "mlserver-pyfunc"
"""Name of a runtime or server that any number of functions may use."""
_PORTS = ("host", "http_port", "grpc_port", "metrics_port", "metrics_endpoint")


@dataclass(frozen=True)
class Platform:
    """What a platform can do."""

    name: str
    shapes: tuple[str, ...]  # ways for a function to get there, the default first
    max_name: int = names.MAX_LABEL  # of an object, since platforms add to its name
    shared: tuple[str, ...] = ()  # shapes that run on an object which other functions may use too


BY_NAME = {
    each.name: each
    for each in (
        # KServe names Deployments "NAME-predictor", and labels pods by "isvc.NAME-predictor".
        Platform("kserve", ("image", "storage", "inline"), max_name=48, shared=("storage",)),
        Platform("seldon-v1", ("image", "storage", "inline")),
        Platform("seldon-v2", ("storage", "inline"), shared=("storage", "inline")),
        Platform("kubernetes", ("image", "storage", "inline")),
    )
}


@dataclass(frozen=True)
class Workload:
    """A function that is to run on a platform."""

    definition: FunctionDefinition
    folder: Path
    options: Options
    name: str  # of the objects, a DNS label
    model_name: str  # in URLs
    explicit_name: str | None  # in model-settings.json, which no variable can change
    version: str | None
    shape: str  # image, storage or inline
    image: record.Image | None  # None if the objects name none

    @property
    def storage_uri(self) -> str:
        """URI of the model's folder, which the shape requires."""
        if self.options.storage_uri is None:
            raise ManifestError(f"--shape {self.shape}: expected --storage-uri, got none")
        return self.options.storage_uri

    @property
    def runtime_name(self) -> str:
        """Name of the runtime or server that the function runs on, if it is shared."""
        return self.options.runtime or SHARED_NAME

    @property
    def version_label(self) -> str | None:
        """The version as a label; None if it cannot be one."""
        with suppress(ValueError):
            return names.label_value(self.version) if self.version else None
        return None


def plan(
    platform: Platform,
    definition: FunctionDefinition,
    folder: Path,
    options: Options,
    settings_file: Path | None = None,
) -> Workload:
    """Decides what the options leave open."""
    options.refuse_for(platform.name)
    devices = definition.serving.device_count
    if 0 < options.gpus < devices:
        raise ManifestError(f"--gpus: serving.devices has {devices}, got {options.gpus}")
    if devices > options.gpus:
        options = options.model_copy(update={"gpus": devices})
    settings_file = settings_file or folder / MODEL_SETTINGS
    settings = explicit_settings(settings_file)
    model_name = served_name(settings, definition, settings_file.parent)
    shape = _shape(platform, options)
    if shape == "storage":
        _check_settings(folder)
    return Workload(
        definition,
        folder,
        options,
        _name(platform, options, model_name),
        model_name,
        settings.get("name") or None,
        (settings.get("parameters") or {}).get("version") or definition.model_version,
        shape,
        _image(platform, definition, folder, options, shape),
    )


def _name(platform: Platform, options: Options, model_name: str) -> str:
    if options.name is None:
        return names.derived_label(model_name, platform.max_name)
    try:
        return names.label(options.name, platform.max_name)
    except ValueError as error:
        raise ManifestError(f"--name: {error}: {platform.name} adds to it") from None


def _shape(platform: Platform, options: Options) -> str:
    shape: str = options.shape
    if shape == "auto":
        shape = "storage" if options.storage_uri else platform.shapes[0]
    if shape not in platform.shapes:
        listed = ", ".join(platform.shapes)
        raise ManifestError(f'--shape: expected one of {listed} on {platform.name}, got "{shape}"')
    if shape == "image" and options.storage_uri:
        raise ManifestError("--shape image: the image holds the function; leave --storage-uri out")
    return shape


def _image(
    platform: Platform, definition: FunctionDefinition, folder: Path, options: Options, shape: str
) -> record.Image | None:
    if options.image:
        return record.Image(options.image)
    if shape in platform.shared and not options.with_runtime:
        return None
    if shape != "image":
        raise ManifestError(
            f"--shape {shape}: expected --image with the runtime's own image, got none; the "
            "Dockerfile in mlserver-pyfunc's repository makes it"
        )
    found = record.recorded(definition, folder)
    if found is None:
        raise ManifestError(
            f"{folder}: expected an image, got none in options, function.yaml and function.lock; "
            f"mlserver-pyfunc build {folder} -t NAME:TAG makes one, and --image names one"
        )
    try:
        image_name(found.reference)
    except ValueError as error:
        raise ManifestError(f"image: {error}") from None
    return found


def _check_settings(folder: Path) -> None:
    path = folder / SERVER_SETTINGS
    if not path.is_file():
        return
    if found := [name for name in _PORTS if name in read_settings(path)]:
        raise ManifestError(
            f"{path}: {', '.join(found)} would come before what the platform sets; remove it"
        )
