"""``marquee ingest transactions postgresql://...?table=payments``: rows by the contract."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from psycopg2 import sql

pytest.importorskip("sqlalchemy", reason="make test-databases installs it")

from ingestion.errors import UserError
from ingestion.sources.transactions.inputs.database import parse
from ingestion.tests import mariadb
from ingestion.tests.built import Built
from ingestion.tests.conftest import execute
from ingestion.warehouse.target import Target

MAPPING = """\
columns:
  transaction_id: id
  event_ts: paid_at
  user_id: customer
  amount: amount
  merchant: shop
  status: {from: state, values: {paid: APPROVED, open: PENDING}}
  currency: {constant: EUR}
"""
PAYMENTS = """
    create table payments (
        id bigint primary key, paid_at timestamptz, customer text, amount numeric(14,4),
        shop text, state text, updated_at timestamptz, extra json
    );
    insert into payments
    select g, timestamptz '2024-01-01 12:00+02' + g * interval '1 min', 'c' || g % 7,
        g + 0.0001, 'Café "' || g % 3 || '"', case when g % 10 = 0 then 'open' else 'paid' end,
        timestamptz '2024-02-01' + g * interval '1 min', E'{"a":\\n1.10}'
    from generate_series(1, 1000) as g;
"""


@dataclass
class Site:
    shop: Target
    warehouse: Built

    @property
    def place(self) -> str:
        return f"postgresql://{self.shop.host}:{self.shop.port}/{self.shop.dbname}"

    def change(self, statements: str) -> None:
        with closing(self.shop.connect()) as connection, connection, connection.cursor() as cursor:
            cursor.execute(statements)

    def land(self, query: str = "table=payments", url: str = "", check: bool = True) -> str:
        path = self.warehouse.folder / "payments.yml"
        path.write_text(MAPPING)
        given = f"{url or self.shop.url}?{query}"
        done = self.warehouse.marquee(
            "ingest", "transactions", given, "--mapping", str(path), check=check
        )
        return done.stdout + done.stderr


@pytest.fixture
def site(target: Target, database: Target, tmp_path: Path) -> Iterator[Site]:
    name = sql.Identifier(f"{database.dbname}_shop")
    execute(target, sql.SQL("create database {} template template0").format(name))
    warehouse = Built(database, tmp_path)
    warehouse.write_profile()
    made = Site(replace(target, dbname=name.string), warehouse)
    made.change(PAYMENTS)
    yield made
    execute(target, sql.SQL("drop database {} with (force)").format(name))


COUNT = "select count(*), count(distinct transaction_id) from raw_transactions.transactions"


def test_rows_reach_the_facts_with_their_sums(site: Site) -> None:
    assert "1,000 rows" in site.land()
    site.warehouse.dbt("seed")
    site.warehouse.dbt(
        *("run", "--select", "+fct_transactions"),
        *("--vars", '{"transactions_max_amount": 100000000}'),
    )
    assert site.warehouse.rows(
        "select count(*), sum(amount)::text, min(event_at)::text, count(distinct user_id)"
        " from marts.fct_transactions"
    ) == [(1000, "500500.1000", "2024-01-01 10:01:00", 7)]
    assert site.warehouse.rows(
        "select distinct _file_name, path, mapping from raw_transactions.files"
    ) == [(f"{site.place}?table=payments", f"{site.place}?table=payments", "payments")]
    assert site.warehouse.one(
        "select extra_fields::text from raw_transactions.transactions limit 1"
    ).startswith('{"updated_at": "2024-0')


def test_a_table_lands_once_while_nothing_changes(site: Site) -> None:
    site.land()
    assert "has landed before" in site.land()
    assert site.warehouse.rows(COUNT) == [(1000, 1000)]
    site.change(
        "update payments set state = 'paid' where id = 10; insert into payments"
        " select 1001, paid_at, customer, 5, shop, state, updated_at from payments where id = 1"
    )
    site.land()
    assert site.warehouse.rows(COUNT) == [(2001, 1001)]
    assert site.warehouse.rows(
        "select status, amount from raw_transactions.transactions where transaction_id in"
        " ('10', '1001') order by transaction_id::int, _dlt_load_id"
    ) == [
        ("PENDING", Decimal("10.0001")),
        ("APPROVED", Decimal("10.0001")),
        ("APPROVED", Decimal(5)),
    ]


def test_with_a_cursor_only_what_is_new_is_read(site: Site) -> None:
    query = "table=payments&cursor=updated_at"
    site.land(query)
    site.land(query)  # the last row again
    site.land(query)
    assert site.warehouse.rows(COUNT) == [(1001, 1000)]
    site.change(
        "update payments set amount = 7, updated_at = '2024-03-01 00:00:00.000001+00' where id = 3"
    )
    site.land(query)
    assert site.warehouse.rows(
        "select amount from raw_transactions.transactions where transaction_id = '3' order by 1"
    ) == [(Decimal("3.0001"),), (Decimal(7),)]
    assert site.warehouse.rows(
        "select cursor_value from raw_transactions.files order by _dlt_load_id desc limit 1"
    ) == [("2024-03-01 00:00:00.000001+00:00",)]
    assert site.warehouse.rows(COUNT) == [(1003, 1000)]


def test_a_row_that_breaks_the_contract_is_a_reject(site: Site) -> None:
    site.change(
        "update payments set paid_at = 'infinity' where id = 1;"
        "update payments set customer = null where id = 2"
    )
    site.land()
    assert site.warehouse.rows(
        "select reason_code, raw_text like '%\"id\": %' from raw_transactions.rejects order by 1"
    ) == [("bad_timestamp", True), ("missing_field", True)]
    assert site.warehouse.rows(COUNT) == [(998, 998)]


def test_a_mapping_is_suggested_and_lands_the_table(site: Site) -> None:
    """What is printed for a table is a mapping that fits, once its user has filled it."""
    path = site.warehouse.folder / "suggested.yml"
    given = f"{site.shop.url}?table=payments"
    arguments = ("ingest", "transactions", given, "--save", str(path))
    said = site.warehouse.marquee(*arguments).stdout
    assert f"transactions '{site.place}?table=payments' --mapping" in said
    assert site.shop.password not in said
    assert "event_ts: paid_at" in path.read_text()
    refused = site.warehouse.marquee("ingest", "transactions", given, check=False)
    assert "--suggest" in refused.stderr
    assert site.shop.password not in refused.stderr


def test_an_empty_table_and_one_that_is_not_there(site: Site) -> None:
    site.change("create table nothing (id int)")
    assert "has no rows." in site.land("table=nothing")
    said = site.land("table=elsewhere", check=False)
    assert "There is no table elsewhere" in said
    said += site.land("cursor=updated_at", check=False)
    assert "names no table of transactions" in said
    assert site.shop.password not in said


def test_rows_of_mariadb_land_the_same_way(site: Site) -> None:
    if why := mariadb.missing():
        pytest.skip(why)
    with mariadb.running() as server:
        server.execute(
            "create table payments (id bigint unsigned primary key, paid_at datetime,"
            " customer int, amount decimal(14,4), shop text, state enum('paid', 'open'))",
            "insert into payments values"
            " (18446744073709551615, '2024-01-01 12:00:00', 7, 1234567890.1234, 'Café', 'paid'),"
            " (2, '0000-00-00 00:00:00', 7, 1, 'x', 'open'),"
            " (3, '2024-01-01', 7, 0.10, 'x', 'open')",
        )
        site.land(url=server.url)
    assert site.warehouse.rows(
        "select transaction_id, event_ts, user_id, amount, merchant, status"
        " from raw_transactions.transactions order by amount"
    ) == [
        ("3", datetime(2024, 1, 1, tzinfo=timezone.utc), "7", Decimal("0.1"), "x", "PENDING"),
        (
            *("18446744073709551615", datetime(2024, 1, 1, 12, tzinfo=timezone.utc), "7"),
            *(Decimal("1234567890.1234"), "Café", "APPROVED"),
        ),
    ]
    assert site.warehouse.rows("select reason_code from raw_transactions.rejects") == [
        ("bad_timestamp",)
    ]


def test_documents_of_mongodb_land_the_same_way(site: Site) -> None:
    pymongo = pytest.importorskip("pymongo")
    from ingestion.tests.test_databases_mongodb import SERVERS, program_of, running

    program = program_of(next(iter(SERVERS)))
    if not program:
        pytest.skip("there is no server")
    folder = site.warehouse.folder / "mongo"
    folder.mkdir()
    with running(program, folder) as url, closing(pymongo.MongoClient(url)) as client:
        client.shop.payments.insert_many(
            {
                "id": n,
                "paid_at": datetime(2024, 1, n),
                "customer": "c",
                "amount": n / 2,
                "state": "paid",
            }
            for n in range(1, 5)
        )
        query = "table=payments&cursor=paid_at"
        site.land(query, url=url)
        client.shop.payments.insert_one(
            {
                "id": 9,
                "paid_at": datetime(2024, 2, 1),
                "customer": "c",
                "amount": 9,
                "state": "open",
            }
        )
        site.land(query, url=url)
    assert site.warehouse.rows(
        "select count(distinct transaction_id), max(event_ts), max(amount)"
        " from raw_transactions.transactions"
    ) == [(5, datetime(2024, 2, 1, tzinfo=timezone.utc), Decimal(9))]


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ("postgresql://me:p%40@h:1/d?sslmode=require&table=t", "postgresql://h:1/d?table=t"),
        ("mysql+pymysql://me:pw@h/d?table=t&cursor=c", "mysql://h/d?table=t&cursor=c"),
        ("mongodb://me:pw@a,b/d?authSource=admin&table=t", "mongodb://a,b/d?table=t"),
    ],
)
def test_the_place_has_no_login_and_the_driver_gets_its_options(given: str, place: str) -> None:
    found = parse(given)
    assert found.place == place
    assert ("sslmode=require" in found.asked.url) == ("sslmode" in given)
    assert "table" not in found.asked.url
    assert "pw" not in repr(found)


def test_a_url_without_a_table_is_refused() -> None:
    with pytest.raises(UserError, match=r"postgresql://h/d names no table .*\n.*\?table=NAME"):
        parse("postgresql://me:pw@h/d")
