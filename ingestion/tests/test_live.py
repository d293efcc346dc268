"""``transactions_live`` before a build holds what ``fct_transactions`` holds after it.

For random histories: late, repeated and status-changing rows, rows that break a rule, unread and
corrected lines, grown and replaced files, loads that finish out of order (see ``Arrivals``).
"""

from __future__ import annotations

import random
from datetime import datetime, timedelta

from ingestion.tests.built import Built
from ingestion.tests.test_incremental import (  # noqa: F401
    ROUNDS,
    SEED,
    Arrivals,
    Models,
    warehouse,
)

COMPARED = (
    *("transaction_id", "user_id", "merchant_name", "category_name", "city_name"),
    *("payment_method", "transaction_status", "is_approved", "amount", "approved_amount"),
    *("event_at", "loaded_at", "currency_code"),
)
# what the fact says, with names; an own text, so that what the view says is judged by another
FACT = """
    select
        fact.transaction_id, fact.user_id, merchant_name, category_name, city_name,
        payment_method, transaction_status, is_approved, fact.amount, fact.approved_amount,
        fact.event_at, fact.loaded_at, coalesce(fact.currency_code, '(unknown)') as currency_code
    from marts.fct_transactions as fact
    join marts.dim_merchant using (merchant_key)
    join marts.dim_category using (category_key)
    join marts.dim_city using (city_key)
    join marts.dim_payment_method using (payment_method_key)
    join marts.dim_transaction_status using (transaction_status_key)
"""


def live_models() -> Models:
    """The incremental models, and what the views of this file need besides; built in full."""
    models = Models()
    models.names += ["dim_merchant", "dim_category", "dim_city", "dim_payment_method"]
    models.names += ["dim_transaction_status", "int_transactions__fresh"]
    models.names += ["transactions_live", "transactions_by_minute"]
    models.run("--full-refresh")
    return models


def keep(warehouse: Built, name: str, query: str) -> None:  # noqa: F811
    warehouse.execute(
        f"create schema if not exists kept; drop table if exists kept.{name};"
        f" create table kept.{name} as {query}"
    )


def assert_same(warehouse: Built, *where: object) -> int:  # noqa: F811
    """What was kept of the view before a build is what the fact holds after it."""
    keep(warehouse, "fact", FACT)
    for here, there in (("live", "fact"), ("fact", "live")):
        query = f"select * from kept.{here} except all select * from kept.{there} limit 3"
        assert warehouse.rows(query) == [], (f"only {here}", *where)
    return warehouse.one("select count(*) from kept.fact")


def test_what_is_live_is_what_the_next_build_makes(warehouse: Built) -> None:  # noqa: F811
    models = live_models()
    arrivals = Arrivals(warehouse.target, random.Random(SEED + 1))
    history, rows, live = [], 0, 0
    for number in range(2 + 4 * ROUNDS):
        if number < 2:
            history.append(arrivals.lone_row(is_replacement=bool(number)))
        else:
            history.append(arrivals.batch())
        keep(warehouse, "live", f"select {', '.join(COMPARED)} from marts.transactions_live")
        live += warehouse.one("select count(*) from marts.transactions_live where is_live")
        models.run()
        rows += assert_same(warehouse, SEED, number, history)
        assert warehouse.one("select count(*) from marts.transactions_live where is_live") == 0
        assert warehouse.one("select count(*) from intermediate.int_transactions__fresh") == 0
        keep(warehouse, "live", f"select {', '.join(COMPARED)} from marts.transactions_live")
        assert_same(warehouse, "after the build", SEED, number, history)
    assert rows
    assert live


def test_a_build_that_stopped_half_way_loses_nothing_of_what_is_live(
    warehouse: Built,  # noqa: F811
) -> None:
    """Rows that int_transactions__checked has and the fact has not are live all the same."""
    models = live_models()
    arrivals = Arrivals(warehouse.target, random.Random(SEED + 2))
    for _ in range(3):
        arrivals.batch()
    everything, models.names = (
        models.names,
        ["stg_transactions__loads", "int_transactions__checked"],
    )
    models.run()
    for _ in range(3):
        arrivals.batch()
    live = warehouse.rows("select is_live, count(*) from marts.transactions_live group by 1")
    assert dict(live).get(True), live
    keep(warehouse, "live", f"select {', '.join(COMPARED)} from marts.transactions_live")
    models.names = everything
    models.run()
    assert assert_same(warehouse, SEED)


