"""One table at a time: how what is read of it is loaded, and what the ledger then says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import dlt
import pyarrow as pa
from psycopg2 import sql

from ingestion import table_ledger
from ingestion.databases.asked import MARK, TableAsked
from ingestion.databases.connecting import errors_of
from ingestion.errors import UserError
from ingestion.pipeline import LoadReport, load
from ingestion.sources.databases import deletes
from ingestion.sources.databases.settings import FILE_ROWS
from ingestion.terminal import one_line

if TYPE_CHECKING:
    from dlt.sources import DltResource

    from ingestion.databases.columns import Landing
    from ingestion.databases.reading import Reading
    from ingestion.warehouse.target import Target

# A column that has changed its type must not grow a second one beside it.
CONTRACT: Any = {"tables": "evolve", "columns": "evolve", "data_type": "freeze"}


class Readable(Protocol):
    """A table of somebody's.

    Attributes:
        asked: what is wanted of it.
        name: in the raw schema.
        place: where it comes from, without user and password.
        columns: how its columns land.
        names: of the columns in the raw schema, by their own.
        key: its key columns, by their own names.
        is_unique: whether its database holds the key unique.
    """

    asked: TableAsked
    name: str
    place: str
    columns: list[Landing]
    names: dict[str, str]
    key: tuple[str, ...]
    is_unique: bool

    def reading(self, last: str | None) -> Reading:
        """What is to be read, where all up to this value of the cursor has landed."""

    def resource(self, reading: Reading) -> DltResource:
        """The rows, as dlt reads them."""

    def keys(self) -> Iterator[pa.Table]:
        """The key columns of all rows."""


class Loading:
    """Loads tables of one database.

    Args:
        target: the warehouse.
        pipeline: of the source.
        url: of the database, for its errors.
    """

    def __init__(self, target: Target, pipeline: dlt.Pipeline, url: str) -> None:
        self._target, self._pipeline, self._url = target, pipeline, url

    def land(self, table: Readable, report: LoadReport) -> None:
        """Land a table.

        Raises:
            UserError: it cannot.
        """
        began = time.monotonic()
        earlier = table_ledger.latest(self._target, self._pipeline.dataset_name, table.name)
        if earlier and earlier.place != table.place:
            raise UserError(
                f"raw_{report.source}.{table.name} came from {earlier.place}.\n"
                f"Land {table.place} under another name: --name NAME."
            )
        has_rows = self._has_rows(table.name)
        if has_rows is not None:
            self._refuse_other_types(table)
        last = None
        if has_rows and earlier and earlier.cursor == table.asked.cursor:
            last = earlier.cursor_value
        reading = table.reading(last)
        reading.nothing = self._nothing(table)
        load_id = self._load(table, reading, has_rows is None, bool(has_rows))
        entry = table_ledger.Entry(
            table.name,
            table.place,
            "incremental" if table.asked.cursor else "full",
            table.key,
            table.asked.cursor,
            # a backfill leaves the cursor where it is
            last
            if reading.highest is None or table.asked.days
            else reading.written(reading.highest),
            reading.rows,
            reading.rejected,
            load_id=load_id,
        )
        self._finish(table, entry, reading, began)
        report.rows[table.name] = reading.rows
        report.rejected += reading.rejected
        report.notes += self._notes(table, reading)

    @property
    def _has_schema(self) -> bool:
        name = self._pipeline.default_schema_name
        return name is not None and name in self._pipeline.schemas

    def _refuse_other_types(self, table: Readable) -> None:
        """
        Raises:
            UserError: a column has landed as another type.
        """
        if not self._has_schema:
            return
        known = self._pipeline.default_schema.tables.get(table.name, {}).get("columns", {})
        for column in table.columns:
            there = known.get(table.names[column.name])
            now, was = _typed(column.hint), _typed(there or {})
            if there and there.get("data_type") and now != was:
                where = f"raw_{self._pipeline.pipeline_name}.{table.name}"
                raise UserError(
                    f"{table.name}.{column.name} has landed as {was}, and is {now} now.\n"
                    f"Land it as text (--text {column.name}) into a new --name, or drop table"
                    f" {where} to land all of it anew."
                )

    def _has_rows(self, table: str) -> bool | None:
        """Whether the raw table has rows; None where it is not there."""
        place = sql.Identifier(self._pipeline.dataset_name, table)
        with closing(self._target.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("select to_regclass(%s)", (place.as_string(connection),))
            if cursor.fetchone() == (None,):
                return None
            cursor.execute(sql.SQL("select exists (select from {})").format(place))
            return cursor.fetchone()[0]

    def _load(self, table: Readable, reading: Reading, is_new: bool, has_rows: bool) -> str:
        """Read the rows, and load them; returns dlt's id of the load."""
        merges = bool(table.asked.cursor or table.asked.mark_deletes)
        in_place = has_rows or (merges and not table.is_unique)
        disposition: Any = ("merge" if merges else "replace") if in_place else "append"
        resource = table.resource(reading)
        hints = {
            column.name: column.hint
            # what the source makes of nulls may change
            | {"name": column.name, "nullable": column.name not in table.key}
            for column in table.columns
        }
        if table.asked.mark_deletes:
            hints[MARK] = {"name": MARK, "data_type": "timestamp"}
        resource.apply_hints(
            table_name=table.name,
            columns=hints,  # type: ignore[arg-type]
            primary_key=list(table.key) if merges else [],
            write_disposition=disposition,
            file_format="parquet",
            schema_contract=CONTRACT,
        )
        source = dlt.source(lambda: resource, name=self._pipeline.pipeline_name)()
        dlt.config["normalize.parquet_normalizer.add_dlt_load_id"] = True
        dlt.config["data_writer.file_max_items"] = FILE_ROWS
        if is_new:
            self._forget(table.name)
        with errors_of(self._url):
            extracted = self._pipeline.extract(source)
        load(self._pipeline)
        return extracted.loads_ids[0]

    def _nothing(self, table: Readable) -> Any:
        """A file without rows, which dlt can load; it makes the table, or empties it."""
        path = Path(self._pipeline.working_dir) / "nothing.csv"
        path.write_text(f"{table.names[table.columns[0].name]}\n")
        shape = pa.schema([(column.name, column.arrow) for column in table.columns])
        return dlt.mark.with_file_import(str(path), "csv", 0, shape.empty_table())

    def _forget(self, table: str) -> None:
        """Let dlt make a table that was dropped, whatever it knows of its columns."""
        if self._has_schema and table in self._pipeline.default_schema.tables:
            self._pipeline.default_schema.drop_tables([table])
            with closing(self._target.connect()) as connection, connection:
                versions = sql.Identifier(self._pipeline.dataset_name, "_dlt_version")
                with connection.cursor() as cursor:
                    cursor.execute("select to_regclass(%s)", (versions.as_string(connection),))
                    if cursor.fetchone() != (None,):  # the schema may have been dropped as a whole
                        # or dlt finds that nothing has changed
                        cursor.execute(sql.SQL("delete from {}").format(versions))

    def _finish(
        self, table: Readable, entry: table_ledger.Entry, reading: Reading, began: float
    ) -> None:
        schema = self._pipeline.dataset_name
        with closing(self._target.connect()) as connection, connection, connection.cursor() as c:
            if table.asked.mark_deletes:
                place = sql.Identifier(schema, table.name)
                key = [table.names[name] for name in table.key]
                with errors_of(self._url):
                    deleted, returned = deletes.mark(c, place, key, table.keys())
                entry = replace(entry, deleted=deleted, returned=returned)
            entry = replace(entry, seconds=time.monotonic() - began)
            table_ledger.write(c, schema, entry, reading.rejects)

    def _notes(self, table: Readable, reading: Reading) -> list[str]:
        if not reading.rejected:
            return []
        first = reading.rejects[0]
        return [
            f"{table.name}: {reading.rejected:,} rows are in {self._pipeline.dataset_name}"
            f".{table_ledger.REJECTS}, as a value has no place; the first: {first.column} is"
            f" {one_line(first.reason)}. To land it as text: --text {first.column}"
        ]


def _typed(hint: dict[str, Any] | Any) -> str:
    kind = str(hint.get("data_type"))
    if kind == "decimal":
        return f"decimal({hint.get('precision')}, {hint.get('scale') or 0})"
    if kind == "timestamp":
        return "timestamp" if hint.get("timezone") is False else "timestamp with time zone"
    return kind
