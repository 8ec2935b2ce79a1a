"""`deploy`: puts a function on a cluster, or removes it."""

from __future__ import annotations

from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlserver_pyfunc.sources.progress import Rows

from . import manifest
from .status import deployed, deployment

if TYPE_CHECKING:
    from mlserver_pyfunc.api.deployment import Deployment
    from mlserver_pyfunc.deployment.cluster.apply import Applied

_WORDS = {"absent": "was not there", "kept": "kept, others use it"}
# Texts of an object that nothing is waited for any more.
_DONE = frozenset({"ready", "gone"})
_DRY_WORDS = {"created": "would be created", "updated": "would be updated"}


@click.command("deploy")
@deployed
@click.option(
    "--wait/--no-wait",
    default=True,
    show_default=True,
    help="Whether to wait until the function serves.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=600.0,
    show_default=True,
    help="Time limit of the wait, in seconds.",
)
@click.option(
    "--dry-run", is_flag=True, help="Let the cluster check the objects, and change nothing."
)
@click.option(
    "--delete",
    is_flag=True,
    help="Remove the objects of the function, and wait until they are gone.",
)
@click.option(
    "--force-conflicts", is_flag=True, help="Take over fields and objects that others manage."
)
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
    meant = deployment(folder, given)
    words = _DRY_WORDS if dry_run else _WORDS
    with closing(Rows(partial(click.echo, err=True))) as rows:
        meant.on_change = lambda one: _print_change(one, words)
        meant.on_progress = lambda title, text: rows.show(title, text, is_done=text in _DONE)
        if delete:
            meant.delete(timeout if wait else 0, force=force_conflicts)
            return
        manifest.print_warnings(meant.warnings)
        meant.apply(dry_run=dry_run, force=force_conflicts)
        if dry_run or not wait:
            return
        meant.wait(timeout)
    _print_addresses(meant)


def _print_change(one: Applied, words: dict[str, str]) -> None:
    where = f" in {one.target.namespace}" if one.target.namespace else ""
    click.echo(f"{one.target.title}{where}: {words.get(one.change, one.change)}")


def _print_addresses(meant: Deployment) -> None:
    from mlserver_pyfunc.deployment.cluster.addresses import curl

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
