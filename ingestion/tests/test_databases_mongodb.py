"""Collections of MongoDB: documents keep what JSON has no word for, and land once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pymongo", reason="make test-databases installs it")
pytest.importorskip("sqlalchemy", reason="make test-databases installs it")

import bson
from bson import (
    Binary,
    Code,
    DatetimeMS,
    Decimal128,
    Int64,
    MaxKey,
    ObjectId,
    Regex,
    Timestamp,
    json_util,
)
from bson.raw_bson import RawBSONDocument
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from ingestion.databases import mongodb
from ingestion.databases.asked import Asked, TableAsked
from ingestion.databases.reading import Reading
from ingestion.days import Days
from ingestion.errors import UserError
from ingestion.pipeline import LoadReport, make_pipeline
from ingestion.sources import databases
from ingestion.tests.conftest import unused_port
from ingestion.warehouse.target import Target

SERVERS = {
    "nx-27017": ("--db", "{folder}/nx.db", "--port", "{port}"),
    "ferretdb": (  # where it is: make test-databases installs the other one
        *("--handler=sqlite", "--sqlite-url=file:{folder}/", "--state-dir={folder}"),
        *("--telemetry=disable", "--debug-addr=-", "--listen-addr=127.0.0.1:{port}"),
    ),
}


@contextmanager
def running(program: str, folder: Path) -> Iterator[str]:
    """A server that speaks MongoDB's protocol, on 127.0.0.1; its URL."""
    port = unused_port()
    arguments = [text.format(folder=folder, port=port) for text in SERVERS[Path(program).name]]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([program, *arguments], stdout=log, stderr=log, cwd=folder)
    try:
        url = f"mongodb://127.0.0.1:{port}/shop"
        until = time.monotonic() + 60
        with closing(MongoClient(url, serverSelectionTimeoutMS=500)) as client:
            while True:
                try:
                    client.server_info()
                    break
                except PyMongoError:
                    assert process.poll() is None, (folder / "log").read_text()
                    assert time.monotonic() < until, "the server does not start"
        yield url
    finally:
        process.terminate()
        process.wait()


