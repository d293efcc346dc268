"""Every dbt command and flag that dbt-postgres supports works here, and none loses anything.

All run on one copy of a warehouse, one after the other; afterwards a plain ``dbt build`` must give
what a full refresh gives.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from psycopg2 import sql

from ingestion.tests.built import Built
from ingestion.tests.conftest import execute
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target

# {state}: the artifacts of a build.
COMMANDS = [
    "build --empty",
    "run --empty --select +dim_city",
    "build --empty --full-refresh --select +dim_city +brand_performance",
    "snapshot --empty",
    "snapshot",
    "run --sample=3_days --select source:transactions+",
    "run --sample={{'start':'2024-01-01','end':'2024-02-01'}} --select +dim_movie",
    "run --full-refresh --select stg_transactions__loads+ --fail-fast",
    "build --fail-fast --threads 1 --select path:models/staging",
    "build --target other --select +hourly_transactions --exclude-resource-type unit_test"
    " --indirect-selection buildable",
    "run --target other --defer --state {state} --select fct_transactions",
    "run --target other --defer --state {state} --favor-state --select daily_transactions",
    "run --target other --defer --defer-state {state} --select brand_performance",
    # what ran in part, or over nothing, is put right by a build
    "build --exclude-resource-type test unit_test",
    "clone --target other --state {state}",
    "clone --target other --state {state} --full-refresh --select marts",
    "compile",
    "compile --select +brand_performance --no-populate-cache",
    "compile --inline {{{{ref('dim_city')}}}}",
    "compile --no-introspect --select path:models/staging",
    "compile --empty",
    "show --select fct_transactions --limit 3",
    "show --select brand_performance --output json",
    "show --inline select*from{{{{ref('dim_city')}}}}",
    "list",
    "list --output json",
    "list --output name --resource-type model",
    "list --output path",
    "list --output selector",
    "list --output json --output-keys name,alias,config",
    "ls --select state:modified+ --state {state}",
    "ls --select result:success --state {state}",
    "ls --models source:transactions+",
    "ls --exclude tag:nothing config.materialized:incremental",
    "parse",
    "parse --no-partial-parse",
    "parse --no-static-parser",
    "parse --warn-error",
    '--warn-error-options {{"error":"all"}} parse',
    '--warn-error-options {{"error":["Deprecations"]}} compile --select dim_city',
    "test --select path:tests/transactions",
    "test --store-failures --select dim_movie_history",
    "test --select source:*",
    "test --select test_type:unit",
    "test --select fct_transactions --indirect-selection cautious",
    "test --select fct_transactions --indirect-selection buildable",
    "test --select fct_transactions --indirect-selection empty",
    "test --exclude-resource-type unit_test --select dim_brand",
    "seed --full-refresh",
    "source freshness",
    "source freshness --select source:tmdb --output {state}/sources_alone.json",
    "build --select source_status:fresher+ --state {state}",
    "docs generate",
    "docs generate --empty-catalog",
    "docs generate --static --no-compile",
    "docs generate --select marts",
    "run-operation make_roles",
    "debug",
    "debug --connection",
    "debug --config-dir",
    "build --resource-type seed --resource-type snapshot",
    "build --exclude-resource-type test unit_test --select stg_brands__files+",
    "build --no-populate-cache --select dim_city",
    "build --cache-selected-only --select dim_city",
    "build --no-partial-parse --select dim_city",
    "build --single-threaded --select dim_city",
    "build --select dim_city --log-format json --log-level debug --print --no-write-json",
    "build --no-defer --export-saved-queries --select dim_category",
    "run --vars {{'transactions_max_amount':100000}} --select +rejected_transactions",
    "run --select marts --exclude path:models/marts/transactions",
    "run --no-fail-fast --no-version-check --no-use-fast-test-edges --select dim_genre",
    "run --profile marquee --target dev --select dim_genre",
    "--quiet run --select dim_genre --no-send-anonymous-usage-stats",
    "run --event-time-start 2024-01-01 --event-time-end 2024-02-01 --select dim_genre",
]


class Copy(Built):
    """A copy of the built warehouse, which dbt in this process builds."""

    def marts(self) -> dict[str, tuple]:
        """Rows of each mart and snapshot, and a sum over them."""
        tables = self.rows(
            "select schemaname || '.' || tablename from pg_tables"
            " where schemaname in ('marts', 'snapshots') order by 1"
        )
        row = "hashtextextended(here::text, 0)::numeric"
        return {t: self.rows(f"select count(*), sum({row}) from {t} as here")[0] for (t,) in tables}

    def invoke(self, *words: str, works: bool = True, callbacks: list | None = None):
        from dbt.cli.main import dbtRunner
        from dbt.deprecations import reset_deprecations

        reset_deprecations()  # those of the command before are not this one's
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            patch.chdir(PROJECT_DIR)
            done = dbtRunner(callbacks=callbacks or []).invoke(["--no-use-colors", *words])
        if works:
            results = getattr(done.result, "results", None) or []
            failed = [f"{r.node.name}: {r.message}" for r in results if r.status in FAILURES]
            assert done.success, (done.exception, failed)
        return done


FAILURES = ("error", "fail", "runtime error")
NO_TESTS = ("--exclude-resource-type", "test", "--exclude-resource-type", "unit_test")


@contextmanager
def copy_of(
    built: Built, target: Target, folder: Path, kind: type[Built] = Copy
) -> Iterator[Built]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    made, template = map(sql.Identifier, (name, built.target.dbname))
    execute(target, sql.SQL("create database {} template {}").format(made, template))
    copy = kind(replace(target, dbname=name), folder)
    copy.write_profile()
    try:
        yield copy
    finally:
        execute(target, sql.SQL("drop database {} with (force)").format(made))


@pytest.fixture(scope="module")
def warehouse(
    built: Built, target: Target, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Copy]:
    with copy_of(built, target, tmp_path_factory.mktemp("commands")) as copy:
        copy.invoke("source", "freshness", works=False)
        copy.invoke("docs", "generate")
        copy.invoke("build", *NO_TESTS)
        shutil.copytree(copy.target_path, copy.folder / "state")
        yield copy


@pytest.fixture(scope="module")
def before(warehouse: Copy) -> dict[str, tuple]:
    """What the marts hold before the first of the commands."""
    return warehouse.marts()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_works(command: str, warehouse: Copy, before):
    assert before
    words = command.format(state=warehouse.folder / "state").split(" ")
    words = [w.replace("_days", " days").replace("select*from", "select * from ") for w in words]
    warehouse.invoke(*words)


def test_a_full_refresh_of_some_models_leaves_the_views_of_others(warehouse: Copy):
    views = "select count(*) from pg_views where schemaname in ('staging', 'intermediate')"
    warehouse.invoke("build", *NO_TESTS)
    before = warehouse.one(views)
    assert before > 20
    warehouse.invoke("run", "--full-refresh", "--select", "stg_tmdb__loads", "stg_tmdb__movies")
    warehouse.invoke("run", "--full-refresh", "--select", "stg_brands__loads", "dim_genre")
    assert warehouse.one(views) == before
    warehouse.execute("alter table staging.stg_brands__loads add column odd text")
    warehouse.invoke("run", "--full-refresh", "--select", "stg_brands__loads+")
    columns = "select count(*) from information_schema.columns where table_name = '{}'"
    assert warehouse.one(columns.format("stg_brands__loads")) == 3
    assert warehouse.one(views) == before


def test_retry_goes_on_after_a_failure(warehouse: Copy):
    warehouse.execute(
        "alter table marts.dim_city rename to dim_city_aside;"
        " create sequence marts.dim_city"  # a name that is taken
    )
    try:
        assert not warehouse.invoke("run", "--select", "dim_city+", works=False).success
    finally:
        warehouse.execute("drop sequence marts.dim_city")
        warehouse.execute("alter table marts.dim_city_aside rename to dim_city")
    again = warehouse.invoke("retry")
    assert "dim_city" in {result.node.name for result in again.result.results}


def test_after_all_of_them_nothing_is_lost(warehouse: Copy, before):
    """A build gives what a full refresh gives, and what was there before, history included."""
    warehouse.invoke("build", "--empty")
    warehouse.invoke("snapshot")  # beside tables that are empty
    warehouse.invoke("build", *NO_TESTS)
    assert warehouse.marts() == before
    warehouse.invoke("build", "--full-refresh")
    assert warehouse.marts() == before


def test_a_first_build_that_is_empty_is_filled_by_the_next(
    built: Built, target: Target, tmp_path: Path
):
    with copy_of(built, target, tmp_path) as copy:
        before = copy.marts()
        for schema in ("staging", "intermediate", "marts", "snapshots", "seeds"):
            copy.execute(f"drop schema {schema} cascade")
        copy.invoke("build", "--empty")
        assert copy.one("select count(*) from marts.fct_transactions") == 0
        copy.invoke("build")
        after = copy.marts()
        # a version's key tells when it was first seen
        history = {t for t in before if t.startswith("snapshots.") or "movie" in t}
        assert {t: v for t, v in after.items() if t not in history} == {
            t: v for t, v in before.items() if t not in history
        }
        assert {t: v[0] for t, v in after.items()} == {t: v[0] for t, v in before.items()}
