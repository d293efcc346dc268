"""The files of an export: rows of a mart as Parquet or CSV, one file a month."""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from ingestion.errors import UserError
from ingestion.places import as_name
from serving.export.marts import Mart, batches, decimal_of, query_of, shown
from serving.export.place import Place

if TYPE_CHECKING:
    import pyarrow as pa
    from adbc_driver_postgresql.dbapi import Connection

FIRST_DAY, MICROSECONDS = -3_000_000, 86_400_000_000  # PostgreSQL begins in 4713 BC
ROW_GROUP, GROUP_BYTES = 131_072, 64 * 1024**2  # rows, or less of them when they are wide
NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"  # what Hive calls the partition of null
# what a spreadsheet computes, after blanks too; wide signs are the same to it
FORMULA = r"^[\s\pZ]*[=+\-@＝＋－＠]|^[\t\r\n]"  # noqa: RUF001
HEADER_FORMULA = FORMULA.replace(r"\pZ", "")
NUMBER = r"^-?[0-9]+([.,][0-9]+)?$"


@dataclass(frozen=True)
class Version:
    """One export: its place, its folder there, its format, and whether spreadsheets open it."""

    place: Place
    name: str
    kind: str
    excel: bool

    def path(self, mart: Mart, month: date | None) -> str:
        """Where the rows of a month go, or all rows of a mart that is not partitioned."""
        folders = [self.name, as_name(mart.name)]
        if mart.partition:
            folders.append(f"{as_name(mart.partition['column'])}={month or NULL_PARTITION}")
        return "/".join([*folders, f"part-0.{self.kind}"])


def write_mart(connection: Connection, schema: str, mart: Mart, version: Version) -> None:
    """Write all rows of a mart, one file for each month or one in all."""
    part: _Part | None = None
    try:
        for whole in batches(connection, query_of(schema, mart)):
            for month, rows in _by_month(whole, mart):
                path, batch = version.path(mart, month), typed(rows, mart)
                batch = _without_formulas(batch, mart) if version.excel else batch
                if part is None or part.path != path:
                    _finish(part, mart)
                    part = _Part(version, path, batch.schema)
                part.write(batch)
        _finish(part, mart)
        part = None
    finally:
        if part:
            part.abandon()


def _finish(part: _Part | None, mart: Mart) -> None:
    if part:
        mart.files.append(part.close())
        mart.rows += part.rows


def _by_month(batch: pa.RecordBatch, mart: Mart) -> Iterator[tuple[Any, pa.RecordBatch]]:
    """Slices of one month each; the rows come in order of months."""
    import pyarrow.compute as pc

    if not mart.partition or not batch.num_rows:
        yield None, batch
        return
    at = 0
    for found in pc.value_counts(batch.column(batch.num_columns - 1)).to_pylist():
        yield found["values"], batch.slice(at, found["counts"])
        at += found["counts"]


def typed(batch: pa.RecordBatch, mart: Mart) -> pa.RecordBatch:
    """The mart's columns without the driver's own notes; decimals as such, not as text."""
    import pyarrow as pa

    arrays, fields = [], []
    for column, array in zip(mart.columns, batch.columns, strict=False):
        values = array
        if decimal := decimal_of(column):
            plain = array.storage if isinstance(array, pa.ExtensionArray) else array
            try:
                values = plain.cast(pa.decimal128(*decimal))
            except pa.ArrowInvalid as error:
                raise UserError(
                    f"A value of {shown(f'{mart.name}.{column.name}')} is no decimal: {error}\n"
                    "Correct it (NaN and infinity have no place in files), then export again."
                ) from error
        _refuse_infinity(values, f"{mart.name}.{column.name}")
        arrays.append(values)
        fields.append(pa.field(column.name, values.type, nullable=column.nullable))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _without_formulas(batch: pa.RecordBatch, mart: Mart) -> pa.RecordBatch:
    """The same, where a text that a spreadsheet would compute begins with an apostrophe.

    Numbers stay numbers, those that are exported as text included.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    arrays = []
    for column, array in zip(mart.columns, batch.columns, strict=True):
        values = array
        if pa.types.is_string(array.type) and not column.type.startswith("numeric"):
            risky = pc.and_not(
                pc.match_substring_regex(array, FORMULA), pc.match_substring_regex(array, NUMBER)
            )
            values = pc.if_else(risky, pc.binary_join_element_wise("'", array, ""), array)
        arrays.append(values)
    fields = [
        field.with_name(f"'{field.name}") if re.match(HEADER_FORMULA, field.name) else field
        for field in batch.schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _refuse_infinity(values: pa.Array, name: str) -> None:
    """PostgreSQL's infinite days and times come as ones long before its first real ones.

    Raises:
        UserError: there is one.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_date32(values.type):
        number, first = pa.int32(), FIRST_DAY
    elif pa.types.is_timestamp(values.type):
        number, first = pa.int64(), FIRST_DAY * MICROSECONDS
    else:
        return
    earliest = pc.min(values.cast(number)).as_py()
    if earliest is not None and earliest < first:
        raise UserError(
            f"A value of {shown(name)} is infinite.\n"
            "Correct it (NaN and infinity have no place in files), then export again."
        )


