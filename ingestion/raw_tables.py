"""Raw tables of an older release: they get the columns that this one's models read."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2 import sql

from ingestion.errors import UserError
from ingestion.pipeline import one_at_a_time

if TYPE_CHECKING:
    from ingestion.warehouse.target import Target

TYPES = {
    "bigint": "bigint",
    "bool": "boolean",
    "date": "date",
    "decimal": "numeric",
    "double": "double precision",
    "json": "json",
    "text": "varchar",
    "timestamp": "timestamp with time zone",
}


def declared() -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """Columns that the loads of this release write, by source and table, as dlt takes them."""
    from ingestion.sources.brands import settings as brands
    from ingestion.sources.tmdb import settings as tmdb
    from ingestion.sources.transactions import tables

    films = {f"movies__{name}": columns for name, columns in tmdb.LIST_FIELDS.items()} | {
        "movies": tmdb.MOVIES_COLUMNS,
        "movie_metrics": tmdb.METRICS_COLUMNS,
        "genres": tmdb.GENRES_COLUMNS,
        "rejects": tmdb.REJECTS_COLUMNS,
        "removed_movies": tmdb.REMOVED_COLUMNS,
    }
    return {"brands": brands.TABLES, "transactions": tables.COLUMNS, "tmdb": films}


def bring_forward(target: Target) -> list[str]:
    """Add the columns that tables of an older release lack, all of them null there.

    The next load would do so, but there may be nothing new to land. dlt finds the columns there.

    Returns:
        The columns that were added, as ``schema.table.column``.

    Raises:
        UserError: a load is under way, or the login does not own the tables.
    """
    added = []
    with closing(target.connect()) as connection:
        for source, tables in declared().items():
            lacking = _lacking(connection, f"raw_{source}", tables)
            if lacking:
                with one_at_a_time(source, target):
                    added += _add(connection, lacking)
    return added


def _lacking(connection: Any, schema: str, tables: dict[str, Any]) -> list[tuple[str, ...]]:
    """Schema, table, column and type of what a table that is there has not."""
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "select table_name, array_agg(column_name::text) from information_schema.columns"
            " where table_schema = %s group by table_name",
            (schema,),
        )
        there = dict(cursor.fetchall())
    return [
        (schema, table, column, _type(hints))
        for table, columns in tables.items()
        for column, hints in columns.items()
        if table in there and column not in there[table]
    ]


def _type(hints: dict[str, Any]) -> str:
    size = ", ".join(str(hints[part]) for part in ("precision", "scale") if hints.get(part))
    return TYPES[hints["data_type"]] + (f"({size})" if size else "")


def _add(connection: Any, lacking: list[tuple[str, ...]]) -> list[str]:
    statement = sql.SQL("alter table {} add column if not exists {} {}")
    try:
        with connection, connection.cursor() as cursor:
            for schema, table, column, kind in lacking:
                place, name = sql.Identifier(schema, table), sql.Identifier(column)
                cursor.execute(statement.format(place, name, sql.SQL(kind)))
    except psycopg2.errors.InsufficientPrivilege as error:
        names = ", ".join(".".join(column[:3]) for column in lacking)
        raise UserError(
            f"The raw tables are of an older release and lack columns: {names}\n"
            "Let the login that owns them run: marquee run"
        ) from error
    return [".".join(column[:3]) for column in lacking]
