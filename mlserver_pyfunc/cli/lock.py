"""`lock`: pins the source of a function."""

from __future__ import annotations

from pathlib import Path

import click

from .failure import folder_argument


@click.command("lock")
@folder_argument
def command(folder: Path) -> None:
    """Write function.lock beside the definition in FOLDER: commit, digests and requirements.

    A function.lock is binding: a function that differs from it does not load, and validate says so.
    """
    from mlserver_pyfunc.definition.folder import open_folder
    from mlserver_pyfunc.environments.environment import resolve
    from mlserver_pyfunc.sources import lock

    located = open_folder(folder).located
    resolved = resolve(located.definition, located.folder)
    click.echo(f"wrote {lock.write(located.definition, located.folder, resolved)}")
