"""A whole table in one tensor: an Arrow IPC stream, the only element of a BYTES tensor.

Imported only for requests that have such a tensor or ask for one: it needs pyarrow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from struct import unpack_from
from typing import Any

import numpy as np

from . import bytes_tensors, tensors
from .contract import NamedArray, TensorSpec
from .datatypes import BY_DTYPE, DATATYPES
from .nulls import NULLS
from .request import RequestInput
from .types import TensorError

_BYTES = DATATYPES["BYTES"]
_MAX_TEXT = 2**28  # bytes of a column of categories, of which a stream has each only once
_TABLE = TensorSpec("table", _BYTES, (1,), undeclared=True)


def columns(tensor: Any, specs: Mapping[str, TensorSpec]) -> list[RequestInput]:
    """Returns the columns of a table as input tensors that view its bytes, or raises."""
    pyarrow, where = _pyarrow(), ""
    found: list[RequestInput] = []
    try:
        stream = _stream(tensor)
        if any(map(_is_compressed, pyarrow.ipc.MessageReader.open_stream(stream))):
            raise TensorError("an Arrow IPC stream without compression", "a compressed one")
        table = pyarrow.ipc.open_stream(stream).read_all()
        table.validate(full=True)
        for name, column in zip(table.column_names, table.columns, strict=True):
            where = f'column "{name}": '
            found += _column(pyarrow, name, column, specs.get(name), 8 * len(stream))
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        kinds = "numbers, booleans, text, bytes, dates, times or decimals"
        raise TensorError(f"an Arrow IPC stream of {kinds}", f"{where}{error}") from None
    return found


def _is_compressed(message: Any) -> bool:
    """Whether a message has compressed buffers: a few bytes could fill the memory.

    pyarrow does not bound it. So this looks for the field `compression` in metadata that pyarrow
    has verified: https://github.com/apache/arrow/blob/main/format/Message.fbs
    """
    metadata = memoryview(message.metadata)

    def field(table: int, number: int) -> int:
        vtable = table - unpack_from("<i", metadata, table)[0]
        size = unpack_from("<H", metadata, vtable)[0]
        place = 4 + 2 * number
        offset = unpack_from("<H", metadata, vtable + place)[0] if place < size else 0
        return table + int(offset) if offset else 0

    def followed(place: int) -> int:
        return place + int(unpack_from("<I", metadata, place)[0])

    if message.type == "schema":
        return False
    header = followed(field(followed(0), 2))
    batch = followed(field(header, 1)) if message.type == "dictionary" else header
    return bool(field(batch, 3))


def _column(
    pyarrow: Any, name: str, column: Any, spec: TensorSpec | None, most: int
) -> Iterator[RequestInput]:
    types, shape = pyarrow.types, [len(column)]
    while types.is_fixed_size_list(column.type):
        shape.append(column.type.list_size)
        parts = [chunk.flatten() for chunk in column.chunks]
        column = pyarrow.chunked_array(parts, column.type.value_type)
    if len(column) > most:  # Null and empty elements take no space in a stream.
        raise TensorError("elements that have data", f"{len(column)} elements")
    if spec is not None and len(spec.shape) == len(shape) + 1:
        shape.append(1)
    if types.is_null(column.type) and spec is not None and not spec.datatype.is_bytes:
        column = column.cast(pyarrow.from_numpy_dtype(spec.datatype.dtype))
    if types.is_dictionary(column.type):
        found = [chunk.dictionary.cast("large_string") for chunk in column.chunks]
        longest = max((len(text) for each in found for text in each.to_pylist() if text), default=0)
        if longest * len(column) > _MAX_TEXT:
            raise TensorError(f'column "{name}" of up to {_MAX_TEXT} bytes of text', "more")
        parts = [text.take(chunk.indices) for text, chunk in zip(found, column.chunks, strict=True)]
        column = pyarrow.chunked_array(parts, pyarrow.large_string())
    if not types.is_primitive(column.type) or types.is_temporal(column.type):
        if "binary" not in str(column.type):
            column = column.cast(pyarrow.large_string())
        column = column.cast(pyarrow.large_binary())
    datatype = BY_DTYPE[np.dtype(column.type.to_pandas_dtype())]
    if column.null_count and spec is not None and spec.companion is not None:
        yield RequestInput(name + NULLS, "BOOL", shape, column.is_null().to_numpy())
        column = column.fill_null(b"" if datatype.is_bytes else datatype.dtype.type(0))
    # As in JSON, the contract finds a null in a list. In an array it is NaN.
    is_wrong = column.null_count and not (spec and spec.datatype.nullable)
    data = column.to_pylist() if is_wrong else column.to_numpy()
    yield RequestInput(name, datatype.name, shape, data)


def _stream(tensor: Any) -> Any:
    data = getattr(tensor.data, "root", tensor.data)
    if not isinstance(data, tensors.RawTensor):
        return tensors.from_list(_BYTES, data, [1], is_base64=True)[0]
    view = memoryview(data.buffer)
    if data.surplus or len(view) != 4 + int.from_bytes(view[:4], "little"):
        return tensors.from_raw(_BYTES, data, [1])[0]
    is_aligned = np.frombuffer(view, np.uint8).ctypes.data % 8 == 4
    return view[4:] if is_aligned else bytes(view[4:])


def table(outputs: Sequence[NamedArray]) -> NamedArray:
    """Returns outputs as the columns of one table, or raises a TensorError."""
    pyarrow = _pyarrow()
    found = {}
    for named in outputs:
        array, first = named.array, outputs[0]
        if not array.ndim or len(array) != len(first.array):
            expected = f'as many rows as in output "{first.spec.name}", for Arrow'
            raise TensorError(expected, f'shape {list(array.shape)} of "{named.spec.name}"')
        kind = pyarrow.large_binary() if named.spec.datatype.is_bytes else None
        mask = None if named.nulls is None else named.nulls.ravel()
        column = pyarrow.array(array.ravel(), kind, mask=mask)
        with suppress(pyarrow.ArrowInvalid):  # bytes that are no text
            column = column.cast(pyarrow.large_string()) if kind else column
        for size in reversed(array.shape[1:]):
            column = pyarrow.FixedSizeListArray.from_arrays(column, size)
        found[named.spec.name] = column
    batch, sink = pyarrow.record_batch(found), pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return NamedArray(_TABLE, bytes_tensors.object_array([sink.getvalue().to_pybytes()]))


def _pyarrow() -> Any:
    try:
        import pyarrow.ipc
    except ImportError:
        note = "pip install 'mlserver-pyfunc[arrow]', or send a tensor for each column"
        raise TensorError("pyarrow in the server's environment", "none", note) from None
    return pyarrow
