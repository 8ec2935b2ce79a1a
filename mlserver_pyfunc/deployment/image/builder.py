"""Builds an image from a function's folder, or writes the context for a builder elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from mlserver_pyfunc.definition.folder import open_folder
from mlserver_pyfunc.deployment.image import record
from mlserver_pyfunc.deployment.names import BuildError, checked_image
from mlserver_pyfunc.sources import lock
from mlserver_pyfunc.sources.digest import tree_sha256

from . import build_context, engines
from .options import Options
from .secrets import files


@dataclass(frozen=True)
class Result:
    """An image that was built: its entry in the lock, and the name of the engine."""

    record: lock.ImageRecord
    engine: str


def build(folder: Path, name: str, options: Options) -> Result:
    """Builds a function's image and records it in the function's lock."""
    name = checked_image(name)
    engine = engines.choose(options.engine)
    opened = open_folder(folder)
    with (
        TemporaryDirectory(prefix="mlserver-pyfunc-") as work,
        files(options.secrets, options.ca_bundle, with_indexes=engine.mounts) as secrets,
    ):
        options = replace(options, secrets=secrets, mounts=engine.mounts)
        target = Path(work, "context")
        parts = record.inputs(opened.definition, opened.located.folder)
        build_context.write(opened, target, options)
        # BuildKit keeps the context of an earlier build under the name of its folder, and takes a
        # file of equal size and time for unchanged. With SOURCE_DATE_EPOCH all files have one time,
        # so a changed file of equal size would not be sent. A folder named by its digest is new to
        # BuildKit whenever a file has changed.
        target = target.rename(Path(work, tree_sha256(target)))
        built = engine.build(target, name, options, Path(work))
    made = lock.ImageRecord(name=name, digest=built.digest, id=built.id, inputs=parts)
    lock.record_image(made, opened.located.folder)
    return Result(made, engine.name)


def write_context(folder: Path, target: Path, options: Options) -> None:
    """Writes the context of a function's image into an empty folder, for a builder elsewhere."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BuildError(f"{target}: expected an empty folder, or none")
    with files(options.secrets, options.ca_bundle, with_indexes=False) as secrets:
        build_context.write(open_folder(folder), target, replace(options, secrets=secrets))
