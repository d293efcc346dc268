"""``marquee run`` end to end, on a real PostgreSQL: from nothing to marts, and again."""

import json
import subprocess
from decimal import Decimal

import pytest

from ingestion.run import land_sample
from ingestion.sample import transactions
from ingestion.tests.conftest import query_of
from ingestion.warehouse.target import Target


def test_the_run_says_what_it_did(built):
    said = built.first_run
    assert "raw_tmdb.movies" in said
    assert "raw_transactions.transactions" in said
    assert "tests passed" in said
    assert "marquee db url" in said
    assert built.password not in said


@pytest.mark.parametrize("part", ["brands", "transactions"])
def test_a_first_load_tells_the_planner_of_its_tables(database: Target, part: str):
    # or a build that follows at once may take minutes; autovacuum comes a minute later
    land_sample(part, database)
    sizes = (
        "select relname, last_analyze is null and last_autoanalyze is null"
        f" from pg_stat_user_tables where schemaname = 'raw_{part}'"
        " and pg_relation_size(relid) > 0"
    )
    unknown = dict(query_of(database)(sizes))
    assert part in unknown
    assert not any(unknown.values()), unknown


def test_marts_hold_the_sample(built):
    assert built.one("select count(*) from marts.dim_movie where not is_unknown") >= 500
    assert built.one("select count(*) from marts.dim_brand where index_rank is not null") == 45
    assert built.one("select count(distinct date_key) from marts.fct_movie_metrics") >= 4
    lists = "select count(distinct brand) from raw_brands.brand_releases"
    assert built.one(lists) == 24


def test_every_top_release_finds_its_film_and_rivals_do_not_win(built):
    missing = built.rows(
        "select brand_name, top_release_title from marts.dim_brand as brands"
        " where index_rank is not null and not exists ("
        "select from marts.bridge_brand_movie as bridge where"
        " bridge.brand_key = brands.brand_key and bridge.is_top_release)"
    )
    assert missing == []
    years = dict(
        built.rows(
            "select brand_name, extract(year from release_date)::int from marts.bridge_brand_movie"
            " join marts.dim_brand using (brand_key) join marts.dim_movie using (movie_key)"
            " where is_top_release"
        )
    )
    # of same-title rivals the one that the index means
    assert years["Vertigo Entertainment"] == 2017  # It, not the one of 1990
    assert years["MTV"] == 2005  # The Longest Yard, not the one of 1974
    assert years["MonsterVerse"] == 2014  # Godzilla, not the one of 1998
    assert years["Lucasfilm"] == 2015  # printed with its episode number
    assert years["Blue Sky"] == 2009  # printed with a 3 that TMDB leaves out
    assert years["National Lampoon"] == 1978  # printed with the brand's name in front


def test_transactions_are_what_was_generated(built, tmp_path):
    counts = transactions.generate(100_000, 42, tmp_path / "again.jsonl")
    landed = built.one("select count(*) from raw_transactions.transactions")
    rejected = built.one("select count(*) from raw_transactions.rejects")
    assert landed + rejected == counts["lines"] == 100_000
    marked = built.one(
        "select count(*) from intermediate.int_transactions__checked"
        " where rejection_reason is not null"
    )
    assert rejected > 0
    assert marked > 0
    assert built.one("select count(*) from marts.fct_transactions") == counts["transactions"]


def test_a_second_run_lands_nothing_and_doubles_nothing(built):
    before = built.row_counts()
    assert "0 rows" in built.run()
    assert built.row_counts() == before


def test_new_rows_reach_the_marts_and_equal_a_full_refresh(built, tmp_path):
    """Later, older and equal versions of known transactions, a new one, and a broken line."""
    known = built.rows(
        "select transaction_id, event_at, amount from marts.fct_transactions"
        " order by transaction_id limit 3"
    )
    (later, at_1, _), (older, _, amount_2), (equal, at_3, amount_3) = known

    def line(transaction_id: str, event_ts: str, amount: float, **more) -> str:
        return json.dumps(
            {
                "transaction_id": transaction_id,
                "event_ts": event_ts,
                "user_id": 7,
                "amount": amount,
                "merchant": "Amazon",
                "currency": "EUR",
                "status": "APPROVED",
                **more,
            }
        )

    new = "0d3b7a52-5d0c-4a37-8f0e-3f1f3f6f0c11"
    lines = [
        line(later, f"{at_1.date().replace(year=at_1.year + 1)}T00:00:00Z", 1.25),
        line(older, "2020-01-01T00:00:00Z", 2.5),
        line(equal, f"{at_3:%Y-%m-%dT%H:%M:%S.%f}Z", float(amount_3)),
        line(new, "2023-07-14T23:30:00-02:00", 3.75, city="Lyon"),
        '{"transaction_id": "not a uuid"}',
    ]
    file = tmp_path / "new.jsonl"
    file.write_text("\n".join(lines) + "\n")

    built.marquee("ingest", "transactions", str(file))
    built.dbt("build", "--select", "source:transactions+")
    fact = {
        row[0]: row[1:]
        for row in built.rows(
            "select transaction_id, amount, event_at::text from marts.fct_transactions"
        )
    }
    assert fact[later][0] == Decimal("1.25")
    assert fact[older][0] == amount_2
    assert fact[equal][0] == amount_3
    assert fact[new] == (Decimal("3.75"), "2023-07-15 01:30:00")

    incremental = built.rows("select * from marts.fct_transactions order by transaction_id")
    built.dbt("build", "--select", "fct_transactions", "--full-refresh")
    assert built.rows("select * from marts.fct_transactions order by transaction_id") == incremental


def test_a_broken_row_fails_the_build(built):
    """The tests of the project can fail: an orphan in a fact is found."""
    built.execute("update marts.fct_transactions set merchant_key = 'nobody' where amount = 1.25")
    try:
        done = built.dbt("test", "--select", "fct_transactions", check=False)
        assert done.returncode == 1
        assert "relationships_fct_transactions_merchant_key" in done.stdout
    finally:
        built.dbt("build", "--select", "fct_transactions", "--full-refresh")


def test_another_target_has_prefixed_schemas(built):
    built.dbt("run", "--target", "other", "--select", "stg_brands__brands")
    assert built.one("select count(*) from other_staging.stg_brands__brands") == 45


def test_freshness_is_read_from_the_load_id(built):
    done = built.dbt("source", "freshness", check=False)
    assert "PASS freshness of transactions.transactions" in done.stdout, done.stdout


def test_the_password_is_nowhere_in_what_a_run_leaves(built):
    found = subprocess.run(
        ["grep", "-rl", built.password, str(built.folder)],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    assert [path for path in found if not path.endswith("profiles.yml")] == []
