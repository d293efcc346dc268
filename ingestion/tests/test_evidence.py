"""Each run leaves evidence in the schema ops, and no run fails for it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from ingestion.tests.built import BIN, Built
from ingestion.tests.test_dbt_commands import copy_of
from ingestion.tests.test_torture import PATIENCE, Site, outcome
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target

HELD = "intermediate.int_transactions__attributes"
RUN = ("dbt", "--no-use-colors", "run", "--select", "int_transactions__attributes")
INVOCATIONS = "select program, command, status from ops.invocations order by started_at"


@pytest.fixture(scope="module")
def site(built: Built, target: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A copy of the built warehouse, for runs that fail, are killed, or may not write."""
    with copy_of(built, target, tmp_path_factory.mktemp("evidence"), kind=Site) as copy:
        yield copy


@pytest.fixture
def empty(database: Target, tmp_path: Path) -> Site:
    """An empty database: nothing has been built, and there is no schema ops."""
    warehouse = Site(database, tmp_path)
    warehouse.write_profile()
    return warehouse


def last(site: Built, columns: str = "program, command, status") -> tuple:
    return site.rows(f"select {columns} from ops.invocations order by started_at desc limit 1")[0]


def file_of(folder: Path, *lines: str) -> Path:
    path = folder / f"{uuid.uuid4()}.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def line(**more: object) -> str:
    row = {"transaction_id": str(uuid.uuid4()), "event_ts": "2024-01-01T00:00:00Z"}
    return json.dumps(row | {"user_id": 1, "amount": 2.5} | more)


def test_a_run_its_steps_and_dbt_are_one_run(built: Built):
    """Of the run that filled the warehouse."""
    [(run_id, status, code)] = built.rows(
        "select run_id, status, exit_code from ops.invocations"
        " where command = 'run' and program = 'marquee' order by started_at limit 1"
    )
    assert (status, code) == ("succeeded", 0)
    tied = built.rows(
        "select program, command, status from ops.invocations"
        f" where run_id = '{run_id}' order by started_at"
    )
    assert tied == [
        ("marquee", "run", "succeeded"),
        ("dbt", "build", "succeeded"),
        ("dbt", "freshness", "succeeded"),
    ]
    steps = built.rows(
        "select step_name from ops.steps inner join ops.invocations using (invocation_id)"
        f" where run_id = '{run_id}' and steps.status = 'succeeded'"
        " and steps.ended_at >= steps.started_at order by step_number"
    )
    assert [name for (name,) in steps] == [
        line.rpartition(" s ")[0].rsplit(maxsplit=1)[0]
        for line in built.first_run.splitlines()
        if " s  " in line[22:34]
    ]
    assert len(steps) == 9


def test_rows_are_those_that_landed(built: Built):
    landed = {
        (source, table): (rows, rejected)
        for source, table, rows, rejected in built.rows(
            "select source_name, table_name, rows_landed, rows_rejected from ops.landings"
            " where invocation_id = (select invocation_id from ops.invocations"
            " where command = 'run' order by started_at limit 1)"
        )
    }
    first = "_dlt_load_id = (select min(_dlt_load_id) from raw_transactions.files)"
    for table, rejects in (("transactions", False), ("rejects", True)):
        rows = built.one(f"select count(*) from raw_transactions.{table} where {first}")
        assert landed["transactions", table] == ((0, rows) if rejects else (rows, 0))
    assert landed["brands", "brands"] == (45, 0)


def test_every_node_has_a_result_and_somebody_who_answers_for_it(built: Built):
    """What stands in run_results.json, which is still that of the build."""
    found = json.loads((built.target_path / "run_results.json").read_text())
    assert found["args"]["which"] == "build"
    nodes = {
        row["unique_id"]: (row["status"], row["failures"])
        for row in found["results"]
        if not row["unique_id"].startswith("operation.")
    }
    rows = built.rows(
        "select unique_id, status, failures, owner_name, seconds from ops.node_results"
        f" where invocation_id = '{found['metadata']['invocation_id']}'"
    )
    assert {row[0]: row[1:3] for row in rows} == nodes
    assert {row[3] for row in rows} == {
        *("Brand analytics", "Film data", "Payments data", "Warehouse team")
    }
    assert all(row[4] >= 0 for row in rows)
    sizes = built.one("select count(*) from ops.table_sizes where schema_name = 'marts'")
    assert sizes >= 20
    assert built.one("select count(distinct source_name) from ops.freshness") == 3


def test_a_command_that_documents_leaves_the_builds_results(built: Built, monkeypatch, tmp_path):
    from ingestion import dbt_runner

    artifacts = tmp_path / "target"  # of its own: other tests read those of the warehouse
    shutil.copytree(built.target_path, artifacts)
    for name, value in (built.environment | {"DBT_TARGET_PATH": str(artifacts)}).items():
        monkeypatch.setenv(name, value)
    before = (artifacts / "run_results.json").read_bytes()
    target = replace(built.target, name="dev")
    dbt_runner.dbt("docs", target, "generate", "--select", "dim_genre", label="Documenting")
    assert (artifacts / "run_results.json").read_bytes() == before
    dbt_runner.dbt("run", target, "--select", "dim_genre", label="Building")
    assert (artifacts / "run_results.json").read_bytes() != before


