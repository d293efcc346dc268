"""``marquee ingest database``: which rows are read, what becomes of them, what the ledger says."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import pytest
from psycopg2 import sql

pytest.importorskip("sqlalchemy", reason="make test-databases installs it")

from ingestion.databases.asked import Asked, TableAsked
from ingestion.databases.connecting import place_of, safe
from ingestion.days import Days
from ingestion.errors import UserError
from ingestion.pipeline import LoadReport, make_pipeline
from ingestion.sources import databases
from ingestion.sources.databases.settings import source_name
from ingestion.tests import mariadb
from ingestion.tests.conftest import execute
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target

SHOP = """
    create table orders (id bigint primary key, note text, changed_at timestamptz);
    insert into orders values
        (1, 'one', '2024-01-01 00:00+00'), (2, 'two', '2024-01-02 00:00+00'), (3, 'three', null);
"""


@dataclass
class Site:
    """A database of somebody, and a warehouse that its tables land in."""

    shop: Target
    warehouse: Target
    folder: Path

    def change(self, statements: str) -> None:
        with closing(self.shop.connect()) as connection, connection, connection.cursor() as cursor:
            cursor.execute(statements)

    def land(self, *tables: TableAsked, url: str = "", name: str = "shop") -> LoadReport:
        pipeline = make_pipeline(
            name, self.warehouse, self.folder, replace_strategy="insert-from-staging"
        )
        asked = Asked(url or self.shop.url, name, None, tables)
        return databases.ingest(asked, self.warehouse, pipeline)

    def rows(self, query: str) -> list[tuple]:
        with closing(self.warehouse.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("set search_path to raw_shop; set timezone to 'UTC'")
            cursor.execute(query)
            return cursor.fetchall()


@pytest.fixture
def site(target: Target, database: Target, tmp_path: Path) -> Iterator[Site]:
    name = sql.Identifier(f"{database.dbname}_shop")
    execute(target, sql.SQL("create database {} template template0").format(name))
    made = Site(replace(target, dbname=name.string), database, tmp_path / "dlt")
    made.change(SHOP)
    yield made
    execute(target, sql.SQL("drop database {} with (force)").format(name))


BY_CHANGE = TableAsked("orders", cursor="changed_at")
NOTES = "select id, note from orders order by id"
LAST = (
    "select mode, cursor_value, rows_landed, rows_rejected, rows_deleted, rows_returned"
    " from _ingest_tables order by finished_at desc limit 1"
)


def test_a_table_lands_in_place_of_what_landed_before(site: Site) -> None:
    report = site.land(TableAsked("orders"))
    assert report.rows == {"orders": 3}
    assert site.rows(NOTES) == [(1, "one"), (2, "two"), (3, "three")]
    site.change("delete from orders where id = 1; update orders set note = 'zwei' where id = 2")
    assert site.land(TableAsked("orders")).rows == {"orders": 2}
    assert site.rows(NOTES) == [(2, "zwei"), (3, "three")]
    assert site.rows(LAST) == [("full", None, 2, 0, None, None)]
    assert site.rows(
        "select count(*) from _ingest_tables inner join _dlt_loads on load_id = _dlt_load_id"
        " where status = 0 and key_columns = '[\"id\"]' and place = "
        f"'postgresql://{site.shop.host}:{site.shop.port}/{site.shop.dbname} orders'"
    ) == [(2,)]


def test_an_empty_table_lands_as_one(site: Site) -> None:
    site.change("delete from orders")
    assert site.land(TableAsked("orders")).rows == {"orders": 0}
    assert site.rows(NOTES) == []
    assert site.land(TableAsked("orders")).rows == {"orders": 0}


def test_only_rows_at_or_after_the_last_value_are_read_and_merged(site: Site) -> None:
    assert site.land(BY_CHANGE).rows == {"orders": 3}
    assert site.rows(LAST) == [("incremental", "2024-01-02 00:00:00+00:00", 3, 0, None, None)]
    site.change(
        "update orders set note = 'not seen' where id = 1;"  # it changed without its cursor
        "update orders set note = 'ZWEI' where id = 2;"  # within the same moment as before
        "insert into orders values (4, 'late', '2024-01-02 00:00+00'),"
        " (5, 'five', '2024-01-03 00:00:00.000001+00')"
    )
    assert site.land(BY_CHANGE).rows == {"orders": 4}  # 2, 4, 5, and 3, which has no value
    assert site.rows(NOTES) == [(1, "one"), (2, "ZWEI"), (3, "three"), (4, "late"), (5, "five")]
    assert site.rows(LAST)[0][1] == "2024-01-03 00:00:00.000001+00:00"


def test_a_backfill_reads_some_days_and_leaves_the_cursor_where_it_is(site: Site) -> None:
    two_days = replace(BY_CHANGE, days=Days(date(2024, 1, 1), date(2024, 1, 2)))
    site.land(BY_CHANGE)
    site.change(
        "update orders set note = 'changed without its cursor' where id = 1;"
        "insert into orders values (4, 'last moment', '2024-01-02 23:59:59.999+00'),"
        " (5, 'too late', '2024-01-03 00:00+00')"
    )
    assert site.land(two_days).rows == {"orders": 3}
    told = "changed without its cursor"
    assert site.rows(NOTES) == [(1, told), (2, "two"), (3, "three"), (4, "last moment")]
    assert site.rows(LAST)[0][1] == "2024-01-02 00:00:00+00:00"
    assert site.land(BY_CHANGE).rows == {"orders": 4}  # 2 and 4 again, 3 as ever, and 5


def test_a_backfill_before_the_first_load_hides_nothing_from_it(site: Site) -> None:
    assert site.land(replace(BY_CHANGE, days=Days(date(2024, 1, 2), date(2024, 1, 2)))).rows == {
        "orders": 1
    }
    assert site.land(BY_CHANGE).rows == {"orders": 3}


def test_a_backfill_of_what_has_no_days_is_refused(site: Site) -> None:
    day = Days(date(2024, 1, 1), date(2024, 1, 1))
    with pytest.raises(UserError, match="orders has no cursor"):
        TableAsked("orders", days=day)
    with pytest.raises(UserError, match=r"orders\.id is bigint, so no row of it is of a day"):
        site.land(TableAsked("orders", cursor="id", days=day))


def test_rows_without_a_cursor_value_are_read_each_time_and_lose_nothing(site: Site) -> None:
    site.land(BY_CHANGE)
    site.change("delete from orders where id < 3; update orders set note = 'III' where id = 3")
    assert site.land(BY_CHANGE).rows == {"orders": 1}  # a batch of nulls alone
    assert site.rows(LAST)[0][1] == "2024-01-02 00:00:00+00:00"
    assert site.rows(NOTES) == [(1, "one"), (2, "two"), (3, "III")]
    site.change("insert into orders values (6, 'six', '2024-01-05 00:00+00')")
    site.land(BY_CHANGE)
    assert site.rows(NOTES)[-1] == (6, "six")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            TableAsked("orders", cursor="updated"),
            "no column updated, which --cursor names.\nIt has: id,",
        ),
        (TableAsked("orders", key=("no",)), "no column no, which --key names"),
        (TableAsked("orders", text=("no",)), "no column no, which --text names"),
        (TableAsked("orders", exclude=("no",)), "no column no, which --exclude names"),
        (TableAsked("orders", cursor="note", exclude=("note",)), "does not land"),
        (TableAsked("flags", cursor="flag", key=("id",)), "flags.flag is no cursor, as it is bool"),
        (TableAsked("flags", cursor="id"), "no primary key that lands, to tell its rows apart"),
        (TableAsked("flags", mark_deletes=True), "no primary key"),
        (TableAsked("nothing"), "There is no table nothing in postgresql://"),
        (TableAsked("_dlt_loads"), "names that begin so are dlt's"),
        (TableAsked("twins"), "a b and a_b would both be called a_b"),
    ],
)
def test_what_cannot_be_is_refused_by_name(site: Site, asked: TableAsked, told: str) -> None:
    site.change(
        "create table flags (id int, flag bool); create table _dlt_loads (id int);"
        'create table twins ("a b" int, a_b int);'
        "create table items (id int); insert into items values (1)"
    )
    with pytest.raises(UserError) as error:
        site.land(asked, TableAsked("items"))
    assert told in error.value.message
    assert "These have landed: items." in error.value.message  # one does not keep another back
    assert site.rows("select id from items") == [(1,)]


def test_a_table_without_a_primary_key_is_merged_by_the_key_that_is_named(site: Site) -> None:
    site.change(
        "create table stock (shop int, item text, n int, at date);"
        "insert into stock values (1, 'a', 5, '2024-01-01'), (1, 'b', 6, '2024-01-02')"
    )
    asked = TableAsked("stock", cursor="at", key=("shop", "item"))
    site.land(asked)
    site.change(
        "update stock set n = 7 where item = 'b';insert into stock values (2, 'a', 1, '2024-01-02')"
    )
    site.land(asked)
    assert site.rows("select shop, item, n from stock order by 1, 2") == [
        (1, "a", 5),
        (1, "b", 7),
        (2, "a", 1),
    ]


@pytest.mark.parametrize("cursor", [None, "changed_at"])
def test_rows_that_are_gone_are_marked_and_unmarked(site: Site, cursor: str | None) -> None:
    asked = TableAsked("orders", cursor=cursor, mark_deletes=True)
    marked = "select id, _deleted_at is not null from orders order by id"
    site.land(asked)
    assert site.rows(LAST)[0][4:] == (0, 0)
    site.change("delete from orders where id in (1, 3)")
    site.land(asked)
    assert site.rows(marked) == [(1, True), (2, False), (3, True)]
    assert site.rows(LAST)[0][4:] == (2, 0)
    since = site.rows("select _deleted_at from orders where id = 3")
    site.change("insert into orders values (1, 'one again', '2023-01-01 00:00+00')")
    site.land(asked)
    assert site.rows(marked) == [(1, False), (2, False), (3, True)]
    assert site.rows("select _deleted_at from orders where id = 3") == since
    assert site.rows(LAST)[0][5] == (1 if cursor else 0)  # in full it came back as a row


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("uuid", ["6ccd780c-baba-1026-9564-5b8c656024db", "7ccd780c-baba-1026-9564-5b8c656024db"]),
        ("text", ["a'b", ""]),
        ("bytea", ["\\x00", "\\xff"]),
        ("numeric(30,5)", ["1.10000", "12345678901234567890.00001"]),
        ("timestamp", ["2024-01-01 00:00:00", "2024-01-01 00:00:00.000001"]),
        ("date", ["2024-01-01", "2024-01-02"]),
    ],
)
def test_keys_of_any_type_are_compared(site: Site, kind: str, values: list[str]) -> None:
    quoted = [value.replace("'", "''") for value in values]
    site.change(
        f"create table things (key {kind} primary key);"
        + "".join(f"insert into things values ('{value}');" for value in quoted)
    )
    asked = TableAsked("things", mark_deletes=True)
    site.land(asked)
    site.change(f"delete from things where key = '{quoted[0]}'")
    site.land(asked)
    assert site.rows(LAST)[0][4:] == (1, 0)
    assert site.rows("select key::text from things where _deleted_at is not null") == [(values[0],)]


def test_a_column_that_changes_its_type_is_refused_and_lands_anew(site: Site) -> None:
    site.land(TableAsked("orders"))
    site.change("alter table orders alter id type numeric(20,2), add extra text default 'x'")
    with pytest.raises(UserError, match=r"orders\.id has landed as bigint, and is decimal"):
        site.land(TableAsked("orders"))
    assert len(site.rows(NOTES)) == 3
    execute(site.warehouse, sql.SQL("drop table raw_shop.orders"))
    assert site.land(TableAsked("orders")).rows == {"orders": 3}
    assert site.rows("select id::text, extra from orders order by id limit 1") == [("1.00", "x")]


def test_a_schema_that_was_dropped_lands_anew(site: Site) -> None:
    """dlt's notes beside the warehouse say that its tables are there."""
    site.land(TableAsked("orders"))
    execute(site.warehouse, sql.SQL("drop schema raw_shop cascade"))
    assert site.land(TableAsked("orders")).rows == {"orders": 3}
    assert site.rows("select count(*) from orders") == [(3,)]


