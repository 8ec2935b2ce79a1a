"""`manifest`, `deploy`, `status` and `logs`: a function on a cluster."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from functools import partial
from pathlib import Path
from types import NoneType
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import click

from mlserver_pyfunc.definition.deployment import EnvName, described
from mlserver_pyfunc.deployment import manifests
from mlserver_pyfunc.deployment.cluster.addresses import curl
from mlserver_pyfunc.sources.progress import Rows

from .failure import PATH, WRONG, folder_argument

if TYPE_CHECKING:
    from mlserver_pyfunc.api.deployment import Deployment
    from mlserver_pyfunc.deployment.cluster.apply import Applied

_WORDS = {"absent": "was not there", "kept": "kept, others use it"}
# Texts of an object that nothing is waited for any more.
_DONE = frozenset({"ready", "gone"})
_DRY_WORDS = {"created": "would be created", "updated": "would be updated"}

_flag = partial(click.option, is_flag=True)
_shown = partial(click.option, show_default=True)
_SECONDS = click.FloatRange(0, min_open=True)

# Options whose names on the command line do not follow from those of their fields.
_FLAGS = {
    "namespace": ("--namespace", "-n"),
    "cluster_runtime": ("--cluster-runtime/--namespace-runtime",),
    "monitor": ("--monitor/--no-monitor",),
    "with_runtime": ("--with-runtime/--without-runtime",),
}
_METAVARS = {"image_pull_secrets": "SECRET", "run_as_user": "UID|any"}


def _function(command: Any) -> Any:
    """Adds the platform, the folder, and an option for each field of `manifests.Options`."""
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
    platform = click.argument("platform", type=click.Choice(manifests.PLATFORMS))
    return platform(folder_argument(command))


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


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator:
        raise click.BadParameter(f'expected NAME=VALUE, got "{text}"')
    return name, value


@click.command("manifest")
@_function
@click.option("-o", "--output", type=click.File("w"), default="-", help="File to write to.")
def manifest(platform: str, folder: Path, output: IO[str], **given: Any) -> None:
    """Print the Kubernetes objects that serve the function in FOLDER."""
    from mlserver_pyfunc.api.function import Function

    objects, warnings = Function.load(folder).objects(platform, **_chosen(given))
    _print_warnings(warnings)
    output.write(manifests.dump(objects))


_kubeconfig = click.option(
    "--kubeconfig", type=PATH, help="Kubeconfig file.  [as kubectl finds it]"
)
_context = click.option("--context", help="Context of the kubeconfig.  [the current one]")


def _deployment(folder: Path, given: dict[str, Any]) -> Deployment:
    from mlserver_pyfunc.api.function import Function

    place = {name: given.pop(name) for name in ("platform", "kubeconfig", "context")}
    return Function.load(folder).deployment(**place, **_chosen(given))


@click.command("deploy")
@_function
@_kubeconfig
@_context
@_shown("--wait/--no-wait", default=True, help="Whether to wait until the function serves.")
@_shown("--timeout", type=_SECONDS, default=600.0, help="Time limit of the wait, in seconds.")
@_flag("--dry-run", help="Let the cluster check the objects, and change nothing.")
@_flag("--delete", help="Remove the objects of the function, and wait until they are gone.")
@_flag("--force-conflicts", help="Take over fields and objects that others manage.")
def command(
    folder: Path,
    wait: bool,
    timeout: float,
    dry_run: bool,
    delete: bool,
    force_conflicts: bool,
    **given: Any,
) -> None:
    """Put the function in FOLDER on a Kubernetes cluster, and wait until it serves.

    Applies the objects that `manifest` prints, by server-side apply; run it again to update them.
    Then prints where the function answers, and how to call it. Needs the `deploy` extra.
    """
    if delete and dry_run:
        raise click.UsageError("--delete and --dry-run do not go together")
    meant = _deployment(folder, given)
    words = _DRY_WORDS if dry_run else _WORDS
    with closing(Rows(partial(click.echo, err=True))) as rows:
        meant.on_change = lambda one: _print_change(one, words)
        meant.on_progress = lambda title, text: rows.show(title, text, is_done=text in _DONE)
        if delete:
            meant.delete(timeout if wait else 0, force=force_conflicts)
            return
        _print_warnings(meant.warnings)
        meant.apply(dry_run=dry_run, force=force_conflicts)
        if dry_run or not wait:
            return
        meant.wait(timeout)
    _print_addresses(meant)


def _print_warnings(warnings: Iterable[str]) -> None:
    for warning in warnings:
        click.echo(f"{click.style('warning', fg='yellow', bold=True)}: {warning}", err=True)


def _chosen(given: dict[str, Any]) -> dict[str, Any]:
    """Returns the options that the command line gives, by the names of `manifests.Options`."""
    values = {name: value for name, value in given.items() if value not in (None, ())}
    for name, value in values.items():
        if get_origin(manifests.Options.model_fields[name].annotation) is dict:
            values[name] = dict(value)
    return values


def _print_change(one: Applied, words: dict[str, str]) -> None:
    where = f" in {one.target.namespace}" if one.target.namespace else ""
    click.echo(f"{one.target.title}{where}: {words.get(one.change, one.change)}")


def _print_addresses(meant: Deployment) -> None:
    found, definition = meant.addresses(), meant.function.definition
    click.echo(f"\n{meant.function.name} is ready")
    for address in found.rest:
        click.echo(f"REST, {address.where}: {address.url}/v2/models/{found.model}")
    if found.grpc:
        click.echo(f"gRPC, in the cluster: {found.grpc}")
    outside = next((one for one in found.rest if one.where == "outside"), None)
    if outside:
        click.echo(f"\ncall it:\n  {curl(definition, found.model, outside)}")
    if found.forwarded:
        way = "\nif its name has no address:" if outside else "\ncall it from here:"
        click.echo(f"{way}\n  {found.forward} &")
        click.echo(f"  {curl(definition, found.model, found.forwarded)}")


@click.command("status")
@_function
@_kubeconfig
@_context
def status(folder: Path, **given: Any) -> None:
    """Show the state of each object of the function in FOLDER. Exits with 1 if it does not serve.

    Give the options that were given to deploy: they name the objects.
    """
    from . import output

    found = _deployment(folder, given).status()
    output.table("", ("object", "state"), list(found.objects.items()))
    if not found.is_ready:
        raise click.exceptions.Exit(WRONG)


@click.command("logs")
@_function
@_kubeconfig
@_context
@click.option("--lines", default=100, show_default=True, help="Lines of each container.")
def logs(folder: Path, lines: int, **given: Any) -> None:
    """Print the last lines that each container of the function in FOLDER has written.

    Give the options that were given to deploy: they name the objects.
    """
    click.echo(_deployment(folder, given).logs(lines))
