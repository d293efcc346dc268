"""How each column of a table lands: its type there, how it is selected, what value it cannot hold.

A column is asked for in the form that keeps its values: text where the driver would turn them into
something else. docs/databases.md has the table of types; ``test_databases_types.py`` holds it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql

from ingestion.errors import UserError

DIGITS = 76  # of a decimal: Arrow has no longer one
Select = Callable[[Any], Any]


@dataclass(frozen=True)
class Landing:
    """How a column lands.

    Attributes:
        name: of the column in its own table.
        hint: its type in the warehouse, as dlt takes it.
        arrow: the same as Arrow has it.
        selected: what is asked for.
    """

    name: str
    hint: dict[str, Any]
    arrow: pa.DataType
    selected: Any

    @property
    def kind(self) -> str:
        return self.hint["data_type"]


@dataclass(frozen=True)
class Kind:
    """A type in the warehouse."""

    hint: dict[str, Any]
    arrow: pa.DataType


BIGINT = Kind({"data_type": "bigint"}, pa.int64())
BOOL = Kind({"data_type": "bool"}, pa.bool_())
DOUBLE = Kind({"data_type": "double"}, pa.float64())
TEXT = Kind({"data_type": "text"}, pa.string())
JSON = Kind({"data_type": "json"}, pa.string())
BINARY = Kind({"data_type": "binary"}, pa.binary())
DATE = Kind({"data_type": "date"}, pa.date32())
TIME = Kind({"data_type": "time"}, pa.time64("us"))
LOCAL = Kind({"data_type": "timestamp", "timezone": False}, pa.timestamp("us"))
INSTANT = Kind({"data_type": "timestamp", "timezone": True}, pa.timestamp("us", "UTC"))


def decimal(precision: int | None, scale: int | None) -> Kind:
    """Numeric where one of these digits is there; text where only that holds all of them."""
    scale = scale or 0
    if precision is None or not 0 <= scale <= precision <= DIGITS:
        return TEXT
    make = pa.decimal128 if precision <= 38 else pa.decimal256
    hint = {"data_type": "decimal", "precision": precision, "scale": scale}
    return Kind(hint, make(precision, scale))


def landings(
    table: sa.Table,
    dialect: str,
    *,
    as_text: Collection[str] = (),
    native: Mapping[str, str] | None = None,
) -> list[Landing]:
    """How the columns of a table land.

    Args:
        table: as SQLAlchemy reflects it.
        dialect: SQLAlchemy's name of the database's kind.
        as_text: columns that land as text.
        native: names of types that the database has and SQLAlchemy does not know, by column;
            ``json`` for a text that it keeps valid JSON in.

    Raises:
        UserError: a column is of a type that has no place; it says how to leave it out.
    """
    rule = _RULES.get(dialect, _of_any)
    found, unknown = [], []
    for column in table.columns:
        if column.name in as_text:
            ruled: tuple[Kind, Any] | None = (TEXT, _text_of(column, dialect))
        else:
            ruled = rule(column, column.type) or _by_name(column, (native or {}).get(column.name))
        if ruled is None:
            unknown.append(column.name)
            continue
        kind, selected = ruled
        if kind is TEXT and (native or {}).get(column.name) == "json":
            kind = JSON
        found.append(Landing(column.name, kind.hint, kind.arrow, selected.label(column.name)))
    if unknown:
        names = ", ".join(unknown)
        raise UserError(
            f"Columns of {table.name} have a type that is not known here: {names}.\n"
            f"Leave them out (--exclude {unknown[0]}), or land their text (--text {unknown[0]})."
        )
    return found


def _text_of(column: sa.Column, dialect: str) -> Any:
    if dialect in ("mysql", "mariadb"):
        return _char(sa.type_coerce(column, sa.types.NULLTYPE))
    return _money(column) if isinstance(column.type, postgresql.MONEY) else _text(column)


Rule = Callable[[Any, Any], tuple[Kind, Any]]  # of a column and its type: what it is, what to ask


def _as(kind: Kind, ask: Select = lambda column: column) -> Rule:
    return lambda column, _: (kind, ask(column))


def _first(rules: Sequence[tuple[Any, Rule]], column: Any, kind: Any) -> tuple[Kind, Any] | None:
    return next((rule(column, kind) for types, rule in rules if isinstance(kind, types)), None)


_PLAIN: tuple[tuple[Any, Rule], ...] = (
    (sa.Boolean, _as(BOOL)),
    (sa.Integer, _as(BIGINT)),
    (sa.Float, _as(DOUBLE)),
    (sa.types._Binary, _as(BINARY)),
    (sa.Date, _as(DATE)),
)


# PostgreSQL: its own text keeps everything


def _text(column: Any) -> Any:
    return sa.cast(column, sa.Text)


def _money(column: Any) -> Any:
    """Its text has the currency sign and separators of the server's locale."""
    return _text(sa.cast(column, sa.Numeric))


def _numeric_of_postgresql(column: Any, kind: Any) -> tuple[Kind, Any]:
    found = decimal(kind.precision, kind.scale)
    return found, _text(column) if found is TEXT else column


