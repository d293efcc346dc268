"""Transactions in a table or collection: what is new of it, as JSON Lines.

A line has a row's own columns. Numbers keep every digit, instants are in UTC with their offset,
times without a zone stay so. A row with a value that has no place is a line of texts, which the
contract refuses with a reason.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

from ingestion.databases.asked import CHUNK_ROWS, Asked, TableAsked
from ingestion.databases.connecting import connect, errors_of, place_of, refuse_without
from ingestion.errors import UserError

if TYPE_CHECKING:
    from ingestion.databases.reading import Reading

SCHEMES = ("postgresql", "postgres", "mysql", "mariadb", "mongodb", "sqlite", "mssql", "oracle")
_OURS = ("table", "cursor", "schema")


@dataclass(frozen=True)
class DatabaseTable:
    """A table of a database.

    Attributes:
        place: its URL without user, password and the driver's options, for the ledger.
        asked: the database, whose URL has a password in it, and the table.
    """

    place: str
    asked: Asked = field(repr=False, compare=False)

    @property
    def name(self) -> str:
        return self.place

    @property
    def table(self) -> TableAsked:
        return self.asked.tables[0]


def is_database(given: str) -> bool:
    """Whether this is the URL of a database."""
    return given.partition("://")[0].partition("+")[0].lower() in SCHEMES and "://" in given


def parse(given: str) -> DatabaseTable:
    """
    Raises:
        UserError: it names no table.
    """
    url, _, query = given.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    ours = {name: value for name, value in pairs if name in _OURS and value}
    others = [pair for pair in pairs if pair[0] not in _OURS]
    place = place_of(given)
    if "table" not in ours:
        raise UserError(
            f"{place} names no table of transactions.\n"
            "Write ?table=NAME at its end, and &cursor=COLUMN for only what is new."
        )
    table = TableAsked(ours["table"], cursor=ours.get("cursor"))
    whole = f"{url}?{urlencode(others)}" if others else url
    asked = Asked(whole, schema=ours.get("schema"), tables=(table,))
    return DatabaseTable(f"{place}?{urlencode(ours)}", asked)


def write_rows(
    given: DatabaseTable, last: str | None, path: Path, most: float = math.inf
) -> str | None:
    """Write the rows that are new, one a line; the value of the cursor up to which they go.

    Args:
        given: the table.
        last: the cursor's value up to which rows have landed; rows at it are written again.
        path: where to write.
        most: so many rows are enough.

    Raises:
        UserError: it cannot be read.
    """
    is_mongodb = given.asked.url.startswith("mongodb")
    refuse_without("pymongo" if is_mongodb else "sqlalchemy", "Reading a database")
    write = _write_documents if is_mongodb else _write_table
    with path.open("w", encoding="utf-8", newline="\n") as out:
        reading = write(given, last, out, most)
    if reading.rejected > len(reading.rejects):
        raise UserError(
            f"{given.name}: {reading.rejected:,} rows have a value without a place, the first in"
            f" {reading.rejects[0].column}.\nGive a view of it that leaves them out."
        )
    if given.table.cursor is None:
        return None
    return last if reading.highest is None else reading.written(reading.highest)


def _write_table(given: DatabaseTable, last: str | None, out: IO[str], most: float) -> Reading:
    from ingestion.databases.cursors import reading_of
    from ingestion.databases.looking import look_at
    from ingestion.databases.reading import loader_for

    url = given.asked.url
    engine = connect(url)
    try:
        with errors_of(url):
            table = look_at(engine, given.table, given.asked.schema, "x", needs_key=False)
            reading = reading_of(table, engine.dialect.name, last)
            # the same rows in the same order have the same checksum, and land once
            reading.order = list(table.reflected.primary_key)
            make = loader_for(engine, reading)
            options: Any = {"chunk_size": CHUNK_ROWS, "query_adapter_callback": reading.query}
            loader = make(engine, "pyarrow", table.reflected, {}, **options)
            kinds = {column.name: column.kind for column in table.columns}
            for rows in loader.load_rows():
                for row in rows.to_pylist():
                    pairs = (f"{json.dumps(n)}: {_json(v, kinds[n])}" for n, v in row.items())
                    out.write(f"{{{', '.join(pairs)}}}\n")
                if reading.rows >= most:
                    break
    finally:
        engine.dispose()
    for reject in reading.rejects:
        out.write(json.dumps(reject.row, ensure_ascii=False) + "\n")
    return reading


def _write_documents(given: DatabaseTable, last: str | None, out: IO[str], most: float) -> Reading:
    from ingestion.databases import mongodb

    with mongodb.opened(given.asked, "x") as (look,), errors_of(given.asked.url):
        collection = look()
        reading = collection.reading(last)
        for document in collection.documents(reading):
            out.write(_json(mongodb.plain(document)) + "\n")
            if reading.rows >= most:
                break
        for reject in reading.rejects:
            out.write(json.dumps(reject.row) + "\n")
    return reading


def _json(value: Any, kind: str = "") -> str:
    """A value as JSON, in one line; a number with the digits that it has."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(name)}: {_json(v)}' for name, v in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_json, value))}]"
    if kind == "json" and value is not None:
        return value.translate({ord("\n"): " ", ord("\r"): " "})  # between its parts, never in one
    if isinstance(value, Decimal | float) and math.isfinite(value):
        return format(value, "f") if isinstance(value, Decimal) else repr(value)
    if isinstance(value, Decimal | float):
        value = str(value)
    if isinstance(value, datetime | date | time):
        value = value.isoformat()
    return json.dumps(value.hex() if isinstance(value, bytes) else value, ensure_ascii=False)
