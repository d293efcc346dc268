"""Tables of a database as Arrow: loaders that dlt's ``sql_table`` takes.

PostgreSQL sends its rows in binary (COPY), read by ADBC; all others send them to SQLAlchemy. Both
ask for columns in the form that keeps their values (see ``columns``), and put rows aside that hold
a value without a place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from dlt.sources.sql_database import BaseTableLoader, TableLoader

from ingestion.databases.columns import Landing
from ingestion.databases.values import column_of, shown
from ingestion.table_ledger import Reject

MOST_REJECTS = 10_000  # of a table and run that are kept, with their rows
ARROW_BYTES = 8 << 20  # of a batch that ADBC gives


@dataclass
class Reading:
    """What is read of a table, and what came of it.

    Attributes:
        landings: how its columns land.
        where: which rows; None for all.
        order: columns by which rows are sorted.
        cursor: the column whose highest value is looked for.
        written: a value of the cursor as the ledger keeps it.
        nothing: what dlt gets where no row lands.
        rows: those that land.
        rejects: those that do not.
        highest: of the cursor; None where there is no row with one.
    """

    landings: list[Landing]
    where: Any = None
    order: list[Any] = field(default_factory=list)
    cursor: str | None = None
    written: Callable[[Any], str] = str
    nothing: Any = None
    rows: int = 0
    rejected: int = 0
    rejects: list[Reject] = field(default_factory=list)
    highest: Any = None

    def query(self, _: Any, table: sa.Table) -> Any:
        """The select that dlt would make, of the columns as they are to be sent."""
        wanted = sa.select(*(landing.selected for landing in self.landings)).select_from(table)
        wanted = wanted if self.where is None else wanted.where(self.where)
        return wanted.order_by(*self.order)

    def arrow(self, columns: Sequence[Any]) -> pa.Table:
        """Rows as they land; counts them, and puts aside those that have no place."""
        made: list[pa.Array] = []
        bad: dict[int, tuple[str, str]] = {}
        for landing, values in zip(self.landings, columns, strict=True):
            column, why = column_of(values, landing)
            made.append(column)
            for row, reason in why.items():
                bad.setdefault(row, (landing.name, reason))
        names = [landing.name for landing in self.landings]
        table = pa.Table.from_arrays(made, names=names)
        if bad:
            self._put_aside(bad, columns)
            kept = pa.array([row not in bad for row in range(table.num_rows)])
            table = table.filter(kept)
        self.rows += table.num_rows
        if self.cursor:
            self._look(table[self.cursor])
        return table

    def land(self, batches: Iterable[Sequence[Any]]) -> Iterator[Any]:
        """The same for all of them, as dlt takes it, which cannot load Arrow without rows."""
        for columns in batches:
            table = self.arrow(columns)
            if table.num_rows:
                yield table
        if not self.rows and self.nothing:
            yield self.nothing

    def _put_aside(self, bad: dict[int, tuple[str, str]], columns: Sequence[Any]) -> None:
        self.rejected += len(bad)
        names = [landing.name for landing in self.landings]
        for row, (column, reason) in bad.items():
            if len(self.rejects) < MOST_REJECTS:
                texts = {n: _cell(v, row) for n, v in zip(names, columns, strict=True)}
                self.rejects.append(Reject(column, reason, texts))

    def _look(self, column: pa.ChunkedArray) -> None:
        found = pc.max(column).as_py()
        if found is not None and (self.highest is None or found > self.highest):
            self.highest = found


def _cell(values: Any, row: int) -> str | None:
    value = values[row]
    if isinstance(value, pa.Scalar):
        try:
            value = value.as_py()
        except (ValueError, OverflowError):
            value = "beyond the years 1 to 9999, or infinity"
    return None if value is None else shown(value, most=None)


class SqlAlchemyRows(TableLoader):
    """Rows that SQLAlchemy reads, a batch of ``chunk_size`` at a time."""

    def __init__(self, *args: Any, reading: Reading, **options: Any) -> None:
        super().__init__(*args, **options)
        self._reading = reading

    def _convert_result(self, result: Any, backend_kwargs: dict[str, Any]) -> Iterator[pa.Table]:  # noqa: ARG002
        partitions = result.partitions(self.chunk_size)
        yield from self._reading.land(list(zip(*rows, strict=True)) for rows in partitions)


class AdbcRows(BaseTableLoader):
    """Rows that PostgreSQL sends in binary."""

    def __init__(self, *args: Any, reading: Reading, **options: Any) -> None:
        super().__init__(*args, **options)
        self._reading = reading

    def load_rows(self, backend_kwargs: dict[str, Any] | None = None) -> Iterator[pa.Table]:  # noqa: ARG002
        from adbc_driver_postgresql import StatementOptions, dbapi

        url = self.get_connection_url()
        query = self.compile_query(self.make_query())
        options = {StatementOptions.BATCH_SIZE_HINT_BYTES.value: str(ARROW_BYTES)}
        with closing(dbapi.connect(url)) as connection, closing(connection.cursor()) as cursor:
            for setting in ("timezone = 'UTC'", "datestyle = 'ISO'", "intervalstyle = 'postgres'"):
                cursor.execute(f"set {setting}")
            cursor.adbc_statement.set_options(**options)
            cursor.execute(query)
            with cursor.fetch_record_batch() as batches:
                yield from self._reading.land(batch.columns for batch in batches)


def loader_for(engine: sa.Engine, reading: Reading) -> Any:
    """What reads a table of this database, for dlt."""
    is_postgresql = engine.dialect.name == "postgresql" and _is_real(engine)
    return partial(AdbcRows if is_postgresql else SqlAlchemyRows, reading=reading)


def _is_real(engine: sa.Engine) -> bool:
    """Whether it is PostgreSQL itself: others speak its protocol, but not COPY in binary."""
    with engine.connect() as connection:
        said = str(connection.exec_driver_sql("select version()").scalar())
    return said.startswith("PostgreSQL ") and not any(
        other in said for other in ("Redshift", "CockroachDB", "Yugabyte")
    )
