"""Cursors: which rows of a table are new, and how the last value is kept."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from ingestion.databases.columns import Landing
from ingestion.databases.looking import Table
from ingestion.databases.reading import Reading
from ingestion.errors import UserError

_NO_CURSOR = ("binary", "bool", "json")


def reading_of(table: Table, dialect: str, last: str | None) -> Reading:
    """What is to be read of a table.

    Rows at the last value are read again, as more may have come with it; and those without a value,
    which may be new or not. They are merged by key.

    Args:
        table: as it was looked at.
        dialect: SQLAlchemy's name of its database's kind.
        last: the value of the cursor up to which rows have landed.

    Raises:
        UserError: the column is no cursor.
    """
    cursor = table.asked.cursor
    reading = Reading(table.columns, cursor=cursor, written=_written)
    if cursor is None:
        return reading
    column = next((c for c in table.columns if c.name == cursor), None)
    if column is None or column.kind in _NO_CURSOR:
        what = f"is {column.kind}" if column else "does not land"
        raise UserError(
            f"{table.asked.name}.{cursor} is no cursor, as it {what}.\n"
            "Name a column that only grows: a time of change, or a number."
        )
    source = table.reflected.columns[cursor]
    if (days := table.asked.days) is not None:
        if column.kind not in ("date", "timestamp"):
            raise UserError(
                f"{table.asked.name}.{cursor} is {column.kind}, so no row of it is of a day.\n"
                "Leave out --since and --until, or name a cursor that is a date or a time."
            )
        ends = [_literal(column, source, day.isoformat(), dialect) for day in days.ends]
        reading.where = sa.and_(source >= ends[0], source < ends[1])
    elif last is not None:
        reading.where = sa.or_(source >= _literal(column, source, last, dialect), source.is_(None))
    return reading


def _literal(column: Landing, source: sa.Column, text: str, dialect: str) -> Any:
    if dialect == "postgresql":  # it reads the text as the column's type
        quoted = text.replace("'", "''")
        return sa.literal_column(f"'{quoted}'")
    value = _parsed(column.kind, text)
    if dialect == "sqlite" and isinstance(value, date):  # times are texts, which begin so
        return sa.literal(value.isoformat()[:10])
    if dialect in ("mysql", "mariadb") and isinstance(value, datetime):
        value = value.replace(tzinfo=None)  # the session is in UTC
    is_number = column.kind in ("bigint", "decimal")
    return sa.literal(value) if is_number else sa.literal(value, source.type)


def _written(value: Any) -> str:
    """A value of a cursor as the ledger keeps it."""
    if isinstance(value, datetime | date):
        return value.isoformat(" ") if isinstance(value, datetime) else value.isoformat()
    return format(value, "f") if isinstance(value, Decimal) else str(value)


def _parsed(kind: str, text: str) -> Any:
    if kind == "bigint":
        return int(text)
    if kind == "decimal":
        return Decimal(text)
    if kind == "double":
        return float(text)
    if kind == "date":
        return date.fromisoformat(text)
    return datetime.fromisoformat(text) if kind == "timestamp" else text
