"""What every platform's objects are made from: the function, its names and its image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import image
from ..definition import FunctionDefinition
from ..folder import SETTINGS_FILE_NAME
from ..repository import explicit_name
from . import names
from .names import ManifestError
from .options import Options

MODELS_DIR = "/mnt/models"
IMPLEMENTATION = "mlserver_pyfunc.PyFuncRuntime"
_MANAGED_BY = "app.kubernetes.io/managed-by"

Object = dict[str, Any]


@dataclass(frozen=True)
class Workload:
    """A function that is to run somewhere.

    Attributes:
        definition: The function.
        folder: Its folder.
        options: What was asked for.
        name: Of the objects, a DNS label.
        model_name: As clients call it.
        shape: `image`, `storage` or `inline`.
        image: To run.
        warnings: What the user should know of.
    """

    definition: FunctionDefinition
    folder: Path
    options: Options
    name: str
    model_name: str
    shape: str
    image: str
    warnings: tuple[str, ...] = ()

    @property
    def storage_uri(self) -> str:
        """Where the model's folder is fetched from, in the shape that has one."""
        assert self.options.storage_uri is not None
        return self.options.storage_uri

    def metadata(self, name: str | None = None, **annotations: str) -> Object:
        """The metadata of an object that is the function's own."""
        return self._metadata(name or self.name, _labels(self), annotations)

    def shared_metadata(self, name: str) -> Object:
        """The metadata of an object that other functions may use too."""
        return self._metadata(name, {_MANAGED_BY: "mlserver-pyfunc"}, {})

    def _metadata(self, name: str, labels: dict[str, str], annotations: dict[str, str]) -> Object:
        options = self.options
        found: Object = {"name": name}
        if options.namespace:
            found["namespace"] = options.namespace
        found["labels"] = {**labels, **options.labels}
        given = {**annotations, **options.annotations}
        if given:
            found["annotations"] = given
        return found


def plan(
    definition: FunctionDefinition, folder: Path, options: Options, shapes: tuple[str, ...]
) -> Workload:
    """Decides on what the options leave open.

    Args:
        definition: The function.
        folder: Its folder.
        options: What was asked for.
        shapes: That the platform can do.

    Raises:
        ManifestError: The function or the options do not go with the platform.
        SourceError: The function's lock or local source cannot be read.
    """
    settings_name = explicit_name(folder / SETTINGS_FILE_NAME)
    model_name = settings_name or definition.model_name or folder.resolve().name
    shape = _shape(options, shapes)
    chosen, warnings = _image(definition, folder, options, shape)
    return Workload(
        definition,
        folder,
        options,
        options.name or names.derived_label(model_name),
        model_name,
        shape,
        chosen,
        warnings,
    )


def _labels(workload: Workload) -> dict[str, str]:
    found = {"app.kubernetes.io/name": workload.name, _MANAGED_BY: "mlserver-pyfunc"}
    version = workload.definition.model_version
    if version and _accepts(names.label_value, version):
        found["app.kubernetes.io/version"] = version
    return found


def _accepts(check: Callable[[str], str], value: str) -> bool:
    try:
        check(value)
    except ValueError:
        return False
    return True


def _shape(options: Options, shapes: tuple[str, ...]) -> str:
    shape: str = options.shape
    if shape == "auto":
        shape = "storage" if options.storage_uri else "image"
        shape = shape if shape in shapes else shapes[0]
    if shape not in shapes:
        raise ManifestError(f'--shape: expected one of {", ".join(shapes)} here, got "{shape}"')
    if shape == "storage" and not options.storage_uri:
        raise ManifestError("--shape storage: expected --storage-uri, got none")
    if shape == "image" and options.storage_uri:
        raise ManifestError("--shape image holds the function: leave --storage-uri out")
    return shape


def _image(
    definition: FunctionDefinition, folder: Path, options: Options, shape: str
) -> tuple[str, tuple[str, ...]]:
    if options.image:
        return options.image, ()
    if shape != "image":
        raise ManifestError(
            f"--shape {shape}: expected --image with the runtime's own image, got none; "
            "docker build makes it of the Dockerfile in mlserver-pyfunc's repository"
        )
    found = image.recorded(definition, folder)
    if found is None:
        raise ManifestError(
            f"{folder}: expected an image, got none in options, function.yaml and function.lock; "
            f"mlserver-pyfunc build {folder} -t NAME:TAG makes one, --image NAME:TAG names one, "
            "and --shape inline needs none"
        )
    if not _accepts(names.image, found.reference):
        raise ManifestError(f'image "{found.reference}" is no name of an image')
    if not found.stale:
        return found.reference, ()
    return found.reference, (
        f"image {found.reference} is stale: {found.why}; mlserver-pyfunc build makes it anew",
    )
