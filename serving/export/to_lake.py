"""The raw tables that only a warehouse takes, copied into the lake beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import pyarrow as pa
from pyiceberg.types import (
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    LongType,
    StringType,
    TimestampType,
    TimestamptzType,
)

from ingestion.lake.catalogue import Catalogue
from ingestion.lake.copies import Copies
from ingestion.lake.settings import NAME, NAMESPACE
from ingestion.pipeline import LoadReport, one_at_a_time, refusals
from serving.export.files import typed
from serving.export.marts import Column, Mart, batches, decimal_of, query_of
from serving.export.raw import each_table, raw_tables

if TYPE_CHECKING:
    from adbc_driver_postgresql.dbapi import Connection

    from ingestion.lake.destination import Lake
    from ingestion.warehouse.target import Target

TYPES: dict[str, IcebergType] = {
    "smallint": IntegerType(),
    "integer": IntegerType(),
    "bigint": LongType(),
    "real": FloatType(),
    "double precision": DoubleType(),
    "boolean": BooleanType(),
    "date": DateType(),
    "timestamp with time zone": TimestamptzType(),
    "timestamp without time zone": TimestampType(),
}


def copy_to_lake(source: Target, lake: Lake) -> dict[str, int]:
    """Copy raw tables into the lake, in place of those that an earlier copy put there.

    All come from one snapshot of the warehouse, and count in the lake together or not at all.
    Transactions are left out: the lake has loads of its own of them.

    Args:
        source: the warehouse, logged in as one who reads raw tables and lands in the lake.
        lake: of that warehouse.

    Returns:
        Rows of each table, by its name with the schema.

    Raises:
        UserError: there are no such tables, the lake cannot be written to, or a load of it is
            under way.
    """
    rows: dict[str, int] = {}
    with one_at_a_time(NAME, source), refusals(NAME):
        lake.settle(LoadReport(NAME))
        with (
            raw_tables(source, but=(NAMESPACE,)) as (connection, names, _),
            closing(Catalogue(source, lake.location)) as catalogue,
            closing(Copies(catalogue)) as copies,
        ):
            for schema, table in each_table(connection, names):
                columns = {column.name: _type(column) for column in table.columns}
                found = _rows(connection, schema, table)
                rows[f"{schema}.{table.name}"] = copies.write(schema, table.name, columns, found)
            copies.commit()
    return rows


def _rows(connection: Connection, schema: str, table: Mart) -> Iterator[pa.RecordBatch]:
    for batch in batches(connection, query_of(schema, table)):
        yield typed(batch, table)


def _type(column: Column) -> IcebergType:
    """What Iceberg calls the type; text for what has none there."""
    if decimal := decimal_of(column):
        return DecimalType(*decimal)
    return TYPES.get(column.type, StringType())
