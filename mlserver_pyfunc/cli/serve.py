"""`serve`: runs MLServer in this process, with lean settings."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from mlserver_pyfunc.deployment.server_settings import PORTS, Ports, free_ports

from .failure import LOAD_FAILED, Failure


@click.command("serve")
@click.argument("folder", type=click.Path(path_type=Path), default=".")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=PORTS.http, show_default=True, help="Port of REST; 0: a free one.")
@click.option(
    "--grpc-port", default=PORTS.grpc, show_default=True, help="Port of gRPC; 0: a free one."
)
@click.option(
    "--metrics-port",
    default=PORTS.metrics,
    show_default=True,
    help="Port of the metrics; 0: a free one.",
)
@click.option("--reload", "reload_", is_flag=True, help="Reload functions when a file changes.")
@click.option("--no-image", is_flag=True, help="Serve from source, even if an image was built.")
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

    Settings come from settings.json in FOLDER and from MLSERVER_ variables. All others are lean:
    no debug mode, no compression, no worker pool. Exits with 3 if a function cannot be loaded.

    If an image of the function was built on this machine and the function has not changed since,
    the command runs the image and publishes its ports; not with --reload.
    """
    free = iter(free_ports(3))
    ports = Ports(*(wanted or next(free) for wanted in (port, grpc_port, metrics_port)))
    if not (no_image or reload_):
        _serve_image(folder, host, ports, open_browser=open_)
    from mlserver_pyfunc.hosts.mlserver import dev_server

    options = dev_server.Options(
        folder, host, ports.http, ports.grpc, ports.metrics, reload=reload_, open_browser=open_
    )
    try:
        failure = dev_server.run(options)
    except KeyboardInterrupt:
        return
    if failure is not None:
        hint = f"mlserver-pyfunc validate {folder} shows what is wrong by file and line"
        raise Failure(str(failure), LOAD_FAILED, hint)


def _serve_image(folder: Path, host: str, ports: Ports, *, open_browser: bool) -> None:
    """Runs the function's image and ends the command with it; returns if there is no image."""
    import webbrowser

    from mlserver_pyfunc.deployment.image import container

    echo = partial(click.echo, err=True)
    runnable = container.find(folder, echo)
    if runnable is None:
        return
    url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{ports.http}"

    def when_ready() -> None:
        echo(f"serving {runnable.model_name}, try {url}/v2/models/{runnable.model_name}/playground")
        if open_browser:
            webbrowser.open(f"{url}/v2/models/{runnable.model_name}/playground")

    echo(f"running image {runnable.reference} by {runnable.engine.name}")
    published = dict(zip(vars(PORTS).values(), vars(ports).values(), strict=True))
    raise SystemExit(container.run(runnable, published, host, when_ready))
