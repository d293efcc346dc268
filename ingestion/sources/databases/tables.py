"""A table that SQLAlchemy reads: what of it is read, and how."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import sqlalchemy as sa
from dlt.sources.sql_database import sql_table

from ingestion.databases.asked import CHUNK_ROWS
from ingestion.databases.cursors import reading_of
from ingestion.databases.looking import Table
from ingestion.databases.reading import Reading, loader_for

if TYPE_CHECKING:
    from dlt.sources import DltResource


class SqlTable:
    """A table of a database, as ``loading.Readable`` says.

    Args:
        engine: of the database.
        table: as it was looked at.
        place: of the database, without user and password.
    """

    def __init__(self, engine: sa.Engine, table: Table, place: str) -> None:
        self.asked, self.name, self.key = table.asked, table.name, table.key
        self.columns, self.names = table.columns, table.names
        self.place = f"{place} {table.reflected.fullname}"
        self.is_unique = {c.name for c in table.reflected.primary_key} == set(table.key)
        self._engine, self._table = engine, table

    def reading(self, last: str | None) -> Reading:
        return reading_of(self._table, self._engine.dialect.name, last)

    def resource(self, reading: Reading) -> DltResource:
        table = self._table.reflected
        return sql_table(
            self._engine,
            table=table.name,
            metadata=table.metadata,
            schema=table.schema,
            backend="pyarrow",
            chunk_size=CHUNK_ROWS,
            reflection_level="minimal",
            query_adapter_callback=reading.query,
            table_loader_class=loader_for(self._engine, reading),
        )

    def keys(self) -> Iterator[pa.Table]:
        by_name = {column.name: column for column in self.columns}
        reading = Reading([by_name[name] for name in self.key])
        make: Any = loader_for(self._engine, reading)
        options: Any = {"chunk_size": CHUNK_ROWS, "query_adapter_callback": reading.query}
        yield from make(self._engine, "pyarrow", self._table.reflected, {}, **options).load_rows()
