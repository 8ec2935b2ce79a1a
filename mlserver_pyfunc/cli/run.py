"""`run`: calls a function by the path that the server takes, without a server."""

from __future__ import annotations

import json
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import click

from mlserver_pyfunc.protocol.samples import request_form

from . import inputs
from .failure import folder_argument


@click.command("run")
@folder_argument
@inputs.options
@click.option(
    "--request",
    "request_file",
    type=click.File("rb"),
    help="File with a request in the protocol's JSON form; - reads standard input.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the protocol's response, as JSON.")
def command(
    folder: Path,
    given: tuple[str, ...],
    request_file: Any,
    is_random: bool,
    as_json: bool,
) -> None:
    """Call the function in FOLDER as the server does: same loading, contract and errors."""
    import orjson

    from mlserver_pyfunc.definition.locate import open_folder
    from mlserver_pyfunc.protocol.request import InferenceRequest
    from mlserver_pyfunc.serving.local import LocalFunction, arrays_of

    from . import output

    # Ctrl-C ends the process at once: to unwind the stack would wait for the handler.
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)
    click.get_current_context().call_on_close(partial(signal.signal, signal.SIGINT, before))
    with LocalFunction(open_folder(folder)) as function:
        if request_file is not None:
            try:
                body = json.load(request_file)
            except ValueError as error:
                form = request_form(list(function.contract.inputs.values()))
                raise click.BadParameter(f"--request: not JSON: {error}, expected {form}") from None
            request = InferenceRequest.from_json(body)
        else:
            arrays = inputs.arrays(function.contract, given, is_random=is_random)
            request = InferenceRequest.from_values(function.contract, arrays)
        waited, asked = 0.0, time.perf_counter()
        for answer in function.infer_stream(request):
            waited += time.perf_counter() - asked
            if as_json:
                click.echo(orjson.dumps(function.response(answer, request.id)))
            else:
                output.arrays(arrays_of(answer))
            asked = time.perf_counter()
        if not as_json:
            click.echo(click.style(f"{waited * 1000:.3f} ms", dim=True), err=True)
