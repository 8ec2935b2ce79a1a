"""Ends a command with a message, an exit code and what to do next."""

from __future__ import annotations

from typing import IO, Any

import click

WRONG = 1
LOAD_FAILED = 3
UNREACHABLE = 4


class Failure(click.ClickException):
    """Ends the command with an error."""

    def __init__(self, message: str, exit_code: int = WRONG, hint: str = "") -> None:
        super().__init__(message)
        vars(self)["exit_code"] = exit_code
        self.hint = hint

    def show(self, file: IO[Any] | None = None) -> None:
        """Prints the message and the hint, a line each, on standard error."""
        click.echo(f"{click.style('error', fg='red', bold=True)}: {self.message}", file, err=True)
        if self.hint:
            click.echo(f"{click.style('next', fg='cyan', bold=True)}: {self.hint}", file, err=True)
