"""Film brands from flat files: Box Office Mojo's brand index, and the release lists of brands.

Both land in ``raw_brands``. A file lands as a whole under one load, and the ledger ``files`` has a
row for each version of a file and load. The rows that hold are those of the load that stands in the
newest ledger row of their kind; only loads that ``_dlt_loads`` lists with status 0 count.
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
from dlt.pipeline.exceptions import PipelineStepFailed
from psycopg2 import sql

from ingestion.errors import UserError
from ingestion.pipeline import LoadReport, make_pipeline, one_at_a_time
from ingestion.sources.brands.reader import Reading, read
from ingestion.sources.brands.settings import BRAND_RELEASES, BRANDS, TABLES, FileKind
from ingestion.warehouse import Target

if TYPE_CHECKING:
    from dlt.sources import DltResource

# Tables are ours to declare; a column that is not declared, or a value of another type, is a fault
# of the reader and must stop the load instead of growing a variant column.
CONTRACT = {"tables": "evolve", "columns": "freeze", "data_type": "freeze"}


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
        if _finish_pending(pipeline, target):
            report.notes.append("A load that an earlier run left unfinished was finished first.")
        latest = _latest_version(kind, target, pipeline.dataset_name)
        if latest and latest[0] == reading.checksum:
            report.notes.append(f"{reading.name} is unchanged since it was landed: nothing to do.")
        else:
            # Strictly later than the version before, whatever the clock says.
            now = datetime.now(timezone.utc)
            landed_at = max(now, latest[1] + timedelta(microseconds=1)) if latest else now
            _run(pipeline, brands(reading, landed_at))
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


def _finish_pending(pipeline: dlt.Pipeline, target: Target) -> bool:
    """Land what a killed run had read; True if there was such a load.

    A run killed after a table's rows were committed and before dlt noted that, leaves a job whose
    second try breaks on the unique ``_dlt_id``. Its rows are whole, for a job is one transaction:
    they are taken out, and the job lands them again.
    """
    if not pipeline.has_pending_data:
        return False
    try:
        pipeline.run()
    except PipelineStepFailed:
        _take_out_unfinished(pipeline, target)
        _run(pipeline)
    return True


def _take_out_unfinished(pipeline: dlt.Pipeline, target: Target) -> None:
    connection = target.connect()
    try:
        with connection, connection.cursor() as cursor:
            for load_id in pipeline.list_normalized_load_packages():
                # one job a table: a brand file is far below the size at which dlt begins another
                for job in pipeline.get_load_package_info(load_id).jobs["new_jobs"]:
                    table = sql.Identifier(pipeline.dataset_name, job.job_file_info.table_name)
                    cursor.execute(
                        sql.SQL("delete from {} where _dlt_load_id = %s").format(table), (load_id,)
                    )
    except psycopg2.Error as error:
        raise UserError(_failure(error)) from error
    finally:
        connection.close()


def _run(pipeline: dlt.Pipeline, data: Any = None) -> None:
    try:
        pipeline.run(data)
    except PipelineStepFailed as error:
        cause: BaseException | None = error
        while cause and not isinstance(cause, psycopg2.Error):
            cause = cause.__cause__ or cause.__context__
        if cause:
            raise UserError(_failure(cause)) from error
        raise


def _failure(error: psycopg2.Error) -> str:
    reason = str(error).strip().splitlines() or ["no answer"]
    return (
        f"The warehouse did not take the load of brands: {reason[0]}\n"
        "Mend that and run the same command again: it goes on where this one stopped."
    )