def test_a_failed_test_and_a_broken_model_are_there_with_the_reason(site: Site):
    name = "not_null_dim_city_city_name"
    site.execute(
        "alter table marts.dim_city alter city_name drop not null;"
        " update marts.dim_city set city_name = null where city_name = 'Lyon'"
    )
    site.dbt("test", "--select", name, check=False)
    assert last(site) == ("dbt", "test", "failed")
    assert site.rows(
        "select status, failures, owner_name from ops.node_results"
        f" where node_name = '{name}' and status = 'fail'"
    ) == [("fail", 1, "Payments data")]
    site.execute("alter table marts.dim_city rename to aside; create sequence marts.dim_city")
    try:
        assert site.dbt("build", "--select", "dim_city", check=False).returncode == 1
    finally:
        site.execute("drop sequence marts.dim_city; alter table marts.aside rename to dim_city")
    assert last(site, "status, is_partial") == ("failed", True)
    [(status, message)] = site.rows(
        "select status, message from ops.node_results where node_name = 'dim_city'"
        " and invocation_id = (select invocation_id from ops.invocations"
        " order by started_at desc limit 1)"
    )
    assert status == "error"
    assert "dim_city" in message
    site.dbt("build", "--select", "dim_city")


def test_a_load_says_what_it_landed_also_where_it_fails(site: Site, tmp_path: Path):
    file = file_of(tmp_path, line(), line(), '{"amount": 1}', line(note="more"))
    site.marquee("ingest", "transactions", str(file))
    assert last(site) == ("marquee", "ingest transactions", "succeeded")
    query = (
        "select table_name, rows_landed, rows_rejected from ops.landings"
        " where invocation_id = (select invocation_id from ops.invocations"
        " order by started_at desc limit 1) order by 1"
    )
    assert site.rows(query) == [("files", 1, 0), ("rejects", 0, 1), ("transactions", 3, 0)]
    before = site.one("select rows_landed from ops.totals where table_name = 'transactions'")
    file.write_text(line() + "\n")
    new = file_of(tmp_path, line())
    done = site.marquee("ingest", "transactions", str(file), str(new), check=False)
    assert done.returncode == 1
    said = done.stderr.removeprefix("Error: ").strip()
    assert last(site, "status, exit_code, error") == ("failed", 1, said)
    assert site.rows(query)[2] == ("transactions", 1, 0)
    after = site.one("select rows_landed from ops.totals where table_name = 'transactions'")
    assert after - before == 1