def test_minutes_count_what_is_live_and_what_was_refused(warehouse: Built) -> None:  # noqa: F811
    models = live_models()
    now = warehouse.one("select now() at time zone 'UTC'")
    for load_id, rows in (
        ("1", [(90, "APPROVED", "EUR", 10), (60 * 25, "APPROVED", "EUR", 11)]),
        (
            "2",
            [
                (5, "APPROVED", "EUR", 20),
                (5, "DECLINED", "EUR", 30),
                (5, "APPROVED", "USD", 40),
                (5, "LOST", "EUR", 50),
                (5, "APPROVED", "EUR", -60),
            ],
        ),
    ):
        land(warehouse, load_id, now, rows)
        if load_id == "1":
            models.run()
    minutes = warehouse.rows(
        "select outcome, reason_code, currency_code, sum(transaction_count), sum(approved_count),"
        " sum(rejected_count), sum(amount)::int, sum(approved_amount)::int"
        " from marts.transactions_by_minute group by 1, 2, 3 order by 1, 2, 3"
    )
    expected = [
        ("fact", "(none)", "EUR", 3, 2, 0, 60, 30),
        ("fact", "(none)", "USD", 1, 1, 0, 40, 40),
        ("marked", "negative_amount", "(none)", 0, 0, 1, 0, 0),
        ("marked", "unknown_status", "(none)", 0, 0, 1, 0, 0),
        ("unread", "not_json", "(none)", 0, 0, 2, 0, 0),
    ]
    assert minutes == expected
    of_event = warehouse.rows(
        "select distinct minute_at from marts.transactions_by_minute where outcome = 'fact'"
        " order by 1"
    )
    truncated = [(now - timedelta(minutes=m)).replace(second=0, microsecond=0) for m in (90, 5)]
    assert [minute for (minute,) in of_event] == truncated
    models.run()
    assert expected == warehouse.rows(
        "select outcome, reason_code, currency_code, sum(transaction_count), sum(approved_count),"
        " sum(rejected_count), sum(amount)::int, sum(approved_amount)::int"
        " from marts.transactions_by_minute group by 1, 2, 3 order by 1, 2, 3"
    )


def land(
    warehouse: Built,  # noqa: F811
    load_id: str,
    now: datetime,
    rows: list[tuple[int, str, str, int]],
) -> None:
    """A load as a stream commits it: rows so many minutes old, and a line that is no JSON."""
    of_load = f"'topic', 'checksum', '{load_id}'"
    values = ", ".join(
        f"('{load_id}-{line}', '{now - timedelta(minutes=age)}Z', '1', {amount}, '{status}',"
        f" '{currency}', {line}, {of_load})"
        for line, (age, status, currency, amount) in enumerate(rows)
    )
    warehouse.execute(
        "set search_path to raw_transactions;"
        "insert into transactions (transaction_id, event_ts, user_id, amount, status, currency,"
        f" _file_line, _file_name, _file_checksum, _dlt_load_id) values {values};"
        "insert into rejects (raw_text, reason_code, reason, _file_line, _file_name,"
        f" _file_checksum, _dlt_load_id) values ('?', 'not_json', 'no', {len(rows)}, {of_load});"
        "insert into files (path, bytes, first_line, last_line, lines_read, rows_landed,"
        " rows_rejected, is_replacement, seconds, landed_at, _file_name, _file_checksum,"
        f" _dlt_load_id) values ('kafka://c/topic/0', 1, 0, {len(rows)}, {len(rows) + 1},"
        f" {len(rows)}, 1, false, 0.1, now(), {of_load});"
        "insert into _dlt_loads (load_id, schema_name, status, inserted_at, schema_version_hash)"
        f" values ('{load_id}', 'transactions', 0, now(), '-')"
    )
