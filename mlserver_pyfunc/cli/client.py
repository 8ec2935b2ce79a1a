"""`client`: writes a typed Python client of a function."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import click

from .failure import folder_argument


@click.command("client")
@folder_argument
@click.option(
    "-o", "--output", type=click.File("w"), default="-", help="File to write to.  [standard output]"
)
def command(folder: Path, output: IO[str]) -> None:
    """Write a Python module that calls the function in FOLDER on a server.

    The module needs NumPy and tritonclient, but not this package.
    """
    from mlserver_pyfunc.client.typed_client import client_module
    from mlserver_pyfunc.definition.folder import open_folder
    from mlserver_pyfunc.serving.local import with_tensors

    opened = with_tensors(open_folder(folder))
    output.write(client_module(opened.definition, opened.model_name))
