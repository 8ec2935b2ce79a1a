"""`status` and `logs`: show how far a deployed function is, and what it has written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlserver_pyfunc.deployment.manifests import PLATFORMS

from . import manifest
from .failure import WRONG, folder_argument

if TYPE_CHECKING:
    from mlserver_pyfunc.api.deployment import Deployment


def deployed(command: Any) -> Any:
    """Adds the arguments and options that tell which deployment is meant."""
    file = click.Path(path_type=Path)
    for parameter in (
        click.option("--context", help="Context of the kubeconfig.  [the current one]"),
        click.option("--kubeconfig", type=file, help="Kubeconfig file.  [as kubectl finds it]"),
        manifest.options,
        folder_argument,
        click.argument("platform", type=click.Choice(PLATFORMS)),
    ):
        command = parameter(command)
    return command


def deployment(folder: Path, given: dict[str, Any]) -> Deployment:
    """Opens the deployment that the command line means."""
    from mlserver_pyfunc.api.function import Function

    place = {name: given.pop(name) for name in ("platform", "kubeconfig", "context")}
    return Function.load(folder).deployment(**place, **manifest.chosen(given))


@click.command("status")
@deployed
def command(folder: Path, **given: Any) -> None:
    """Show the state of each object of the function in FOLDER. Exits with 1 if it does not serve.

    Give the options that were given to deploy: they name the objects.
    """
    from . import output

    status = deployment(folder, given).status()
    output.table("", ("object", "state"), list(status.objects.items()))
    if not status.is_ready:
        raise click.exceptions.Exit(WRONG)


@click.command("logs")
@deployed
@click.option("--lines", default=100, show_default=True, help="Lines of each container.")
def logs(folder: Path, lines: int, **given: Any) -> None:
    """Print the last lines that each container of the function in FOLDER has written.

    Give the options that were given to deploy: they name the objects.
    """
    click.echo(deployment(folder, given).logs(lines))
