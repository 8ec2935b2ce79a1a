"""`manifest`: prints the Kubernetes objects that serve a function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import click

from mlserver_pyfunc.deployment import manifests
from mlserver_pyfunc.deployment.manifests.options import declared

if TYPE_CHECKING:
    from mlserver_pyfunc.definition.folder import FunctionFolder


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise click.BadParameter(f'expected NAME=VALUE, got "{text}"')
    return name, value


def _secret(text: str) -> tuple[str, dict[str, str]]:
    name, reference = _pair(text)
    secret, separator, key = reference.partition("/")
    if not separator:
        raise click.BadParameter(f"{name}: expected NAME=SECRET/KEY")
    return name, {"secret": secret, "key": key}


def _env_source(text: str) -> dict[str, str]:
    kind, separator, name = text.partition("/")
    if not separator:
        raise click.BadParameter(f'expected secret/NAME or configmap/NAME, got "{text}"')
    return {"kind": kind, "name": name}


def _volume(text: str) -> dict[str, Any]:
    source, _, rest = text.partition(":")
    path, _, mode = rest.partition(":")
    kind, separator, name = source.partition("/")
    if not path or mode not in ("", "ro", "rw"):
        raise click.BadParameter(f'expected pvc/NAME:/PATH or pvc/NAME:/PATH:ro, got "{text}"')
    volume = {"kind": kind, "path": path, "read_only": mode == "ro"}
    return {**volume, "name": name} if separator else volume


def _toleration(text: str) -> dict[str, str]:
    rest, has_effect, effect = text.partition(":")
    key, has_value, value = rest.partition("=")
    found = {"key": key}
    if has_value:
        found["value"] = value
    if has_effect:
        found["effect"] = effect
    return found


_TYPES = {int: int, bool: bool, str: str}
# By the metavar of an option.
_READERS: dict[str, Callable[[str], Any]] = {
    "NAME=VALUE": _pair,
    "KEY=VALUE": _pair,
    "NAME=SECRET/KEY": _secret,
    "secret/NAME|configmap/NAME": _env_source,
    "pvc/NAME:/PATH[:ro]": _volume,
    "KEY[=VALUE][:EFFECT]": _toleration,
    "UID|any": str,
}


def options(command: Any) -> Any:
    """Adds an option to a command for each field of `manifests.Options`."""
    for name, field in reversed(manifests.Options.model_fields.items()):
        how, kind = declared(field), _plain(field.annotation)
        metavar, is_choice = how["metavar"], get_origin(kind) is Literal
        command = click.option(
            *(how["flags"] or [f"--{name.replace('_', '-')}"]),
            name,
            type=click.Choice(get_args(kind))
            if is_choice
            else _READERS.get(metavar, _TYPES.get(kind)),
            default=None,
            multiple=get_origin(kind) in (list, dict),
            metavar=metavar or None,
            help=field.description,
        )(command)
    return command


def _plain(annotation: Any) -> Any:
    """Returns a type without `None` and without its checks."""
    if NoneType in get_args(annotation):
        (annotation,) = set(get_args(annotation)) - {NoneType}
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


@click.command("manifest")
@click.argument("platform", type=click.Choice(manifests.PLATFORMS))
@click.argument("folder", type=click.Path(path_type=Path), default=".")
@options
@click.option("-o", "--output", type=click.File("w"), default="-", help="File to write to.")
def command(platform: str, folder: Path, output: IO[str], **given: Any) -> None:
    """Print the Kubernetes objects that serve the function in FOLDER."""
    from mlserver_pyfunc.definition.folder import open_folder

    opened = open_folder(folder)
    warn(platform, opened, given)
    output.write(manifests.dump(objects(platform, opened, given)))


def objects(platform: str, opened: FunctionFolder, given: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the objects of a function.

    Args:
        platform: One of `manifests.PLATFORMS`.
        opened: Folder of the function.
        given: Values of the command line's options.
    """
    place = opened.located.folder
    return manifests.objects(
        platform, opened.definition, place, _parse(given), opened.settings_file
    )


def warn(platform: str, opened: FunctionFolder, given: dict[str, Any]) -> None:
    """Prints warnings about the objects of a function. The arguments are those of `objects`."""
    place = opened.located.folder
    for warning in manifests.warnings(
        platform, opened.definition, place, _parse(given), opened.settings_file
    ):
        click.echo(f"{click.style('warning', fg='yellow', bold=True)}: {warning}", err=True)


def _parse(given: dict[str, Any]) -> manifests.Options:
    values = {name: value for name, value in given.items() if value not in (None, ())}
    for name, value in values.items():
        if get_origin(manifests.Options.model_fields[name].annotation) is dict:
            values[name] = dict(value)
    return manifests.parse(values)
