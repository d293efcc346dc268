"""What is asked of a database: by options of the command, or in dlt's configuration places."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ingestion.errors import UserError

RESERVED = ("tmdb", "brands", "transactions")  # schemas of other sources
CHUNK_ROWS = 50_000  # that SQLAlchemy reads at a time
FILE_ROWS = 250_000  # of a file that dlt loads: it holds all of one in memory
_OWN = re.compile(r"_dlt|_ingest_|_load_lock")  # beginnings of tables that are not the user's
_OPTIONS = ("cursor", "key", "mark_deletes", "text", "exclude", "canonical")
_FLAGS = ("mark_deletes", "canonical")


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
    """

    name: str
    cursor: str | None = None
    key: tuple[str, ...] = ()
    mark_deletes: bool = False
    text: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    canonical: bool = False


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


def source_name(given: str) -> str:
    """The name of a source, fit for a schema.

    Raises:
        UserError: it is taken, or there is nothing to make one of.
    """
    name = re.sub(r"[^a-z0-9]+", "_", given.lower()).strip("_")
    if not name or name[0].isdigit():
        name = f"db_{name}".rstrip("_")
    if name in RESERVED or name.endswith("_staging") or len(name) > 40:
        raise UserError(
            f"raw_{name} is no schema for a database: other sources or dlt own such names.\n"
            "Give another one of at most 40 letters: --name NAME."
        )
    return name


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


def configured(name: str) -> Asked:
    """What ``[sources.databases.<name>]`` says, in any of dlt's configuration places.

    Raises:
        UserError: it says nothing, or something that cannot be.
    """
    import dlt

    section = f"sources.databases.{name}"
    credentials: Any = dlt.secrets.get(f"{section}.credentials")
    if not credentials:
        raise UserError(
            f"{name} is neither a URL nor a database that is configured.\n"
            f'Write credentials = "mysql://..." below [{section}] in .dlt/secrets.toml.'
        )
    tables = _tables(dlt.config.get(f"{section}.tables"), section)
    usual: dict[str, Any] = {option: dlt.config.get(f"{section}.{option}") for option in _OPTIONS}
    usual = {option: value for option, value in usual.items() if value is not None}
    return Asked(
        _url(credentials, section),
        name,
        dlt.config.get(f"{section}.schema"),
        tuple(_table(table, usual | options, section) for table, options in tables.items()),
    )


def _url(credentials: Any, section: str) -> str:
    if isinstance(credentials, str):
        return credentials
    from dlt.sources.credentials import ConnectionStringCredentials

    try:
        return ConnectionStringCredentials(dict(credentials)).to_native_representation()
    except Exception as error:  # said without its words: the password may be in them
        raise UserError(
            f"credentials below [{section}] are not complete ({type(error).__name__}).\n"
            "Write drivername, host, port, database, username and password, or one URL."
        ) from None


def _tables(given: Any, section: str) -> dict[str, dict[str, Any]]:
    """Names of tables, each with its own options."""
    if isinstance(given, str):
        given = _of_text(given)
    if given is None or given in ("*", ["*"]):
        return {"*": {}}
    if isinstance(given, list) and all(isinstance(name, str) for name in given):
        return {name: {} for name in given}
    if isinstance(given, dict) and all(isinstance(options, dict) for options in given.values()):
        return {name: dict(options) for name, options in given.items()}
    raise UserError(
        f"tables below [{section}] is neither a list of names nor a table for each of them.\n"
        f'Write tables = ["orders"], or [{section}.tables.orders] with cursor = "updated_at".'
    )


def _of_text(given: str) -> Any:
    """A variable of the environment is JSON, or names with commas between."""
    try:
        return json.loads(given)
    except ValueError:
        return [name.strip() for name in given.split(",")]


def _table(name: str, options: dict[str, Any], section: str) -> TableAsked:
    if wrong := [option for option in options if option not in _OPTIONS]:
        raise UserError(
            f"{wrong[0]} of table {name} below [{section}] is no option.\n"
            f"There are: {', '.join(_OPTIONS)}."
        )
    made: dict[str, Any] = {}
    for option, value in options.items():
        if option == "cursor":
            made[option] = str(value)
        elif option in _FLAGS:
            made[option] = str(value).lower() in ("true", "1", "yes")
        else:
            made[option] = _names(_of_text(value) if isinstance(value, str) else value)
    return TableAsked(name, **made)


def _names(columns: str | Sequence[Any]) -> tuple[str, ...]:
    return (columns,) if isinstance(columns, str) else tuple(str(name) for name in columns)
