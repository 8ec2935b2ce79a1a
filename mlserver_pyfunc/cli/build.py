"""`build`: makes a container image of a function."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import click

from .failure import PATH, Failure, folder_argument

_repeatable = partial(click.option, multiple=True)


@click.command("build")
@folder_argument
@click.option("-t", "--tag", "name", metavar="NAME:TAG", help="Name and tag of the image.")
@click.option(
    "--engine",
    type=click.Choice(["docker", "podman", "buildah"]),
    help="Engine that builds.  [the first that answers]",
)
@click.option("--push", is_flag=True, help="Push the image after the build.")
@click.option(
    "--platform",
    "platforms",
    metavar="OS/ARCH,...",
    help="Platforms, such as linux/arm64.  [the engine's own]",
)
@click.option("--no-cache", is_flag=True, help="Build every layer again.")
@click.option("--output", type=PATH, metavar="DIR", help="Only write the build context into DIR.")
@_repeatable(
    "--build-arg", "arguments", metavar="NAME=VALUE", help="Build argument for the instructions."
)
@_repeatable(
    "--secret",
    "secrets",
    metavar="id=NAME,src=FILE",
    help="File that build steps see at /run/secrets/NAME.",
)
@click.option(
    "--ca-bundle",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="MLSERVER_PYFUNC_CA_BUNDLE",
    help="PEM file of certificate authorities to trust, such as that of a proxy.",
    show_envvar=True,
)
@click.option(
    "--server-image",
    default="python:3.12-slim",
    show_default=True,
    help="Image whose Python runs the server of a function for Python 3.13.",
)
@_repeatable("--engine-arg", "extra", metavar="OPTION", help="Further option of the engine.")
def command(
    folder: Path, name: str | None, output: Path | None, ca_bundle: Path | None, **given: Any
) -> None:
    """Build a container image of the function in FOLDER.

    The image has the source, its requirements and a server, and starts without a network. It is
    recorded in function.lock: serve runs it until the function changes.
    """
    import os

    from mlserver_pyfunc import settings
    from mlserver_pyfunc.deployment.image import builder
    from mlserver_pyfunc.deployment.image.build_context import Options
    from mlserver_pyfunc.deployment.names import BuildError

    if ca_bundle:
        os.environ[settings.CA_BUNDLE] = str(ca_bundle.resolve())
    try:
        options = Options(ca_bundle=ca_bundle, **given)
        if output is not None:
            builder.write_context(folder, output, options)
            click.echo(f"wrote {output}")
            return
        if name is None:
            raise Failure("no name for the image", hint="add -t NAME:TAG, or --output DIR")
        made = builder.build(folder, name, options)
        where = made.record.digest or made.record.id or "not pushed"
    except BuildError as error:
        raise Failure(str(error)) from None
    click.echo(f"built {made.record.name} by {made.engine}: {where}")