def test_a_new_column_is_added_and_one_that_is_gone_is_null(site: Site) -> None:
    site.land(BY_CHANGE)
    site.change(
        "alter table orders add paid bool default true, drop note;"
        "update orders set changed_at = '2024-02-01 00:00+00' where id = 1"
    )
    site.land(BY_CHANGE)
    assert site.rows("select id, note, paid from orders order by id") == [
        (1, None, True),
        (2, None, True),
        (3, None, True),
    ]


def test_all_tables_are_meant_by_a_star_and_none_by_nothing(site: Site) -> None:
    site.change("create table items (id int); insert into items values (7)")
    with pytest.raises(UserError, match="No table was asked for; there are: items, orders"):
        site.land()
    assert site.land(TableAsked("*")).rows == {"items": 1, "orders": 3}


def test_a_table_of_another_database_does_not_mix_in(site: Site, tmp_path: Path) -> None:
    site.land(TableAsked("orders"))
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("create table orders (id integer primary key)")
    with pytest.raises(UserError, match=r"raw_shop\.orders came from postgresql://"):
        site.land(TableAsked("orders"), url=f"sqlite:///{tmp_path}/other.db")


def test_values_of_sqlite_land_exactly_or_cost_their_row(site: Site, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as shop:
        shop.execute(
            "create table t"
            " (id integer primary key, n integer, d numeric(10,2), at datetime, b blob)"
        )
        shop.executemany(
            "insert into t values (?, ?, ?, ?, ?)",
            [
                (1, 5, 1.1, "2024-01-01 10:00:00.5", b"\0\1"),
                (2, "five", 1, None, None),
                (3, 1, 1.105, None, None),
                (4, 1, 2, "yesterday", None),
                (5, 1, 2, None, "text"),
                (6, 2**63 - 1, None, "2024-01-01", None),
            ],
        )
        shop.commit()
    report = site.land(TableAsked("t"), url=f"sqlite:///{tmp_path}/shop.db")
    assert report.rows == {"t": 2}
    assert report.rejected == 4
    assert site.rows("select id, n, d::text, at::text, b::text from t order by id") == [
        (1, 5, "1.10", "2024-01-01 10:00:00.5", "\\x0001"),
        (6, 2**63 - 1, None, "2024-01-01 00:00:00", None),
    ]
    assert site.rows(
        "select row_text ->> 'id', column_name, reason from _ingest_rejects order by 1"
    ) == [
        ("2", "n", "five: no whole number"),
        ("3", "d", "1.105: Rescaling Decimal value would cause data loss"),
        ("4", "at", "yesterday: Invalid isoformat string: 'yesterday'"),
        ("5", "b", "text: text where bytes belong"),
    ]
    assert "t: 4 rows are in raw_shop._ingest_rejects" in report.notes[0]
    text = site.land(
        TableAsked("t", text=("n",), exclude=("d", "at", "b")),
        url=f"sqlite:///{tmp_path}/shop.db",
        name="texts",
    )
    assert text.rejected == 0


# Names and secrets


@pytest.mark.parametrize(
    ("given", "name"), [("Shop-2 EU", "shop_2_eu"), ("2024", "db_2024"), ("été", "t"), ("_", "db")]
)
def test_a_name_is_made_fit_for_a_schema(given: str, name: str) -> None:
    assert source_name(given) == name


@pytest.mark.parametrize("given", ["tmdb", "brands", "Transactions", "shop_staging", "x" * 41])
def test_the_schema_of_another_source_is_refused(given: str) -> None:
    with pytest.raises(UserError, match="--name NAME"):
        source_name(given)


SECRET = "Kk9 @:/%Zz7"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:Kk9%20%40%3A%2F%25Zz7@127.0.0.1:1/shop",
        "mysql://me:Kk9%20%40%3A%2F%25Zz7@127.0.0.1:1/shop",
        "postgresql://127.0.0.1:1/shop?user=me&password=Kk9%20%40%3A%2F%25Zz7",
        "nosuch://me:Kk9%20%40%3A%2F%25Zz7@127.0.0.1:1/shop",
        "mysql://me:Kk9%20%40%3A%2F%25Zz7@127.0.0.1:port/shop",
        "mysql+nothing://me:Kk9%20%40%3A%2F%25Zz7@127.0.0.1:1/shop",
    ],
)
def test_an_error_has_no_password_in_it(site: Site, url: str) -> None:
    with pytest.raises(UserError) as error:
        site.land(TableAsked("orders"), url=url)
    assert "Kk9" not in error.value.message
    assert "Zz7" not in error.value.message
    assert len(error.value.message.splitlines()) == 2


