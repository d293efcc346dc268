"""The raw tables of a warehouse, copied into a DuckDB file, where dbt builds the same models.

Sources land in PostgreSQL alone, with their contracts, rejects and ledgers. This copies what has
landed, so that no second way of landing is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ingestion import progress
from ingestion.errors import UserError, error_line
from ingestion.warehouse.target import Target
from serving.export.files import typed
from serving.export.marts import (
    PLAIN,
    Column,
    Mart,
    batches,
    begin_snapshot,
    decimal_of,
    describe,
    marts_in,
    query_of,
    quoted,
    schemas_in,
)

if TYPE_CHECKING:
    import duckdb

RAW, STAGING = "raw_", "_staging"  # how schemas of sources begin, and how dlt's own end


def copy_raw(source: Target, file: Path) -> dict[str, int]:
    """Copy all raw tables into a DuckDB file, in place of those that an earlier copy put there.

    All come from one snapshot of the warehouse, and are there together or not at all. Everything
    else in the file, such as models that were built there, stays.

    Args:
        source: the warehouse, logged in as one who reads raw tables, such as the transformer.
        file: of DuckDB; made when absent.

    Returns:
        Rows of each table, by its name with the schema.

    Raises:
        UserError: there are no raw tables, or the file cannot be written to.
    """
    from adbc_driver_postgresql import dbapi

    source.connect().close()  # says what is wrong in plain words
    rows: dict[str, int] = {}
    with dbapi.connect(source.uri) as connection, _open(file) as copy:
        schemas = [
            schema
            for schema in schemas_in(connection)
            if schema.startswith(RAW) and not schema.endswith(STAGING)
        ]
        found = {schema: marts_in(connection, schema) for schema in schemas}
        if not any(found.values()):
            raise UserError(
                f"{source.user} finds no raw tables in {source.dbname}.\n"
                "Land some with: marquee run"
            )
        begin_snapshot(connection, found)
        names = [(schema, name) for schema in found for name in found[schema]]
        with progress.task("Copying", unit="tables") as advance:
            advance(0, total=len(names))
            for schema, name in names:
                table = describe(connection, schema, name)
                table.partition = None
                if not table.columns:  # a table to lock, without rows
                    continue
                copy.execute(_create(schema, table)).fetchall()
                for batch in batches(connection, query_of(schema, table)):
                    copy.register("batch", typed(batch, table))
                    copy.execute(f"insert into {quoted(schema, name)} from batch").fetchall()
                    table.rows += batch.num_rows
                rows[f"{schema}.{name}"] = table.rows
                advance(1)
    return rows


@contextmanager
def _open(file: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """One transaction on a DuckDB file.

    Raises:
        UserError: it is no such file, another program has it open, or the disk is full.
    """
    import duckdb

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with duckdb.connect(file) as connection:
            connection.begin()
            yield connection
            connection.commit()
    except (duckdb.IOException, OSError) as error:
        raise UserError(
            f"{file} cannot be written to: {error_line(error)}\n"
            "Close what has it open, or name another file in profiles.yml, then run this again."
        ) from error


def _create(schema: str, table: Mart) -> str:
    columns = ", ".join(f"{quoted(column.name)} {_type(column)}" for column in table.columns)
    return (
        f"create schema if not exists {quoted(schema)};"
        f" create or replace table {quoted(schema, table.name)} ({columns})"
    )


def _type(column: Column) -> str:
    """PostgreSQL's name of the type, which DuckDB knows; text for what has none there."""
    return column.type if PLAIN.fullmatch(column.type) or decimal_of(column) else "text"
