"""`manifest`: prints the Kubernetes objects that serve a function."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import NoneType
from typing import IO, Annotated, Any, Literal, get_args, get_origin

import click

from mlserver_pyfunc.definition.deployment import EnvName, described
from mlserver_pyfunc.deployment import manifests

from .failure import folder_argument


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise click.BadParameter(f'expected NAME=VALUE, got "{text}"')
    return name, value


# Options whose names on the command line do not follow from those of their fields.
_FLAGS = {
    "namespace": ("--namespace", "-n"),
    "cluster_runtime": ("--cluster-runtime/--namespace-runtime",),
    "monitor": ("--monitor/--no-monitor",),
    "with_runtime": ("--with-runtime/--without-runtime",),
}
_METAVARS = {"image_pull_secrets": "SECRET", "run_as_user": "UID|any"}


def options(command: Any) -> Any:
    """Adds an option to a command for each field of `manifests.Options`."""
    first = ("preset", "name", "namespace", "image")
    fields = manifests.Options.model_fields
    for name in reversed(list(dict.fromkeys([*first, *fields]))):
        field = fields[name]
        kind = _plain(field.annotation)
        is_multiple = get_origin(kind) in (list, dict)
        flag = f"--{name.replace('_', '-')}"
        text = described(name, field.description or "")
        if isinstance(field.default, str | int) and not isinstance(field.default, bool):
            text = f"{text}  [{field.default}]"
        command = click.option(
            *_FLAGS.get(name, [flag.removesuffix("s") if is_multiple else flag]),
            name,
            type=_type(kind),
            default=None,
            multiple=is_multiple,
            metavar=_METAVARS.get(name) or _metavar(kind),
            help=text,
        )(command)
    return command


def _type(kind: Any) -> Any:
    if get_origin(kind) is Literal:
        return click.Choice(get_args(kind))
    if get_origin(kind) is dict:
        return _pair
    return kind if kind in (int, bool) else str


def _metavar(kind: Any) -> str | None:
    if get_origin(kind) is dict:
        key, value = get_args(kind)
        return f"{'NAME' if key == EnvName else 'KEY'}={getattr(value, 'form', 'VALUE')}"
    return getattr(get_args(kind)[0], "form", None) if get_origin(kind) is list else None


def _plain(annotation: Any) -> Any:
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
    from mlserver_pyfunc.api.function import Function

    objects, warnings = Function.load(folder).objects(platform, **chosen(given))
    print_warnings(warnings)
    output.write(manifests.dump(objects))


def print_warnings(warnings: Iterable[str]) -> None:
    """Prints warnings about a manifest on standard error."""
    for warning in warnings:
        click.echo(f"{click.style('warning', fg='yellow', bold=True)}: {warning}", err=True)


def chosen(given: dict[str, Any]) -> dict[str, Any]:
    """Returns the options that the command line gives, by the names of `manifests.Options`."""
    values = {name: value for name, value in given.items() if value not in (None, ())}
    for name, value in values.items():
        if get_origin(manifests.Options.model_fields[name].annotation) is dict:
            values[name] = dict(value)
    return values
