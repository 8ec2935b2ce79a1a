"""Prints tables and arrays on a terminal, and plain text elsewhere."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mlserver_pyfunc.protocol.tensors import Array

MAX_ROWS = 20
MAX_COLUMNS = 12

console = Console(highlight=False)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Prints a table on a terminal, and lines of tab-separated cells elsewhere."""
    if not console.is_terminal:
        for row in rows:
            print("\t".join(map(str, row)))
        return
    drawn = Table(title=title or None, title_justify="left", header_style="bold", box=None)
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*[Text(str(cell)) for cell in row])
    console.print(drawn)


def arrays(outputs: Mapping[str, Array]) -> None:
    """Prints output tensors as rows of elements."""
    for name, array in outputs.items():
        kind = "bytes" if array.dtype.kind == "O" else array.dtype.name
        head = Text(f"{name}  {kind}{list(array.shape)}", style="bold")
        lines = [Text(f"  {line}") for line in _rows(array)]
        console.print(head, *lines, sep="\n", soft_wrap=True)


def plain(array: Array) -> Any:
    """Turns an array into lists for JSON.

    Bytes become text, or base64 if they are not UTF-8. NaN and infinity become None.
    """
    if array.dtype.kind == "O":
        flat = [_text(element) for element in array.ravel().tolist()]
        return np.array(flat, dtype=object).reshape(array.shape).tolist()
    if array.dtype.kind == "f":
        listed = array.astype(object)
        listed[~np.isfinite(array)] = None
        return listed.tolist()
    return array.tolist()


def _rows(array: Array) -> list[str]:
    if array.ndim < 2:
        return [_row(array.reshape(-1))]
    flat = array.reshape(-1, array.shape[-1]) if array.size else array.reshape(0, 0)
    lines = [_row(row) for row in flat[:MAX_ROWS]]
    if len(flat) > MAX_ROWS:
        lines.append(f"... {len(flat) - MAX_ROWS} more rows")
    return lines


def _row(row: Array) -> str:
    cells = [_cell(element) for element in row[:MAX_COLUMNS].tolist()]
    if len(row) > MAX_COLUMNS:
        cells.append(f"... {len(row) - MAX_COLUMNS} more")
    return "  ".join(cells)


def _cell(element: Any) -> str:
    if isinstance(element, float):
        return f"{element:.6g}"
    return _text(element) if isinstance(element, bytes | str) else str(element)


def _text(element: bytes | str) -> str:
    if isinstance(element, str):
        return element
    try:
        return element.decode()
    except UnicodeDecodeError:
        return base64.b64encode(element).decode()
