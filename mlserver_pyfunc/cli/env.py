"""`env`: makes and shows the environment that a function runs in."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .failure import folder_argument


@click.command("env")
@folder_argument
@click.option("--prune", is_flag=True, help="Only remove environments that nothing uses.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(folder: Path, prune: bool, as_json: bool) -> None:
    """Make the environment of the function in FOLDER, and show it.

    A function runs in this interpreter if the interpreter has all that the function requires.
    Otherwise it gets an environment of its own, which is made once and kept in the cache. Run
    this command so that the environment is ready when the server starts.
    """
    from mlserver_pyfunc.environments import environment

    if prune:
        removed = [str(path) for path in environment.prune()]
        text = "\n".join(f"removed {path}" for path in removed) or "nothing to remove"
        click.echo(json.dumps(removed) if as_json else text)
        return
    from mlserver_pyfunc.definition.locate import open_folder
    from mlserver_pyfunc.sources import lock

    opened = open_folder(folder)
    locked = lock.read(opened.folder)
    resolved = (locked.resolved if locked else None) or ()
    definition = environment.fetched(opened.definition, opened.folder)
    made = environment.provide(definition, opened.model_name, resolved)
    unmet = environment.unmet_needs(definition)
    if as_json:
        described = {"python": str(made.python), "unmet": unmet, "resolved": dict(made.resolved)}
        click.echo(json.dumps(described, indent=2))
        return
    for requirement in unmet:
        click.echo(f"not here: {requirement}")
    click.echo(f"python: {made.python}{'' if unmet else ' (the one that serves)'}")
    for name, version in made.resolved.items():
        click.echo(f"  {name}=={version}")
