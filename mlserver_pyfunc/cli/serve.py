"""`serve`: runs MLServer in this process, with lean settings."""

from __future__ import annotations

import errno
import logging
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.decorators import FC

from mlserver_pyfunc.deployment.server_settings import PORTS, Ports, free_ports
from mlserver_pyfunc.errors import DefinitionError

from .failure import LOAD_FAILED, PORT_TAKEN, Failure, folder_argument, next_step
from .terminal import Terminal


def _option(name: str, variable: str, default: int | str, about: str) -> Callable[[FC], FC]:
    shown: Any = {"envvar": f"MLSERVER_{variable}", "show_envvar": True, "show_default": True}
    return click.option(name, default=default, help=about, **shown)


@click.command("serve")
@folder_argument
@_option("--host", "HOST", "127.0.0.1", "Address to listen on.")
@_option("--port", "HTTP_PORT", PORTS.http, "Port of REST; 0: a free one.")
@_option("--grpc-port", "GRPC_PORT", PORTS.grpc, "Port of gRPC; 0: a free one.")
@_option("--metrics-port", "METRICS_PORT", PORTS.metrics, "Port of the metrics; 0: a free one.")
@click.option("--reload", "reload_", is_flag=True, help="Reload functions when a file changes.")
@click.option("--no-image", is_flag=True, help="Serve from source, even if an image was built.")
@click.option("-q", "--quiet", is_flag=True, help="Show only warnings and errors.")
@click.option("-v", "--verbose", is_flag=True, help="Show MLServer's log and all frames, too.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Form of the log.  [text]")
@click.pass_obj
def command(
    log: Terminal,
    folder: Path,
    host: str,
    port: int,
    grpc_port: int,
    metrics_port: int,
    reload_: bool,
    no_image: bool,
    quiet: bool,
    verbose: bool,
    log_format: str | None,
) -> None:
    """Serve the function in FOLDER, or every function below it.

    Shows where the functions are served, and a line for each request: what was called, the
    status, the time, and the reason of an error. Ctrl-C waits for the calls in flight; a second
    one does not.

    Settings other than the host and the ports come from settings.json in FOLDER and from MLSERVER_
    variables. All others are lean: no debug mode, no compression, no worker pool. Exits with 3 if
    a function cannot be loaded, with 5 if a port is taken.

    If an image of the function was built on this machine and the function has not changed since,
    the command runs the image and publishes its ports; not with --reload.
    """
    free = iter(free_ports(3))
    ports = Ports(*(wanted or next(free) for wanted in (port, grpc_port, metrics_port)))
    _require_free(host, ports)
    log.to_stderr, log.is_text = False, log_format != "json"
    log.least = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
    if not (no_image or reload_):
        _serve_image(folder, host, ports)
    from mlserver_pyfunc.hosts.mlserver.light_import import import_mlserver

    import_mlserver()
    from mlserver_pyfunc.hosts.mlserver import dev_server

    asked = {"host": host, **{f"{name}_port": port for name, port in vars(ports).items()}}
    failure = dev_server.run(folder, asked, log.write, reload=reload_)
    if failure is not None:
        hint = next_step(click.get_current_context())
        raise Failure(str(failure), LOAD_FAILED, hint, log.traceback)


def _serve_image(folder: Path, host: str, ports: Ports) -> None:
    """Runs the image of a folder and exits as it does; returns if the source is to be served."""
    from mlserver_pyfunc.definition.locate import open_folder
    from mlserver_pyfunc.deployment.image import engines, record

    try:
        opened = open_folder(folder)
    except DefinitionError:
        # A folder of several functions, or a broken definition: the server reports which.
        return
    found = record.recorded(opened.definition, opened.folder)
    if found is None:
        return
    tell = partial(click.echo, err=True)
    if found.why:
        tell(
            f"image {found.reference} is stale ({found.why}): serving from source; "
            "mlserver-pyfunc build renews it"
        )
        return
    for reference in filter(None, (found.id, found.reference)):
        if engine := engines.holder(reference):
            url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{ports.http}"
            tell(f"running image {reference} by {engine.name}")
            tell(f"when it is ready, try {url}/v2/models/{opened.model_name}/playground")
            published = dict(zip(vars(PORTS).values(), vars(ports).values(), strict=True))
            raise SystemExit(_exit_code(engine.run_command(reference, published, host)))
    tell(f"image {found.reference} is not on this machine: serving from source")


def _exit_code(command: Sequence[str]) -> int:
    process = subprocess.Popen(command)
    previous = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        while True:
            # The terminal sends an interrupt to the engine too, which stops the container.
            with suppress(KeyboardInterrupt):
                return process.wait()
    finally:
        signal.signal(signal.SIGTERM, previous)


def _require_free(host: str, ports: Ports) -> None:
    options = ("--port", "--grpc-port", "--metrics-port")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as stack:
        for option, port in zip(options, vars(ports).values(), strict=True):
            try:
                stack.enter_context(socket.create_server((host, port), family=family))
            except OverflowError:
                raise Failure(f"{option}: expected 0 to 65535, got {port}", PORT_TAKEN) from None
            except OSError as error:
                reason = (error.strerror or str(error)).partition(" (")[0]
                reason = "is taken" if error.errno == errno.EADDRINUSE else f": {reason}"
                hint = "choose another port, or 0 for a free one"
                raise Failure(
                    f"{option}: port {port} of {host} {reason}", PORT_TAKEN, hint
                ) from None
