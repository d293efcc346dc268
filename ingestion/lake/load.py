"""One load of the lake: data files while rows come, and all of them counted at once."""

from __future__ import annotations

import uuid
import warnings
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import And, BooleanExpression, EqualTo, Or
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import write_file
from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import PartitionFieldValue, PartitionKey
from pyiceberg.table import Table, WriteTask
from pyiceberg.table.metadata import TableMetadata
from sqlalchemy import text

from ingestion.lake.catalogue import Catalogue
from ingestion.lake.settings import FLUSH_ROWS, SCHEMA
from ingestion.sources.transactions.landing.copy import LIST, NEW_ID
from ingestion.sources.transactions.ledger import Landed
from ingestion.sources.transactions.tables import COLUMNS

AHEAD = 1  # writes under way while rows come


@dataclass
class Part:
    """Rows of a load that land, or are given up, together.

    Attributes:
        held: what is not written yet, by table.
        rows: how many that is.
        written: what will give the data files, by table.
    """

    held: dict[str, list[pa.Table]] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    rows: Counter[str] = field(default_factory=Counter)
    written: dict[str, list[Future[list[DataFile]]]] = field(
        default_factory=lambda: {name: [] for name in COLUMNS}
    )

    def add(self, other: Part) -> None:
        for name in COLUMNS:
            self.held[name] += other.held[name]
            self.written[name] += other.written[name]
        self.rows += other.rows


class LakeLoad:
    """A load, as ``landing.copy.Copy`` is one of the warehouse. Nothing stays without ``commit``.

    Args:
        catalogue: of the lake.
        tables: its tables.
        landed: what counts so far.

    Attributes:
        load_id: for ``_dlt_load_id``, as in the warehouse.
    """

    def __init__(
        self, catalogue: Catalogue, tables: dict[str, Table], landed: list[Landed]
    ) -> None:
        self._catalogue, self._tables, self._landed = catalogue, tables, landed
        with catalogue.engine.connect() as connection:
            self.load_id: str = connection.execute(text(NEW_ID)).scalar_one()
        self._part, self._outer = Part(), None
        self._ledger: list[pa.Table] = []
        self._writer = ThreadPoolExecutor(1)
        self._asked: deque[Future[list[DataFile]]] = deque()

    _outer: Part | None

    @property
    def is_empty(self) -> bool:
        return not self._ledger

    def write(self, table: str, rows: pa.Table) -> None:
        """Append rows to a table, whose columns have the same names."""
        if not rows.num_rows:
            return
        if table == "files":
            self._ledger.append(rows)
        self._part.held[table].append(rows)
        self._part.rows[table] += rows.num_rows
        if self._part.rows[table] >= FLUSH_ROWS:
            self._flush(self._part, table)

    def savepoint(self) -> None:
        """What is written from now on can be rolled back."""
        self._outer, self._part = self._part, Part()

    def release(self) -> None:
        """What was written since the savepoint stays."""
        if self._outer is not None:
            self._outer.add(self._part)
            self._part, self._outer = self._outer, None

    def rollback(self) -> None:
        """What was written since the savepoint goes."""
        if self._outer is not None:
            self._remove(self._part)
            self._part, self._outer = self._outer, None

    def close(self) -> None:
        """End, and remove what was written and does not count."""
        for part in filter(None, (self._part, self._outer)):
            self._remove(part)
        self._writer.shutdown()

    def commit(self) -> None:
        """Write the rest, and make all of it count, in one transaction of the catalogue's database.

        Files that replace others take the rows of these with them.
        """
        for table in COLUMNS:
            self._flush(self._part, table)
        files = {
            name: [file for future in futures for file in future.result()]
            for name, futures in self._part.written.items()
        }
        with self._catalogue.together() as connection:
            listed = self._list(connection)
            for name, table in self._tables.items():
                with table.refresh().transaction() as change:
                    if name in ("transactions", "rejects") and (old := self._replaced()):
                        with warnings.catch_warnings():
                            warnings.simplefilter("ignore")  # that there may be no such rows
                            change.delete(old)
                    new = files[name] if name in files else _written(table, listed)
                    if new:
                        with change.update_snapshot().merge_append() as append:
                            for file in new:
                                append.append_data_file(file)
        self._part = Part()

    def _list(self, connection: Any) -> pa.Table:
        """Enter the load in the ledger and in the list of loads; returns its line there."""
        lock, insert = (
            part.replace("DATASET", SCHEMA).replace("LOAD_ID", self.load_id) for part in LIST
        )
        connection.execute(text(lock))
        rows = pa.concat_tables(self._ledger).to_pylist()
        columns = list(COLUMNS["files"])
        connection.execute(
            text(
                f"insert into {SCHEMA}.files ({', '.join(columns)})"  # noqa: S608 - ours
                f" values ({', '.join(':' + name.lstrip('_') for name in columns)})"
            ),
            [{name.lstrip("_"): row[name] for name in columns} for row in rows],
        )
        connection.execute(text(insert))
        line = connection.execute(
            text(f"select * from {SCHEMA}._dlt_loads where load_id = :id"),  # noqa: S608
            {"id": self.load_id},
        ).mappings()
        schema = self._tables["_dlt_loads"].schema().as_arrow()
        return pa.Table.from_pylist([dict(row) for row in line], schema)

    def _replaced(self) -> BooleanExpression | None:
        """The rows of files that this load replaces; None if there are none."""
        ledger = pa.concat_tables(self._ledger).to_pylist()
        places = {row["path"] for row in ledger if row["is_replacement"]}
        old: BooleanExpression | None = None
        for row in self._landed:
            if row.path in places:
                one = And(
                    EqualTo("_dlt_load_id", row.load_id), EqualTo("_file_checksum", row.checksum)
                )
                old = one if old is None else Or(old, one)
        return old

    def _flush(self, part: Part, table: str) -> None:
        if not part.held[table]:
            return
        while len(self._asked) > AHEAD:
            self._asked.popleft().result()
        rows = pa.concat_tables(part.held[table])
        part.held[table], part.rows[table] = [], 0
        future = self._writer.submit(_written, self._tables[table], rows)
        part.written[table].append(future)
        self._asked.append(future)

    def _remove(self, part: Part) -> None:
        for name, futures in part.written.items():
            for future in futures:
                with suppress(Exception):  # it is an orphan then, which `expire` removes
                    for file in future.result():
                        self._tables[name].io.delete(file.file_path)


