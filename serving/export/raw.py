"""The raw tables of a warehouse, copied for another engine, where dbt builds the same models.

Sources land in PostgreSQL alone, with their contracts, rejects and ledgers. This copies what has
landed, so that no second way of landing is needed.
"""

from __future__ import annotations

import secrets
from collections.abc import Container, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ingestion import interrupts, progress
from ingestion.errors import UserError, error_line
from ingestion.lake.settings import SCHEMA as LAKE
from ingestion.places import as_name
from ingestion.warehouse.target import Target
from serving.export.files import Version, typed, write_mart
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
from serving.export.place import STAMP, Place

if TYPE_CHECKING:
    import duckdb
    from adbc_driver_postgresql.dbapi import Connection

MADE_BY = "marquee export raw"
MEMORY = "1GB"  # of DuckDB; blocks of the file, which it would keep otherwise
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
    rows: dict[str, int] = {}
    with raw_tables(source) as (connection, names, _), _open(file) as copy:
        for schema, table in each_table(connection, names):
            copy.execute(_create(schema, table)).fetchall()
            for batch in batches(connection, query_of(schema, table)):
                # not registered: that is kept until the transaction ends
                arriving = copy.from_arrow(typed(batch, table))
                arriving.insert_into(quoted(schema, table.name))
                table.rows += batch.num_rows
            rows[f"{schema}.{table.name}"] = table.rows
    return rows


def write_raw(source: Target, to: str) -> dict[str, int]:
    """Write all raw tables as Parquet, a file each, for an engine that reads files.

    All come from one snapshot of the warehouse. ``manifest.json``, put last, names the copy, so
    that one that is killed harms nothing; the one before goes when the next begins.

    Args:
        source: as for `copy_raw`.
        to: a folder, or a URL of a store (``s3://bucket/prefix``); made when absent.

    Returns:
        Rows of each table, by its name with the schema.

    Raises:
        UserError: there are no raw tables, or the place cannot be written to.
    """
    place = Place(to, MADE_BY)
    with raw_tables(source) as (connection, names, moment), place.locked():
        place.tidy()
        version = f"{moment:{STAMP}}-{secrets.token_hex(3)}"
        written: list[tuple[str, Mart]] = []
        try:
            with interrupts.giving_back(partial(place.give_back, version)):
                for schema, table in each_table(connection, names):
                    folder = Version(place, f"{version}/{as_name(schema)}", "parquet", excel=False)
                    write_mart(connection, schema, table, folder)
                    written.append((schema, table))
            place.publish(
                version,
                {
                    "made_by": MADE_BY,
                    "version": version,
                    "snapshot_at": moment.isoformat(),
                    "tables": [
                        {"schema": schema, "name": table.name, "files": table.files}
                        for schema, table in written
                    ],
                },
            )
        except BaseException:
            place.remove(version)
            raise
    return {f"{schema}.{table.name}": table.rows for schema, table in written}


@contextmanager
def raw_tables(
    source: Target, but: Container[str] = ()
) -> Iterator[tuple[Connection, list[tuple[str, str]], datetime]]:
    """A connection in one snapshot, schemas and names of the raw tables, and when that is.

    The catalogue of a lake is none of them: its rows are where the lake is.

    Args:
        source: the warehouse.
        but: schemas that are left out.

    Raises:
        UserError: there are none.
    """
    from adbc_driver_postgresql import dbapi

    source.connect().close()  # says what is wrong in plain words
    with dbapi.connect(source.uri) as connection:
        schemas = [
            schema
            for schema in schemas_in(connection)
            if schema.startswith(RAW) and not schema.endswith(STAGING)
            if schema != LAKE and schema not in but
        ]
        found = {schema: marts_in(connection, schema) for schema in schemas}
        if not any(found.values()):
            raise UserError(
                f"{source.user} finds no raw tables in {source.dbname}.\n"
                "Land some with: marquee run"
            )
        moment = begin_snapshot(connection, found)
        yield connection, [(schema, name) for schema in found for name in found[schema]], moment


def each_table(
    connection: Connection, names: list[tuple[str, str]], *, by_month: bool = False
) -> Iterator[tuple[str, Mart]]:
    """The tables that have columns, one after the other; rows by month, if they are to be."""
    with progress.task("Copying", unit="tables") as advance:
        advance(0, total=len(names))
        for schema, name in names:
            table = describe(connection, schema, name)
            if not by_month:
                table.partition = None
            if table.columns:  # else a table to lock, without rows
                yield schema, table
            advance(1)


@contextmanager
def _open(file: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """One transaction on a DuckDB file.

    Raises:
        UserError: it is no such file, another program has it open, or the disk is full.
    """
    import duckdb

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with duckdb.connect(file, config={"memory_limit": MEMORY}) as connection:
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
