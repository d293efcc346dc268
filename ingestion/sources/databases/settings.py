"""What is asked of a database: by options of the command, or in dlt's configuration places."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from ingestion.databases.asked import Asked, TableAsked
from ingestion.errors import UserError

RESERVED = ("tmdb", "brands", "transactions")  # schemas of other sources
FILE_ROWS = 250_000  # of a file that dlt loads: it holds all of one in memory
_OPTIONS = ("cursor", "key", "mark_deletes", "text", "exclude", "canonical")
_FLAGS = ("mark_deletes", "canonical")


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
