"""`logs`: prints what a deployed function has written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .status import deployed, deployment


@click.command("logs")
@deployed
@click.option("--lines", default=100, show_default=True, help="Lines of each container.")
def command(folder: Path, lines: int, **given: Any) -> None:
    """Print the last lines that each container of the function in FOLDER has written.

    Give the options that were given to deploy: they name the objects.
    """
    click.echo(deployment(folder, given).logs(lines))
