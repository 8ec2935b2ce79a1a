"""`openapi`: prints the OpenAPI document of a function."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO

import click

from .failure import folder_argument


@click.command("openapi")
@folder_argument
@click.option("--server", default="", help="URL of the server, with its path prefix if it has one.")
@click.option(
    "-o", "--output", type=click.File("w"), default="-", help="File to write to.  [standard output]"
)
def command(folder: Path, server: str, output: IO[str]) -> None:
    """Print the OpenAPI 3.1 document of the function in FOLDER."""
    from mlserver_pyfunc.client.openapi import document
    from mlserver_pyfunc.definition.folder import open_folder
    from mlserver_pyfunc.serving.local import with_tensors

    opened = with_tensors(open_folder(folder))
    described = document(opened.definition, opened.model_name, opened.model_version, server)
    output.write(json.dumps(described, indent=2, ensure_ascii=False) + "\n")