def _written(table: Table, rows: pa.Table) -> list[DataFile]:
    return write_rows(table.io, table.metadata, rows)


def write_rows(io: FileIO, metadata: TableMetadata, rows: pa.Table) -> list[DataFile]:
    """Write data files of a table, one for each of its partitions; they do not count yet."""
    writing, tasks = uuid.uuid4(), []
    for at, (key, part) in enumerate(_partitioned(metadata, rows)):
        tasks.append(
            WriteTask(
                write_uuid=writing,
                task_id=at,
                schema=metadata.schema(),
                record_batches=part.combine_chunks().to_batches(),
                partition_key=key,
            )
        )
    return list(write_file(io, metadata, iter(tasks)))


def _partitioned(
    metadata: TableMetadata, rows: pa.Table
) -> list[tuple[PartitionKey | None, pa.Table]]:
    """The rows of each partition; those of one day keep their order."""
    spec = metadata.spec()
    if not spec.fields:
        return [(None, rows)]
    days = pc.floor_temporal(rows["event_ts"], unit="day")
    parts = []
    ends = _days_in_order(days)
    if len(ends) > 1:
        order = pc.sort_indices(days)
        rows = rows.take(order)
    start = 0
    for day, count in ends:
        value = PartitionFieldValue(spec.fields[0], day)
        parts.append((PartitionKey([value], spec, metadata.schema()), rows.slice(start, count)))
        start += count
    return parts


def _days_in_order(days: pa.ChunkedArray) -> list[tuple[int, int]]:
    """Each day, in days since 1970, and how many rows it has."""
    per_day = 24 * 60 * 60 * 1_000_000
    found = pc.value_counts(pc.cast(days, pa.int64()))
    return sorted((row["values"] // per_day, row["counts"]) for row in found.to_pylist())
