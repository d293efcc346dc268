"""A load of transactions: an id, rows, and a line in dlt's list of loads, all or nothing.

``Warehouse`` is where loads usually go; other destinations give the same promises.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ingestion.pipeline import (
    LoadReport,
    end_connections,
    make_pipeline,
    refusals,
    url_of_loads,
)
from ingestion.sources.transactions.settings import DATASET
from ingestion.sources.transactions.tables import COLUMNS, transactions_source

if TYPE_CHECKING:
    import dlt
    import pyarrow as pa

    from ingestion.sources.transactions.landing.copy import Copy
    from ingestion.sources.transactions.ledger import Landed
    from ingestion.warehouse.target import Target


class Load(Protocol):
    """Rows that land together or not at all; ``landing.copy.Copy`` says what each method does."""

    load_id: str

    def write(self, table: str, rows: pa.Table) -> None: ...
    def savepoint(self) -> None: ...
    def release(self) -> None: ...
    def rollback(self) -> None: ...


class Destination(Protocol):
    """Where files of transactions land.

    Attributes:
        name: of the lock that its loads hold, and what reports call it.
    """

    name: str

    def settle(self, report: LoadReport) -> None:
        """Put in order what earlier runs have left; to be called while the lock is held."""

    def landed(self) -> list[Landed]:
        """What the ledger says, oldest first."""

    def open_load(self) -> AbstractContextManager[Load]:
        """A load: what is written in the block lands and counts, all of it or nothing."""

    def keep(self, files: Sequence[tuple[Path, str, str]]) -> None:
        """Keep files as they came: where each is, its name and its checksum."""


class Warehouse:
    """The raw tables in PostgreSQL, by COPY.

    Args:
        target: where it is.
        pipeline: another pipeline than the target's, for tests.
    """

    name = "transactions"

    def __init__(self, target: Target, pipeline: dlt.Pipeline | None = None) -> None:
        self._target, self._pipeline = target, pipeline

    def settle(self, report: LoadReport) -> None:
        finish_earlier(self._target, report)

    def landed(self) -> list[Landed]:
        from ingestion.sources.transactions import ledger

        return ledger.landed(self._target, DATASET)

    def open_load(self) -> AbstractContextManager[Load]:
        return open_load(self._target, self._pipeline)

    def keep(self, files: Sequence[tuple[Path, str, str]]) -> None:
        """The warehouse has rows, and no files."""


@contextmanager
def open_load(target: Target, pipeline: dlt.Pipeline | None = None) -> Iterator[Copy]:
    """A load: what is written in the block lands and counts, all of it or nothing.

    dlt makes the tables where they are not there. If nothing is written there is no load.

    Args:
        target: the warehouse.
        pipeline: another pipeline than the target's, for tests.

    Raises:
        UserError: the warehouse does not take it.
    """
    from ingestion.sources.transactions.landing.copy import Copy

    with refusals("transactions"):
        make_tables(target, pipeline)
        with closing(Copy(url_of_loads("transactions", target), DATASET)) as copy:
            yield copy
            if copy.rows:
                copy.commit()


def tables_are_there(target: Target) -> bool:
    """Whether the raw tables and dlt's own are in the warehouse."""
    wanted = (*COLUMNS, "_dlt_loads", "_dlt_version")
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(
            "select count(*) from pg_tables where schemaname = %s and tablename in %s",
            (DATASET, wanted),
        )
        return cursor.fetchone() == (len(wanted),)


def make_tables(target: Target, pipeline: dlt.Pipeline | None = None) -> None:
    """Let dlt make the raw tables and its own; where all of them are there, nothing is done."""
    if tables_are_there(target):
        return
    pipeline = pipeline or make_pipeline("transactions", target)
    pipeline.drop()  # what a killed run has left
    pipeline.sync_destination()
    pipeline.extract(transactions_source(Path(pipeline.working_dir)))
    pipeline.sync_schema()
    pipeline.drop()


def finish_earlier(target: Target, report: LoadReport) -> None:
    """End what a killed run has left open; list what it landed, if it was of an older release.

    Older releases listed a load after its rows were there, and could be killed in between.

    Raises:
        UserError: the server's clock is behind the newest load's.
    """
    from ingestion.sources.transactions import ledger

    ledger.check_clock(target, DATASET)
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        end_connections(cursor, "transactions")
    load_ids = ledger.unlisted(target, DATASET)
    if not load_ids:
        return
    with refusals("transactions"):
        _list(load_ids, target)
    taken_up = [row for row in ledger.landed(target, DATASET) if row.load_id in load_ids]
    report.rows["files"] += len(taken_up)
    report.rows["transactions"] += sum(row.rows for row in taken_up)
    report.rejected += sum(row.rejected for row in taken_up)
    report.notes += [f"{row.name}: an earlier, killed run has been completed." for row in taken_up]


def _list(load_ids: list[str], target: Target) -> None:
    from ingestion.sources.transactions.landing.copy import LIST

    with closing(target.connect()) as connection, connection, connection.cursor() as cursor:
        for load_id in load_ids:
            for statement in LIST:
                cursor.execute(statement.replace("DATASET", DATASET).replace("LOAD_ID", load_id))
