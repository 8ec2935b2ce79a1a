"""`build`: make a container image of a function."""

from __future__ import annotations

from pathlib import Path

import click

from .failure import Failure


@click.command("build")
@click.argument("folder", type=click.Path(exists=True, path_type=Path), default=".")
@click.option("-t", "--tag", "name", metavar="NAME:TAG", help="What to call the image.")
@click.option(
    "--engine",
    type=click.Choice(["docker", "podman", "buildah"]),
    help="What builds it; else the first of these that answers.",
)
@click.option("--push", is_flag=True, help="Push the image once it is built.")
@click.option("--platform", metavar="OS/ARCH,...", help="Build for others, as linux/arm64.")
@click.option("--no-cache", is_flag=True, help="Use no layer of a build before.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write the build context into DIR, and build nothing.",
)
@click.option(
    "--portable", is_flag=True, help="With --output: a Dockerfile without mounts, as for kaniko."
)
@click.option("--build-arg", multiple=True, metavar="NAME=VALUE", help="For the instructions.")
@click.option("--secret", multiple=True, metavar="id=NAME,src=FILE", help="At /run/secrets/NAME.")
@click.option(
    "--ca-bundle",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="MLSERVER_PYFUNC_CA_BUNDLE",
    help="PEM file of authorities to trust, as of a proxy that inspects TLS.",
    show_envvar=True,
)
@click.option(
    "--server-image",
    default="python:3.12-slim",
    show_default=True,
    help="Whose Python serves a function of Python 3.13.",
)
@click.option("--engine-arg", multiple=True, metavar="OPTION", help="An option of the engine's.")
def command(
    folder: Path,
    name: str | None,
    engine: str | None,
    push: bool,
    platform: str | None,
    no_cache: bool,
    output: Path | None,
    portable: bool,
    build_arg: tuple[str, ...],
    secret: tuple[str, ...],
    ca_bundle: Path | None,
    server_image: str,
    engine_arg: tuple[str, ...],
) -> None:
    """Build a container image of the function in FOLDER.

    The image has the source, what it requires and a server, and starts with no network. It is
    recorded in function.lock: serve uses it until the function changes.
    """
    import os

    from mlserver_pyfunc import settings
    from mlserver_pyfunc.deployment.image import builder
    from mlserver_pyfunc.deployment.names import BuildError

    if ca_bundle:
        os.environ[settings.CA_BUNDLE] = str(ca_bundle.resolve())
    options = builder.Options(
        engine=engine,
        platforms=platform,
        push=push,
        no_cache=no_cache,
        arguments=build_arg,
        secrets=secret,
        ca_bundle=ca_bundle,
        server_image=server_image,
        extra=engine_arg,
        mounts=not portable,
    )
    try:
        if output is not None:
            builder.write_context(folder, output, options)
            click.echo(f"wrote {output}")
            return
        if name is None:
            raise Failure("no name for the image", hint="add -t NAME:TAG, or --output DIR")
        made = builder.build(folder, name, options)
    except BuildError as error:
        raise Failure(str(error)) from None
    record = made.record
    click.echo(
        f"built {record.name} by {made.engine}: {record.digest or record.id or 'not pushed'}"
    )
