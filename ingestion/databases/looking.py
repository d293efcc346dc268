"""Tables of a database as they are there: columns, types, keys, and what they will be called."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import dlt
import sqlalchemy as sa

from ingestion.databases.asked import MARK, Asked, TableAsked, refuse_own_names
from ingestion.databases.columns import Landing, landings
from ingestion.databases.connecting import errors_of, place_of
from ingestion.errors import UserError


def find_tables(engine: sa.Engine, asked: Asked) -> list[TableAsked]:
    """The tables that are meant, each by its name.

    Raises:
        UserError: none was named.
    """
    with errors_of(asked.url):
        there = sorted(sa.inspect(engine).get_table_names(schema=asked.schema))
    if not asked.tables:
        names = ", ".join(there[:20]) + (", ..." if len(there) > 20 else "")
        raise UserError(
            f"No table was asked for; there are: {names or 'none'}.\n"
            "Name one or more, --table NAME, or all: --table '*'."
        )
    found: dict[str, TableAsked] = {}
    for table in asked.tables:
        for name in there if table.name == "*" else [table.name]:
            found[name] = replace(table, name=name)
    return list(found.values())


@dataclass(frozen=True)
class Table:
    """A table that is about to land.

    Attributes:
        asked: what is wanted of it.
        reflected: as SQLAlchemy has it.
        name: in the raw schema.
        columns: how its columns land.
        names: of the columns in the raw schema, by their own.
        key: its key columns, by their own names.
    """

    asked: TableAsked
    reflected: sa.Table
    name: str
    columns: list[Landing]
    names: dict[str, str]
    key: tuple[str, ...]


def look_at(
    engine: sa.Engine,
    asked: TableAsked,
    schema: str | None,
    source: str,
    *,
    needs_key: bool = True,
) -> Table:
    """A table as it is, and how it lands.

    Args:
        engine: of its database.
        asked: which one, and how.
        schema: where the name says none.
        source: the name of the source, whose rules of naming count.
        needs_key: rows are merged by key, if only what is new is read.

    Raises:
        UserError: there is no such table or column, or it cannot land.
    """
    own_schema, point, name = asked.name.rpartition(".")
    metadata = sa.MetaData(schema=own_schema if point else schema)
    try:
        reflected = sa.Table(name, metadata, autoload_with=engine, resolve_fks=False)
    except sa.exc.NoSuchTableError as error:
        raise UserError(
            f"There is no table {asked.name} in {place_of(str(engine.url))}.\n"
            "Check the name, and its schema: --schema NAME."
        ) from error
    _refuse_unknown(asked, reflected)
    key = asked.key or tuple(column.name for column in reflected.primary_key)
    for column in asked.exclude:
        reflected._columns.remove(reflected.columns[column])
    if (
        needs_key
        and (asked.cursor or asked.mark_deletes)
        and not (key and set(key) <= set(reflected.columns.keys()))
    ):
        raise UserError(
            f"{asked.name} has no primary key that lands, to tell its rows apart.\n"
            "Name the columns that do: --key COLUMN."
        )
    dialect, native = engine.dialect.name, _native(engine, reflected)
    columns = landings(reflected, dialect, as_text=asked.text, native=native)
    naming = dlt.Schema(source).naming
    names = {column.name: naming.normalize_identifier(column.name) for column in columns}
    _refuse_twins(asked.name, names)
    table = naming.normalize_table_identifier(name)
    refuse_own_names(table)
    return Table(asked, reflected, table, columns, names, key)


def _refuse_unknown(asked: TableAsked, table: sa.Table) -> None:
    wanted = {"cursor": (asked.cursor,) if asked.cursor else (), "key": asked.key}
    for option, named in (wanted | {"text": asked.text, "exclude": asked.exclude}).items():
        for column in named:
            if column not in table.columns:
                raise UserError(
                    f"{asked.name} has no column {column}, which --{option} names.\n"
                    f"It has: {', '.join(table.columns.keys())}."
                )


def _native(engine: sa.Engine, table: sa.Table) -> dict[str, str]:
    """MySQL's names of types; MariaDB's JSON is a long text with a check."""
    dialect: Any = engine.dialect
    if dialect.name not in ("mysql", "mariadb"):
        return {}
    asked = {"name": table.name, "place": table.schema}
    types, checks = (
        f"select {what} where table_name = :name and {place} = coalesce(:place, database())"
        for what, place in (
            ("column_name, data_type from information_schema.columns", "table_schema"),
            ("check_clause from information_schema.check_constraints", "constraint_schema"),
        )
    )
    with engine.connect() as connection:
        names = {c: kind.lower() for c, kind in connection.execute(sa.text(types), asked)}
        if dialect.is_mariadb:
            said = {clause for (clause,) in connection.execute(sa.text(checks), asked)}
            names |= {column: "json" for column in names if f"json_valid(`{column}`)" in said}
    return names


def _refuse_twins(table: str, names: dict[str, str]) -> None:
    """
    Raises:
        UserError: two columns would have the same name.
    """
    seen: dict[str, str] = {}
    for own, name in names.items():
        if name in seen:
            raise UserError(
                f"{table}: {seen[name]} and {own} would both be called {name}.\n"
                f"Leave one of them out: --exclude {own}."
            )
        if name == MARK or name.startswith("_dlt_"):
            raise UserError(
                f"{table} has a column {own}, which is the name of one of dlt's or this"
                f" project's.\nLeave it out: --exclude {own}."
            )
        seen[name] = own
