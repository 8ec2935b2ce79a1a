"""`infer`: calls a running server by REST or gRPC.

This module must not import MLServer: `client.grpc` says why.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from . import inputs, output
from .failure import Failure

if TYPE_CHECKING:
    from mlserver_pyfunc.client import InferResult

_SECONDS = click.FloatRange(min=0, min_open=True)
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Characters that both a header (RFC 9110, section 5.5) and gRPC metadata allow.
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")


def _headers(_: click.Context, option: click.Parameter, given: Sequence[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for text in given:
        name, colon, value = text.partition(":")
        value = value.strip(" ")
        if not colon or not _HEADER_NAME.fullmatch(name):
            raise click.BadParameter(f'expected NAME:VALUE, got "{name}"')
        if not _HEADER_VALUE.fullmatch(value):
            # The message leaves the value out, because it may be a secret.
            raise click.BadParameter(f'expected printable ASCII as the value of "{name}"')
        headers[name.lower()] = value
    return headers


@click.command("infer")
@click.argument("url")
@click.option(
    "-m", "--model", help="Name of the model. Over REST, not needed if there is only one."
)
@click.option(
    "--model-version", "version", default="", help="Version of the model.  [the default one]"
)
@click.option("--grpc", is_flag=True, help="Call by gRPC; needs the client extra.")
@click.option("--binary", is_flag=True, help="Call by REST with binary tensors.")
@inputs.options
@click.option(
    "--header", "headers", multiple=True, metavar="NAME:VALUE", callback=_headers,
    help="REST header or gRPC metadata, repeatable. Host becomes the authority of a gRPC call.",
)  # fmt: skip
@click.option("--stream", is_flag=True, help="Print each answer of a stream as it arrives.")
@click.option(
    "--timeout", type=_SECONDS, default=60.0, show_default=True,
    help="Seconds to wait for an answer.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    url: str,
    model: str | None,
    given: tuple[str, ...],
    is_random: bool,
    stream: bool,
    as_json: bool,
    **how: Any,
) -> None:
    """Call the server at URL.

    URL is http://HOST:PORT, the URL of a model on it, or HOST:PORT with --grpc.
    """
    from mlserver_pyfunc.client.connection import connect

    try:
        connected = connect(url, model, **how)
    except LookupError as error:
        raise Failure(str(error), hint="name the model with --model") from None
    except ImportError as error:
        raise Failure(str(error)) from None
    arrays = inputs.arrays(connected.contract, given, is_random=is_random)
    tensors = connected.inputs(arrays)
    if not as_json:
        click.echo(click.style(connected.name, bold=True))
        rows = [
            (kind[:-1], tensor["name"], tensor["datatype"], list(tensor.get("shape") or ()))
            for kind in ("inputs", "outputs")
            for tensor in connected.metadata.get(kind) or ()
        ]
        output.table("", ("", "tensor", "datatype", "shape"), rows)
        click.echo()
    with connected.client() as client:
        started = time.perf_counter()
        name = connected.name
        results = client.stream(name, tensors) if stream else iter([client.infer(name, tensors)])
        flowed = ""
        has_spaces = False
        for result in results:
            piece = _text(result) if stream and not as_json else None
            if piece is None:
                _show(result, as_json=as_json)
                continue
            # Tokens of a language model bring their own spaces, plain words do not.
            has_spaces = has_spaces or piece != piece.strip()
            click.echo(f"{' ' if flowed and not has_spaces else ''}{piece}", nl=False)
            flowed = piece
    if flowed:
        click.echo()
    took = (time.perf_counter() - started) * 1000
    if not as_json:
        click.echo(click.style(f"{client.name}: {took:.2f} ms", dim=True), err=True)


def _text(result: InferResult) -> str | None:
    """Returns the text of an answer with one element of text; None of any other answer."""
    arrays = list(result.outputs.values())
    if len(arrays) != 1 or arrays[0].dtype.kind != "O" or arrays[0].size != 1:
        return None
    return str(output.plain(arrays[0].reshape(-1))[0])


def _show(result: InferResult, *, as_json: bool) -> None:
    if not as_json:
        output.arrays(result.outputs)
        return
    outputs = [
        {
            "name": name,
            "datatype": result.datatypes[name],
            "shape": list(array.shape),
            "data": output.plain(array),
        }
        for name, array in result.outputs.items()
    ]
    click.echo(json.dumps({"outputs": outputs, "parameters": dict(result.parameters)}))
