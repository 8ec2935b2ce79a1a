"""How a command fails: a message, what to do next and an exit code."""

from __future__ import annotations

from typing import IO, Any

import click

WRONG = 1
LOAD_FAILED = 3
UNREACHABLE = 4


class Failure(click.ClickException):
    """Ends the command.

    Args:
        message: What is wrong.
        exit_code: `WRONG`, `LOAD_FAILED` or `UNREACHABLE`.
        hint: What to do next.
    """

    def __init__(self, message: str, exit_code: int = WRONG, hint: str = "") -> None:
        super().__init__(message)
        vars(self)["exit_code"] = exit_code
        self.hint = hint

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"{click.style('error', fg='red', bold=True)}: {self.message}", file, err=True)
        if self.hint:
            click.echo(f"{click.style('next', fg='cyan', bold=True)}: {self.hint}", file, err=True)
