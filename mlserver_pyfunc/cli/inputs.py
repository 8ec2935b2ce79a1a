"""Reads `--input NAME=VALUE`: turns literals and files into arrays of the declared datatype."""

from __future__ import annotations

import csv
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
from mlserver_pyfunc.protocol.request import from_python
from mlserver_pyfunc.protocol.samples import random_arrays
from mlserver_pyfunc.protocol.tensors import Array, TensorError
from mlserver_pyfunc.protocol.types import listed

from .failure import HINT

_IMAGES = {".png", ".jpg", ".jpeg", ".gif", ".webp", ".bmp"}
_TABLES = {".csv", ".parquet"}
_BOOLS = {"true": True, "1": True, "false": False, "0": False}


def options(command: Any) -> Any:
    """Adds the options that give values of input tensors."""
    text = "Draw random values for inputs that are not given."
    command = click.option("--random", "is_random", is_flag=True, help=text)(command)
    return click.option(
        "-i", "--input", "given", multiple=True, metavar="NAME=VALUE",
        help="An input tensor, repeatable. VALUE is JSON or plain text. @FILE reads a .npy, .csv, "
        ".json, .png or .jpg file, or any other one as bytes; @- reads standard input. A .csv or "
        ".parquet file without NAME= is a table: each column is the input of its name.",
    )(command)  # fmt: skip


def arrays(contract: Contract, given: Sequence[str], *, is_random: bool) -> dict[str, Array]:
    """Reads `NAME=VALUE` options, and draws values for other inputs if `is_random`."""
    by_name = contract.inputs
    arrays: dict[str, Array] = {}
    for item in given:
        name, separator, text = item.partition("=")
        if not separator and Path(item).suffix.lower() in _TABLES:
            arrays.update(_table(contract, Path(item)))
            continue
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


def _table(contract: Contract, path: Path) -> dict[str, Array]:
    is_csv = path.suffix.lower() == ".csv"
    arrays: dict[str, Array] = {}
    try:
        names, columns = _csv_columns(path) if is_csv else _parquet_columns(path)
        for name, cells in zip(names, columns, strict=True):
            spec = contract.inputs.get(name)
            if spec is None or name in arrays:
                what = "unknown" if spec is None else "given twice"
                raise ValueError(f'column "{name}": {what}, expected {listed(contract.inputs)}')
            convert = _from_text if is_csv else _from_parquet
            arrays[name] = _from_value(spec, [convert(spec, cell) for cell in cells])
    except TensorError as error:
        got, _, row = error.got.partition(" at index ")
        where = f'row {int(row) + 1}, column "{name}"' if row.isdigit() else f'column "{name}"'
        text = f"{path}: {where}: expected {error.expected}, got {got}"
        raise click.BadParameter(text) from None
    except (ValueError, OSError) as error:
        raise click.BadParameter(f"{path}: {error}") from None
    return arrays


def _csv_columns(path: Path) -> tuple[list[str], list[list[str]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        names, *rows = [row for row in csv.reader(file) if row] or [[]]
    for number, row in enumerate(rows, 1):
        if len(row) != len(names):
            raise ValueError(f"row {number}: expected {len(names)} cells, got {len(row)}")
    return names, [[row[index] for row in rows] for index in range(len(names))]


def _parquet_columns(path: Path) -> tuple[list[str], list[list[Any]]]:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise ValueError("reading Parquet needs pyarrow: pip install pyarrow") from None
    with ParquetFile(path) as file:
        table = file.read()
    return table.column_names, [column.to_pylist() for column in table.columns]


def _from_text(spec: TensorSpec, cell: str) -> Any:
    """Returns the value of a cell of CSV; its text if it does not fit, for the error."""
    if not cell and (spec.datatype.nullable or not spec.datatype.is_bytes):
        return None
    if spec.datatype.dtype.kind == "b":
        return _BOOLS.get(cell.strip().lower(), cell)
    for number in () if spec.datatype.is_bytes else (int, float):
        with suppress(ValueError):
            return number(cell)
    return cell


def _from_parquet(spec: TensorSpec, cell: Any) -> Any:
    if not spec.datatype.is_bytes or isinstance(cell, bytes | str | list | None):
        return cell
    return cell.isoformat() if hasattr(cell, "isoformat") else str(cell)


def _array(spec: TensorSpec, text: str) -> Array:
    if not text.startswith("@"):
        return _from_literal(spec, text)
    path = Path(text[1:])
    data = sys.stdin.buffer.read() if text == "@-" else path.read_bytes()
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return _cast(spec, np.load(BytesIO(data), allow_pickle=False))
    if suffix == ".json":
        return _from_value(spec, json.loads(data))
    if spec.datatype.is_bytes:
        return _fitted(spec, tensors.from_list(spec.datatype, [data], [1]))
    if suffix in _IMAGES:
        return _cast(spec, _pixels(data))
    text = data.decode()
    return _cast(spec, _csv(text)) if suffix == ".csv" else _from_literal(spec, text)


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
    given = from_python(spec, spec.name, value)
    return _fitted(spec, tensors.from_list(spec.datatype, given.data, given.shape))


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
