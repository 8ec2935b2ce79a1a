"""`schema`: prints the JSON Schema of function.yaml."""

from __future__ import annotations

import json
from typing import IO

import click


@click.command("schema")
@click.option(
    "-o", "--output", type=click.File("w"), default="-", help="File to write to.  [standard output]"
)
def command(output: IO[str]) -> None:
    """Print the JSON Schema of function.yaml, with which editors check and complete it."""
    from mlserver_pyfunc.definition import json_schema

    output.write(json.dumps(json_schema(), indent=2) + "\n")
