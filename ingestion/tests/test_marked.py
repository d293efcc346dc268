"""Transactions that dbt marks: nobody overlooks them, and what is said to help does help."""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from psycopg2 import sql

from ingestion import marked
from ingestion.tests.built import Built
from ingestion.tests.conftest import execute
from ingestion.tests.test_upgrade import CARDS, PARTS, Edited
from ingestion.warehouse.paths import PROJECT_DIR

TEST = "assert_most_rows_of_a_file_keep_the_rules"
SOON = datetime.now(timezone.utc) + timedelta(hours=40)
# status or other values, and amount, of a file where nearly nothing is known
STATUSES = [("SUCCESS", 10), ("success ", 20), ("Success", 30), ("FAILED", 1), ("failed", 2)]
STATUSES += [("AUTHORISED", 4), ("APPROVED", 100)]
# of one where most is
MIXED = [
    {"amount": 5, "currency": "xbt"},
    {"amount": 7, "currency": "XBT", "is_fraud": True},
    {"amount": 150_000},
    {"amount": 9, "event_ts": SOON.isoformat()},
    {"amount": 11, "event_ts": "1975-06-01T12:00:00Z"},
    {"amount": -3},
    *({"amount": 1000 + n, "is_fraud": n == 3} for n in range(8)),
]


def row(number: int, **values) -> dict:
    return {
        "transaction_id": str(uuid.UUID(int=number)),
        "event_ts": "2024-02-29T12:00:00Z",
        "user_id": number,
        "status": "APPROVED",
        "currency": "EUR",
    } | values


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(f"{json.dumps(values)}\n" for values in rows))
    return path


@pytest.fixture(scope="module")
def warehouse(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edited]:
    """A copy of a built warehouse and of the project, with two files of a stranger's landed."""
    name = sql.Identifier(f"test_{uuid.uuid4().hex[:12]}")
    admin = replace(built.target, dbname="postgres")
    template = sql.Identifier(built.target.dbname)
    execute(admin, sql.SQL("create database {} template {}").format(name, template))
    folder = tmp_path_factory.mktemp("marked")
    copy = Edited(replace(built.target, dbname=name.string), folder)
    try:
        copy.write_profile()
        for part in PARTS:
            shutil.copytree(PROJECT_DIR / part, copy.project / part)
        shutil.copy(PROJECT_DIR / "dbt_project.yml", copy.project)
        statuses = [
            row(n, status=status, amount=amount) for n, (status, amount) in enumerate(STATUSES, 1)
        ]
        mixed = [row(100 + n, **values) for n, values in enumerate(MIXED)]
        files = write(folder / "statuses.jsonl", statuses), write(folder / "mixed.jsonl", mixed)
        copy.marquee("ingest", "transactions", *map(str, files))
        yield copy
    finally:
        execute(admin, sql.SQL("drop database {} with (force)").format(name))


@pytest.fixture(scope="module")
def failed(warehouse: Edited) -> str:
    """What ``marquee run`` says of them."""
    done = warehouse.marquee("run", check=False)
    assert done.returncode == 1, done.stdout
    return done.stdout + done.stderr


def facts(warehouse: Built) -> dict[int, tuple[Decimal, Decimal]]:
    """Amount and approved amount of the strangers' facts, by user."""
    found = warehouse.rows(
        "select user_id::int, amount, approved_amount from marts.fct_transactions"
        f" where file_checksum in (select _file_checksum from raw_transactions.files"
        f" where starts_with(path, '{warehouse.folder}'))"
    )
    return {user: (amount, approved) for user, amount, approved in found}


