"""`manifest`: prints the Kubernetes objects that serve a function."""

from __future__ import annotations

from pathlib import Path
from types import NoneType
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import click

from mlserver_pyfunc.deployment import manifests
from mlserver_pyfunc.deployment.manifests.options import declared

from .failure import folder_argument

if TYPE_CHECKING:
    from mlserver_pyfunc.definition.folder import FunctionFolder


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise click.BadParameter(f'expected NAME=VALUE, got "{text}"')
    return name, value


def options(command: Any) -> Any:
    """Adds an option to a command for each field of `manifests.Options`."""
    for name, field in reversed(manifests.Options.model_fields.items()):
        how = declared(field)
        kind = _plain(field.annotation)
        command = click.option(
            *(how["flags"] or [f"--{name.replace('_', '-')}"]),
            name,
            type=_type(kind, how["metavar"]),
            default=None,
            multiple=get_origin(kind) in (list, dict),
            metavar=how["metavar"] or None,
            help=field.description,
        )(command)
    return command


def _type(kind: Any, metavar: str) -> Any:
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    if get_origin(kind) is dict:
        return _pair
    # A metavar tells that the option takes more than its type, such as `any`.
    return kind if kind in (int, bool) and not metavar else str


def _plain(annotation: Any) -> Any:
    """Returns a type without `None` and without its checks."""
    if NoneType in get_args(annotation):
        (annotation,) = set(get_args(annotation)) - {NoneType}
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


@click.command("manifest")
@click.argument("platform", type=click.Choice(manifests.PLATFORMS))
@folder_argument
@options
@click.option("-o", "--output", type=click.File("w"), default="-", help="File to write to.")
def command(platform: str, folder: Path, output: IO[str], **given: Any) -> None:
    """Print the Kubernetes objects that serve the function in FOLDER."""
    from mlserver_pyfunc.definition.folder import open_folder

    output.write(manifests.dump(derive(platform, open_folder(folder), given)))


def derive(
    platform: str, opened: FunctionFolder, given: dict[str, Any], *, warn: bool = True
) -> list[dict[str, Any]]:
    """Returns the objects of a function by the options of the command line, and prints warnings."""
    options = manifests.options_of(platform, opened.definition.deployment, chosen(given))
    objects, warnings = manifests.derive(
        platform, opened.definition, opened.located.folder, options, opened.settings_file
    )
    for warning in warnings if warn else ():
        click.echo(f"{click.style('warning', fg='yellow', bold=True)}: {warning}", err=True)
    return objects


def chosen(given: dict[str, Any]) -> dict[str, Any]:
    """Returns the options that the command line gives, by the names of `manifests.Options`."""
    values = {name: value for name, value in given.items() if value not in (None, ())}
    for name, value in values.items():
        if get_origin(manifests.Options.model_fields[name].annotation) is dict:
            values[name] = dict(value)
    return values
