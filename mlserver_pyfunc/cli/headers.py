"""`--header NAME:VALUE`: what a call says beside its tensors."""

from __future__ import annotations

import re
from collections.abc import Sequence

import click

HELP = "NAME:VALUE, repeatable. A REST header, or gRPC metadata; Host is gRPC's authority."

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# What RFC 9110 admits in a value and gRPC in metadata.
_VALUE = re.compile(r"[\x20-\x7e]*")
_OURS = {"content-type", "content-length", "transfer-encoding", "inference-header-content-length"}


def parse(given: Sequence[str]) -> dict[str, str]:
    """Reads `NAME:VALUE` options; of a name given twice the last one counts.

    Raises:
        click.BadParameter: One is no header, or one that the call sets itself.
    """
    headers: dict[str, str] = {}
    for text in given:
        name, colon, value = text.partition(":")
        value = value.strip(" ")
        if not colon or not _NAME.fullmatch(name):
            raise click.BadParameter(f'expected NAME:VALUE, got "{name}"', param_hint="--header")
        if not _VALUE.fullmatch(value):
            # The value may be a secret.
            raise click.BadParameter(
                f'expected printable ASCII as the value of "{name}"', param_hint="--header"
            )
        if name.lower() in _OURS or name.lower().startswith("grpc-"):
            raise click.BadParameter(f'the call sets "{name}" itself', param_hint="--header")
        headers[name.lower()] = value
    return headers
