"""Reads `--input NAME=VALUE`: turns literals and files into arrays of the declared datatype."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO, StringIO
from pathlib import Path
from random import Random
from typing import Any

import click
import numpy as np

from mlserver_pyfunc.protocol import tensors
from mlserver_pyfunc.protocol.contract import Contract, TensorSpec
from mlserver_pyfunc.protocol.samples import random_arrays
from mlserver_pyfunc.protocol.tensors import Array, TensorError

from .failure import HINT

_IMAGES = {".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp"}


def options(command: Any) -> Any:
    """Adds the options that give values of input tensors."""
    text = "Draw random values for inputs that are not given."
    command = click.option("--random", "is_random", is_flag=True, help=text)(command)
    return click.option(
        "-i", "--input", "given", multiple=True, metavar="NAME=VALUE",
        help="An input tensor, repeatable. VALUE is JSON or plain text. @FILE reads a .npy, .csv, "
        ".json, .png or .jpg file, or any other one as bytes; @- reads standard input.",
    )(command)  # fmt: skip


def arrays(contract: Contract, given: Sequence[str], *, is_random: bool) -> dict[str, Array]:
    """Reads `NAME=VALUE` options, and draws values for other inputs if `is_random`."""
    by_name = contract.inputs
    arrays: dict[str, Array] = {}
    for item in given:
        name, separator, text = item.partition("=")
        if name not in by_name and len(by_name) == 1 and not (separator and name.isidentifier()):
            name, text = next(iter(by_name)), item
        elif not separator:
            raise click.BadParameter(f'expected NAME=VALUE, got "{item[:40]}"')
        if name not in by_name:
            expected = ", ".join(by_name) or "none"
            raise click.BadParameter(f'no input "{name}", expected {expected}')
        try:
            arrays[name] = _array(by_name[name], text)
        except (TensorError, ValueError, OSError) as error:
            raise click.BadParameter(f'input "{name}": {error}') from None
    if is_random:
        return random_arrays(by_name.values(), Random(), arrays)
    if absent := [n for n, spec in by_name.items() if not spec.optional and n not in arrays]:
        hint = f"give --input {absent[0]}=VALUE, or --random"
        click.get_current_context().meta[HINT] = hint
    return arrays


def _array(spec: TensorSpec, text: str) -> Array:
    if text == "@-":
        return _from_bytes(spec, sys.stdin.buffer.read())
    if text.startswith("@"):
        return _from_file(spec, Path(text[1:]))
    return _from_literal(spec, text)


def _from_literal(spec: TensorSpec, text: str) -> Array:
    try:
        value = json.loads(text)
    except ValueError:
        value = text if spec.datatype.is_bytes else _listed(text)
    if spec.datatype.is_bytes and not isinstance(value, list | str):
        value = text
    return _from_value(spec, value)


def _listed(text: str) -> Any:
    try:
        return json.loads(f"[{text}]")
    except ValueError:
        raise ValueError(f'expected numbers, or @FILE, got "{text[:40]}"') from None


def _from_value(spec: TensorSpec, value: Any) -> Array:
    shape: list[int] = []
    level = value
    while isinstance(level, list):
        shape.append(len(level))
        level = level[0] if level else None
    array = tensors.from_list(spec.datatype, value, shape)
    return _fitted(spec, array)


def _from_bytes(spec: TensorSpec, data: bytes) -> Array:
    if not spec.datatype.is_bytes:
        return _from_literal(spec, data.decode())
    return _fitted(spec, tensors.from_list(spec.datatype, [data], [1]))


def _from_file(spec: TensorSpec, path: Path) -> Array:
    suffix = path.suffix.lower()
    data = path.read_bytes()
    if suffix == ".npy":
        return _cast(spec, np.load(BytesIO(data), allow_pickle=False))
    if suffix == ".json":
        return _from_value(spec, json.loads(data))
    if spec.datatype.is_bytes:
        return _from_bytes(spec, data)
    if suffix in _IMAGES:
        return _cast(spec, _pixels(data))
    if suffix == ".csv":
        return _cast(spec, _csv(data.decode()))
    return _from_literal(spec, data.decode())


def _csv(text: str) -> Array:
    first = text.partition("\n")[0].split(",")
    try:
        [float(cell) for cell in first]
        header = 0
    except ValueError:
        header = 1
    return np.loadtxt(StringIO(text), delimiter=",", skiprows=header, ndmin=2)


def _pixels(data: bytes) -> Array:
    try:
        from PIL import Image
    except ImportError:
        raise ValueError("reading a picture as numbers needs Pillow: pip install pillow") from None
    with Image.open(BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


def _cast(spec: TensorSpec, array: Array) -> Array:
    """Casts to the declared datatype, which files seldom have. An integer must not change."""
    dtype = spec.datatype.dtype
    if spec.datatype.is_bytes:
        return _from_value(spec, array.tolist())
    cast = array.astype(dtype)
    if dtype.kind in "iub" and not np.array_equal(cast, array):
        raise ValueError(
            f"expected {spec.datatype.elements}, got others in an array of {array.dtype}"
        )
    return _fitted(spec, cast)


def _fitted(spec: TensorSpec, array: Array) -> Array:
    """Reshapes an array if the declared shape leaves only one way to do so."""
    if array.ndim == len(spec.shape):
        return array
    with suppress(ValueError):  # The size differs, or more than one axis is open.
        return array.reshape(spec.shape)
    if array.ndim + 1 == len(spec.shape) and spec.shape[0] in (-1, 1):
        return array[np.newaxis]
    return array
