"""`schema`, `openapi`, `client`, `lock` and `env`: write what others need of one function."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import IO

import click

from .failure import folder_argument

_output = click.option(
    "-o", "--output", type=click.File("w"), default="-", help="File to write to.  [standard output]"
)


@click.command("schema")
@_output
def schema(output: IO[str]) -> None:
    """Print the JSON Schema of function.yaml, with which editors check and complete it."""
    output.write((files("mlserver_pyfunc") / "function.schema.json").read_text(encoding="utf-8"))


@click.command("openapi")
@folder_argument
@click.option("--server", default="", help="URL of the server, with its path prefix if it has one.")
@_output
def openapi(folder: Path, server: str, output: IO[str]) -> None:
    """Print the OpenAPI 3.1 document of the function in FOLDER."""
    from mlserver_pyfunc.client.openapi import document
    from mlserver_pyfunc.definition.locate import open_folder
    from mlserver_pyfunc.serving.local import with_tensors

    opened = with_tensors(open_folder(folder))
    described = document(opened.definition, opened.model_name, opened.model_version, server)
    output.write(json.dumps(described, indent=2, ensure_ascii=False) + "\n")


@click.command("client")
@folder_argument
@_output
def client(folder: Path, output: IO[str]) -> None:
    """Write a Python module that calls the function in FOLDER on a server.

    The module needs NumPy and tritonclient, but not this package.
    """
    from mlserver_pyfunc.client.typed_client import client_module
    from mlserver_pyfunc.definition.locate import open_folder
    from mlserver_pyfunc.serving.local import with_tensors

    opened = with_tensors(open_folder(folder))
    output.write(client_module(opened.definition, opened.model_name))


@click.command("lock")
@folder_argument
def lock(folder: Path) -> None:
    """Write function.lock beside the definition in FOLDER: commit, digests and requirements.

    A function.lock is binding: a function that differs from it does not load, and validate says so.
    """
    from mlserver_pyfunc.api.function import Function

    click.echo(f"wrote {Function.load(folder).lock()}")


@click.command("env")
@folder_argument
@click.option("--prune", is_flag=True, help="Only remove environments that nothing uses.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def env(folder: Path, prune: bool, as_json: bool) -> None:
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
