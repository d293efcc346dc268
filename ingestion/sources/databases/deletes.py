"""Rows that are gone from their table: found by comparing keys, marked, never dropped."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from psycopg2 import sql
from pyarrow import csv

from ingestion.databases.asked import MARK

_KEYS = sql.Identifier("marquee_keys")


def mark(
    cursor: Any, table: sql.Identifier, key: Sequence[str], batches: Iterable[pa.Table]
) -> tuple[int, int]:
    """Mark the rows whose keys are gone, and take the mark off those that are back.

    Args:
        cursor: within a transaction.
        table: the raw table.
        key: names of its key columns there.
        batches: all keys of the source, their columns in the same order.

    Returns:
        How many were marked, and how many are back.
    """
    columns = sql.SQL(", ").join(map(sql.Identifier, key))
    cursor.execute("drop table if exists marquee_keys")
    cursor.execute(
        sql.SQL("create temporary table {} on commit drop as select {} from {} limit 0").format(
            _KEYS, columns, table
        )
    )
    copy = sql.SQL("copy {} from stdin (format csv)").format(_KEYS)
    for batch in batches:
        cursor.copy_expert(copy, _as_csv(batch))
    cursor.execute(sql.SQL("analyze {}").format(_KEYS))
    same = sql.SQL(" and ").join(
        sql.SQL("keys.{0} = landed.{0}").format(sql.Identifier(name)) for name in key
    )
    counts = []
    for statement in (
        "update {table} as landed set {mark} = now() where {mark} is null"
        " and not exists (select from {keys} as keys where {same})",
        "update {table} as landed set {mark} = null where {mark} is not null"
        " and exists (select from {keys} as keys where {same})",
    ):
        parts = {"table": table, "mark": sql.Identifier(MARK), "keys": _KEYS, "same": same}
        cursor.execute(sql.SQL(statement).format(**parts))
        counts.append(cursor.rowcount)
    return counts[0], counts[1]


def _as_csv(batch: pa.Table) -> io.BytesIO:
    columns = [_as_text(column.combine_chunks()) for column in batch.columns]
    out = io.BytesIO()
    options = csv.WriteOptions(include_header=False, quoting_style="all_valid")
    csv.write_csv(pa.table(columns, names=batch.column_names), out, options)
    out.seek(0)
    return out


def _as_text(column: pa.Array) -> pa.Array:
    if pa.types.is_binary(column.type):
        return pa.array([None if v is None else f"\\x{v.hex()}" for v in column.to_pylist()])
    return column.cast(pa.string())
