"""`infer`: calls a running server by REST or gRPC.

This module must not import MLServer: `client.grpc` says why.
"""

from __future__ import annotations

import json
import time
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import click

from . import headers as header_options
from .failure import Failure
from .inputs import HELP

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlserver_pyfunc.client import Client, InferInput, InferResult


_SECONDS = click.FloatRange(min=0, min_open=True)


@click.command("infer")
@click.argument("url")
@click.option(
    "-m", "--model", help="Name of the model. Over REST, not needed if there is only one."
)
@click.option("--model-version", "version", help="Version of the model.  [the default one]")
@click.option("--grpc", "by_grpc", is_flag=True, help="Call by gRPC; needs the client extra.")
@click.option("--binary", is_flag=True, help="Call by REST with binary tensors.")
@click.option("-i", "--input", "given", multiple=True, metavar="NAME=VALUE", help=HELP)
@click.option(
    "--header", "headers_given", multiple=True, metavar="NAME:VALUE", help=header_options.HELP
)
@click.option(
    "--random", "is_random", is_flag=True, help="Draw random values for inputs that are not given."
)
@click.option("--stream", is_flag=True, help="Print each answer of a stream as it arrives.")
@click.option(
    "--bench", type=_SECONDS, metavar="SECONDS", help="Call for this long and print the latencies."
)
@click.option(
    "-c",
    "--clients",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="With --bench: number of calls at a time.",
)
@click.option(
    "--timeout",
    type=_SECONDS,
    default=60.0,
    show_default=True,
    help="Seconds to wait for an answer.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    url: str,
    model: str | None,
    version: str | None,
    by_grpc: bool,
    binary: bool,
    given: tuple[str, ...],
    headers_given: tuple[str, ...],
    is_random: bool,
    stream: bool,
    bench: float | None,
    clients: int,
    timeout: float,
    as_json: bool,
) -> None:
    """Call the server at URL.

    URL is http://HOST:PORT, the URL of a model on it, or HOST:PORT with --grpc.
    """
    by_grpc = by_grpc or url.startswith("grpc://")
    url, named, of_version = _parts(url)
    model, version = model or named, version or of_version
    headers = header_options.parse(headers_given)
    if by_grpc:
        url = url.removeprefix("grpc://").removeprefix("http://")
    connect = partial(_client_class(by_grpc, binary), url, timeout, headers, version)
    client = connect()
    model = model or _only_model(client, by_grpc=by_grpc)
    metadata = client.metadata(model)
    inputs = _inputs(metadata, given, is_random=is_random)
    if bench is not None:
        from . import bench as benchmark

        benchmark.run([connect() for _ in range(clients)], model, inputs, bench, as_json=as_json)
        return
    if not as_json:
        _show_contract(model, metadata)
    started = time.perf_counter()
    results = client.stream(model, inputs) if stream else iter([client.infer(model, inputs)])
    for result in results:
        _show(result, as_json=as_json)
    took = (time.perf_counter() - started) * 1000
    if not as_json:
        click.echo(click.style(f"{client.name}: {took:.2f} ms", dim=True), err=True)


def _parts(url: str) -> tuple[str, str, str]:
    """Splits a URL into that of the server, the model's name and the model's version."""
    base, separator, rest = url.partition("/v2/models/")
    if not separator:
        return url.removesuffix("/v2"), "", ""
    model, _, more = rest.partition("/")
    versions, _, version = more.partition("/")
    return (
        base,
        unquote(model),
        unquote(version.partition("/")[0]) if versions == "versions" else "",
    )


def _client_class(by_grpc: bool, binary: bool) -> Callable[..., Client]:
    if by_grpc:
        try:
            from mlserver_pyfunc.client.grpc import GrpcClient
        except ImportError as error:
            raise Failure(str(error)) from None
        return GrpcClient
    from mlserver_pyfunc.client.rest import BinaryRestClient, RestClient

    return BinaryRestClient if binary else RestClient


def _only_model(client: Any, *, by_grpc: bool) -> str:
    hint = "name the model with --model"
    if by_grpc:
        raise Failure("no model named, and gRPC cannot list the server's models", hint=hint)
    names = sorted({model["name"] for model in client.models()})
    if len(names) != 1:
        raise Failure(
            f"expected one model on the server, got {', '.join(names) or 'none'}", hint=hint
        )
    return str(names[0])


def _inputs(metadata: Any, given: tuple[str, ...], *, is_random: bool) -> list[InferInput]:
    from random import Random

    from mlserver_pyfunc.client import InferInput
    from mlserver_pyfunc.protocol.contract import TensorSpec
    from mlserver_pyfunc.protocol.datatypes import datatype_of
    from mlserver_pyfunc.protocol.samples import random_arrays

    from . import inputs

    declared = metadata.get("inputs") or []
    specs = [
        TensorSpec(
            tensor["name"],
            datatype_of(tensor["datatype"], nullable=parameters.get("nullable", False)),
            tuple(tensor.get("shape") or ()),
            text=parameters.get("content_type") == "str",
            axes=_axes(parameters.get("axes", "")),
        )
        for tensor in declared
        for parameters in (tensor.get("parameters") or {},)
    ]
    arrays = inputs.parse(specs, given)
    if is_random:
        arrays = random_arrays(specs, Random(), arrays)
    return [InferInput(s.name, s.datatype.name, arrays[s.name]) for s in specs if s.name in arrays]


def _axes(shape: str) -> tuple[str | None, ...]:
    """Reads the names of axes in the text of a shape: `[rows, 4]`, as metadata have it."""
    names = (size.strip() for size in shape.strip("[]").split(","))
    return tuple(name if name.isidentifier() else None for name in names)


def _show_contract(model: str, metadata: Any) -> None:
    from . import output

    click.echo(click.style(model, bold=True))
    output.contract(metadata)
    click.echo()


def _show(result: InferResult, *, as_json: bool) -> None:
    from . import output

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
