"""A warehouse that was built by another version of the project, from other seeds or variables.

``make test-upgrade`` builds warehouses with earlier commits of this repository, each with its own
code, and upgrades them.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from psycopg2 import sql

from ingestion import raw_tables
from ingestion.errors import UserError
from ingestion.tests.built import BIN, Built
from ingestion.tests.conftest import execute, reachable_folder
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.paths import PROJECT_DIR

PARTS = ("models", "macros", "seeds", "snapshots", "tests", "docs", "dbt_packages")
BUILD = ("build", "--exclude-resource-type", "test", "--exclude-resource-type", "unit_test")
CARDS = (
    *("--select", "resource_type:seed", "models/staging/transactions"),
    *("models/intermediate/transactions", "models/marts/transactions"),
)
REBUILT = re.compile(r"(\S+) is rebuilt in full")
CHECKED = "intermediate.int_transactions__checked"
FACT = "marts.fct_transactions"
# CHECKED, and the incremental models that follow from it
KEPT = {
    CHECKED,
    FACT,
    "intermediate.int_transactions__attributes",
    "intermediate.int_transaction_days__touched",
    "marts.daily_merchants",
    "marts.daily_transactions",
    "marts.fct_transaction_status_changes",
    "marts.hourly_transactions",
    "marts.rejected_transactions",
}


# the first commit whose `make run` worked, one in between, and the last one before upgrades worked
EARLIER = ("bb6c86c", "05ebadb", "8865083")
RAW = "('raw_brands', 'raw_tmdb', 'raw_transactions')"


@dataclass
class Edited(Built):
    """A copy of a built warehouse, and a copy of the project whose files may be edited."""

    @property
    def project(self) -> Path:
        return self.folder / "project"

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.project / name
        text = path.read_text()
        assert old in text, (name, old)
        path.write_text(text.replace(old, new))

    def start_build(self) -> subprocess.Popen:
        return subprocess.Popen(
            [BIN / "dbt", *BUILD, "--project-dir", str(self.project), *CARDS],
            cwd=PROJECT_DIR,
            env=self.environment,
            stdout=subprocess.DEVNULL,
        )

    def build(self, *args: str, check: bool = True) -> set[str]:
        """Build all but tests; names of the models that were rebuilt in full by themselves."""
        done = self.dbt(*BUILD, "--project-dir", str(self.project), *args, check=check)
        return set(REBUILT.findall(done.stdout))

    def incremental_models(self) -> set[str]:
        nodes = json.loads((self.target_path / "manifest.json").read_text())["nodes"].values()
        return {
            f"{node['schema']}.{node['alias']}"
            for node in nodes
            if node["config"]["materialized"] == "incremental"
        }

    def is_as_a_full_refresh(self, *args: str) -> None:
        before = contents(self)
        self.build("--full-refresh", *args)
        assert contents(self) == before


def contents(warehouse: Built) -> dict[str, str]:
    """A digest of every table that dbt has made."""
    digest = "select md5(string_agg(t::text, '|' order by t::text)) from {} as t"
    names = warehouse.rows(
        "select schemaname || '.' || tablename from pg_tables where schemaname in"
        " ('seeds', 'intermediate', 'marts', 'snapshots') order by 1"
    )
    return {name: warehouse.one(digest.format(name)) for (name,) in names}


@pytest.fixture
def edited(built: Built, tmp_path: Path) -> Iterator[Edited]:
    name = sql.Identifier(f"test_{uuid.uuid4().hex[:12]}")
    template = sql.Identifier(built.target.dbname)
    admin = replace(built.target, dbname="postgres")
    execute(admin, sql.SQL("create database {} template {}").format(name, template))
    warehouse = Edited(replace(built.target, dbname=name.string), tmp_path)
    try:
        warehouse.write_profile()
        for part in PARTS:
            shutil.copytree(PROJECT_DIR / part, warehouse.project / part)
        shutil.copy(PROJECT_DIR / "dbt_project.yml", warehouse.project)
        yield warehouse
    finally:
        execute(admin, sql.SQL("drop database {} with (force)").format(name))


def test_what_changed_is_rebuilt_by_itself_and_nothing_else(edited: Edited) -> None:
    """Seeds, a variable and a macro, one after another; then all is as a full refresh."""
    # a seed, read through a dimension; and comments, which change nothing
    edited.edit("seeds/merchant_brands.csv", "Amazon,", "Uber,Pixar\nAmazon,")
    edited.edit("macros/cross_db/date_key.sql", "Key of dim_date", "The key of dim_date")
    edited.edit("models/marts/transactions/fct_transactions.sql", "-- by the", "-- up to the")
    assert edited.build(*CARDS) == {"marts.daily_merchants"}

    # a seed with a column more, read through a view
    seed = edited.project / "seeds" / "amount_buckets.csv"
    head, *lines = seed.read_text().replace("100", "120").splitlines()
    seed.write_text("\n".join([f"{head},remark", *(f"{line},new" for line in lines)]) + "\n")
    of_fact = {FACT, *(f"marts.{name}" for name in ("daily_merchants", "daily_transactions"))}
    of_fact.add("marts.hourly_transactions")
    assert edited.build(*CARDS) == of_fact
    edited.is_as_a_full_refresh(*CARDS)

    # the same seed without the column, and with a type of its own; a variable besides
    seed.write_text("\n".join([head, *lines]) + "\n")
    edited.edit("seeds/_seeds.yml", "numeric(18,4)", "numeric(20,4)")
    hours = (*CARDS, "--vars", "{transactions_future_tolerance_hours: -100000}")
    assert edited.build(*hours) == KEPT
    edited.is_as_a_full_refresh(*hours)

    # what only incremental steps run
    edited.edit(
        "macros/incremental/touched.sql",
        "select dlt_load_id from",
        "select distinct dlt_load_id from",
    )
    assert edited.build(*hours) == KEPT
    assert not edited.build(*hours)


def test_a_rebuild_that_was_killed_is_repeated(edited: Edited) -> None:
    edited.edit("seeds/merchant_brands.csv", "Amazon,", "Uber,Pixar\nAmazon,")
    with closing(edited.target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("select from marts.daily_merchants")  # a swap waits for it
        process = edited.start_build()
        while not edited.one(
            "select count(*) from pg_locks where relation = 'marts.daily_merchants'::regclass"
            " and not granted"
        ):
            assert process.poll() is None
            time.sleep(0.1)
        process.kill()
        process.wait()
    assert edited.build(*CARDS) == {"marts.daily_merchants"}


def test_a_warehouse_without_fingerprints_is_rebuilt(edited: Edited) -> None:
    """As every version before them left it: columns missing or more, other kinds of relations."""
    edited.execute(f"""
        drop table intermediate.fingerprints;
        alter table {FACT} drop column amount_bucket cascade, add column new_bucket text;
        alter table seeds.currencies rename column currency_code to code;
        drop table marts.dim_date cascade;
        create view marts.dim_date as select 1 as one;
        drop view intermediate.int_transactions__bucketed cascade;
        create table intermediate.int_transactions__bucketed as select 1 as one;
        alter table snapshots.snp_tmdb__movies drop column imdb_id cascade;
    """)
    snapshots = "select count(*), min(dbt_valid_from) from snapshots.snp_tmdb__movies"
    before = edited.rows(snapshots)
    assert edited.build() == edited.incremental_models()
    edited.is_as_a_full_refresh()
    assert edited.rows(snapshots) == before
    assert not edited.build()


def test_raw_tables_of_an_older_release_get_its_columns(edited: Edited) -> None:
    """Also where nothing new lands; dbt says what to do where a load has not done it."""
    edited.execute("""
        alter table raw_transactions.files drop column replay_of cascade, drop column etag;
        alter table raw_tmdb.movies__genres drop column name cascade;
        drop table raw_tmdb.removed_movies cascade;
        drop table raw_tmdb.movies__crew cascade;
        drop table raw_tmdb.movies__alternative_titles cascade;
    """)
    rows = "select count(*) from raw_transactions.files"
    before = edited.one(rows)
    refused = edited.dbt("run", "--select", "staging", check=False)
    assert refused.returncode
    tables = ("removed_movies", "movies__crew", "movies__alternative_titles")
    for name in ("files.replay_of", *(f"raw_tmdb.{table}" for table in tables), "marquee run"):
        assert name in refused.stdout
    added = raw_tables.bring_forward(edited.target)
    assert sorted(added) == [
        "raw_tmdb.movies__genres.name",
        "raw_transactions.files.etag",
        "raw_transactions.files.replay_of",
    ]
    assert not raw_tables.bring_forward(edited.target)
    assert edited.one(rows) == before
    edited.dbt("run", "--select", "staging.transactions")
    # the next load finds them there
    edited.marquee(
        "generate", "transactions", "--rows", "50", "--out", str(edited.folder / "t.jsonl")
    )
    edited.marquee("ingest", "transactions", str(edited.folder / "t.jsonl"))
    assert edited.one(rows) == before + 1
    # as do tables, without a film that is pulled again
    edited.marquee("ingest", "tmdb")
    assert edited.one("select count(*) from raw_tmdb.movies__crew") == 0
    edited.dbt("run", "--select", "staging.tmdb", "+int_brand_releases__matched")


VIEWS = """
    create view public.mine with (security_barrier = true) as
        select user_id, amount from raw_transactions.transactions;
    create view public."My other" as select max(user_id) as "User" from public.mine;
    comment on view public.mine is 'whose';
    comment on column public."My other"."User" is 'it''s he';
    grant select on public.mine to public;