def test_a_place_has_no_user_and_no_options() -> None:
    assert place_of("mysql+pymysql://me:p@ss@h:1/d?a=b") == "mysql://h:1/d"
    assert (
        safe(ValueError("at postgres://me:pw@h said pw1"), "x://me:pw1@h")
        == "at postgres://h said ***"
    )


# By the command, with what is configured


def marquee(site: Site, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    (site.folder / "home").mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "ingestion", *arguments],
        env=environment(site) | variables,
        cwd=PROJECT_DIR,
        capture_output=True,
        text=True,
        check=False,
    )


def environment(site: Site) -> dict[str, str]:
    return (
        os.environ
        | site.warehouse.libpq_env()
        | {
            "HOME": str(site.folder / "home"),
            "MARQUEE_STATE_DIR": str(site.folder / "state"),
            "DBT_PROFILES_DIR": str(site.folder),
        }
    )


@pytest.fixture
def profile(site: Site) -> Site:
    site.folder.mkdir(parents=True, exist_ok=True)
    text = (PROJECT_DIR / "profiles.yml.example").read_text()
    (site.folder / "profiles.yml").write_text(text)
    return site


def test_many_tables_are_configured_in_dlts_places(profile: Site) -> None:
    site = profile
    site.change("create table items (id int primary key, n int); insert into items values (1, 2)")
    (site.folder / "project" / ".dlt").mkdir(parents=True)
    (site.folder / "project/.dlt/config.toml").write_text(
        (PROJECT_DIR / ".dlt/config.toml").read_text()
        + "\n[sources.databases.shop]\nmark_deletes = true\n"
        '[sources.databases.shop.tables.orders]\ncursor = "changed_at"\n'
        '[sources.databases.shop.tables.items]\nexclude = ["n"]\nkey = "id"\n'
    )
    (site.folder / "project/.dlt/secrets.toml").write_text(
        "[sources.databases.shop.credentials]\n"
        f'drivername = "postgresql"\nhost = "{site.shop.host}"\nport = {site.shop.port}\n'
        f'database = "{site.shop.dbname}"\nusername = "{site.shop.user}"\n'
        f'password = "{site.shop.password}"\n'
    )
    place = {"DLT_PROJECT_DIR": str(site.folder / "project")}
    done = marquee(site, "ingest", "database", "shop", **place)
    assert done.returncode == 0, done.stderr
    assert site.rows(
        "select mode, table_name, rows_landed, rows_deleted from _ingest_tables order by 2"
    ) == [("full", "items", 1, 0), ("incremental", "orders", 3, 0)]
    assert site.rows("select * from items limit 0") == []
    only = marquee(site, "ingest", "database", "shop", "--table", "items", **place)
    assert "raw_shop.items" in only.stdout
    assert "raw_shop.orders" not in only.stdout
    unknown = marquee(site, "ingest", "database", "elsewhere", **place)
    assert unknown.returncode == 1
    assert "neither a URL nor a database that is configured" in unknown.stderr