def test_a_file_that_does_not_fit_fails_the_run_with_the_remedy(warehouse: Edited, failed: str):
    text = " ".join(failed.split())
    assert f"Error: dbt build failed: {TEST}" in failed
    assert (
        f"{warehouse.folder / 'statuses.jsonl'}: 6 of 7 rows are marked unknown_status SUCCESS,"
        " FAILED, AUTHORISED. If it is right, add the status to seeds/transaction_statuses.csv,"
        " then: dbt build"
    ) in text
    # all reasons, those of files that fit as well; and the sample's
    landed = warehouse.one("select count(*) from intermediate.int_transactions__checked")
    for reason, count, values, what in (
        ("unknown_status", 46, "LOST, SUCCESS, FAILED, AUTHORISED.", "transaction_statuses.csv"),
        ("unknown_currency", 42, "EUX, XBT.", "seeds/currencies.csv"),
        ("absurd_amount", 41, "", "transactions_max_amount in dbt_project.yml"),
        ("future_timestamp", 41, "", "transactions_future_tolerance_hours"),
        ("negative_amount", 41, "", "--replace"),
        ("ancient_timestamp", 1, "1975-06-01 12:00:00.", "transactions_earliest_date"),
    ):
        said = f"{count} of {landed:,} transactions ("
        at = text.index(f"are marked {reason}: {values}")
        assert said in text[at - 60 : at], reason
        assert what in text[at : at + 400], reason


@pytest.mark.usefixtures("failed")
def test_dbt_alone_says_it_too(warehouse: Edited):
    select = ("--project-dir", str(warehouse.project), "--select", TEST)
    done = warehouse.dbt("test", *select, check=False)
    assert done.returncode == 1
    assert f"{TEST} found: {warehouse.folder / 'statuses.jsonl'}: 6 of 7 rows" in done.stdout
    assert "add the status to seeds/transaction_statuses.csv, then: dbt build" in done.stdout
    # more than a share may be marked, not that share; in the other file 6 of 14 are
    for share, rows in (("0.857", 1), ("0.858", 0), ("0.42", 7), ("0.43", 1), ("1", 0)):
        variables = f"{{transactions_max_marked_share: {share}}}"
        done = warehouse.dbt("test", *select, "--vars", variables, check=False)
        assert done.returncode == bool(rows), share
        assert done.stdout.count(f"{TEST} found: ") == min(rows, 5), share


@pytest.mark.usefixtures("failed")
def test_the_rest_of_the_file_is_in_the_facts(warehouse: Edited):
    assert facts(warehouse) == {
        7: (100, 100),
        **{106 + n: (1000 + n, 1000 + n) for n in range(8)},
    }


@pytest.mark.usefixtures("failed")
def test_marked_rows_are_listed_shown_and_exported(warehouse: Edited):
    listed = warehouse.marquee("rejects").stdout
    unread, _, of_dbt = listed.partition("Marked by dbt")
    assert "unknown_status" not in unread
    assert "not_json" in unread  # of the sample
    (line,) = [text for text in of_dbt.splitlines() if text.startswith("unknown_currency  ")]
    assert line.split()[1:4] == ["42", "0.04", "%"]
    assert line.endswith("  EUX, XBT")
    assert f"{warehouse.folder / 'mixed.jsonl'} " in line
    assert "unknown_status: If it is right, add the status to" in of_dbt

    shown = warehouse.marquee("rejects", "show", "--reason", "ancient_timestamp").stdout
    where = f"{warehouse.folder / 'mixed.jsonl'}:5"
    assert shown.splitlines() == [
        f"{where}  marked ancient_timestamp: 1975-06-01 12:00:00",
        f"    {uuid.UUID(int=104)}, 1975-06-01 12:00:00, 11.0000 EUR",
    ]
    both = warehouse.marquee("rejects", "show", "--limit", "1000").stdout
    assert both.count("  marked ") == 212
    assert both.index("not_json: ") < both.index("  marked ")
    assert "  marked " not in warehouse.marquee("rejects", "show", "--source", "brands").stdout

    lists = warehouse.folder / "marked.csv"
    said = warehouse.marquee("rejects", "export", str(lists), "--marked").stdout
    assert said.startswith(f"212 marked rows are in {lists}.")
    head, *lines = lists.read_text().splitlines()
    assert head.startswith("reason_code,broken_value,file,line,transaction_id")
    assert sum(text.startswith("unknown_status,SUCCESS,") for text in lines) == 3
    # they are told apart from those that can be replayed
    to_correct = warehouse.folder / "correct.txt"
    warehouse.marquee("rejects", "export", str(to_correct))
    assert "unknown_status" not in to_correct.read_text()
    done = warehouse.marquee("rejects", "replay", str(lists), check=False)
    assert done.returncode == 1
    done = warehouse.marquee(
        *("rejects", "export", str(lists) + "2", "--reason", "unknown_status"), check=False
    )
    assert "For rows that are marked: --marked" in done.stderr


