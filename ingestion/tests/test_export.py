"""Marts as files: what other engines read is what stands in the warehouse, whatever happens."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import duckdb
import fsspec
import psycopg2
import pyarrow.dataset as ds
import pytest

from ingestion.errors import UserError
from ingestion.export import export_marts
from ingestion.tests.test_inputs import aws, bucket, s3_server  # noqa: F401 - fixtures
from ingestion.warehouse import PROJECT_DIR, Target, marts_schema

MARTS = """
create schema marts;
create table marts.dim_thing (thing_key text not null, date_day date);
insert into marts.dim_thing values ('a', '2024-01-01'), ('b', null);
comment on table marts.dim_thing is 'Things.';
comment on column marts.dim_thing.thing_key is 'Key of a thing.';
create table marts.fct_things (
    id bigint not null, date_key integer, event_date date, second_date date, event_at timestamp,
    at_zone timestamptz, amount numeric(18, 4), free numeric, flag boolean, small smallint,
    share double precision, name text, code uuid, body jsonb, numbers integer[]
);
insert into marts.fct_things
select
    g, 20240101, date '2024-01-30' + g / 50, date '1999-12-31',
    timestamp '2024-01-30 23:59:59.123456' + g * interval '1 hour',
    timestamptz '2024-01-30 23:59:59.5+02' + g * interval '1 hour',
    g / 7.0, g / 3.0, g % 2 = 0, g % 100, g / 9.0,
    (array[
        'plain', 'a "quoted", one', E'two\\r\\nlines', '', null, 'Å漢😀', ' ', 'NULL', '\\N'
    ])[1 + g % 9],
    gen_random_uuid(), jsonb_build_object('g', g), array[g, g + 1]
