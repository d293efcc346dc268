"""From files to the raw tables: typed rows go into COPY while the next ones are being read.

All rows of a load, its ledger included, go in one transaction. So they are there as a whole or not
at all, whenever a run is killed; and what has been sent of a file that is refused in the end is
rolled back, to the savepoint before it.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from datetime import datetime, timezone
from threading import Lock
from typing import Any

import pyarrow as pa

from ingestion.errors import UserError
from ingestion.progress import task
from ingestion.sources.transactions import settings
from ingestion.sources.transactions.contract import DECODER
from ingestion.sources.transactions.ledger import Plan
from ingestion.sources.transactions.lines import ahead
from ingestion.sources.transactions.reader import REJECTS, ROWS, Batch, Reader, SourceFile

_NULLABLE = (*settings.TEXT_FIELDS, "extra_fields", "etag", "header", "replay_of")

_SAMPLE = 100  # rows of a batch whose unknown fields are looked at for their names


def _raw(columns: Iterable[tuple[str, pa.DataType]]) -> pa.Schema:
    """Columns of a raw table."""
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


# Rows of one load lie side by side, so an index of page ranges finds them, takes no room and costs
# a load next to nothing. Whoever does not own the table goes without.
OWNED = """
    select from pg_class where oid = 'DATASET.transactions'::regclass
    and pg_has_role(relowner, 'usage')
