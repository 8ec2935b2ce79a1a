"""`completion`: prints the script that completes commands and options in a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of SHELL. Evaluate it in the shell's start-up file."""
    complete = get_completion_class(shell)
    assert complete is not None
    root = ctx.find_root().command
    program = "mlserver-pyfunc"
    click.echo(complete(root, {}, program, "_MLSERVER_PYFUNC_COMPLETE").source())
