"""Builds an image from a function's folder, or writes the context for a builder elsewhere."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from mlserver_pyfunc.definition.folder import open_folder
from mlserver_pyfunc.deployment.image import record
from mlserver_pyfunc.deployment.names import (
    BuildError,
    checked_argument,
    checked_image,
    checked_platforms,
    checked_secret,
)
from mlserver_pyfunc.sources import lock
from mlserver_pyfunc.sources.digest import tree_sha256

from . import build_context, engines
from .secrets import files


@dataclass(frozen=True)
class Options:
    """How to build.

    Attributes:
        engine: Name of the engine; None for the first that answers.
        platforms: `linux/amd64,linux/arm64`; None for the platform of the engine.
        push: Whether to push the image.
        no_cache: Whether to build every layer again.
        arguments: Build arguments: `NAME=VALUE`, or `NAME` for a variable of this process.
        secrets: Secrets: `id=NAME,src=FILE`.
        ca_bundle: PEM file of certificate authorities that the programs of the build trust.
        server_image: Image whose Python runs the server if MLServer cannot run on the function's.
        extra: Further options of the engine.
        mounts: Whether a Dockerfile for a builder elsewhere may have mounts.
    """

    engine: str | None = None
    platforms: str | None = None
    push: bool = False
    no_cache: bool = False
    arguments: Sequence[str] = ()
    secrets: Sequence[str] = ()
    ca_bundle: Path | None = None
    server_image: str = field(default=build_context.Options.server_image)
    extra: Sequence[str] = ()
    mounts: bool = True


@dataclass(frozen=True)
class Result:
    """An image that was built.

    Attributes:
        record: Entry of the image in the lock.
        engine: Name of the engine that built it.
    """

    record: lock.ImageRecord
    engine: str


def build(folder: Path, name: str, options: Options) -> Result:
    """Builds a function's image and records it in the function's lock.

    Args:
        folder: Folder of the function.
        name: Name and tag of the image.
        options: How to build.

    Raises:
        PyFuncError: The function cannot be read, fetched or resolved, or the engine fails.
    """
    name = checked_image(name)
    engine = engines.choose(options.engine)
    opened = open_folder(folder)
    with (
        TemporaryDirectory(prefix="mlserver-pyfunc-") as work,
        files(options.secrets, options.ca_bundle, with_indexes=engine.mounts) as secrets,
    ):
        target = Path(work, "context")
        parts = record.inputs(opened.definition, opened.located.folder)
        build_context.write(opened, target, _context_options(options, secrets, engine.mounts))
        # BuildKit keeps the context of an earlier build under the name of its folder, and takes a
        # file of equal size and time for unchanged. With SOURCE_DATE_EPOCH all files have one time,
        # so a changed file of equal size would not be sent. A folder named by its digest is new to
        # BuildKit whenever a file has changed.
        target = target.rename(Path(work, tree_sha256(target)))
        request = engines.BuildRequest(
            context=target,
            name=name,
            platforms=options.platforms,
            push=options.push,
            no_cache=options.no_cache,
            arguments=options.arguments,
            secrets=secrets,
            epoch=_epoch(),
            extra=options.extra,
        )
        built = engine.build(request, Path(work))
    made = lock.ImageRecord(name=name, digest=built.digest, id=built.id, inputs=parts)
    lock.record_image(made, opened.located.folder)
    return Result(made, engine.name)


def write_context(folder: Path, target: Path, options: Options) -> None:
    """Writes the context of a function's image, for a builder elsewhere.

    Raises:
        PyFuncError: The function cannot be read, fetched or resolved.
        BuildError: The target is not an empty folder.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BuildError(f"{target}: expected an empty folder, or none")
    with files(options.secrets, options.ca_bundle, with_indexes=False) as secrets:
        build_context.write(
            open_folder(folder), target, _context_options(options, secrets, options.mounts)
        )


def _context_options(
    options: Options, secrets: Sequence[str], mounts: bool
) -> build_context.Options:
    if secrets and not mounts:
        raise BuildError(
            "secrets and a CA bundle need mounts, which neither --portable nor docker's old "
            "builder has: install docker's buildx plugin, podman or buildah"
        )
    return build_context.Options(
        platforms=checked_platforms(options.platforms) if options.platforms else None,
        server_image=options.server_image,
        arguments=[checked_argument(argument) for argument in options.arguments],
        secrets=[checked_secret(secret) for secret in secrets],
        mounts=mounts,
        epoch=_epoch(),
    )


def _epoch() -> int | None:
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if not text:
        return None
    if not text.isdigit():
        raise BuildError(f'SOURCE_DATE_EPOCH: expected seconds since 1970, got "{text}"')
    return int(text)