def test_a_variable_lists_tables_and_no_password_is_left_behind(profile: Site) -> None:
    site = profile
    url = f"{site.shop.url}"
    done = marquee(
        site,
        *("--debug", "ingest", "database", "shop"),
        SOURCES__DATABASES__SHOP__CREDENTIALS=url,
        SOURCES__DATABASES__SHOP__TABLES='["orders"]',
    )
    assert done.returncode == 0, done.stderr
    assert "raw_shop.orders" in done.stdout
    wrong = marquee(
        site,
        *("--debug", "ingest", "database", "shop"),
        SOURCES__DATABASES__SHOP__CREDENTIALS=url.replace(site.shop.password, "Kk9Zz7"),
        SOURCES__DATABASES__SHOP__TABLES="orders",
    )
    assert wrong.returncode == 1
    assert "password authentication failed" in wrong.stderr
    said = done.stdout + done.stderr + wrong.stdout + wrong.stderr
    left = [p for p in (site.folder / "state").rglob("*") if p.is_file()]
    assert left
    for secret in (site.shop.password, "Kk9Zz7"):
        assert secret not in said
        assert [path for path in left if secret.encode() in path.read_bytes()] == []


def test_a_killed_run_loses_and_doubles_nothing(profile: Site) -> None:
    site = profile
    site.change(
        "insert into orders select g, 'n', timestamptz '2024-01-03' + g * interval '1 s'"
        " from generate_series(10, 300009) as g"
    )
    command = [
        sys.executable,
        "-m",
        "ingestion",
        "ingest",
        "database",
        site.shop.url,
        "--name",
        "shop",
        "--table",
        "orders",
        "--cursor",
        "changed_at",
    ]
    for seconds in (2.5, 4.0):
        process = subprocess.Popen(
            command,
            env=environment(site),
            cwd=PROJECT_DIR,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(seconds)
        process.kill()
        process.wait()
    done = subprocess.run(
        command, env=environment(site), cwd=PROJECT_DIR, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert site.rows("select count(*), count(distinct id), sum(id) from orders") == [
        (300003, 300003, sum(range(10, 300010)) + 6)
    ]


# MariaDB


@pytest.fixture(scope="module")
def server() -> Iterator[mariadb.MariaDB]:
    if why := mariadb.missing():
        pytest.skip(why)
    with mariadb.running() as running:
        yield running


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("timestamp(6)", ["'2024-01-01 00:00:00'", "'2024-01-01 00:00:00.000001'"]),
        ("datetime", ["'2024-01-01 00:00:00'", "'2024-01-02 00:00:00'"]),
        ("bigint unsigned", ["9007199254740993", "18446744073709551615"]),
        ("decimal(30,10)", ["0.1", "9007199254740993.0000000001"]),
        ("varchar(20)", ["'B'", "'a'"]),
    ],
)
def test_a_cursor_of_any_type_goes_on_in_mariadb(
    site: Site, server: mariadb.MariaDB, kind: str, values: list[str]
) -> None:
    server.execute(
        "drop table if exists events",
        f"create table events (id int primary key, c {kind} null)",
        f"insert into events values (1, {values[0]}), (2, {values[1]}), (3, null)",
    )
    asked = TableAsked("events", cursor="c", mark_deletes=True)
    assert site.land(asked, url=server.url).rows == {"events": 3}
    server.execute("delete from events where id = 1", f"insert into events values (4, {values[1]})")
    rows = site.land(asked, url=server.url).rows["events"]
    assert rows == 3  # the last value, its twin, and the one without
    assert site.rows("select id, _deleted_at is null from events order by id") == [
        (1, False),
        (2, True),
        (3, True),
        (4, True),
    ]


def test_a_large_table_of_mariadb_lands_in_batches(site: Site, server: mariadb.MariaDB) -> None:
    server.execute(
        "create table many (id int primary key, amount decimal(12,2), at datetime)",
        "insert into many select seq, seq / 100, '2024-01-01' + interval seq second"
        " from seq_1_to_120000",
    )
    assert site.land(TableAsked("many"), url=server.url).rows == {"many": 120000}
    assert site.rows("select count(distinct id), sum(amount)::text, max(at)::text from many") == [
        (120000, "72000600.00", "2024-01-02 09:20:00")
    ]