"""
INDEX = (
    "create index if not exists transactions_by_load on DATASET.transactions"
    " using brin (_dlt_load_id) with (pages_per_range = 32)",
    "select brin_summarize_new_values('DATASET.transactions_by_load')",
)


_WAKE_EVERY, _CANCEL_EVERY = 1, 0.2  # seconds


class Copy:
    """One transaction that fills raw tables by COPY, in a thread of its own.

    What is asked for is done later, in the same order, while the caller goes on; an error comes up
    in a later call. Nothing of it stays without ``commit``.

    Args:
        url: of the warehouse.
        dataset: the schema.
        load_id: the load, for ``_dlt_load_id``.

    Attributes:
        rows: number of rows written and not rolled back.
    """

    def __init__(self, url: str, dataset: str, load_id: str) -> None:
        from adbc_driver_postgresql import dbapi

        self.load_id, self.rows, self._rows_before = load_id, 0, 0
        self._dataset = dataset
        self._connection = dbapi.connect(url)
        self._cursor = self._connection.cursor()
        self._thread = ThreadPoolExecutor(1)
        self._asked: deque[Future] = deque()
        self._at_work, self._is_closing = Lock(), False

    def write(self, table: str, rows: pa.Table) -> None:
        """Append rows to a table, whose columns have the same names."""
        if rows.num_rows:
            self.rows += rows.num_rows
            self._ask(
                self._cursor.adbc_ingest, table, rows, mode="append", db_schema_name=self._dataset
            )

    def savepoint(self) -> None:
        """What is written from now on can be rolled back."""
        self._rows_before = self.rows
        self._ask(self._cursor.execute, "savepoint marquee")

    def release(self) -> None:
        """What was written since the savepoint stays."""
        self._ask(self._cursor.execute, "release savepoint marquee")

    def rollback(self) -> None:
        """What was written since the savepoint goes."""
        self.rows = self._rows_before
        self._ask(self._cursor.execute, "rollback to savepoint marquee")
        self.release()

    def commit(self) -> None:
        """Wait until all of it is done, make its rows quick to find by load, and make it last."""
        self._ask(self._index)
        self._ask(self._connection.commit)
        self._wait(0)

    def close(self) -> None:
        """End it; what is under way in the server is broken off."""
        self._is_closing = True
        self._thread.shutdown(wait=False, cancel_futures=True)
        # more than once, for the server drops a request that comes between two statements
        while not self._at_work.acquire(timeout=_CANCEL_EVERY):
            self._cursor.adbc_cancel()
        self._at_work.release()
        self._thread.shutdown()
        self._cursor.close()
        self._connection.close()

    def _index(self) -> None:
        self._cursor.execute(OWNED.replace("DATASET", self._dataset))
        if self._cursor.fetchone() is not None:
            for statement in INDEX:
                self._cursor.execute(statement.replace("DATASET", self._dataset))

    def _ask(self, call: Callable, *arguments: Any, **options: Any) -> None:
        self._wait(settings.COPY_AHEAD)
        self._asked.append(self._thread.submit(self._do, call, *arguments, **options))

    def _do(self, call: Callable, *arguments: Any, **options: Any) -> None:
        with self._at_work:
            if not self._is_closing:
                call(*arguments, **options)

    def _wait(self, left: int) -> None:
        while len(self._asked) > left:
            # not for ever: Python sees an interrupt that came just before only when it wakes
            if wait([self._asked[0]], timeout=_WAKE_EVERY).done:
                self._asked[0].result()
                self._asked.popleft()


class Pending:
    """Rows of a file until it is known whether they land: few in memory, many behind a savepoint.

    A ``UserError`` at the end of the block says that they do not.

    Attributes:
        rows: number of rows, by table.
    """

    def __init__(self, copy: Copy) -> None:
        self.rows: Counter[str] = Counter()
        self._copy, self._sends = copy, False
        self._held: list[tuple[str, pa.Table]] = []

    def __enter__(self) -> Pending:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._sends and kind and issubclass(kind, UserError):
            self._copy.rollback()

    def write(self, table: str, rows: pa.Table) -> None:
        self.rows[table] += rows.num_rows
        self._held.append((table, rows))
        if self.rows.total() > settings.HELD_ROWS:
            if not self._sends:
                self._copy.savepoint()
                self._sends = True
            for held in self._held:
                self._copy.write(*held)
            self._held = []

    def land(self) -> list[tuple[str, pa.Table]]:
        """They land; returns those that have not been sent, with their tables."""
        if self._sends:
            self._copy.release()
        return self._held


class Landing:
    """Reads the files of a plan, once, and sends what lands.

    Attributes:
        rows, rejected, files: what has been sent and stays.
        with_more: rows among them that have fields beyond the contract.
        unknown: names of such fields, the first ones that came.
        plan: its notes and problems grow as files are read.
    """

    def __init__(self, plan: Plan, copy: Copy, max_reject_share: float) -> None:
        self.plan = plan
        self.rows = self.rejected = self.files = self.with_more = 0
        self.unknown: dict[str, None] = {}
        self._copy, self._max_reject_share = copy, max_reject_share
        self._held: dict[str, list[pa.Table]] = {table: [] for table in SCHEMAS}  # of many files
        self._held_rows: Counter[str] = Counter()

    def read(self) -> None:
        """Read all files; those that must not land are the plan's problems then."""
        megabytes = sum(file.bytes for file in self.plan.files) / 1e6
        with closing(Reader()) as reader, task("Landing", total=megabytes, unit="MB") as advance:
            for file in self.plan.files:
                try:
                    self._read_file(file, reader, advance)
                except UserError as error:
                    self.plan.problems.append(error.message)
                    self.plan.cause = self.plan.cause or error.__cause__
            for table in self._held:
                self._send(table)

    def _read_file(self, file: SourceFile, reader: Reader, advance: Callable) -> None:
        began = time.monotonic()
        stamp = {
            "_file_name": file.name,
            "_file_checksum": file.checksum,
            "_dlt_load_id": self._copy.load_id,
        }
        reasons: Counter[str] = Counter()
        first_line = last_line = done = with_more = 0
        unknown: dict[str, None] = {}
        example = None
        with Pending(self._copy) as pending, closing(ahead(_batches(file, reader))) as batches:
            for batch in batches:
                for table, rows in (("transactions", batch.rows), ("rejects", batch.rejects)):
                    pending.write(table, _stamped(rows, SCHEMAS[table], stamp))
                reasons.update(batch.rejects["reason_code"].to_pylist())
                if not example and batch.rejects.num_rows:
                    example = batch.rejects.slice(0, 1).to_pylist()[0]
                more = batch.rows["extra_fields"].drop_null()
                with_more += len(more)
                for text in more[:_SAMPLE].to_pylist():
                    unknown.update((name, None) for name, _ in DECODER.decode(text))
                first_line, last_line = first_line or batch.first_line, batch.last_line
                advance((batch.done - done) / 1e6)
                done = batch.done
            lines, rejected = pending.rows.total(), pending.rows["rejects"]
            if rejected > self._max_reject_share * lines:
                raise UserError(_too_many(file, rejected, lines, reasons, example))
        if not lines:
            self.plan.empty.append(file.name)
            return
        ledger = {
            "path": file.place,
            "bytes": file.bytes,
            "first_line": first_line,
            "last_line": last_line,
            "lines_read": lines,
            "rows_landed": lines - rejected,
            "rows_rejected": rejected,
            "is_replacement": file.name in self.plan.replacements,
            "seconds": round(time.monotonic() - began, 3),
            "landed_at": datetime.now(timezone.utc),
            "etag": file.etag,
            "header": file.header,
        }
        row = pa.Table.from_pylist([ledger | stamp], SCHEMAS["files"])
        for table, rows in (*pending.land(), ("files", row)):
            self._held[table].append(rows)
            self._held_rows[table] += rows.num_rows
            if self._held_rows[table] > settings.HELD_ROWS:
                self._send(table)
        self.rows += lines - rejected
        self.rejected += rejected
        self.files += 1
        self.with_more += with_more
        self.unknown |= unknown

    def _send(self, table: str) -> None:
        if self._held[table]:
            self._copy.write(table, pa.concat_tables(self._held[table]))
            self._held[table] = []
            self._held_rows[table] = 0


def _batches(file: SourceFile, reader: Reader) -> Iterator[Batch]:
    """What the reader makes of a file; what it does not expect is a fault of this file alone.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        yield from reader.read(file)
    except UserError:
        raise
    except Exception as error:
        said = (str(error).strip().splitlines() or ["no more is said"])[0].rstrip(".")
        raise UserError(
            f"{file.name} cannot be read ({type(error).__name__}: {said[:200]}). Nothing of it has"
            " landed.\nWrite it anew, as JSON Lines perhaps; `marquee --debug ...` shows where it"
            " failed."
        ) from error


def _stamped(rows: pa.Table, schema: pa.Schema, stamp: dict[str, str]) -> pa.Table:
    """Rows of a file with the columns of the load, as the raw table has them."""
    columns = [*rows.columns, *(pa.repeat(text, rows.num_rows) for text in stamp.values())]
    return pa.Table.from_arrays(columns, schema=schema)


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
