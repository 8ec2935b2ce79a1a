"""`lock`: pins the source of a function, or checks that the pin still holds."""

from __future__ import annotations

from pathlib import Path

import click

from .failure import Failure, folder_argument


@click.command("lock")
@folder_argument
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if the file would change.")
def command(folder: Path, check: bool) -> None:
    """Write function.lock beside the definition in FOLDER: commit, digests and requirements.

    A function.lock is binding: a function that differs from it does not load.
    """
    from mlserver_pyfunc.definition.folder import open_folder
    from mlserver_pyfunc.environments.environment import resolve
    from mlserver_pyfunc.sources import lock

    located = open_folder(folder).located
    if not check:
        resolved = resolve(located.definition)
        click.echo(f"wrote {lock.write(located.definition, located.folder, resolved)}")
        return
    locked = lock.read(located.folder)
    renew = f"mlserver-pyfunc lock {folder} writes it"
    if locked is None or locked.source is None:
        raise Failure(f"{located.folder}: no source in a function.lock", hint=renew)
    now = lock.current(located.definition, located.folder)
    changed = [
        f"{name}: locked {old}, now {new}"
        for name, old in locked
        # Newer versions of requirements are no change: the lock is there to keep the old ones. An
        # image has a check of its own.
        if name not in ("resolved", "image", "origin") and old != (new := getattr(now, name))
    ]
    if changed:
        raise Failure("function.lock is out of date: " + "; ".join(changed), hint=renew)
    click.echo(f"{located.folder}: function.lock holds")
