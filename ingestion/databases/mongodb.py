"""Collections of MongoDB: a row a document, ``_id`` as text and the document as Extended JSON.

Extended JSON is MongoDB's own: what JSON has no word for (decimals, dates, binary, object ids)
keeps its type and every digit, ``{"$numberDecimal": "1.10"}``. It is the relaxed form, where whole
numbers and doubles are plain numbers; ``canonical`` keeps their types as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

import dlt
import pyarrow as pa
from bson import json_util
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.datetime_ms import DatetimeMS
from bson.decimal128 import Decimal128
from bson.int64 import Int64
from bson.objectid import ObjectId
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient
from pymongo.uri_parser import parse_uri

from ingestion.databases.asked import Asked, TableAsked, refuse_own_names
from ingestion.databases.columns import JSON, TEXT, Landing
from ingestion.databases.connecting import TIMEOUT, errors_of, place_of
from ingestion.databases.reading import MOST_REJECTS, Reading
from ingestion.errors import UserError
from ingestion.table_ledger import Reject

if TYPE_CHECKING:
    from dlt.sources import DltResource

CHUNK = 5_000  # documents at a time
RAW = CodecOptions(document_class=RawBSONDocument)
DECODED: Any = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS)
RELAXED, CANONICAL = json_util.RELAXED_JSON_OPTIONS, json_util.CANONICAL_JSON_OPTIONS
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
WITH_TYPES = json_util.JSONOptions(  # to read what was written as CANONICAL
    json_mode=json_util.JSONMode.CANONICAL, datetime_conversion=DatetimeConversion.DATETIME_MS
)
# What MongoDB compares with each other: its name for it, and how Python orders the values.
BRACKETS: tuple[tuple[Any, str, Callable[[Any], Any]], ...] = (
    (DatetimeMS, "date", int),
    (ObjectId, "objectId", lambda value: value),
    (str, "string", lambda value: value),
    (Decimal128, "number", lambda value: value.to_decimal()),
    (int | float | Int64, "number", lambda value: value),
)
_LIKE_OTHERS = re.compile(r'[0-9a-f]{24}|[{"].*', re.DOTALL)


def id_text(value: Any) -> str:
    """An ``_id`` as text, another one for every value.

    Texts and object ids are as they are, others Extended JSON; so is a text that looks like one of
    these.
    """
    if isinstance(value, ObjectId):
        return str(value)
    if isinstance(value, str) and not _LIKE_OTHERS.fullmatch(value):
        return value
    return json_util.dumps(value, json_options=CANONICAL)


@contextmanager
def opened(asked: Asked, source: str) -> Iterator[list[Callable[[], Collection]]]:
    """What looks at each collection that is meant.

    Raises:
        UserError: the server does not answer, or none was named.
    """
    with errors_of(asked.url):
        database = asked.schema or parse_uri(asked.url).get("database")
        if not database:
            raise UserError(
                f"{place_of(asked.url)} names no database.\n"
                "Write it at the end of the URL: mongodb://HOST:PORT/DATABASE."
            )
        client: Any = MongoClient(asked.url, serverSelectionTimeoutMS=TIMEOUT * 1000)
    try:
        with errors_of(asked.url):
            there = sorted(client[database].list_collection_names())
        if not asked.tables:
            raise UserError(
                f"No collection was asked for; there are: {', '.join(there[:20]) or 'none'}.\n"
                "Name one or more, --table NAME, or all: --table '*'."
            )
        meant: dict[str, TableAsked] = {}
        for table in asked.tables:
            others = [name for name in there if not name.startswith("system.")]
            for name in others if table.name == "*" else [table.name]:
                meant[name] = table
        yield [
            partial(_look, client[database], replace(table, name=name), there, source)
            for name, table in meant.items()
        ]
    finally:
        client.close()


def _look(database: Any, asked: TableAsked, there: list[str], source: str) -> Collection:
    if asked.name not in there:
        raise UserError(
            f"There is no collection {asked.name} in {database.name}.\n"
            f"There are: {', '.join(there[:20]) or 'none'}."
        )
    for option in ("key", "text", "exclude"):
        if getattr(asked, option):
            raise UserError(
                f"A collection lands as _id and document: it has no columns for --{option}.\n"
                "Leave the option out."
            )
    table = dlt.Schema(source).naming.normalize_table_identifier(asked.name)
    refuse_own_names(table)
    return Collection(database[asked.name], asked, table)


class Collection:
    """A collection, as ``loading.Readable`` says."""

    def __init__(self, collection: Any, asked: TableAsked, name: str) -> None:
        self.asked, self.name = asked, name
        hosts = ",".join(
            sorted(f"{host}:{port}" for host, port in collection.database.client.nodes)
        )
        self.place = f"mongodb://{hosts}/{collection.database.name} {collection.name}"
        self.key: tuple[str, ...] = ("_id",)
        self.is_unique = True
        self.columns = [
            Landing("_id", TEXT.hint, TEXT.arrow, None),
            Landing("document", JSON.hint, JSON.arrow, None),
        ]
        self.names = {"_id": "_id", "document": "document"}
        self._collection = collection.with_options(codec_options=RAW)

    def reading(self, last: str | None) -> Reading:
        reading = Reading(self.columns, written=_written)
        if self.asked.days:
            first, end = (datetime(d.year, d.month, d.day) for d in self.asked.days.ends)
            # other types than times are never between them
            reading.where = {self.asked.cursor: {"$gte": first, "$lt": end}}
        elif self.asked.cursor and last is not None:
            reading.where = since(self.asked.cursor, json_util.loads(last, json_options=WITH_TYPES))
        return reading

    def resource(self, reading: Reading) -> DltResource:
        return dlt.resource(self._read(reading), name=self.name)

    def _read(self, reading: Reading) -> Iterator[Any]:
        with self._collection.find(reading.where or {}) as found:
            yield from reading.land(self._batches(found, reading))

    def _batches(self, found: Any, reading: Reading) -> Iterator[list[pa.Array]]:
        highest = Highest(self.asked.cursor)
        for documents in _chunks(found):
            ids, texts = [], []
            for raw in documents:
                if row := self._row(raw, reading, highest):
                    ids.append(row[0])
                    texts.append(row[1])
            reading.highest = highest.value
            yield [pa.array(ids, pa.string()), pa.array(texts, pa.string())]

    def _row(self, raw: Any, reading: Reading, highest: Highest) -> tuple[str, str] | None:
        """``_id`` and text of a document; None where it cannot be read."""
        try:
            document = decoded(raw)
            options = CANONICAL if self.asked.canonical else RELAXED
            row = id_text(document["_id"]), json_util.dumps(document, json_options=options)
        except Exception as error:  # whatever bson has to say of a document that is broken
            reading.rejected += 1
            if len(reading.rejects) < MOST_REJECTS:
                said = {"bson": raw.raw.hex()}
                reading.rejects.append(Reject("document", f"cannot be read: {error}", said))
            return None
        highest.look(document)
        return row

    def documents(self, reading: Reading) -> Iterator[dict[str, Any]]:
        """The documents themselves, in the order of ``_id``."""
        highest = Highest(self.asked.cursor)
        with self._collection.find(reading.where or {}).sort("_id", 1) as found:
            for raw in found:
                if self._row(raw, reading, highest):
                    yield decoded(raw)
        reading.highest = highest.value

    def keys(self) -> Iterator[pa.Table]:
        with self._collection.find({}, {"_id": 1}) as found:
            for documents in _chunks(found):
                ids = [id_text(decoded(raw)["_id"]) for raw in documents]
                yield pa.table({"_id": pa.array(ids, pa.string())})


def decoded(raw: Any) -> dict[str, Any]:
    """A document whose times are numbers, as not all of them are times of Python's."""
    import bson

    return bson.decode(raw.raw, codec_options=DECODED)