from generate_series(0, 5000) as g;
insert into marts.fct_things (id) values (-1);
create table marts.fct_nothing (date_key integer, date_day date, amount numeric(10, 2));
create view marts.thing_names as select thing_key from marts.dim_thing;
create materialized view marts.thing_count as select count(*) as things from marts.dim_thing;
"""


def run(target: Target, statements: str) -> list[tuple]:
    with closing(target.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statements)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def warehouse(database: Target) -> Target:
    run(database, MARTS)
    return database


def verify(place: Path) -> dict:
    """The manifest, after every file of it was found as it says."""
    manifest = json.loads((place / "manifest.json").read_text(encoding="utf-8"))
    for mart in manifest["marts"]:
        assert mart["rows"] == sum(file["rows"] for file in mart["files"])
        for file in mart["files"]:
            content = (place / file["path"]).read_bytes()
            assert len(content) == file["bytes"]
            assert hashlib.sha256(content).hexdigest() == file["sha256"]
    return manifest


def marts_of(manifest: dict) -> dict[str, dict]:
    return {mart["name"]: mart for mart in manifest["marts"]}


def read_back(place: Path, name: str, columns: str = "*") -> duckdb.DuckDBPyRelation:
    duckdb.sql("set timezone = 'UTC'")
    files = f"read_parquet('{place}/latest/{name}/**/*.parquet', hive_partitioning = true)"
    return duckdb.sql(f"select {columns} from {files}")


def test_parquet_read_back_is_the_mart_row_for_row_and_type_for_type(warehouse, tmp_path):
    export_marts(warehouse, "marts", str(tmp_path / "out"))
    manifest = verify(tmp_path / "out")
    rows = {name: mart["rows"] for name, mart in marts_of(manifest).items()}
    assert rows == {
        "dim_thing": 2,
        "fct_nothing": 0,
        "fct_things": 5002,
        "thing_count": 1,
        "thing_names": 2,
    }
    names = (
        "id, date_key, event_date, second_date, event_at, at_zone, amount, free, flag, small,"
        " share, name, code, body, numbers"
    )
    texts = "free::text, code::text, body::text, numbers::text"
    query = names.replace("free", "free::text").replace("code, body, numbers", texts[12:])
    expected = run(warehouse, f"select {query} from marts.fct_things")
    found = read_back(tmp_path / "out", "fct_things", names).fetchall()
    assert Counter(found) == Counter(expected)

    things = read_back(tmp_path / "out", "fct_things")
    types = dict(zip(things.columns, map(str, things.types), strict=True))
    assert {
        name: types[name] for name in ("id", "event_date", "event_month", "event_at", "at_zone")
    } == {
        "id": "BIGINT",
        "event_date": "DATE",
        "event_month": "DATE",
        "event_at": "TIMESTAMP",
        "at_zone": "TIMESTAMP WITH TIME ZONE",
    }
    assert (types["amount"], types["flag"], types["small"]) == (
        "DECIMAL(18,4)",
        "BOOLEAN",
        "SMALLINT",
    )
    months = things.aggregate("event_month, count(*)").fetchall()
    by_month = (
        "select date_trunc('month', event_date)::date, count(*) from marts.fct_things group by 1"
    )
    assert dict(months) == dict(run(warehouse, by_month))
    assert len(months) >= 5
    assert read_back(tmp_path / "out", "fct_nothing").columns == [
        "date_key",
        "date_day",
        "amount",
        "date_month",
    ]


def test_the_manifest_tells_columns_and_partitions(warehouse, tmp_path):
    marts = marts_of(export_marts(warehouse, "marts", str(tmp_path / "out")))
    assert marts["fct_things"]["partition"] == {
        "column": "event_month",
        "type": "date",
        "month_of": "event_date",
    }
    assert marts["dim_thing"]["partition"] is None  # a dimension, for all its dates
    assert marts["dim_thing"]["description"] == "Things."
    assert marts["dim_thing"]["columns"][0] == {
        "name": "thing_key",
        "type": "text",
        "nullable": False,
        "description": "Key of a thing.",
    }
    types = {column["name"]: column["type"] for column in marts["fct_things"]["columns"]}
    assert types["amount"] == "numeric(18,4)"
    assert types["at_zone"] == "timestamp with time zone"


def test_csv_is_as_rfc_4180_has_it(warehouse, tmp_path):
    export_marts(warehouse, "marts", str(tmp_path / "out"), "csv")
    verify(tmp_path / "out")
    run(warehouse, "create table back (like marts.fct_things)")
    with closing(warehouse.connect()) as connection, connection, connection.cursor() as cursor:
        for file in (tmp_path / "out" / "latest" / "fct_things").rglob("*.csv"):
            raw = file.read_bytes()
            assert raw.count(b"\r\n") > 1
            with file.open(encoding="utf-8", newline="") as text:
                header = next(csv.reader(text, strict=True))
            assert header[:4] == ["id", "date_key", "event_date", "second_date"]
            # PostgreSQL tells null from an empty text by the quotes, and knows ISO dates only
            copy = "set datestyle to 'ISO, DMY'; copy back from stdin (format csv, header match)"
            cursor.copy_expert(copy, io.BytesIO(raw))
    fact = "marts.fct_things"
    for one, other in (("back", fact), (fact, "back")):
        missing = f"select * from (table {one} except all table {other}) as missing"
        assert run(warehouse, missing) == []


def test_a_selection(warehouse, tmp_path):
    manifest = export_marts(
        warehouse, "marts", str(tmp_path / "out"), select=["fct_*", "thing_names"]
    )
    assert sorted(marts_of(manifest)) == ["fct_nothing", "fct_things", "thing_names"]


def test_all_marts_are_of_one_moment_and_stay_while_they_are_read(warehouse, tmp_path):
    run(
        warehouse,
        "create view marts.a_slow as select g, pg_sleep(0.01)::text from generate_series(1, 300) g",
    )
    locked = (
        "select 1 from pg_locks where relation = 'marts.fct_things'::regclass and granted"
        " and mode = 'AccessShareLock' and pid <> pg_backend_pid()"
    )
    done: list[dict] = []
    export = threading.Thread(
        target=lambda: done.append(export_marts(warehouse, "marts", str(tmp_path / "out")))
    )
    export.start()
    while not run(warehouse, locked):
        time.sleep(0.01)
    time.sleep(0.5)
    run(warehouse, "insert into marts.fct_things (id) values (-2)")
    with pytest.raises(psycopg2.errors.LockNotAvailable):
        run(warehouse, "set lock_timeout = '100ms'; drop table marts.fct_things cascade")
    assert not done
    export.join()
    assert marts_of(done[0])["fct_things"]["rows"] == 5002
    assert run(warehouse, "select count(*) from marts.fct_things") == [(5003,)]


SCRIPT = """
import sys
from ingestion.export import export_marts
from ingestion.warehouse import Target
export_marts(Target(**eval(sys.argv[1])), "marts", sys.argv[2])
"""


def process(target: Target, place: Path | str, *wrapper: str) -> subprocess.Popen:
    return subprocess.Popen(
        [*wrapper, sys.executable, "-c", SCRIPT, repr(vars(target)), str(place)],
        cwd=PROJECT_DIR,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_export_leaves_the_last_good_one(warehouse, tmp_path):
    place = tmp_path / "out"
    first = export_marts(warehouse, "marts", str(place))["version"]
    run(
        warehouse,
        "create table marts.fct_more as select g as id, 1 as date_key,"
        " date '2020-01-01' + g as day from generate_series(1, 3000) as g;"
        "create view marts.slow as select g, pg_sleep(0.001)::text from generate_series(1, 400) g",
    )
    whole, moments = first, random.Random(4)
    for _ in range(6):
        export = process(warehouse, place)
        while export.poll() is None and len(list(place.glob("2*/"))) < 2:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.8))
        export.kill()
        export.communicate()
        manifest = verify(place)
        assert read_back(place, "fct_things", "count(*)").fetchall() == [(5002,)]
        # at worst the other of the two names of the last one is still to come
        assert str((place / "latest").readlink()) in (whole, manifest["version"])
        assert manifest["version"] == whole or "fct_more" in marts_of(manifest)
        whole = manifest["version"]

    last = export_marts(warehouse, "marts", str(place))["version"]
    assert verify(place)["version"] == str((place / "latest").readlink()) == last
    assert {path.name for path in place.glob("2*")} == {whole, last}  # no rests of killed ones


def test_one_export_to_a_folder_at_a_time(warehouse, tmp_path):
    run(warehouse, "create view marts.a_slow as select pg_sleep(30)::text as nothing")
    export = process(warehouse, tmp_path / "out")
    try:
        while not list((tmp_path / "out").glob("2*/a_slow")) and export.poll() is None:
            if run(
                warehouse,
                "select 1 from pg_stat_activity where query like '%a_slow%'"
                " and state = 'active' and pid <> pg_backend_pid()",
            ):
                break
            time.sleep(0.05)
        with pytest.raises(UserError, match="Another export"):
            export_marts(warehouse, "marts", str(tmp_path / "out"), select=["dim_thing"])
    finally:
        export.kill()
        export.communicate()
    export_marts(warehouse, "marts", str(tmp_path / "out"), select=["dim_thing"])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="asks Linux")
def test_memory_does_not_grow_with_a_table(database, tmp_path):
    """More than a gigabyte of rows; the peak is the process's own, not that of who started it."""
    run(
        database,
        "create schema marts; create view marts.big as select g as id, repeat(md5(g::text), 30)"
        " as text, now()::date as date_day from generate_series(1, 1200000) as g",
    )
    measure = SCRIPT + (
        "\nfrom pathlib import Path"
        "\nprint(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", measure, repr(vars(database)), str(tmp_path / "out")],
        cwd=PROJECT_DIR,
        capture_output=True,
        text=True,
        check=True,
    )
    assert verify(tmp_path / "out")["marts"][0]["rows"] == 1_200_000
    assert int(done.stdout) / 1024 < 400  # MB; what is read is three times that


