"""Writes the Parquet files of this folder: one table in the forms that writers choose.

It needs pyarrow, which no test does: `python -m tests.client.playground.files.make`.
"""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet

HERE = Path(__file__).parent
MOMENT = datetime.datetime(2020, 1, 2, 3, 4, 5, 678900)
EARLY = datetime.datetime(1960, 1, 1, 0, 0, 0, 5)
DAY = datetime.date(1969, 12, 31)

# Type, three values, and the texts that fields get.
COLUMNS = {
    "id": (pa.int64(), [9007199254740993, None, -5], ["9007199254740993", None, "-5"]),
    "natural": (pa.uint64(), [2**64 - 1, 1, None], ["18446744073709551615", "1", None]),
    "small": (pa.int8(), [-1, 2, 3], ["-1", "2", "3"]),
    "unsigned": (pa.uint32(), [2**32 - 1, 0, 1], ["4294967295", "0", "1"]),
    "single": (pa.float32(), [0.1, 1e10, None], ["0.1", "10000000000", None]),
    "double": (pa.float64(), [0.1, float("nan"), -2.5], ["0.1", "NaN", "-2.5"]),
    "switch": (pa.bool_(), [True, False, None], ["true", "false", None]),
    "text": (pa.string(), ["naïve <b>", "", None], ["naïve <b>", "", None]),
    "long": (pa.large_string(), ["x" * 300] * 3, ["x" * 300] * 3),
    "day": (pa.date32(), [MOMENT.date(), DAY, None], ["2020-01-02", "1969-12-31", None]),
    "moment": (
        pa.timestamp("us"),
        [MOMENT, EARLY, None],
        ["2020-01-02T03:04:05.6789", "1960-01-01T00:00:00.000005", None],
    ),
    "price": (
        pa.decimal128(5, 2),
        [Decimal("1.50"), Decimal("-0.05"), None],
        ["1.50", "-0.05", None],
    ),
    "nothing": (pa.null(), [None] * 3, [None] * 3),
    "nested": (pa.list_(pa.int32()), [[1], [2, 3], None], None),
    "choice": (pa.dictionary(pa.int32(), pa.string()), ["a", "b", "a"], ["a", "b", "a"]),
}
ENCODINGS = {
    "id": "DELTA_BINARY_PACKED",
    "small": "DELTA_BINARY_PACKED",
    "text": "DELTA_BYTE_ARRAY",
    "long": "DELTA_LENGTH_BYTE_ARRAY",
    "single": "BYTE_STREAM_SPLIT",
    "double": "BYTE_STREAM_SPLIT",
    "switch": "RLE",
}


def main() -> None:
    """Writes the files, and what they hold."""
    arrays = {name: pa.array(values, type_) for name, (type_, values, _) in COLUMNS.items()}
    table = pa.table(arrays)
    parquet.write_table(table, HERE / "snappy.parquet")
    parquet.write_table(table, HERE / "gzip.parquet", compression="gzip", data_page_version="2.0")
    parquet.write_table(table, HERE / "zstd.parquet", compression="zstd")
    parquet.write_table(table, HERE / "lz4.parquet", compression="lz4")
    parquet.write_table(
        table,
        HERE / "encodings.parquet",
        compression="none",
        use_dictionary=False,
        column_encoding=ENCODINGS,
    )
    parquet.write_table(
        table,
        HERE / "groups.parquet",
        row_group_size=1,
        use_dictionary=False,
        use_deprecated_int96_timestamps=True,
    )
    named = {
        "ids": pa.array([9007199254740993, 2, 3]),
        "width": pa.array([1.5, 2.5, 3.5], pa.float32()),
        "depth": pa.array([0.1, 0.2, 0.3], pa.float32()),
        "height": pa.array([10, 20, 30], pa.int16()),
    }
    parquet.write_table(pa.table(named), HERE / "rows.parquet")
    texts = {name: texts for name, (_, _, texts) in COLUMNS.items() if texts is not None}
    rows = [list(row) for row in zip(*texts.values(), strict=True)]
    document = {"header": list(texts), "values": rows}
    (HERE / "table.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
