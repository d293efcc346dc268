"""From files to load jobs: Parquet files with the columns of the raw tables, one COPY each.

dlt takes these files as they are (``dlt.mark.with_file_import``), so rows are written once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ingestion.errors import UserError
from ingestion.progress import task
from ingestion.sources.transactions import settings
from ingestion.sources.transactions.ledger import Plan
from ingestion.sources.transactions.lines import ahead
from ingestion.sources.transactions.reader import REJECTS, ROWS, Reader, SourceFile

_NULLABLE = (*settings.TEXT_FIELDS, "extra_fields", "etag", "header", "replay_of")


def _raw(columns: Iterable[tuple[str, pa.DataType]]) -> pa.Schema:
    """Columns of a raw table, nullable where dlt knows so: otherwise it would write all anew."""
    of_a_load = [(name, pa.string()) for name in ("_file_name", "_file_checksum", "_dlt_load_id")]
    return pa.schema(
        [pa.field(name, kind, name in _NULLABLE) for name, kind in (*columns, *of_a_load)]
    )


SCHEMAS = {
    "transactions": _raw((field.name, field.type) for field in ROWS),
    "rejects": _raw((field.name, field.type) for field in REJECTS),
    "files": _raw(
        [
            ("path", pa.string()),
            ("bytes", pa.int64()),
            ("first_line", pa.int64()),
            ("last_line", pa.int64()),
            ("lines_read", pa.int64()),
            ("rows_landed", pa.int64()),
            ("rows_rejected", pa.int64()),
            ("is_replacement", pa.bool_()),
            ("seconds", pa.float64()),
            ("landed_at", pa.timestamp("us", "UTC")),
            ("etag", pa.string()),
            ("header", pa.string()),
            ("replay_of", pa.string()),
        ]
    ),
}
_REPEATED = ["_file_name", "_file_checksum", "_dlt_load_id", *settings.TEXT_FIELDS, "reason_code"]


class Jobs:
    """Load jobs of one table: rows go in, Parquet files come out (``files``: path to rows)."""

    def __init__(self, folder: Path, table: str) -> None:
        self.files: dict[Path, int] = {}
        self._folder, self._table = folder, table
        self._writer: pq.ParquetWriter | None = None

    def write(self, rows: pa.Table) -> None:
        if not rows.num_rows:
            return
        if self._writer is None:
            self._path = self._folder / f"{self._table}-{id(self)}-{len(self.files)}.parquet"
            self.files[self._path] = 0
            self._writer = pq.ParquetWriter(
                self._path,
                rows.schema,
                compression="none",
                use_dictionary=[name for name in rows.column_names if name in _REPEATED],
                write_statistics=False,
            )
        self._writer.write_table(rows)
        self.files[self._path] += rows.num_rows
        if self.files[self._path] >= settings.JOB_ROWS:
            self.close()

    def close(self) -> None:
        if self._writer:
            self._writer.close()
            self._writer = None

    def discard(self) -> None:
        self.close()
        for path in self.files:
            path.unlink()


class Pending:
    """Rows of a file until it is known whether they land: few in memory, many as jobs."""

    def __init__(self, folder: Path, table: str) -> None:
        self.rows = 0
        self._held: list[pa.Table] = []
        self._own = Jobs(folder, table)

    def write(self, rows: pa.Table) -> None:
        self._held.append(rows)
        self.rows += rows.num_rows
        if self.rows > settings.HELD_ROWS:
            self._empty_into(self._own)

    def land(self, shared: Jobs) -> None:
        """Hand the rows over: the few to the jobs that many files share, the many as they are."""
        self._empty_into(self._own if self._own.files else shared)
        self._own.close()
        shared.files |= self._own.files

    def discard(self) -> None:
        self._own.discard()

    def _empty_into(self, jobs: Jobs) -> None:
        for table in self._held:
            jobs.write(table)
        self._held = []


class Landing:
    """Reads the files of a plan, once, and keeps what lands as load jobs.

    Attributes:
        rows, rejected, files: what has been read and will land.
        plan: its notes and problems grow as files are read.
    """

    def __init__(self, plan: Plan, folder: Path, max_reject_share: float) -> None:
        self.plan = plan
        self.rows = self.rejected = self.files = 0
        self._folder, self._max_reject_share = folder, max_reject_share
        self._jobs: dict[str, Jobs] = {}

    def jobs(self, table: str, load_id: str) -> dict[Path, int]:
        """The load jobs of one table, path to number of rows; the first call reads all files.

        Raises:
            UserError: nothing lands.
        """
        if not self._jobs:
            self._jobs = {name: Jobs(self._folder, name) for name in SCHEMAS}
            self._read(load_id)
        return self._jobs[table].files

    def empty_job(self, table: str) -> Path:
        """A load job without rows, which makes the table: a CSV file with a header only."""
        path = self._folder / f"{table}.csv"
        path.write_text(",".join(SCHEMAS[table].names) + "\n")
        return path

    def _read(self, load_id: str) -> None:
        megabytes = sum(file.bytes for file in self.plan.files) / 1e6
        self._folder.mkdir(parents=True, exist_ok=True)
        with closing(Reader()) as reader, task("Reading", total=megabytes, unit="MB") as advance:
            for file in self.plan.files:
                try:
                    self._read_file(file, reader, load_id, advance)
                except UserError as error:
                    self.plan.problems.append(error.message)
        for jobs in self._jobs.values():
            jobs.close()
        if not self.files:
            raise UserError("Nothing lands.")

    def _read_file(self, file: SourceFile, reader: Reader, load_id: str, advance: Callable) -> None:
        began = time.monotonic()
        stamp = {
            "_file_name": file.name,
            "_file_checksum": file.checksum,
            "_dlt_load_id": load_id,
        }
        good, bad = Pending(self._folder, "transactions"), Pending(self._folder, "rejects")
        reasons: Counter[str] = Counter()
        first_line = last_line = done = 0
        example = None
        with ExitStack() as on_error:
            on_error.callback(good.discard)
            on_error.callback(bad.discard)
            for batch in ahead(reader.read(file)):
                good.write(_stamped(batch.rows, SCHEMAS["transactions"], stamp))
                bad.write(_stamped(batch.rejects, SCHEMAS["rejects"], stamp))
                reasons.update(batch.rejects["reason_code"].to_pylist())
                if not example and batch.rejects.num_rows:
                    example = batch.rejects.slice(0, 1).to_pylist()[0]
                first_line, last_line = first_line or batch.first_line, batch.last_line
                advance((batch.done - done) / 1e6)
                done = batch.done
            lines = good.rows + bad.rows
            if not lines:
                self.plan.empty.append(file.name)
                return
            if bad.rows > self._max_reject_share * lines:
                raise UserError(_too_many(file, bad.rows, lines, reasons, example))
            on_error.pop_all()
        good.land(self._jobs["transactions"])
        bad.land(self._jobs["rejects"])
        self.rows += good.rows
        self.rejected += bad.rows
        self.files += 1
        ledger = {
            "path": file.place,
            "bytes": file.bytes,
            "first_line": first_line,
            "last_line": last_line,
            "lines_read": lines,
            "rows_landed": good.rows,
            "rows_rejected": bad.rows,
            "is_replacement": file.name in self.plan.replacements,
            "seconds": round(time.monotonic() - began, 3),
            "landed_at": datetime.now(timezone.utc),
            "etag": file.etag,
            "header": file.header,
        }
        self._jobs["files"].write(pa.Table.from_pylist([ledger | stamp], SCHEMAS["files"]))


def _stamped(rows: pa.Table, schema: pa.Schema, stamp: dict[str, str]) -> pa.Table:
    """Rows of a file with the columns of the load, as the raw table has them."""
    columns = [*rows.columns, *(pa.repeat(text, rows.num_rows) for text in stamp.values())]
    return pa.table(columns, schema=schema)


def _too_many(
    file: SourceFile, rejected: int, lines: int, reasons: Counter[str], example: dict[str, Any]
) -> str:
    code, count = reasons.most_common(1)[0]
    start = example["raw_text"].lstrip()[:1]
    if file.form == "jsonl" and start == "[":
        hint = "It looks like one JSON array: give one transaction a line (jq -c '.[]')."
    else:
        hint = "Mend it, or raise sources.transactions.max_reject_share in .dlt/config.toml."
    return (
        f"{file.name}: {rejected:,} of {lines:,} lines cannot land, {count:,} of them because "
        f"{settings.REASONS[code]} (line {example['_file_line']:,}: {example['reason_code']}). "
        f"Nothing of it has landed.\n{hint}"
    )
