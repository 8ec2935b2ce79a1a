"""Prints tables and pictures on a terminal, and plain text elsewhere."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
from rich.console import Console
from rich.style import Style
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


def contract(tensors: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Prints the tensors that a model's metadata declares: name, datatype and shape of each."""
    rows = [
        (kind, tensor["name"], tensor["datatype"], list(tensor.get("shape") or ()))
        for kind in ("inputs", "outputs")
        for tensor in tensors.get(kind) or ()
    ]
    table("", ("", "tensor", "datatype", "shape"), [(kind[:-1], *rest) for kind, *rest in rows])


def arrays(outputs: Mapping[str, Array]) -> None:
    """Prints output tensors: pictures as pictures, all others as rows of elements."""
    for name, array in outputs.items():
        console.print(Text(f"{name}  {_kind(array)}{list(array.shape)}", style="bold"))
        picture = _picture(array) if console.is_terminal else None
        if picture is not None:
            console.print(picture)
            continue
        for line in _rows(array):
            console.print(Text(f"  {line}"))


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


def _kind(array: Array) -> str:
    return "bytes" if array.dtype.kind == "O" else array.dtype.name


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


def _picture(array: Array) -> Text | None:
    """Draws an RGB array or an encoded image by half blocks: two pixels in each character."""
    pixels = _pixels(array)
    if pixels is None or not console.color_system:
        return None
    width = min(console.width, pixels.shape[1], 80)
    step = max(1, math.ceil(pixels.shape[1] / width))
    pixels = pixels[::step, ::step]
    if len(pixels) % 2:
        pixels = np.concatenate([pixels, pixels[-1:]])
    text = Text()
    for upper, lower in zip(pixels[::2], pixels[1::2], strict=True):
        for top, bottom in zip(upper.tolist(), lower.tolist(), strict=True):
            text.append("▀", Style(color=_color(top), bgcolor=_color(bottom)))
        text.append("\n")
    return text


def _color(pixel: Sequence[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*pixel)


def _pixels(array: Array) -> Array | None:
    if array.dtype == np.uint8 and array.ndim >= 3 and array.shape[-1] == 3:
        image: Array = array.reshape(-1, *array.shape[-3:])[0]
        return image if image.size else None
    if array.dtype.kind != "O" or array.size != 1:
        return None
    element = array.ravel()[0]
    if not isinstance(element, bytes) or not element.startswith((b"\x89PNG", b"\xff\xd8")):
        return None
    try:
        from PIL import Image
    except ImportError:
        return None
    with Image.open(BytesIO(element)) as picture:
        return np.asarray(picture.convert("RGB"))
