"""`serve`: MLServer in this process, with settings that cost nothing we do not use."""

from __future__ import annotations

from pathlib import Path

import click

from mlserver_pyfunc.deployment.server_settings import PORTS

from .failure import LOAD_FAILED, Failure


@click.command("serve")
@click.argument("folder", type=click.Path(exists=True, path_type=Path), default=".")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=PORTS.http, show_default=True, help="Of REST; 0 for a free one.")
@click.option("--grpc-port", default=PORTS.grpc, show_default=True, help="0 for a free one.")
@click.option("--metrics-port", default=PORTS.metrics, show_default=True, help="0 for a free one.")
@click.option("--reload", "reload_", is_flag=True, help="Reload functions when a file changes.")
@click.option("--no-image", is_flag=True, help="Serve from source, whatever image was built.")
@click.option("--open", "open_", is_flag=True, help="Open the playground in the browser.")
def command(
    folder: Path,
    host: str,
    port: int,
    grpc_port: int,
    metrics_port: int,
    reload_: bool,
    no_image: bool,
    open_: bool,
) -> None:
    """Serve the function in FOLDER, or every function below it.

    Settings come from settings.json in FOLDER and MLSERVER_ variables; what neither gives is
    lean: no debug, no compression, no worker pool. Exits with 3 where a function cannot be
    loaded.

    Where an image of the function was built, is on this machine and is not stale, it is run
    instead, with the ports published; not with --reload.
    """
    import asyncio

    from mlserver_pyfunc.testing.server import free_ports

    free = iter(free_ports(3))
    ports = [wanted or next(free) for wanted in (port, grpc_port, metrics_port)]
    if not (no_image or reload_):
        _serve_image(folder, host, ports, open_browser=open_)
    from mlserver_pyfunc.hosts.mlserver import dev_server

    options = dev_server.Options(
        folder, host, ports[0], ports[1], ports[2], reload=reload_, open_browser=open_
    )
    dev_server.use_uvloop()
    try:
        failure = asyncio.run(dev_server.serve(options))
    except KeyboardInterrupt:
        return
    if failure is not None:
        hint = f"mlserver-pyfunc validate {folder} shows what is wrong by file and line"
        raise Failure(str(failure), LOAD_FAILED, hint)


def _serve_image(folder: Path, host: str, ports: list[int], *, open_browser: bool) -> None:
    """Runs the function's image and ends the command with it; returns where there is none."""
    from mlserver_pyfunc.deployment.image import container

    def tell(line: str) -> None:
        click.echo(line, err=True)

    runnable = container.find(folder, tell)
    if runnable is None:
        return
    url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{ports[0]}"

    def when_ready() -> None:
        tell(f"serving {runnable.model_name}, try {url}/v2/models/{runnable.model_name}/playground")
        if open_browser:
            container.open_playground(url, runnable.model_name)

    tell(f"running image {runnable.reference} by {runnable.engine.name}")
    published = dict(zip(vars(PORTS).values(), ports, strict=True))
    raise SystemExit(container.run(runnable, published, host, when_ready))
