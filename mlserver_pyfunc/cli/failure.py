"""Ends a command with a message, an exit code and what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import click

WRONG = 1
LOAD_FAILED = 3
UNREACHABLE = 4
PORT_TAKEN = 5

_FOLDER = f"{__name__}.folder"
HINT = f"{__name__}.hint"
"""Key of what to do if a call fails, in the context's meta."""

PATH = click.Path(path_type=Path)

folder_argument = click.argument(
    "folder",
    type=PATH,
    default=".",
    callback=lambda ctx, parameter, folder: ctx.meta.setdefault(_FOLDER, folder),
)
"""The argument FOLDER. The next step of an error is about it."""


def next_step(ctx: click.Context) -> str:
    """Names the command that shows what is wrong with FOLDER; empty if it would show nothing."""
    from mlserver_pyfunc.definition.locate import functions_below
    from mlserver_pyfunc.validation import validate

    folder: Path | None = ctx.meta.get(_FOLDER)
    if folder is None:
        return ""
    found = validate(folder)
    rules = {each.rule for each in found if each.severity == "error" or each.rule == "C410"}
    if "D001" in rules:
        is_elsewhere = folder.suffix or functions_below(folder)
        return "" if is_elsewhere else f"mlserver-pyfunc init {folder} writes one"
    return f"mlserver-pyfunc validate {folder} shows it by file and line" if rules else ""


class Failure(click.ClickException):
    """Ends the command with an error, and with the traceback of the user's code if there is one."""

    def __init__(
        self, message: str, exit_code: int = WRONG, hint: str = "", trace: str = ""
    ) -> None:
        super().__init__(message)
        vars(self)["exit_code"] = exit_code
        self.hint = hint
        self.trace = trace

    def show(self, file: IO[Any] | None = None) -> None:
        """Prints the message, the traceback and the hint on standard error."""
        from .terminal import highlighted

        lines = [f"{click.style('error', fg='red', bold=True)}: {self.message}"]
        bar = click.style("│", fg="red")
        lines += [f"{bar} {line}" for line in highlighted(self.trace).splitlines()]
        if self.hint:
            lines.append(f"{click.style('next', fg='cyan', bold=True)}: {self.hint}")
        click.echo("\n".join(lines), file, err=True)