def _domain(column: Any, kind: Any) -> tuple[Kind, Any]:
    return _of_postgresql(sa.cast(column, kind.data_type), kind.data_type)


_POSTGRESQL: tuple[tuple[Any, Rule], ...] = (
    (postgresql.DOMAIN, _domain),
    (postgresql.OID, _as(BIGINT, lambda column: sa.cast(column, sa.BigInteger))),
    *_PLAIN,
    (sa.Numeric, _numeric_of_postgresql),
    (sa.DateTime, lambda column, kind: (INSTANT if kind.timezone else LOCAL, column)),
    (sa.ARRAY, _as(JSON, lambda column: _text(sa.func.to_json(column)))),
    (sa.JSON, _as(JSON, _text)),
    (sa.CHAR, _as(TEXT)),  # a cast would take the blanks at its end
    (postgresql.MONEY, _as(TEXT, _money)),
)


def _of_postgresql(column: Any, kind: Any) -> tuple[Kind, Any]:
    if isinstance(kind, sa.Time) and not kind.timezone:
        return TIME, column
    return _first(_POSTGRESQL, column, kind) or (TEXT, _text(column))


# MySQL and MariaDB: drivers make times of day, nulls and floats of what they do not know


def _char(column: Any) -> Any:
    return sa.cast(column, mysql.CHAR)


def _plus(zero: str) -> Select:
    return lambda column: column + sa.literal_column(zero)


def _integer_of_mysql(column: Any, kind: Any) -> tuple[Kind, Any]:
    if isinstance(kind, mysql.BIGINT) and kind.unsigned:
        return decimal(20, 0), _char(column)
    return BIGINT, column


def _bits(column: Any, kind: Any) -> tuple[Kind, Any]:
    number = _plus("0")(column)
    return (BIGINT, number) if (kind.length or 1) < 64 else (decimal(20, 0), _char(number))


_MYSQL: tuple[tuple[Any, Rule], ...] = (
    (mysql.BIT, _bits),
    (mysql.YEAR, _as(BIGINT)),
    (sa.Boolean, _as(BIGINT)),  # TINYINT(1), which may hold any small number
    (sa.Integer, _integer_of_mysql),
    (sa.Float, _as(DOUBLE, _plus("0e0"))),  # a FLOAT is sent with six digits, unless it is computed
    (sa.Numeric, lambda column, kind: (decimal(kind.precision, kind.scale), _char(column))),
    (sa.Date, _as(DATE, _char)),
    (sa.TIMESTAMP, _as(INSTANT, _char)),  # the session is in UTC
    (sa.DateTime, _as(LOCAL, _char)),
    (sa.Time, _as(TEXT, _char)),  # a duration of up to 838 hours
    (sa.JSON, _as(JSON, _char)),
    (sa.types._Binary, _as(BINARY)),
    (sa.String, _as(TEXT)),  # ENUM and SET as well
)
_TEXTS = ("uuid", "inet4", "inet6")
_SHAPES = ("geometry", "point", "linestring", "polygon", "multipoint", "multilinestring")
_BYTES = (*_SHAPES, "multipolygon", "geometrycollection", "geomcollection", "vector")


def _of_mysql(column: Any, kind: Any) -> tuple[Kind, Any] | None:
    raw = sa.type_coerce(column, sa.types.NULLTYPE)  # as the driver gives it
    return _first(_MYSQL, raw, kind) or _by_name(column, kind.__visit_name__.lower())


def _by_name(column: Any, name: str | None) -> tuple[Kind, Any] | None:
    raw = sa.type_coerce(column, sa.types.NULLTYPE)
    if name in _TEXTS:
        return TEXT, _char(raw)
    return (BINARY, raw) if name in _BYTES else None


# Others, as SQLAlchemy sees them. SQLite has types of values, not of columns.


def _date_time(column: Any, kind: Any) -> tuple[Kind, Any]:
    has_zone = kind.timezone or kind.__visit_name__ == "DATETIMEOFFSET"
    return (INSTANT if has_zone else LOCAL), column


def _numeric(column: Any, kind: Any) -> tuple[Kind, Any]:
    return (decimal(kind.precision, kind.scale) if kind.asdecimal else DOUBLE), column


_ANY: tuple[tuple[Any, Rule], ...] = (
    *_PLAIN,
    (sa.Numeric, _numeric),
    (sa.DateTime, _date_time),
    (sa.Time, _as(TIME)),
    (sa.JSON, _as(JSON)),
    (sa.Uuid, _as(TEXT)),
    (sa.String, _as(TEXT)),
)


def _of_any(column: Any, kind: Any) -> tuple[Kind, Any] | None:
    return _first(_ANY, column, kind)


def _of_sqlite(column: Any, kind: Any) -> tuple[Kind, Any] | None:
    return _first(_ANY, sa.type_coerce(column, sa.types.NULLTYPE), kind)


_RULES: dict[str, Callable[[Any, Any], tuple[Kind, Any] | None]] = {
    "postgresql": _of_postgresql,
    "mysql": _of_mysql,
    "mariadb": _of_mysql,
    "sqlite": _of_sqlite,
}
