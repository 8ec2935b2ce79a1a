"""From a function's folder to an image, or to the context for a builder elsewhere."""

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
        engine: Its name; None for the first that answers.
        platforms: `linux/amd64,linux/arm64`; None for the engine's own.
        push: Push the image.
        no_cache: Take no layer from a build before.
        arguments: Build arguments, `NAME=VALUE` or `NAME`.
        secrets: `id=NAME,src=FILE`.
        ca_bundle: PEM file of authorities that the build's programs trust.
        server_image: Whose Python the server gets beside a function's that it cannot run on.
        extra: The engine's own options.
        mounts: Whether the Dockerfile of a context that is only written may have mounts.
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
        record: As the lock has it now.
        engine: Which built it.
    """

    record: lock.ImageRecord
    engine: str


def build(folder: Path, name: str, options: Options) -> Result:
    """Builds a function's image and records it in the function's lock.

    Args:
        folder: The function's.
        name: To tag the image with.
        options: How.

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
        made_of = record.inputs(opened.definition, opened.located.folder)
        build_context.write(opened, target, _context_options(options, secrets, engine.mounts))
        # BuildKit looks for files that it has in contexts before by the name of the folder, and
        # with SOURCE_DATE_EPOCH all have one time.
        target = target.rename(Path(work, tree_sha256(target)))
        request = engines.Request(
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
    made = lock.ImageRecord(name=name, digest=built.digest, id=built.id, inputs=made_of)
    lock.record_image(made, opened.located.folder)
    return Result(made, engine.name)


def write_context(folder: Path, target: Path, options: Options) -> None:
    """Writes the context of a function's image, for a builder elsewhere.

    Raises:
        PyFuncError: The function cannot be read, fetched or resolved.
        BuildError: The target holds something.
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