@pytest.mark.usefixtures("failed")
def test_each_remedy_makes_facts_of_the_marked_rows(warehouse: Edited):
    """By a plain build, whatever flags and case a new status has."""
    seeds = warehouse.project / "seeds"
    with (seeds / "transaction_statuses.csv").open("a") as file:
        file.write("SUCCESS,Paid,true,true\nfailed,Not paid,false,true\n")
        file.write("Authorised,Paid for now,true,false\n")
    select = ("--project-dir", str(warehouse.project), *CARDS)
    done = warehouse.dbt("build", *select)
    assert "intermediate.int_transactions__checked is rebuilt in full" in done.stdout
    approved = {1: 10, 2: 20, 3: 30, 4: 0, 5: 0, 6: 4, 7: 100}
    found = facts(warehouse)
    assert {user: found[user] for user in approved} == {
        user: (amount, approved[user]) for user, (_, amount) in enumerate(STATUSES, 1)
    }
    assert warehouse.rows(
        "select transaction_status, sum(transaction_count), sum(approved_amount)"
        " from marts.daily_transactions where transaction_status in"
        " ('SUCCESS', 'FAILED', 'AUTHORISED') group by 1 order by 1"
    ) == [("AUTHORISED", 1, 4), ("FAILED", 2, 0), ("SUCCESS", 3, 60)]

    with (seeds / "currencies.csv").open("a") as file:
        file.write("xbt,\n")
    warehouse.edit("dbt_project.yml", "max_amount: 100000", "max_amount: 150000")
    warehouse.edit("dbt_project.yml", "tolerance_hours: 24", "tolerance_hours: 48")
    warehouse.edit("dbt_project.yml", '_earliest_date: "1980', '_earliest_date: "1970')
    warehouse.edit("dbt_project.yml", "extra_fields: []", "extra_fields: [is_fraud, Amount]")
    warehouse.dbt("build", *select)
    found = facts(warehouse)
    expected = {100 + n: values["amount"] for n, values in enumerate(MIXED)}
    assert {user: found.get(user, (None,))[0] for user in expected} == expected | {105: None}
    (left,) = [
        rule for rule in marked.by_reason(warehouse.target) if rule.reason_code == "negative_amount"
    ]
    assert left.rows == 41
    assert warehouse.rows(
        "select count(*) from marts.rejected_transactions where rejection_stage = 'marked'"
        f" and starts_with(file_name, '{warehouse.folder}')"
    ) == [(1,)]
    warehouse.is_as_a_full_refresh(*CARDS)

    # fields beyond the contract are in the fact, and columns where a variable names them
    fraud = "from marts.transactions_with_extra_fields where is_fraud is not null group by 1"
    assert warehouse.rows(f"select is_fraud, count(*), sum(amount) {fraud} order by 1") == [
        ("false", 7, sum(1000 + n for n in range(8) if n != 3)),
        ("true", 2, 1003 + 7),
    ]
    assert warehouse.rows(
        "select user_id::int from marts.fct_transactions where extra_fields::jsonb -> 'is_fraud'"
        " = 'true' order by 1"
    ) == [(101,), (109,)]


@pytest.mark.usefixtures("failed")
def test_a_row_alone_fails_no_build(warehouse: Edited):
    path = write(warehouse.folder / "one.jsonl", [row(900, amount=1, status="NEVER SEEN")])
    warehouse.marquee("ingest", "transactions", str(path))
    select = ("--project-dir", str(warehouse.project), *CARDS)
    warehouse.dbt("run", *select)
    done = warehouse.dbt(
        "test", "--select", TEST, "--project-dir", str(warehouse.project), check=False
    )
    assert "one.jsonl" not in done.stdout
    assert warehouse.rows(
        "select broken_value from marts.rejected_transactions where file_name = " + f"'{path}'"
    ) == [("NEVER SEEN",)]