# Object stores


def test_a_bucket(warehouse, bucket):  # noqa: F811
    place = f"{bucket.url}/some/marts"
    first = export_marts(warehouse, "marts", place)
    store = fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
    root = place.partition("://")[2]
    assert json.loads(store.cat_file(f"{root}/manifest.json")) == first

    folder = f"{root}/{first['version']}/fct_things"
    data = ds.dataset(folder, filesystem=store, format="parquet", partitioning="hive")
    found = data.to_table(columns=["id", "event_date", "amount"]).to_pylist()
    expected = run(warehouse, "select id, event_date, amount from marts.fct_things")
    assert Counter(tuple(row.values()) for row in found) == Counter(expected)

    # one that fails half-way: the first is still the last; the next but one removes it
    run(
        warehouse,
        "create view marts.fct_zero as"
        " select 1 / (g - 2000) as one from generate_series(1, 5000) as g",
    )
    with pytest.raises(UserError, match="division by zero"):
        export_marts(warehouse, "marts", place)
    assert json.loads(store.cat_file(f"{root}/manifest.json")) == first
    for mart in first["marts"]:
        for file in mart["files"]:
            assert (
                hashlib.sha256(store.cat_file(f"{root}/{file['path']}")).hexdigest()
                == file["sha256"]
            )

    run(warehouse, "drop view marts.fct_zero")
    second = export_marts(warehouse, "marts", place, select=["dim_thing"])
    third = export_marts(warehouse, "marts", place, select=["dim_thing"])
    versions = {name.rpartition("/")[2] for name in store.ls(root, detail=False)}
    assert versions == {"manifest.json", second["version"], third["version"]}