def plain(value: Any) -> Any:
    """A value as JSON has it where it has a word for it: numbers, times in UTC, ids as text."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    found = value
    if isinstance(value, Decimal128):
        found = value.to_decimal()
    elif isinstance(value, ObjectId):
        found = str(value)
    elif isinstance(value, DatetimeMS):
        with suppress(OverflowError):
            found = _EPOCH + timedelta(milliseconds=int(value))
    is_plain = found is None or isinstance(found, bool | int | float | str | Decimal | datetime)
    return found if is_plain else json_util.dumps(value, json_options=CANONICAL)


def _written(value: Any) -> str:
    return json_util.dumps(value, json_options=CANONICAL)


def since(field: str, last: Any) -> dict[str, Any]:
    """Documents at or after a value, and all that MongoDB does not compare with it.

    Those have no value, or one of another type; they are merged by ``_id``.
    """
    kind = next(name for types, name, _ in BRACKETS if isinstance(last, types))
    return {"$or": [{field: {"$gte": last}}, {"$nor": [{field: {"$type": kind}}]}]}


class Highest:
    """The highest value of a field; of several types, the one that came first counts."""

    def __init__(self, field: str | None) -> None:
        self.value: Any = None
        self._path = field.split(".") if field else []
        self._kind, self._order = "", None

    def look(self, document: Any) -> None:
        value = document if self._path else None
        for part in self._path:
            value = value.get(part) if isinstance(value, dict) else None
        for types, kind, order in BRACKETS:
            if isinstance(value, types) and not isinstance(value, bool):
                if self._kind in ("", kind) and self._is_higher(order(value)):
                    self.value, self._kind, self._order = value, kind, order(value)
                return

    def _is_higher(self, order: Any) -> bool:
        if self._order is None:
            return order == order  # noqa: PLR0124 - NaN is not
        return order > self._order


def _chunks(found: Any) -> Iterator[list[Any]]:
    chunk: list[Any] = []
    for raw in found:
        chunk.append(raw)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
