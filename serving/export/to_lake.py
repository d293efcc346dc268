"""Marts, and the raw tables that only a warehouse takes, copied into the lake beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from adbc_driver_postgresql import dbapi
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
from ingestion.lake.copies import Column, Copies
from ingestion.lake.settings import NAME, NAMESPACE
from ingestion.pipeline import LoadReport, one_at_a_time, refusals
from serving.export.files import typed
from serving.export.marts import Column as MartColumn
from serving.export.marts import batches, begin_snapshot, chosen, decimal_of, marts_in, query_of
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


def raw_to_lake(lake: Lake) -> dict[str, int]:
    """Copy raw tables into the lake, in place of those that an earlier copy put there.

    All come from one snapshot of the warehouse, and count in the lake together or not at all.
    Transactions are left out: the lake has loads of its own of them.

    Args:
        lake: of the warehouse; its login reads raw tables, too.

    Returns:
        Rows of each table, by its name with the schema.

    Raises:
        UserError: there are no such tables, the lake cannot be written to, or a load of it is
            under way.
    """
    with (
        _copies(lake) as copies,
        raw_tables(lake.target, but=(NAMESPACE,)) as (connection, names, _),
    ):
        return _copy(connection, names, copies)


def marts_to_lake(
    reader: Target, lake: Lake, schema: str, select: Sequence[str] = ()
) -> dict[str, int]:
    """Copy marts into the lake, as `raw_to_lake` copies raw tables. Others there stay.

    Args:
        reader: the warehouse, logged in as anyone who reads marts.
        lake: of that warehouse.
        schema: where they are.
        select: names or patterns (``fct_*``) of marts; all when empty.

    Returns:
        Rows of each mart, by its name with the schema.

    Raises:
        UserError: there are no such marts, the lake cannot be written to, or a load of it is
            under way.
    """
    reader.connect().close()  # says what is wrong in plain words
    with _copies(lake) as copies, dbapi.connect(reader.uri) as connection:
        names = chosen(marts_in(connection, schema), schema, reader, select)
        begin_snapshot(connection, {schema: names})
        return _copy(connection, [(schema, name) for name in names], copies)


@contextmanager
def _copies(lake: Lake) -> Iterator[Copies]:
    """What is written in the block counts at its end, if nobody commits before."""
    with one_at_a_time(NAME, lake.target), refusals(NAME):
        lake.settle(LoadReport(NAME))
        with (
            closing(Catalogue(lake.target, lake.location)) as catalogue,
            closing(Copies(catalogue)) as copies,
        ):
            yield copies
            copies.commit()


def _copy(connection: Connection, names: list[tuple[str, str]], copies: Copies) -> dict[str, int]:
    rows = {}
    for schema, table in each_table(connection, names, by_month=True):
        columns = {one.name: Column(_type(one), one.description) for one in table.columns}
        found = (typed(batch, table) for batch in batches(connection, query_of(schema, table)))
        rows[f"{schema}.{table.name}"] = copies.write(
            schema, table.name, columns, found, table.description
        )
    return rows


def _type(column: MartColumn) -> IcebergType:
    """What Iceberg calls the type; text for what has none there."""
    if decimal := decimal_of(column):
        return DecimalType(*decimal)
    return TYPES.get(column.type, StringType())