def test_a_killed_load_shows_as_running_then_as_lost(site: Site, tmp_path: Path):
    with closing(site.target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("lock table raw_transactions.files in access exclusive mode")
        process = site.start("marquee", "ingest", "transactions", str(file_of(tmp_path, line())))
        site.wait_until_held(process)
        assert last(site, "status, ended_at") == ("running", None)
        other = site.start("marquee", "ingest", "brands")
        outcome(other)
        running = "select count(*) from ops.invocations where status = 'running'"
        assert site.one(running) == 1, "who is alive is not taken for dead"
        process.kill()
        outcome(process)
        connection.rollback()
    sessions = "select count(*) from pg_locks where locktype = 'advisory' and classid = 1836020595"
    deadline = time.monotonic() + PATIENCE
    while site.one(sessions) and time.monotonic() < deadline:
        time.sleep(0.05)
    site.marquee("ingest", "brands")
    assert site.one(running) == 0
    assert site.one("select count(*) from ops.invocations where status = 'lost'") == 1


def test_a_killed_build_shows_as_running_then_as_lost(site: Site):
    with closing(site.target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"lock table {HELD} in access exclusive mode")
        process = site.start(*RUN)
        site.wait_until_held(process)
        process.kill()
        outcome(process)
        assert last(site, "command, status, ended_at") == ("run", "running", None)
    time.sleep(2)  # until the server has seen that it is gone
    site.dbt("run", "--select", "dim_genre")
    states = site.rows("select status from ops.invocations where command = 'run' order by"
                       " started_at desc limit 2")  # fmt: skip
    assert states == [("succeeded",), ("lost",)]


def test_an_interrupted_load_says_so(site: Site, tmp_path: Path):
    with closing(site.target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("lock table raw_transactions.files in access exclusive mode")
        process = site.start("marquee", "ingest", "transactions", str(file_of(tmp_path, line())))
        site.wait_until_held(process)
        process.send_signal(signal.SIGTERM)
        outcome(process)
    assert last(site, "status, ended_at is not null") == ("interrupted", True)


def test_a_scheduler_may_give_the_id(site: Site):
    site.variables["MARQUEE_RUN_ID"] = "scheduled__2026-11-29T00:00:00+00:00"
    try:
        site.marquee("ingest", "brands")
        site.dbt("run", "--select", "dim_genre")
        tied = site.rows(
            "select program from ops.invocations where run_id like 'scheduled__%' order by 1"
        )
        site.variables["MARQUEE_RUN_ID"] = "not one\n"
        done = site.marquee("ingest", "brands", check=False)
    finally:
        del site.variables["MARQUEE_RUN_ID"]
    assert tied == [("dbt",), ("marquee",)]
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 2)
    assert "MARQUEE_RUN_ID" in done.stderr


def test_another_run_id_does_not_make_dbt_read_the_project_again(site: Site):
    for _ in range(2):
        site.variables["MARQUEE_RUN_ID"] = str(uuid.uuid4())
        done = site.dbt("--debug", "run", "--select", "dim_genre")
    del site.variables["MARQUEE_RUN_ID"]
    assert "Partial parsing enabled: 0 files deleted, 0 files added, 0 files changed" in done.stdout


def test_old_evidence_goes_and_totals_stay(site: Site):
    site.execute("update ops.invocations set ended_at = now() - interval '8 days'")
    totals = site.rows("select * from ops.totals order by 1, 2")
    site.dbt("run", "--select", "dim_genre", "--vars", "{ops_keep_days: 7}")
    assert site.rows(INVOCATIONS) == [("dbt", "run", "succeeded")]
    assert site.one("select count(distinct invocation_id) from ops.node_results") == 1
    assert site.rows("select * from ops.totals order by 1, 2") == totals != []


def test_another_target_has_evidence_of_its_own(site: Site):
    before = site.rows(INVOCATIONS)
    site.dbt("run", "--target", "other", "--select", "stg_brands__brands")
    assert site.rows(INVOCATIONS) == before
    assert site.rows("select command, target_name from other_ops.invocations") == [("run", "other")]


def test_tables_of_another_release_are_brought_forward(site: Site):
    site.execute("comment on table ops.invocations is 'Marquee: evidence of runs, 0'")
    site.dbt("run", "--select", "dim_genre")
    site.execute("comment on table ops.invocations is 'Marquee: evidence of runs, 0'")
    site.marquee("ingest", "brands")
    assert last(site) == ("marquee", "ingest brands", "succeeded")


def test_what_cannot_be_written_stops_nothing(site: Site, tmp_path: Path):
    """Tables that are in use, are somebody else's, or are no tables of ours."""
    with closing(site.target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("lock table ops.invocations in access exclusive mode")
        site.dbt("run", "--select", "dim_genre")
        site.marquee("ingest", "transactions", str(file_of(tmp_path, line())))
    site.execute("alter table ops.node_results rename to aside")
    try:
        site.dbt("run", "--select", "dim_genre")
    finally:
        site.execute("alter table ops.aside rename to node_results")
    site.execute("alter schema ops rename to set_aside; create schema ops;"
                 " create table ops.steps (something_else integer)")  # fmt: skip
    try:
        site.dbt("run", "--select", "dim_genre")
        site.marquee("ingest", "brands")
        site.dbt("build", "--select", "path:models/staging/ops", "ops_runs", "ops_freshness")
        assert site.one("select count(*) from marts.ops_runs") == 0
    finally:
        site.execute("drop schema ops cascade; alter schema set_aside rename to ops")


def test_a_login_that_may_not_write_leaves_none(site: Site):
    site.execute(
        "drop role if exists evidence_reader; create role evidence_reader login password 'x';"
        " do $$ declare s text; begin foreach s in array"
        " array['staging', 'intermediate', 'marts', 'seeds', 'snapshots', 'raw_tmdb'] loop"
        " execute format('grant usage on schema %I to evidence_reader', s);"
        " execute format('grant select on all tables in schema %I to evidence_reader', s);"
        " end loop; end $$; revoke all on staging.build_lease from evidence_reader"
    )
    reader = Site(replace(site.target, user="evidence_reader", password="x"), site.folder / "r")
    reader.folder.mkdir()
    reader.write_profile()
    before = site.rows(INVOCATIONS)
    test = ("test", "--select", "dim_genre", "--vars", "{store_failures: false}")
    try:
        reader.dbt(*test)
        site.execute("revoke usage on language plpgsql from public")
        reader.dbt(*test)
    finally:
        site.execute("grant usage on language plpgsql to public")
        site.execute("drop owned by evidence_reader; drop role evidence_reader")
    assert site.rows(INVOCATIONS) == before


def test_two_that_begin_at_once_make_the_tables_once(empty: Site, tmp_path: Path):
    loads = [
        empty.start("marquee", "ingest", "brands"),
        empty.start("marquee", "ingest", "transactions", str(file_of(tmp_path, line()))),
    ]
    said = [outcome(process) for process in loads]
    assert [process.returncode for process in loads] == [0, 0], said
    assert sorted(empty.rows(INVOCATIONS)) == [
        ("marquee", "ingest brands", "succeeded"),
        ("marquee", "ingest transactions", "succeeded"),
    ]


def test_dbt_alone_makes_the_tables(empty: Site):
    empty.dbt("seed", "--select", "transaction_statuses")
    assert empty.rows(INVOCATIONS) == [("dbt", "seed", "succeeded")]
    subprocess.run(
        [BIN / "dbt", "seed", "--select", "currencies"],
        cwd=PROJECT_DIR, env=empty.environment, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    assert len(empty.rows(INVOCATIONS)) == 2
