"""`serve`: MLServer in this process, with settings that cost nothing we do not use."""

from __future__ import annotations

from pathlib import Path

import click

from .failure import LOAD_FAILED, Failure


@click.command("serve")
@click.argument("folder", type=click.Path(exists=True, path_type=Path), default=".")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, help="Of REST; 0 for a free one.")
@click.option("--grpc-port", default=8081, show_default=True, help="0 for a free one.")
@click.option("--metrics-port", default=8082, show_default=True, help="0 for a free one.")
@click.option("--reload", "reload_", is_flag=True, help="Reload functions when a file changes.")
@click.option("--open", "open_", is_flag=True, help="Open the playground in the browser.")
def command(
    folder: Path,
    host: str,
    port: int,
    grpc_port: int,
    metrics_port: int,
    reload_: bool,
    open_: bool,
) -> None:
    """Serve the function in FOLDER, or every function below it.

    Settings come from settings.json in FOLDER and MLSERVER_ variables; what neither gives is
    lean: no debug, no compression, no worker pool. Exits with 3 where a function cannot be
    loaded.
    """
    import asyncio

    from .. import serving
    from ..testing.server import free_ports

    free = iter(free_ports(3))
    options = serving.Options(
        folder,
        host,
        port or next(free),
        grpc_port or next(free),
        metrics_port or next(free),
        reload=reload_,
        open_browser=open_,
    )
    serving.use_uvloop()
    try:
        failure = asyncio.run(serving.serve(options))
    except KeyboardInterrupt:
        return
    if failure is not None:
        hint = f"mlserver-pyfunc validate {folder} shows what is wrong by file and line"
        raise Failure(str(failure), LOAD_FAILED, hint)
