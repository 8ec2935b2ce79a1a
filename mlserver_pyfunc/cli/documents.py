"""`schema`, `openapi`, `client` and `lock`: write what others read."""

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
