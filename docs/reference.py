"""Writes the reference of the command line from the commands themselves."""

from __future__ import annotations

import inspect

import click

from mlserver_pyfunc.cli import COMMANDS, main

_HEAD = """\
# Command line

Written by `make docs` from the commands themselves.

    mlserver-pyfunc COMMAND [OPTIONS] [ARGUMENTS]

On a terminal the output has colours and tables; elsewhere it is plain lines. `--json` prints
JSON for other programs. Errors go to standard error and say what to do next.

| exit code | meaning |
|---|---|
| 0 | success |
| 1 | a check or a call failed |
| 2 | wrong usage: the command or an option was not understood |
| 3 | a function cannot be loaded |
| 4 | no server answers |
| 5 | a port is taken |

For completion in bash, add this line to `~/.bashrc` (zsh and fish work the same way):

    eval "$(_MLSERVER_PYFUNC_COMPLETE=bash_source mlserver-pyfunc)"
"""


def reference() -> str:
    """Returns the whole reference as Markdown."""
    root = main.make_context("mlserver-pyfunc", [], resilient_parsing=True)
    index = "\n".join(f"- [`{name}`](#{name}): {text}" for name, text in COMMANDS.items())
    return "\n".join([_HEAD, index, *(_section(root, name) for name in COMMANDS), ""])


def _section(root: click.Context, name: str) -> str:
    command = main.get_command(root, name)
    assert command is not None
    context = click.Context(command, info_name=name, parent=root)
    usage = command.get_usage(context).removeprefix("Usage: ")
    usage = " ".join(usage.split())
    rows = [
        f"| `{_cell(record[0])}` | {_cell(record[1])} |"
        for parameter in command.get_params(context)
        if isinstance(parameter, click.Option)
        and (record := parameter.get_help_record(context)) is not None
    ]
    table = "\n".join(["| option | |", "|---|---|", *rows])
    return f"\n## {name}\n\n    {usage}\n\n{inspect.cleandoc(command.help or '')}\n\n{table}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
