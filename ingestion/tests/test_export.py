"""Marts as files: what other engines read is what stands in the warehouse, whatever happens."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import random
import re
import subprocess
import sys
import threading
import time
import unicodedata
from collections import Counter
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import duckdb
import fsspec
import psycopg2
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from psycopg2 import sql

from ingestion.errors import UserError
from ingestion.tests import forks
from ingestion.tests.built import BIN, Built
from ingestion.tests.test_inputs import aws, bucket, s3_server  # noqa: F401 - fixtures
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target, marts_schema
from serving.export import export_marts

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
from serving.export import export_marts
from ingestion.warehouse.target import Target
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


# Names that are no paths


ODD = (
    *("../../../escaped", "/etc/escaped", "..", ".", "a/b", "a\\b", ".hidden", "_hidden", "-rf"),
    *("=x", "a=b", "100%", "%2e", "%2F", "two words", " ends ", "dot.", "con", "nul", "com1.txt"),
    *(
        "Case",
        "case",
        "CASE",
        "caf\u00e9",
        "cafe\u0301",
        "x" * 63,
        "\u00e9" * 31,
        "a\nb",
        "\x1b[2J",
    ),
    *("*", "fct_*", "a:b", "~", "$HOME", '"', "'; drop table x; --", "manifest.json", "latest"),
)


def odd_marts(target: Target) -> None:
    """Each a table whose rows name it, and a fact whose columns have odd names."""
    with closing(target.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute("create schema odd")
        for name in ODD:
            table = sql.Identifier("odd", name)
            make = sql.SQL("create table {} as select {} as name, 1 as date_key, {}")
            day = sql.SQL("date '2024-02-03' as {}").format(sql.Identifier(name))
            cursor.execute(make.format(table, sql.Literal(name), day))


def names_read_back(manifest: dict, read) -> dict[str, list]:
    """Of each mart, the names that its rows say; the column of the month comes from the folder."""
    found = {}
    for mart in manifest["marts"]:
        (file,) = mart["files"]
        content = read(file["path"])
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
        found[mart["name"]] = pq.read_table(io.BytesIO(content))["name"].to_pylist()
    return found


def test_a_name_of_the_database_is_no_path(database, tmp_path):
    odd_marts(database)
    place = tmp_path / "deep" / "in" / "a" / "folder" / "out"
    manifest = export_marts(database, "odd", str(place))
    found = names_read_back(manifest, lambda path: (place / path).read_bytes())
    assert found == {name: [name] for name in ODD}
    outside = [path for path in tmp_path.rglob("*") if path.is_file() and place not in path.parents]
    assert outside == []
    folders = [path.name for path in (place / manifest["version"]).iterdir() if path.is_dir()]
    alike = {unicodedata.normalize("NFD", name).casefold() for name in folders}
    assert len(alike) == len(folders) == len(ODD)  # also where a disk takes some for the same
    for mart in manifest["marts"]:
        parts = mart["files"][0]["path"].split("/")
        assert len(parts) == 4
        assert all(re.fullmatch(r"[a-zA-Z0-9%._=-]{1,255}", part) for part in parts), parts
    # what other engines make of the folder of a month
    for name in ("a=b", "100%", "two words", "Case", "..", "caf\u00e9"):
        mart = marts_of(manifest)[name]
        assert mart["partition"]["month_of"] == name
        path = place / mart["files"][0]["path"]
        read = ds.dataset(path, partitioning="hive", partition_base_dir=str(path.parents[1]))
        assert mart["partition"]["column"] in read.schema.names


def test_a_name_of_the_database_is_no_key_of_a_bucket(database, bucket):  # noqa: F811
    odd_marts(database)
    manifest = export_marts(database, "odd", f"{bucket.url}/some/marts")
    store = fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
    root = f"{bucket.url.partition('://')[2]}/some/marts"
    found = names_read_back(manifest, lambda path: store.cat_file(f"{root}/{path}"))
    assert found == {name: [name] for name in ODD}
    keys = store.find(bucket.url.partition("://")[2])
    assert all(key.startswith(f"{root}/") for key in keys)
    assert len(keys) == len(ODD) + 2  # and two manifests


def test_odd_names_are_safe_on_a_terminal(database, tmp_path):
    odd_marts(database)
    other = Built(database, tmp_path)
    other.write_profile()
    export = ("export", "marts", "--schema", "odd", "--to", str(tmp_path / "out"))
    for args in (export, (*export, "--select", "\x1b[1m")):
        done = other.marquee(*args, check=False)
        assert "\x1b" not in done.stdout + done.stderr
    assert "There is no mart \\x1b[1m" in done.stderr
    # a name is itself before it is a pattern
    chosen = export_marts(database, "odd", str(tmp_path / "out"), select=["con", "manifest.json"])
    assert marts_of(chosen).keys() == {"con", "manifest.json"}


def test_a_manifest_that_leads_elsewhere_is_not_followed(warehouse, tmp_path):
    manifest = export_marts(warehouse, "marts", str(tmp_path / "out"))
    manifest["version"] = "../../elsewhere"
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest))
    assert "something else" in said(warehouse, "marts", str(tmp_path / "out"))


@pytest.mark.parametrize("day", ["0044-03-15 BC", "20000-01-01"])
def test_a_day_of_a_year_that_has_not_four_digits(warehouse, tmp_path, day):
    run(warehouse, f"update marts.fct_things set event_date = '{day}' where id = 7")
    export_marts(warehouse, "marts", str(tmp_path / "out"))
    without = "fct_things/event_month=__HIVE_DEFAULT_PARTITION__/part-0.parquet"
    days = pq.read_table(tmp_path / "out/latest" / without, partitioning=None)
    assert sorted(days["id"].to_pylist()) == [-1, 7]
    shown = duckdb.sql("select event_date::text from days where id = 7").fetchall()
    expected = {"0044-03-15 BC": "0044-03-15 (BC)"}.get(day, day)
    assert shown == [(expected,)]


@pytest.mark.parametrize("value", ["infinity", "-infinity"])
@pytest.mark.parametrize("column", ["event_date", "second_date", "event_at", "at_zone"])
def test_a_moment_that_never_comes(warehouse, tmp_path, column, value):
    run(warehouse, f"update marts.fct_things set {column} = '{value}' where id = 7")
    assert f"fct_things.{column} is infinite" in said(warehouse, "marts", str(tmp_path / "out"))
    assert list((tmp_path / "out").glob("2*")) == []


# For spreadsheets


FORMULAS = (
    *("=cmd|' /C calc'!A0", "+1+1", "-1+cmd|x", "@SUM(A1)", "\t=1", "\r=1", " =1", "\u00a0=1"),
    *("\uff1d1", "\n=1"),
)
PLAIN = ("a=b", "-5", "-5.25", "3", "", "caf\u00e9", "'x", '"=1"', "a\n=1", "1e5", "#1", None)


def spreadsheet(target: Target, place: Path, **options) -> tuple[bytes, list[list[str]]]:
    export_marts(target, "marts", str(place), "csv", ["sheet"], **options)
    content = (place / "latest/sheet/part-0.csv").read_bytes()
    return content, list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))


def test_no_text_is_a_formula_to_a_spreadsheet(warehouse, tmp_path):
    with closing(warehouse.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute(
            'create table marts.sheet (id integer, amount numeric(9, 2), free numeric, "=1+1" text,'
            " body jsonb)"
        )
        for at, text in enumerate((*FORMULAS, *PLAIN)):
            cursor.execute(
                "insert into marts.sheet values (%s, -1.5, -2.25, %s, '[1]')", (-at, text)
            )
    content, (head, *rows) = spreadsheet(warehouse, tmp_path / "sheets", excel=True)
    assert content.startswith(b"\xef\xbb\xbf")
    assert head == ["id", "amount", "free", "'=1+1", "body"]
    assert [row[:3] for row in rows] == [[str(-at), "-1.50", "-2.25"] for at in range(len(rows))]
    assert [row[3] for row in rows] == [f"'{text}" for text in FORMULAS] + [
        text or "" for text in PLAIN
    ]
    # without the option, it stands as it is
    content, (head, *rows) = spreadsheet(warehouse, tmp_path / "plain")
    assert not content.startswith(b"\xef\xbb\xbf")
    assert [row[3] for row in rows] == [text or "" for text in (*FORMULAS, *PLAIN)]
    assert "--format csv" in said(warehouse, "marts", str(tmp_path / "x"), excel=True)


# Places


def test_a_file_url_is_a_path(warehouse, tmp_path):
    place = tmp_path / "with blank%"
    url = f"file://{quote(str(place))}"
    for form in (url, url.replace("file://", "file://localhost"), url.replace("file://", "FILE:")):
        version = export_marts(warehouse, "marts", form, select=["dim_thing"])["version"]
        assert verify(place)["version"] == version
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.parametrize(
    ("to", "what", "remedy"),
    [
        ("file://server/share/out", "machine server", "three slashes"),
        ("file://~/out", "no whole path", "file:///"),
        ("file:out", "no whole path", "file:///"),
        ("file://", "no whole path", "file:///"),
        ("file:///tmp/x%00y", "%00", "another path"),
        ("file:///tmp/x?y", "? or #", "%3F"),
        ("~nobody-of-that-name/out", "no user", "path out"),
        ("", "empty", "current folder"),
        ("s3://", "no bucket", "s3://BUCKET/PREFIX"),
        ("s3:///prefix", "no bucket", "s3://BUCKET/PREFIX"),
        ("s3:/bucket/prefix", "no bucket", "s3://BUCKET/PREFIX"),
        ("ftp://host/out", "ftp://", "s3://"),
        ("https://host/out", "https://", "s3://"),
        ("gs://bucket/x", "gcsfs", "Install it"),
        ("gcs://bucket/x", "gcsfs", "Install it"),
        ("az://container/x", "adlfs", "Install it"),
    ],
)
def test_a_place_that_is_none(warehouse, tmp_path, monkeypatch, to, what, remedy):  # noqa: PLR0917
    monkeypatch.chdir(tmp_path)
    message = said(warehouse, "marts", to)
    assert what in message
    assert remedy in message
    assert "credentials" not in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["s3://bucket/x", "ftp://host/x", "file://host/x", "s3:/bucket/x"])
@pytest.mark.parametrize(
    "command",
    [
        ["generate", "transactions", "--out", "{}"],
        ["rejects", "export", "{}"],
        ["rejects", "replay", "{}"],
        ["superset", "export", "--to", "{}"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_files_are_written_where_they_were_meant_to_be(built, tmp_path, command, url):
    program = [BIN / "marquee", *(part.format(url) for part in command)]
    done = forks.run(program, cwd=tmp_path, env=built.environment)
    assert done.returncode == 1, done.stdout
    assert len(done.stderr.splitlines()) == 2
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_is_made_up_goes_where_a_path_leads(database, tmp_path, tmp_path_factory):
    empty = Built(database, tmp_path_factory.mktemp("empty"))
    empty.write_profile()
    made = ("generate", "transactions", "--rows", "50", "--out")
    empty.marquee(*made, f"file://{tmp_path}/one%20two.jsonl")
    expected = (tmp_path / "one two.jsonl").read_text()
    assert len(expected.splitlines()) == 50
    piped = empty.marquee(*made, "/dev/stdout").stdout
    assert piped.startswith(expected)
    assert not Path("/dev/stdout.part").exists()
    (tmp_path / "link").symlink_to("one two.jsonl")
    empty.marquee(*made, str(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()
    for nowhere in (tmp_path, tmp_path / "link" / "x"):
        done = empty.marquee(*made, str(nowhere), check=False)
        assert "cannot be written" in done.stderr
    rows = empty.marquee(
        "ingest", "transactions", f"file://{tmp_path}/one%20two.jsonl", check=False
    )
    assert "transactions" in rows.stdout
