"""Copies of tables that land in the warehouse only; all take the place of the last ones at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple

import pyarrow as pa
from pyiceberg.exceptions import NoSuchTableError
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import Transaction
from pyiceberg.table.update.schema import UpdateSchema
from pyiceberg.types import IcebergType, NestedField

from ingestion.lake.catalogue import Catalogue
from ingestion.lake.load import write_rows

FLUSH_BYTES = 128 << 20  # in memory until they are written
COMMENT = "comment"  # the property of a table that Spark and Trino show


class Column(NamedTuple):
    """A column of a copy: its type, and what it means."""

    type: IcebergType
    description: str | None = None


class _Copy(NamedTuple):
    change: Transaction
    before: list[DataFile]
    files: list[DataFile]


class Copies:
    """New rows of tables, which nobody sees until ``commit``, and which go without it.

    Args:
        catalogue: of the lake, which nobody else writes to meanwhile.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue, self._io = catalogue, catalogue.files()
        self._copies: list[_Copy] = []

    def write(
        self,
        namespace: str,
        name: str,
        columns: Mapping[str, Column],
        batches: Iterable[pa.RecordBatch],
        description: str | None = None,
    ) -> int:
        """Write all rows that a table is to have; returns how many.

        Args:
            namespace: the warehouse's schema.
            name: of the table.
            columns: of the batches. One that is gone, or has another type, goes from the table,
                too; versions before still have it.
            batches: the rows.
            description: what the table holds.
        """
        copy = self._begun(namespace, name, columns, description or "")
        self._copies.append(copy)
        schema = copy.change.table_metadata.schema().as_arrow()
        rows, waiting = 0, []
        for batch in batches:
            rows += batch.num_rows
            waiting.append(batch)
            if sum(one.nbytes for one in waiting) >= FLUSH_BYTES:
                _flush(self._io, copy, waiting, schema)
        _flush(self._io, copy, waiting, schema)
        return rows

    def commit(self) -> None:
        """Let all tables have their new rows, in one transaction of the catalogue's database."""
        with self._catalogue.together():
            for copy in self._copies:
                with copy.change as change, change.update_snapshot().overwrite() as step:
                    for file in copy.before:
                        step.delete_data_file(file)
                    for file in copy.files:
                        step.append_data_file(file)
        self._copies = []

    def close(self) -> None:
        """Remove what was written and does not count."""
        for copy in self._copies:
            for file in copy.files:
                with suppress(OSError):  # it is an orphan then, which `expire` removes
                    self._io.delete(file.file_path)

    def _begun(
        self, namespace: str, name: str, columns: Mapping[str, Column], description: str
    ) -> _Copy:
        self._catalogue.create_namespace_if_not_exists(namespace)
        try:
            table = self._catalogue.load_table((namespace, name))
        except NoSuchTableError:
            fields = [
                NestedField(at, column, given.type, required=False, doc=given.description)
                for at, (column, given) in enumerate(columns.items(), 1)
            ]
            change = self._catalogue.begun(namespace, name, Schema(*fields), {COMMENT: description})
            return _Copy(change, [], [])
        change = table.transaction()
        if table.properties.get(COMMENT, "") != description:
            change.set_properties({COMMENT: description})
        there = {one.name: Column(one.field_type, one.doc or None) for one in table.schema().fields}
        if there != columns:
            with change.update_schema(allow_incompatible_changes=True) as update:
                _alter(update, there, columns)
        return _Copy(change, [one.file for one in table.scan().plan_files()], [])


def _alter(
    update: UpdateSchema, there: Mapping[str, Column], columns: Mapping[str, Column]
) -> None:
    """Give a table other columns. One of another type is another column."""
    stay = {name for name, given in columns.items() if name in there}
    stay -= {name for name in stay if there[name].type != columns[name].type}
    for name in there.keys() - stay:
        update.delete_column((name,))
    for name, given in columns.items():
        if name not in stay:
            update.add_column((name,), given.type, given.description)
        elif there[name] != given:
            update.update_column((name,), doc=given.description or "")


def _flush(io: FileIO, copy: _Copy, waiting: list[pa.RecordBatch], schema: pa.Schema) -> None:
    """Write what waits; the columns come in the table's order."""
    if sum(one.num_rows for one in waiting):
        rows = pa.Table.from_batches(waiting).select(schema.names).cast(schema)
        copy.files.extend(write_rows(io, copy.change.table_metadata, rows))
    waiting.clear()