# What goes wrong


def said(target: Target, *args, **options) -> str:
    with pytest.raises(UserError) as caught:
        export_marts(target, *args, **options)
    assert len(caught.value.message.splitlines()) <= 3
    return caught.value.message


def test_no_marts_yet(database, tmp_path):
    assert "Build them" in said(database, "marts", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_mart_that_is_not_there(warehouse, tmp_path):
    message = said(warehouse, "marts", str(tmp_path / "out"), select=["dim_thing", "dim_thin"])
    assert "no mart dim_thin." in message
    assert "fct_things" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("bucket")
def test_places_that_cannot_be_written_to(warehouse, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be exported to" in said(warehouse, "marts", str(tmp_path / "file" / "out"))
    assert "cannot be exported to" in said(warehouse, "marts", "s3://no-such-bucket-of-ours/x")
    assert "no place" in said(warehouse, "marts", "ftp://somewhere/x")
    secret = said(warehouse, "marts", "s3://key:hush@bucket/x")
    assert "hush" not in secret


def test_a_folder_of_something_else_is_left_alone(warehouse, tmp_path):
    (tmp_path / "manifest.json").write_text('{"name": "an app"}')
    assert "something else" in said(warehouse, "marts", str(tmp_path))
    assert (tmp_path / "manifest.json").read_text() == '{"name": "an app"}'


def test_a_value_that_no_decimal_can_be(warehouse, tmp_path):
    run(warehouse, "update marts.fct_things set amount = 'NaN' where id = 7")
    assert "fct_things.amount" in said(warehouse, "marts", str(tmp_path / "out"))
    assert list((tmp_path / "out").glob("2*")) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small disk")
def test_a_full_disk(warehouse, tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", place], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        first = export_marts(warehouse, "marts", str(place))["version"]
        run(
            warehouse,
            "create table marts.big as"
            " select md5(random()::text) as noise from generate_series(1, 300000)",
        )
        assert "the disk is full" in said(warehouse, "marts", str(place))
        assert verify(place)["version"] == first
        assert [path.name for path in place.glob("2*")] == [first]
    finally:
        subprocess.run(["umount", place], check=True)


def test_the_schema_of_the_marts_is_dbts(built):
    """The rule in Python and the one in generate_schema_name say the same of both targets."""
    for name in ("dev", "other"):
        output = built.dbt(
            "--quiet",
            "ls",
            "--target",
            name,
            "--select",
            "marts",
            "--resource-type",
            "model",
            "--output",
            "json",
            "--output-keys",
            "schema",
        ).stdout
        schemas = {
            json.loads(line)["schema"] for line in output.splitlines() if line.startswith("{")
        }
        target = Target(name, "h", 1, "u", "p", "d", schema=name)
        assert schemas == {marts_schema(target)}
