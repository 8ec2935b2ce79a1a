"""`deploy`: puts a function on a cluster, or removes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from . import manifest
from .failure import UNREACHABLE, WRONG, Failure
from .status import deployed

if TYPE_CHECKING:
    from mlserver_pyfunc.definition.folder import FunctionFolder
    from mlserver_pyfunc.deployment.cluster.addresses import Addresses
    from mlserver_pyfunc.deployment.cluster.api import Cluster
    from mlserver_pyfunc.deployment.cluster.apply import Applied


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
    platform: str,
    folder: Path,
    wait: bool,
    timeout: float,
    kubeconfig: Path | None,
    context: str | None,
    dry_run: bool,
    delete: bool,
    force_conflicts: bool,
    **given: Any,
) -> None:
    """Put the function in FOLDER on a Kubernetes cluster, and wait until it serves.

    Applies the objects that `manifest` prints, by server-side apply; run it again to update them.
    Then prints where the function answers, and how to call it. Needs the `deploy` extra.
    """
    from mlserver_pyfunc.definition.folder import open_folder
    from mlserver_pyfunc.deployment.cluster.errors import ClusterError, UnreachableError
    from mlserver_pyfunc.deployment.cluster.kubeconfig import connect

    if delete and dry_run:
        raise click.UsageError("--delete and --dry-run do not go together")
    opened = open_folder(folder)
    objects = manifest.derive(platform, opened, given, warn=not delete)
    act = _delete if delete else _dry_run if dry_run else _deploy
    call = _Call(platform, opened, objects, timeout if wait else 0.0, force_conflicts)
    try:
        with closing(connect(kubeconfig, context)) as cluster:
            act(cluster, call)
    except ClusterError as error:
        for line in getattr(error, "log", ()):
            click.echo(click.style(f"  | {line}", dim=True), err=True)
        code = UNREACHABLE if isinstance(error, UnreachableError) else WRONG
        raise Failure(str(error), code, error.hint) from None


class _Call(NamedTuple):
    """What the command is to do. It waits for no seconds if it is not to wait."""

    platform: str
    opened: FunctionFolder
    objects: list[dict[str, Any]]
    seconds: float
    force: bool


def _deploy(cluster: Cluster, call: _Call) -> None:
    from mlserver_pyfunc.deployment.cluster.addresses import addresses
    from mlserver_pyfunc.deployment.cluster.apply import apply, targets
    from mlserver_pyfunc.deployment.cluster.prune import prune
    from mlserver_pyfunc.deployment.cluster.waiting import until_ready

    from .progress import Progress

    wanted = targets(cluster, call.objects)
    applied = _report(apply(cluster, wanted, force=call.force, dry_run=False))
    _report(prune(cluster, call.platform, wanted))
    if call.seconds:
        with Progress() as progress:
            live = until_ready(cluster, applied, call.seconds, progress.show)
        _print_addresses(addresses(live, call.opened.model_name), call.opened)


def _dry_run(cluster: Cluster, call: _Call) -> None:
    from mlserver_pyfunc.deployment.cluster.apply import apply, targets

    words = {"created": "would be created", "updated": "would be updated"}
    wanted = targets(cluster, call.objects)
    _report(apply(cluster, wanted, force=call.force, dry_run=True), words)


def _delete(cluster: Cluster, call: _Call) -> None:
    from mlserver_pyfunc.deployment.cluster.apply import delete, targets
    from mlserver_pyfunc.deployment.cluster.prune import prune
    from mlserver_pyfunc.deployment.cluster.waiting import until_gone

    from .progress import Progress

    words = {"absent": "was not there", "kept": "kept, others use it"}
    unwanted = targets(cluster, call.objects)
    done = _report(delete(cluster, unwanted, force=call.force, wait=bool(call.seconds)), words)
    _report(prune(cluster, call.platform, unwanted))
    if call.seconds:
        deleted = [one for one in done if one.change == "deleted"]
        with Progress() as progress:
            until_gone(cluster, deleted, call.seconds, progress.show)


def _report(changes: Iterable[Applied], words: Mapping[str, str] | None = None) -> list[Applied]:
    """Prints each change as it is made, in words for some of them."""
    made = []
    for one in changes:
        where = f" in {one.target.namespace}" if one.target.namespace else ""
        change = (words or {}).get(one.change, one.change)
        click.echo(f"{one.target.title}{where}: {change}")
        made.append(one)
    return made


def _print_addresses(found: Addresses, opened: FunctionFolder) -> None:
    from mlserver_pyfunc.deployment.cluster.example_call import curl

    click.echo(f"\n{opened.model_name} is ready")
    for address in found.rest:
        click.echo(f"REST, {address.where}: {address.url}/v2/models/{found.model}")
    if found.grpc:
        click.echo(f"gRPC, in the cluster: {found.grpc}")
    outside = next((one for one in found.rest if one.where == "outside"), None)
    if outside:
        click.echo(f"\ncall it:\n  {curl(opened.definition, found.model, outside)}")
    if found.forwarded:
        way = "\nif its name has no address:" if outside else "\ncall it from here:"
        click.echo(f"{way}\n  {found.forward} &")
        click.echo(f"  {curl(opened.definition, found.model, found.forwarded)}")
