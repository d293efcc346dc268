"""The bytes of an answer: JSON, JSON lines, CSV as PostgreSQL writes it, Arrow made of that CSV."""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING

import orjson

from serving.api.catalogue import Column
from serving.api.problems import ProblemError

if TYPE_CHECKING:
    import pyarrow as pa

CONTENT_TYPES = {
    "json": b"application/json",
    "ndjson": b"application/x-ndjson",
    "csv": b"text/csv; charset=utf-8; header=present",
    "arrow": b"application/vnd.apache.arrow.stream",
}
_FIELD = re.compile(r'(?:"((?:[^"]|"")*)"|([^,]*))(?:,|$)')
_DECIMAL = re.compile(r"numeric\((\d+),(\d+)\)")


def json_page(rows: list[str], build: str | None, next_cursor: str | None) -> bytes:
    """An object of ``build``, ``next`` and ``data``; the rows are JSON already."""
    head = orjson.dumps({"build": build, "next": next_cursor}).decode()
    return f'{head[:-1]},"data":[{",".join(rows)}]}}'.encode()


def json_lines(rows: list[str]) -> bytes:
    return "".join(f"{row}\n" for row in rows).encode()


def values_of_json(row: str, columns: list[Column]) -> tuple[str | None, ...]:
    """Values of a row as text, with all digits of its numbers."""
    found = json.loads(row, parse_int=str, parse_float=str)
    texts = {True: "true", False: "false", None: None}
    return tuple(
        value if isinstance(value := found[column.name], str) else texts[value]
        for column in columns
    )


def last_record(content: bytes | bytearray) -> int:
    """Where the last record of a CSV begins: a line may end within quotes."""
    at = content.rfind(b"\n", 0, len(content) - 1)
    quotes = content.count(b'"', at + 1)
    while at >= 0 and quotes % 2:
        before = content.rfind(b"\n", 0, at)
        quotes += content.count(b'"', before + 1, at)
        at = before
    return at + 1


def values_of_csv(
    record: bytes, selected: tuple[Column, ...], columns: list[Column]
) -> tuple[str | None, ...]:
    """Values of a record as text; null is nothing there, and an empty text ``""``."""
    fields = [
        quoted.replace('""', '"') if quoted is not None else plain or None
        for quoted, plain in (
            (found[1], found[2]) for found in _FIELD.finditer(record.decode().rstrip("\n"))
        )
    ]
    by_name = dict(zip((column.name for column in selected), fields, strict=False))
    return tuple(by_name[column.name] for column in columns)


def arrow_type(column: Column) -> pa.DataType:
    """The type of a column in Arrow; text where Arrow has none."""
    import pyarrow as pa

    if found := _DECIMAL.fullmatch(column.type):
        precision, scale = int(found[1]), int(found[2])
        return pa.decimal128(precision, scale) if scale <= precision <= 38 else pa.string()
    plain = {
        "smallint": pa.int16(),
        "integer": pa.int32(),
        "bigint": pa.int64(),
        "real": pa.float32(),
        "double precision": pa.float64(),
        "boolean": pa.bool_(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us"),
        "timestamp with time zone": pa.timestamp("us", "UTC"),
    }
    return plain.get(column.type, pa.string())


def arrow_stream(content: bytes | bytearray, selected: tuple[Column, ...]) -> bytes:
    """The rows of a CSV as a stream of Arrow.

    Raises:
        ProblemError: a value is beyond what Arrow has, such as a date before Christ.
    """
    import pyarrow as pa
    from pyarrow import csv

    types = {column.name: arrow_type(column) for column in selected}
    try:
        table = csv.read_csv(
            pa.BufferReader(content),
            csv.ReadOptions(use_threads=False, block_size=max(len(content), 1) + 1),
            csv.ParseOptions(newlines_in_values=True),
            csv.ConvertOptions(
                column_types=types,
                null_values=[""],
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid as error:
        raise ProblemError(
            422, f"Arrow has no place for a value: {error}", "Ask for json or csv.", "format"
        ) from None
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()