def program_of(name: str) -> str | None:
    """Where a server is, if it is here."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


@pytest.fixture(scope="module", params=SERVERS)
def url(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    program = program_of(request.param)
    if not program:
        pytest.skip(f"there is no {request.param}")
    with running(program, tmp_path_factory.mktemp("mongo")) as found:
        yield found


@dataclass
class Site:
    shop: Any
    url: str
    warehouse: Target
    folder: Path

    def land(self, *tables: TableAsked, url: str = "") -> LoadReport:
        pipeline = make_pipeline(
            "shop", self.warehouse, self.folder, replace_strategy="insert-from-staging"
        )
        return databases.ingest(
            Asked(url or self.url, "shop", None, tables), self.warehouse, pipeline
        )

    def rows(self, query: str) -> list[tuple]:
        with closing(self.warehouse.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("set search_path to raw_shop")
            cursor.execute(query)
            return cursor.fetchall()


@pytest.fixture
def site(url: str, database: Target, tmp_path: Path) -> Iterator[Site]:
    with closing(MongoClient(url)) as client:
        for name in client.shop.list_collection_names():
            client.shop.drop_collection(name)
        yield Site(client.shop, url, database, tmp_path / "dlt")


ID = ObjectId("65a1b2c3d4e5f60718293a4b")


def test_documents_land_with_all_that_is_in_them(site: Site) -> None:
    whole = {
        "_id": ID,
        "n": Int64(2**60 + 1),
        "x": 0.1,
        "at": datetime(2024, 1, 1, 12, 0, 0, 123000),
    }
    nested = {"_id": "text", "lines": [{"sku": "a", "qty": 2}, {"sku": "é\n", "qty": None}]}
    site.shop.orders.insert_many([whole, nested, {"_id": 5, "raw": Binary(b"\0\xff")}])
    assert site.land(TableAsked("orders")).rows == {"orders": 3}
    found = {
        key: (text, json.loads(text))
        for key, text in site.rows("select _id, document::text from orders")
    }
    assert found.keys() == {str(ID), "text", '{"$numberInt": "5"}'}
    assert found[str(ID)][1] == {
        "_id": {"$oid": str(ID)},
        "n": 2**60 + 1,
        "x": 0.1,
        "at": {"$date": "2024-01-01T12:00:00.123Z"},
    }
    assert found["text"][1] == nested
    assert found['{"$numberInt": "5"}'][1]["raw"]["$binary"]["base64"] == "AP8="
    assert site.rows(
        "select document #>> '{lines,0,sku}', (document ->> 'n')::bigint from orders"
        " order by (document ->> 'n')::bigint nulls last"
    )[0] == (None, 2**60 + 1)
    assert site.rows("select mode, rows_landed, key_columns, place from _ingest_tables") == [
        ("full", 3, '["_id"]', f"{site.url} orders")
    ]


def test_canonical_documents_keep_the_types_of_numbers(site: Site) -> None:
    site.shop.orders.insert_one({"_id": "a", "i": 5, "l": Int64(5), "d": 5.0})
    site.land(TableAsked("orders", canonical=True))
    ((text,),) = site.rows("select document::text from orders")
    assert json.loads(text)["i"] == {"$numberInt": "5"}
    assert json.loads(text)["d"] == {"$numberDouble": "5.0"}


def test_only_documents_at_or_after_the_last_value_are_merged(site: Site) -> None:
    orders, asked = site.shop.orders, TableAsked("orders", cursor="at", mark_deletes=True)
    orders.insert_many(
        [{"_id": n, "at": datetime(2024, 1, n), "v": 1} for n in (1, 2, 3)]
        + [{"_id": 8, "at": None, "v": 1}, {"_id": 9, "v": 1}, {"_id": 7, "at": "2024", "v": 1}]
    )
    site.land(asked)
    orders.update_many({}, {"$set": {"v": 2}})
    orders.delete_one({"_id": 2})
    orders.insert_one({"_id": 4, "at": datetime(2024, 1, 3), "v": 2})
    site.land(asked)
    found = dict(site.rows("select document ->> '_id', (document ->> 'v')::int from orders"))
    # the last value's twins, and what has no date
    assert {key: found[key] for key in "34789"} == dict.fromkeys("34789", 2)
    assert site.rows("select document ->> '_id' from orders where _deleted_at is not null") == [
        ("2",)
    ]
    orders.insert_one({"_id": 2, "at": datetime(2023, 1, 1), "v": 3})
    site.land(asked)
    assert site.rows("select count(*) from orders where _deleted_at is not null") == [(0,)]
    assert site.rows("select count(*), count(distinct _id) from orders") == [(7, 7)]
    last = "select cursor_value from _ingest_tables order by finished_at desc limit 1"
    assert json.loads(site.rows(last)[0][0]) == {
        "$date": {
            "$numberLong": str(int(datetime(2024, 1, 3, tzinfo=timezone.utc).timestamp()) * 1000)
        }
    }


def test_a_backfill_reads_some_days_and_leaves_the_cursor_where_it_is(site: Site) -> None:
    asked = TableAsked("orders", cursor="at")
    site.shop.orders.insert_many(
        [{"_id": n, "at": datetime(2024, 1, n), "v": 1} for n in (1, 2, 3)]
        + [{"_id": 8, "at": None, "v": 1}, {"_id": 9, "v": 1}, {"_id": 7, "at": "2024", "v": 1}]
    )
    site.land(asked)
    last = "select cursor_value from _ingest_tables order by finished_at desc limit 1"
    before = site.rows(last)
    site.shop.orders.update_many({}, {"$set": {"v": 2}})
    days = Days(date(2024, 1, 1), date(2024, 1, 2))
    assert site.land(replace(asked, days=days)).rows == {"orders": 2}
    changed = "select document ->> '_id' from orders where document ->> 'v' = '2' order by 1"
    assert site.rows(changed) == [("1",), ("2",)]
    assert site.rows(last) == before


def test_an_empty_collection_and_one_that_is_not_there(site: Site) -> None:
    site.shop.orders.insert_one({"_id": 1})
    site.land(TableAsked("orders"))
    site.shop.orders.delete_many({})
    assert site.land(TableAsked("*")).rows == {"orders": 0}
    assert site.rows("select * from orders") == []
    with pytest.raises(
        UserError, match=r"There is no collection items in shop\.\nThere are: orders"
    ):
        site.land(TableAsked("items"))
    with pytest.raises(UserError, match="No collection was asked for; there are: orders"):
        site.land()
    with pytest.raises(UserError, match="has no columns for --key"):
        site.land(TableAsked("orders", key=("a",)))
    with pytest.raises(UserError, match="names no database"):
        site.land(TableAsked("orders"), url=site.url.removesuffix("/shop"))


def test_an_error_has_no_password_in_it(database: Target, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(mongodb, "TIMEOUT", 1)
    for url in (
        "mongodb://me:Kk9%40Zz7@127.0.0.1:1/shop",
        "mongodb://me:Kk9@Zz7@127.0.0.1:1/shop",
        "mongodb://me:Kk9Zz7@127.0.0.1:port/shop",
    ):
        with pytest.raises(UserError) as error:
            Site(None, url, database, tmp_path).land(TableAsked("orders"))
        assert "Zz7" not in error.value.message
        assert len(error.value.message.splitlines()) == 2


# Without a server: what no server that is to be had can hold


def landed(
    *documents: dict[str, Any] | bytes, **options: Any
) -> tuple[list[tuple[str, Any]], Reading]:
    """What lands of documents."""

    class Found(list):
        def __enter__(self) -> Found:
            return self

        def __exit__(self, *_: object) -> None: ...

    class Fake:
        name = "orders"

        def with_options(self, **_: Any) -> Fake:
            return self

        def find(self, *_: Any) -> Found:
            raws = (d if isinstance(d, bytes) else bson.encode(d) for d in documents)
            return Found(RawBSONDocument(raw) for raw in raws)

        class database:
            name = "shop"

            class client:
                nodes = ()

    collection = mongodb.Collection(Fake(), TableAsked("orders", **options), "orders")
    reading = collection.reading(None)
    rows = [row for table in collection._read(reading) for row in table.to_pylist()]
    return [(row["_id"], row["document"]) for row in rows], reading


@pytest.mark.parametrize(
    ("value", "there"),
    [
        (Decimal128("1.10"), {"$numberDecimal": "1.10"}),
        (
            Decimal128("9.999999999999999999999999999999999E+6144"),
            {"$numberDecimal": "9.999999999999999999999999999999999E+6144"},
        ),
        (Decimal128("NaN"), {"$numberDecimal": "NaN"}),
        (Int64(2**63 - 1), 2**63 - 1),
        (float("nan"), {"$numberDouble": "NaN"}),
        (float("-inf"), {"$numberDouble": "-Infinity"}),
        (DatetimeMS(2**60), {"$date": {"$numberLong": str(2**60)}}),
        (DatetimeMS(-1), {"$date": {"$numberLong": "-1"}}),
        (
            Binary(bytes(16), 4),
            {"$binary": {"base64": "AAAAAAAAAAAAAAAAAAAAAA==", "subType": "04"}},
        ),
        (Regex("^a", "i"), {"$regularExpression": {"pattern": "^a", "options": "i"}}),
        (Timestamp(1, 2), {"$timestamp": {"t": 1, "i": 2}}),
        (Code("x"), {"$code": "x"}),
        (MaxKey(), {"$maxKey": 1}),
        ("a\0b", "a\0b"),
        ({"a": {"b": [ID, {}]}}, {"a": {"b": [{"$oid": str(ID)}, {}]}}),
    ],
    ids=str,
)
def test_a_type_of_bson_is_kept(value: Any, there: Any) -> None:
    ((_, text),), _ = landed({"_id": 1, "v": value})
    assert json.loads(text, parse_constant=pytest.fail)["v"] == there
    ((_, whole),), _ = landed({"_id": 1, "v": value}, canonical=True)
    again = json_util.loads(whole, json_options=mongodb.WITH_TYPES)
    assert bson.encode(again) == bson.encode({"_id": 1, "v": value})  # byte by byte


def test_every_id_is_a_text_of_its_own() -> None:
    ids = [
        ID,
        str(ID),
        "a",
        5,
        "5",
        5.0,
        Int64(5),
        Decimal128("5"),
        '{"$numberInt": "5"}',
        '"a"',
        {"a": 1},
        None,
        True,
        "",
        Binary(b"a"),
        datetime(2024, 1, 1),
    ]
    rows, _ = landed(*({"_id": value} for value in ids))
    texts = [text for text, _ in rows]
    assert texts[0] == str(ID)
    assert texts[2] == "a"
    distinct = set(texts)
    assert len(distinct) == len(ids)


def test_a_document_that_is_broken_costs_itself() -> None:
    whole = bson.encode({"_id": 2, "v": "xyz"})
    rows, reading = landed({"_id": 1}, whole.replace(b"xyz", b"x\xffz"), {"_id": 3})
    assert len(rows) == 2
    assert reading.rejected == 1
    assert "utf-8" in reading.rejects[0].reason
    assert reading.rejects[0].row["bson"] == whole.replace(b"xyz", b"x\xffz").hex()
