"""Raw tables of an older release: they get the columns and the types that this one's models read.

A column that this release declares as text, and that an older one made a number, becomes text with
the same digits. The views that read it, dbt's or anybody's, are dropped and made again as they were
in the same transaction, with their owners, grants and comments.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import psycopg2
from psycopg2 import sql

from ingestion import retyped
from ingestion.errors import UserError
from ingestion.pipeline import one_at_a_time
from ingestion.warehouse import roles

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


def _of_brands() -> dict[str, Any]:
    from ingestion.sources.brands import settings

    return settings.TABLES


def _of_transactions() -> dict[str, Any]:
    from ingestion.sources.transactions import tables

    return tables.COLUMNS


def _of_tmdb() -> dict[str, Any]:
    from ingestion.sources.tmdb import settings

    return {f"movies__{name}": columns for name, columns in settings.LIST_FIELDS.items()} | {
        "movies": settings.MOVIES_COLUMNS,
        "movie_metrics": settings.METRICS_COLUMNS,
        "genres": settings.GENRES_COLUMNS,
        "rejects": settings.REJECTS_COLUMNS,
        "removed_movies": settings.REMOVED_COLUMNS,
    }


SOURCES = {"brands": _of_brands, "transactions": _of_transactions, "tmdb": _of_tmdb}


def declared(*sources: str) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """Columns that the loads of this release write, by source and table, as dlt takes them.

    Args:
        sources: which ones; none for all. Only these are imported.
    """
    return {source: SOURCES[source]() for source in sources or SOURCES}


def bring_forward(target: Target, *sources: str) -> list[str]:
    """Add the columns that tables of an older release lack, and make numbers text that are now.

    New columns are null in the rows that are there. The next load would add them, but there may be
    nothing new to land; dlt finds them there.

    Args:
        target: the warehouse.
        sources: which ones; none for all.

    Returns:
        The columns that were added or made text, as ``schema.table.column``.

    Raises:
        UserError: a load is under way, or the login does not own the tables or their views.
    """
    changed = []
    with closing(target.connect()) as connection:
        for source, tables in declared(*sources).items():
            lacking = _lacking(connection, f"raw_{source}", tables)
            numbers = _numbers(connection, f"raw_{source}", tables)
            if lacking or numbers:
                with one_at_a_time(source, target):
                    changed += _add(connection, lacking)
                    changed += retyped.make_text(roles.owner_of_all(target), numbers)
    return changed


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


def _numbers(connection: Any, schema: str, tables: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Schema, table and column of what is a number there and text by now."""
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "select table_name, column_name from information_schema.columns"
            " where table_schema = %s and data_type in ('bigint', 'integer', 'numeric')",
            (schema,),
        )
        return [
            (schema, table, column)
            for table, column in cursor.fetchall()
            if tables.get(table, {}).get(column, {}).get("data_type") == "text"
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