"""


def test_an_id_that_was_a_number_becomes_text_and_views_stay(edited: Edited) -> None:
    edited.execute("""
        drop view staging.stg_transactions__transactions cascade;
        alter table raw_transactions.transactions
            alter column user_id type bigint using user_id::bigint;
    """)
    edited.execute(VIEWS)
    of_views = (
        "select relname, reloptions, relacl::text, pg_get_userbyid(relowner),"
        " obj_description(oid, 'pg_class'), col_description(oid, 1)"
        " from pg_class where relnamespace = 'public'::regnamespace and relkind = 'v' order by 1"
    )
    ids = "select md5(string_agg(user_id::text, ',' order by _dlt_load_id, _file_line)) from"
    views, rows = edited.rows(of_views), edited.one(f"{ids} raw_transactions.transactions")
    edited.execute("create materialized view public.kept as select user_id from public.mine")
    with pytest.raises(UserError, match=r"public.kept reads raw_transactions.transactions.user_id"):
        raw_tables.bring_forward(edited.target)
    assert edited.rows(of_views) == views
    edited.execute("drop materialized view public.kept")

    column = "raw_transactions.transactions.user_id"
    assert raw_tables.bring_forward(edited.target) == [column]
    assert not raw_tables.bring_forward(edited.target)
    assert edited.one(f"{ids} raw_transactions.transactions") == rows
    assert edited.rows(of_views) == views
    assert edited.one('select pg_typeof("User")::text from public."My other"') == "text"

    edited.dbt("run", "--select", "staging.transactions", "int_transactions__checked")
    line = {"transaction_id": "ch_1", "event_ts": "2024-03-01T10:00:00Z", "user_id": "cus_1"}
    (edited.folder / "t.jsonl").write_text(json.dumps(line | {"amount": 5}))
    edited.marquee("ingest", "transactions", str(edited.folder / "t.jsonl"))
    assert edited.one("select count(*) from public.mine where user_id = 'cus_1'") == 1


@pytest.fixture
def earlier(request: pytest.FixtureRequest) -> Iterator[Built]:
    """An embedded warehouse that another commit's ``marquee run`` has built."""
    commit = request.param
    history = ("git", "-C", str(PROJECT_DIR), "archive", commit)
    code = subprocess.run(history, capture_output=True, check=False)
    if code.returncode:
        pytest.skip(f"The commit {commit} is not in this history: git fetch --unshallow")
    folder = reachable_folder()
    project, server = folder / "project", Server(folder / "state")
    try:
        project.mkdir()
        subprocess.run(["tar", "-x", "-C", project], input=code.stdout, check=True)
        warehouse = Built(None, folder)
        environment = warehouse.environment | {"PYTHONPATH": str(project)}
        done = subprocess.run(
            [sys.executable, "-m", "ingestion", "run"],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{commit}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        warehouse.target = server.target
        yield warehouse
    finally:
        server.delete()
        shutil.rmtree(folder)


@pytest.mark.skipif(not os.environ.get("MARQUEE_UPGRADE"), reason="make test-upgrade runs it")
@pytest.mark.parametrize("earlier", EARLIER, indirect=True)
def test_a_warehouse_of_an_earlier_commit_is_upgraded(earlier: Built) -> None:
    """All rows of raw tables and snapshots stay; marts are those of a full refresh."""
    kept = earlier.rows(
        "select schemaname, tablename from pg_tables"
        f" where schemaname = 'snapshots' or schemaname in {RAW}"
    )
    for schema, table in kept:
        earlier.execute(
            f"create schema if not exists kept_{schema};"
            f" create table kept_{schema}.{table} as table {schema}.{table}"
        )

    earlier.run()

    for schema, table in kept:
        columns = earlier.one(
            "select string_agg(quote_ident(attname) || '::text', ', ') from pg_attribute"
            f" where attrelid = 'kept_{schema}.{table}'::regclass and attnum > 0"
            " and (attname !~ '^dbt_' or attname = 'dbt_scd_id')"
        )
        lost = f"select {columns} from kept_{schema}.{table} except all select {columns} from"
        assert not earlier.rows(f"{lost} {schema}.{table} limit 3"), (schema, table)
    again = earlier.run()
    assert "in full" not in again
    before = contents(earlier)
    earlier.dbt("run", "--full-refresh")
    assert contents(earlier) == before