class _Part:
    """One file that is being written, by Arrow's writer of its format."""

    def __init__(self, version: Version, path: str, schema: pa.Schema) -> None:
        self.path, self.rows = path, 0
        self._waiting: list[pa.RecordBatch] = []
        self._schema = schema
        self._sink = _Sink(version.place, path)
        if version.kind == "parquet":
            import pyarrow.parquet as pq

            self._writer = pq.ParquetWriter(self._sink, schema, compression="zstd")
        else:
            from pyarrow import csv

            if version.excel:
                self._sink.write(codecs.BOM_UTF8)
            # RFC 4180: ends of lines, quotes doubled; null is nothing, an empty text is ""
            options = csv.WriteOptions(eol="\r\n", quoting_header="needed")
            self._writer = csv.CSVWriter(self._sink, schema, write_options=options)

    def write(self, batch: pa.RecordBatch) -> None:
        """Take rows; they are written when there are enough for a row group."""
        self.rows += batch.num_rows
        self._waiting.append(batch)
        rows = sum(waiting.num_rows for waiting in self._waiting)
        if rows >= ROW_GROUP or sum(waiting.nbytes for waiting in self._waiting) >= GROUP_BYTES:
            self._pass_on()

    def close(self) -> dict[str, Any]:
        """Finish the file; what the manifest says of it."""
        self._pass_on()
        self._writer.close()
        size, checksum = self._sink.finish()
        return {"path": self.path, "rows": self.rows, "bytes": size, "sha256": checksum}

    def abandon(self) -> None:
        """Let go of the file after a failure; what is in it does not matter any more."""
        self._sink.abandon()

    def _pass_on(self) -> None:
        import pyarrow as pa

        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting, self._schema))
            self._waiting = []


class _Sink:
    """What Arrow writes to: counts and hashes the bytes on their way."""

    closed = False  # Arrow asks

    def __init__(self, place: Place, path: str) -> None:
        self._place, self._bytes, self._sha = place, 0, hashlib.sha256()
        with place.as_user_error():
            self._file: Any = place.open(path)  # None once it is closed

    def write(self, data: Any) -> int:
        """Take bytes, or a buffer of Arrow's."""
        if self._file:  # else abandoned: Arrow's writers still write an end when they go
            with self._place.as_user_error():
                self._file.write(data)
            self._sha.update(data)
            self._bytes += len(data)
        return len(data)

    def flush(self) -> None:
        """Arrow asks for it."""

    def tell(self) -> int:
        """Bytes written; Arrow asks for it."""
        return self._bytes

    def finish(self) -> tuple[int, str]:
        """Close the file; bytes and sha-256 of it."""
        with self._place.as_user_error():
            self._place.close(self._file)
        self._file = None
        return self._bytes, self._sha.hexdigest()

    def abandon(self) -> None:
        """Close the file, whatever happened to it."""
        file, self._file = self._file, None
        if file:
            self._place.abandon(file)
