"""What has landed, as the ledger in the warehouse says."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from ingestion.errors import UserError

if TYPE_CHECKING:
    from ingestion.warehouse.target import Target

MAX_CLOCK_DRIFT_SECONDS = 10  # clocks of two machines may differ by less, and are waited for


@dataclass(frozen=True)
class Landed:
    """One row of the ledger: lines of a file that count.

    Attributes:
        etag: what an object store called this version of it.
        replay_of: the load whose rejects these lines were, corrected since.
        mapping_checksum: of the mapping that it was read by; None for the contract's own columns.
        cursor_value: of a table in a database: up to where it was read.
    """

    load_id: str
    name: str
    path: str
    checksum: str
    bytes: int
    last_line: int
    rows: int
    rejected: int
    landed_at: datetime
    is_replacement: bool
    etag: str | None
    replay_of: str | None
    mapping_checksum: str | None
    cursor_value: str | None


def landed(target: Target, dataset: str) -> list[Landed]:
    """What counts of files in the ledger, oldest first: complete loads, without what was replaced.

    Not what came from topics, which is much: see ``stream``.
    """
    found = _rows(
        target,
        "select _dlt_load_id, _file_name, path, _file_checksum, bytes, last_line, rows_landed,"
        " rows_rejected, landed_at, is_replacement,"
        # columns that the table of an older release has not
        " to_jsonb(files) ->> 'etag', to_jsonb(files) ->> 'replay_of',"
        " to_jsonb(files) ->> 'mapping_checksum', to_jsonb(files) ->> 'cursor_value'"
        " from {files} as files where path not like 'kafka://%' and _dlt_load_id in"
        " (select load_id from {loads} where status = 0) order by _dlt_load_id",
        files=(dataset, "files"),
        loads=(dataset, "_dlt_loads"),
    )
    rows = [Landed(*row) for row in found]
    replaced = {row.path: row.load_id for row in rows if row.is_replacement}
    return [row for row in rows if row.load_id >= replaced.get(row.path, "")]


def unlisted(target: Target, dataset: str) -> list[str]:
    """Loads whose rows are there, which dlt does not list as completed: a run was killed there."""
    query = (
        # waits for what a killed run has asked of the server at the last moment
        "lock table {files}, {loads} in share mode;"
        " select distinct _dlt_load_id from {files} where _dlt_load_id not in"
        " (select load_id from {loads} where status = 0) order by 1"
    )
    found = _rows(target, query, files=(dataset, "files"), loads=(dataset, "_dlt_loads"))
    return [load_id for (load_id,) in found]


def check_clock(target: Target, dataset: str) -> None:
    """See to it that a load which begins now counts as later than all before.

    Loads are told apart by when they finished, by the server's clock; those of older releases by
    the clock of the machine that ran them.

    Raises:
        UserError: the server's clock is behind the newest load.
    """
    query = "select extract(epoch from max(inserted_at) - clock_timestamp()) from {loads}"
    found = _rows(target, query, loads=(dataset, "_dlt_loads"))
    behind = float(found[0][0] or 0) if found else 0
    if behind > MAX_CLOCK_DRIFT_SECONDS:
        raise UserError(
            f"The server's clock is {behind:,.0f} s behind the newest load:"  # noqa: S608
            " what lands now would count as old.\n"
            "Set the clock right. If it was wrong for that load, instead:"
            f" update {dataset}._dlt_loads set inserted_at = now() where inserted_at > now();"
            " and dbt build --full-refresh"
        )
    if behind > 0:
        time.sleep(behind)


def _rows(target: Target, query: str, **names: tuple[str, str]) -> list[tuple]:
    """The rows of a query; none where a table that it names (schema and table) is not there."""
    from psycopg2 import sql

    tables = {key: sql.Identifier(*name) for key, name in names.items()}
    with closing(target.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute(
            "select count(*) from pg_tables where (schemaname, tablename) in %s",
            (tuple(names.values()),),
        )
        if cursor.fetchone() != (len(names),):
            return []
        cursor.execute(sql.SQL(query).format(**tables))
        return cursor.fetchall()
