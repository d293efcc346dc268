"""What is asked of a database."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from ingestion.days import Days
from ingestion.errors import UserError

CHUNK_ROWS = 50_000  # that SQLAlchemy reads at a time
MARK = "_deleted_at"  # when a row was found to be gone
_OWN = re.compile(r"_dlt|_ingest_|_load_lock")  # beginnings of tables that are not the user's


@dataclass(frozen=True)
class TableAsked:
    """One table.

    Attributes:
        name: in its database, perhaps with its schema before a point.
        cursor: only rows at or after its last value are read; None: all.
        key: columns that tell rows apart; empty: the primary key.
        mark_deletes: compare keys, and mark rows that are gone.
        text, exclude: columns that land as text, or not at all.
        canonical: numbers of MongoDB's documents keep their types.
        days: only rows whose cursor is of these days.
    """

    name: str
    cursor: str | None = None
    key: tuple[str, ...] = ()
    mark_deletes: bool = False
    text: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    canonical: bool = False
    days: Days | None = None

    def __post_init__(self) -> None:
        if self.days and not self.cursor:
            raise UserError(
                f"{self.name} has no cursor, so --since and --until choose nothing.\n"
                "Give one that is a date or a time, --cursor COLUMN, or leave these options out."
            )


@dataclass(frozen=True)
class Asked:
    """What is asked of a database.

    Attributes:
        url: of the database, a password in it perhaps.
        name: the rows land in ``raw_<name>``; empty: what the database is called.
        schema: of the tables; None: the database's default.
        tables: the tables; ``*`` is all of the schema.
    """

    url: str = field(repr=False)
    name: str = ""
    schema: str | None = None
    tables: tuple[TableAsked, ...] = ()


def refuse_own_names(table: str) -> None:
    """
    Raises:
        UserError: the raw schema has a table of that name already, and not from here.
    """
    if _OWN.match(table):
        raise UserError(
            f"A table called {table} cannot land: names that begin so are dlt's or this"
            " project's.\nLand a view of it under another name."
        )
