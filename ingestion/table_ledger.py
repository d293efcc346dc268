"""What has landed of tables that are not this project's own: one row a table and run.

``_ingest_tables`` and ``_ingest_rejects`` are in the schema of the source, for databases and JSON
APIs alike. A row is written after dlt has listed the load, with the rejects of that load, in one
transaction. So it says what is there; where a run was killed before it, the next one reads the same
rows again, from the cursor of the row before.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from psycopg2 import sql
from psycopg2.extras import execute_values

if TYPE_CHECKING:
    from ingestion.warehouse.target import Target

LEDGER, REJECTS = "_ingest_tables", "_ingest_rejects"
_COLUMNS = {
    "table_name": "text not null",
    "place": "text not null",
    "mode": "text not null",
    "key_columns": "text",
    "cursor_column": "text",
    "cursor_value": "text",
    "rows_landed": "bigint not null",
    "rows_rejected": "bigint not null",
    "rows_deleted": "bigint",
    "rows_returned": "bigint",
    "seconds": "double precision not null",
    "finished_at": "timestamp with time zone not null",
    "_dlt_load_id": "text",
}
_REJECTS = {
    "table_name": "text not null",
    "column_name": "text not null",
    "reason": "text not null",
    "row_text": "json not null",
    "_dlt_load_id": "text",
}


@dataclass(frozen=True)
class Reject:
    """A row that has no place.

    Attributes:
        column: the column of the value.
        reason: the value, and what is wrong with it.
        row: all columns, as text.
    """

    column: str
    reason: str
    row: dict[str, str | None]


@dataclass(frozen=True)
class Entry:
    """One row of the ledger.

    Attributes:
        table: as it is called in the raw schema.
        place: where it comes from, without user and password.
        mode: ``full``, ``incremental``.
        key: the columns of its key.
        cursor: the cursor column.
        cursor_value: the highest value that has landed, as text.
        rows, rejected: of this run.
        deleted, returned: keys that were marked by this run, or are back; None where nobody looked.
        seconds: wall time.
        load_id: dlt's; None where nothing was new.
    """

    table: str
    place: str
    mode: str
    key: tuple[str, ...] = ()
    cursor: str | None = None
    cursor_value: str | None = None
    rows: int = 0
    rejected: int = 0
    deleted: int | None = None
    returned: int | None = None
    seconds: float = 0.0
    load_id: str | None = None


def latest(target: Target, schema: str, table: str) -> Entry | None:
    """The newest row of a table, if it has landed before."""
    query = sql.SQL(
        "select place, mode, key_columns, cursor_column, cursor_value, _dlt_load_id from {}"
        " where table_name = %s order by finished_at desc limit 1"
    ).format(sql.Identifier(schema, LEDGER))
    with closing(target.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute("select to_regclass(%s)", (f'"{schema}".{LEDGER}',))
        if cursor.fetchone() == (None,):
            return None
        cursor.execute(query, (table,))
        row = cursor.fetchone()
    if row is None:
        return None
    place, mode, key, column, value, load_id = row
    return Entry(table, place, mode, tuple(json.loads(key or "[]")), column, value, load_id=load_id)


def write(cursor: Any, schema: str, entry: Entry, rejects: Sequence[Reject]) -> None:
    """Write a row of the ledger, and the rejects of its load, within a transaction."""
    for table, columns in ((LEDGER, _COLUMNS), (REJECTS, _REJECTS)):
        cursor.execute(
            sql.SQL("create table if not exists {} ({})").format(
                sql.Identifier(schema, table),
                sql.SQL(", ").join(
                    sql.SQL("{} {}").format(sql.Identifier(name), sql.SQL(kind))
                    for name, kind in columns.items()
                ),
            )
        )
    values = (
        *(entry.table, entry.place, entry.mode),
        json.dumps(entry.key) if entry.key else None,
        *(entry.cursor, entry.cursor_value, entry.rows, entry.rejected),
        *(entry.deleted, entry.returned, round(entry.seconds, 3)),
        datetime.now(timezone.utc),
        entry.load_id,
    )
    _insert(cursor, schema, LEDGER, [values])
    _insert(
        cursor,
        schema,
        REJECTS,
        [
            (entry.table, r.column, r.reason, json.dumps(r.row, ensure_ascii=False), entry.load_id)
            for r in rejects
        ],
    )


def _insert(cursor: Any, schema: str, table: str, rows: list[tuple]) -> None:
    if rows:
        insert = sql.SQL("insert into {} values %s").format(sql.Identifier(schema, table))
        execute_values(cursor, insert, rows)
