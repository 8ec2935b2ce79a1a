"""Reads `--header NAME:VALUE`: REST headers or gRPC metadata to send with a call."""

from __future__ import annotations

import re
from collections.abc import Sequence

import click

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# Characters that both a header (RFC 9110, section 5.5) and gRPC metadata allow.
_VALUE = re.compile(r"[\x20-\x7e]*")
_OURS = {"content-type", "content-length", "transfer-encoding", "inference-header-content-length"}


def _parsed(_: click.Context, option: click.Parameter, given: Sequence[str]) -> dict[str, str]:
    """Reads `NAME:VALUE` options. If a name is given twice, the last value counts."""
    headers: dict[str, str] = {}
    for text in given:
        name, colon, value = text.partition(":")
        value = value.strip(" ")
        if not colon or not _NAME.fullmatch(name):
            raise click.BadParameter(f'expected NAME:VALUE, got "{name}"')
        if not _VALUE.fullmatch(value):
            # The message leaves the value out, because it may be a secret.
            raise click.BadParameter(f'expected printable ASCII as the value of "{name}"')
        if name.lower() in _OURS or name.lower().startswith("grpc-"):
            raise click.BadParameter(f'the call sets "{name}" itself')
        headers[name.lower()] = value
    return headers


option = click.option(
    "--header", "headers", multiple=True, metavar="NAME:VALUE", callback=_parsed,
    help="REST header or gRPC metadata, repeatable. Host becomes the authority of a gRPC call.",
)  # fmt: skip
