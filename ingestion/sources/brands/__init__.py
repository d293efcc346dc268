"""Film brands from flat files: Box Office Mojo's brand index, and the release lists of brands.

Both land in ``raw_brands``. A file lands as a whole under one load, and the ledger ``files`` has a
row for each version of a file and load. Current rows belong to the load named in the newest ledger
row of that kind; only loads that ``_dlt_loads`` lists with status 0 count.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from copy import deepcopy
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dlt
import psycopg2
from psycopg2 import sql

from ingestion.pipeline import LoadReport, finish_pending, load, make_pipeline, one_at_a_time
from ingestion.sources.brands.reader import Reading, read
from ingestion.sources.brands.settings import BRAND_RELEASES, BRANDS, TABLES, FileKind
from ingestion.warehouse.target import Target

if TYPE_CHECKING:
    from dlt.sources import DltResource

# Tables are ours to declare; a column that is not declared, or a value of another type, is a fault
# of the reader and must stop the load instead of growing a variant column.
CONTRACT: Any = {"tables": "evolve", "columns": "freeze", "data_type": "freeze"}


def ingest_brands(
    file: Path | None, target: Target, pipeline: dlt.Pipeline | None = None
) -> LoadReport:
    """Land one version of the brand index (None: the bundled one) in ``raw_brands.brands``.

    A file whose content is the latest landed version already lands nothing.

    Raises:
        UserError: the file is no brand index, too much of it cannot be read, or the warehouse does
            not take it. Nothing is landed then.
    """
    return _ingest(BRANDS, file, target, pipeline)


def ingest_releases(
    file: Path | None, target: Target, pipeline: dlt.Pipeline | None = None
) -> LoadReport:
    """The same for the release lists, in ``raw_brands.brand_releases``."""
    return _ingest(BRAND_RELEASES, file, target, pipeline)


@dlt.source(name="brands", max_table_nesting=0, schema_contract=CONTRACT)
def brands(reading: Reading, landed_at: datetime) -> Iterator[DltResource]:
    """The four raw tables; the file fills that of its kind, the ledger and perhaps the rejects."""
    rows: dict[str, list[dict[str, Any]]] = {
        reading.kind.name: reading.rows,
        "rejects": reading.rejects,
        "files": [
            {
                "kind": reading.kind.name,
                "_file_name": reading.name,
                "_file_checksum": reading.checksum,
                "rows_read": reading.rows_read,
                "rows_landed": len(reading.rows),
                "rows_rejected": len(reading.rejects),
                "bytes": reading.size,
                "landed_at": landed_at,
            }
        ],
    }
    for table, columns in TABLES.items():
        yield dlt.resource(
            _table(rows.get(table, [])),
            name=table,
            columns=deepcopy(columns),  # dlt writes names into it
            write_disposition="append",
        )


def _table(rows: list[dict[str, Any]]) -> Iterator[Any]:
    """The rows of one table, which is made even when there are none: dbt reads all four."""
    yield dlt.mark.materialize_table_schema()
    yield rows


def _ingest(
    kind: FileKind, file: Path | None, target: Target, pipeline: dlt.Pipeline | None
) -> LoadReport:
    started = time.monotonic()
    reading = read(file, kind)
    report = LoadReport("brands", rows={kind.name: 0}, notes=reading.notes)
    with one_at_a_time("brands", target):
        pipeline = pipeline or make_pipeline("brands", target)
        if finish_pending(pipeline, target):
            report.notes.append("A load that an earlier run left unfinished was finished first.")
        latest = _latest_version(kind, target, pipeline.dataset_name)
        if latest and latest[0] == reading.checksum:
            report.notes.append(f"{reading.name} is unchanged since it was landed: nothing to do.")
        else:
            # Strictly later than the version before, whatever the clock says.
            now = datetime.now(timezone.utc)
            landed_at = max(now, latest[1] + timedelta(microseconds=1)) if latest else now
            pipeline.sync_destination()
            pipeline.extract(brands(reading, landed_at))
            load(pipeline)
            report.rows[kind.name] = len(reading.rows)
            report.rejected = len(reading.rejects)
            if reading.rejects:
                first = reading.rejects[0]
                report.notes.append(
                    f"{report.rejected} of {reading.rows_read} lines are in raw_brands.rejects,"
                    f" first line {first['_file_line']}: {first['reason']}"
                )
    report.seconds = time.monotonic() - started
    return report


def _latest_version(kind: FileKind, target: Target, dataset: str) -> tuple[str, datetime] | None:
    """Checksum and time of the version that holds, by the warehouse itself."""
    connection = target.connect()
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                sql.SQL(
                    "select files._file_checksum, files.landed_at from {0}.files"
                    " inner join {0}._dlt_loads as loads on files._dlt_load_id = loads.load_id"
                    " where files.kind = %s and loads.status = 0"
                    " order by files.landed_at desc limit 1"
                ).format(sql.Identifier(dataset)),
                (kind.name,),
            )
            return cursor.fetchone()
    except psycopg2.errors.UndefinedTable:
        return None
    finally:
        connection.close()
