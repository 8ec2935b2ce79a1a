"""`deploy`: puts a function on a cluster, or removes it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlserver_pyfunc.deployment.manifests import PLATFORMS

from . import manifest
from .failure import UNREACHABLE, WRONG, Failure

if TYPE_CHECKING:
    from mlserver_pyfunc.definition.folder import FunctionFolder
    from mlserver_pyfunc.deployment.cluster.addresses import Addresses
    from mlserver_pyfunc.deployment.cluster.api import Cluster
    from mlserver_pyfunc.deployment.cluster.apply import Applied, Target

_DRY_RUN = {"created": "would be created", "updated": "would be updated"}


@click.command("deploy")
@click.argument("platform", type=click.Choice(PLATFORMS))
@click.argument("folder", type=click.Path(path_type=Path), default=".")
@manifest.options
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
    "--kubeconfig", type=click.Path(path_type=Path), help="Kubeconfig file.  [as kubectl finds it]"
)
@click.option("--context", help="Context of the kubeconfig.  [the current one]")
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
    seconds = timeout if wait else 0.0
    try:
        with closing(connect(kubeconfig, context)) as cluster:
            if delete:
                _delete(cluster, platform, objects, seconds, force=force_conflicts)
            elif dry_run:
                _dry_run(cluster, objects, force=force_conflicts)
            else:
                _deploy(cluster, platform, opened, objects, seconds, force=force_conflicts)
    except ClusterError as error:
        for line in getattr(error, "log", ()):
            click.echo(click.style(f"  | {line}", dim=True), err=True)
        code = UNREACHABLE if isinstance(error, UnreachableError) else WRONG
        raise Failure(str(error), code, error.hint) from None


def _deploy(
    cluster: Cluster,
    platform: str,
    opened: FunctionFolder,
    objects: Iterable[dict[str, Any]],
    seconds: float,
    *,
    force: bool,
) -> None:
    from mlserver_pyfunc.deployment.cluster.addresses import addresses
    from mlserver_pyfunc.deployment.cluster.apply import apply, targets
    from mlserver_pyfunc.deployment.cluster.prune import prune
    from mlserver_pyfunc.deployment.cluster.waiting import until_ready

    from .progress import Progress

    wanted = targets(cluster, objects)
    applied = []
    for one in apply(cluster, wanted, force=force, dry_run=False):
        _report(one.target, one.change)
        applied.append(one)
    for one in prune(cluster, platform, wanted):
        _report(one.target, one.change)
    if not seconds:
        return
    with Progress() as progress:
        live = until_ready(cluster, applied, seconds, progress.show)
    _print_addresses(addresses(live, opened.model_name), opened)


def _dry_run(cluster: Cluster, objects: Iterable[dict[str, Any]], *, force: bool) -> None:
    from mlserver_pyfunc.deployment.cluster.apply import apply, targets

    for one in apply(cluster, targets(cluster, objects), force=force, dry_run=True):
        _report(one.target, _DRY_RUN.get(one.change, one.change))


def _delete(
    cluster: Cluster,
    platform: str,
    objects: Iterable[dict[str, Any]],
    seconds: float,
    *,
    force: bool,
) -> None:
    from mlserver_pyfunc.deployment.cluster.apply import delete, targets
    from mlserver_pyfunc.deployment.cluster.prune import prune
    from mlserver_pyfunc.deployment.cluster.waiting import until_gone

    from .progress import Progress

    unwanted = targets(cluster, objects)
    deleted: list[Applied] = []
    for one in delete(cluster, unwanted, force=force, wait=bool(seconds)):
        _report(one.target, _REMOVED[one.change])
        if one.change == "deleted":
            deleted.append(one)
    for one in prune(cluster, platform, unwanted):
        _report(one.target, one.change)
    if not seconds:
        return
    with Progress() as progress:
        until_gone(cluster, deleted, seconds, progress.show)


_REMOVED = {"deleted": "deleted", "absent": "was not there", "kept": "kept, others use it"}


def _report(target: Target, change: str) -> None:
    where = f" in {target.namespace}" if target.namespace else ""
    click.echo(f"{target.title}{where}: {change}")


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
