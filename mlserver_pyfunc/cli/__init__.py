"""The command line: one module per command, imported only if its command runs."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from mlserver_pyfunc.errors import DefinitionError, LoadError, PyFuncError, RequestError

from .failure import HINT, LOAD_FAILED, UNREACHABLE, WRONG, Failure, next_step

COMMANDS = {
    "init": "Write a function to start from.",
    "validate": "Check a function without running its code.",
    "run": "Call a function without a server.",
    "serve": "Serve a function, or a folder of them, by MLServer.",
    "infer": "Call a running server.",
    "build": "Build a container image of a function.",
    "lock": "Pin a function's source in function.lock.",
    "env": "Make and show the environment a function runs in.",
    "manifest": "Print Kubernetes objects that serve a function: KServe, Seldon or plain.",
    "deploy": "Put a function on a cluster and wait until it serves, or remove it.",
    "status": "Show the state of a function on a cluster.",
    "logs": "Print what a function on a cluster has written.",
    "schema": "Print the JSON Schema of function.yaml.",
    "openapi": "Print a function's OpenAPI document.",
    "client": "Write a typed Python client of a function.",
}

_SHARED = {
    **dict.fromkeys(("lock", "schema", "openapi", "client", "env"), "documents"),
    **dict.fromkeys(("manifest", "status", "logs"), "deploy"),
}
"""Module by command, if it has another name."""


class LazyGroup(click.Group):
    """A group that knows its commands by name, and imports the one that is called.

    The command line must start fast: to import each command for its help text would take seconds.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Lists the commands in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports a command; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"{__name__}.{_SHARED.get(cmd_name, cmd_name)}")
        command: click.Command = getattr(module, cmd_name if cmd_name in _SHARED else "command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the commands with their descriptions, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command to call; an unknown one fails with the nearest name."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], COMMANDS, n=1)
            hint = (
                f'did you mean "{near[0]}"?' if near else f"expected one of {', '.join(COMMANDS)}"
            )
            ctx.fail(f'no command "{args[0]}", {hint}')
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        from .terminal import Terminal

        log = ctx.obj = Terminal()
        try:
            return super().invoke(ctx)
        except (DefinitionError, LoadError) as error:
            raise Failure(str(error), LOAD_FAILED, next_step(ctx), log.traceback) from None
        except RequestError as error:
            message, hint = f"{error} (status {error.status})", ctx.meta.get(HINT, "")
            raise Failure(message, hint=hint, trace=log.traceback) from None
        except PyFuncError as error:
            for line in getattr(error, "log", ()):
                click.echo(click.style(f"  | {line}", dim=True), err=True)
            code = _CODES.get(type(error).__name__, LOAD_FAILED)
            raise Failure(str(error), code, getattr(error, "hint", "")) from None
        except Exception as error:
            raise _call_failure(ctx, error) from error


_CODES = {"ClusterError": WRONG, "NotReadyError": WRONG, "UnreachableError": UNREACHABLE}


def _call_failure(ctx: click.Context, error: Exception) -> Exception:
    """Turns a failed call to a server into a `Failure`; returns any other error as it is."""
    from mlserver_pyfunc.client import CallError

    if not isinstance(error, CallError):
        return error
    if error.status in (None, "UNAVAILABLE"):
        is_no_url = ": expected " in str(error)
        hint = "" if is_no_url else "is the server up? mlserver-pyfunc serve FOLDER starts it"
        return Failure(str(error), UNREACHABLE, hint)
    hint = "infer --stream" if "call infer_stream" in str(error) else ctx.meta.get(HINT, "")
    return Failure(f"{error} (status {error.status})", hint=hint)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 success, 1 a check or a call failed, 2 wrong usage, "
    "3 a function cannot be loaded, 4 no server answers, 5 a port is taken.",
)
@click.version_option(package_name="mlserver-pyfunc")
def main() -> None:
    """Turn a Python function into an Open Inference Protocol v2 API."""
