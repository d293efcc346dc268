"""The project on DuckDB: every mart holds what PostgreSQL's does, row for row, column by column.

After a first build, after steps that add late, changed, replaced and broken rows, and after a full
refresh. What an engine computes otherwise is made alike in the models; nothing is let pass here but
what NOT_COMPARED and CLOCKS name.
"""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import time
import weakref
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import duckdb
import psutil
import pyarrow as pa
import pytest
import yaml
from adbc_driver_postgresql import dbapi

from ingestion.tests.built import BIN, Built
from ingestion.tests.test_dbt_commands import NO_TESTS, copy_of
from ingestion.tests.test_incremental import Arrivals
from ingestion.warehouse.paths import EXAMPLE, PROJECT_DIR
from ingestion.warehouse.target import Target
from serving.export import raw
from serving.export.files import typed
from serving.export.marts import Mart, batches, describe, marts_in, query_of

SCHEMAS = ("marts", "snapshots", "seeds")
# Evidence of runs is written in PostgreSQL alone (macros/operations/evidence.sql); empty on DuckDB.
NOT_COMPARED = {f"ops_{name}" for name in ("freshness", "loads", "node_results", "runs", "steps")}
NOT_COMPARED.add("ops_table_sizes")
# Of a brand that has left the index dbt writes when the snapshot was taken: whether it did is
# compared.
CLOCKS = {("snp_brands__brands", "dbt_valid_to")}
GONE, CHANGED = "Legendary Pictures", "Marvel Comics"  # brands of the sample's index


@dataclass
class Engines:
    """One copy of the built warehouse, and the DuckDB file that its raw tables are copied to."""

    postgres: Built
    duckdb: Built

    @property
    def file(self) -> Path:
        return Path(self.duckdb.variables["MARQUEE_DUCKDB"])

    @property
    def results(self) -> Path:
        return Path(self.duckdb.variables["DBT_TARGET_PATH"]) / "run_results.json"

    def rows(self, query: str) -> list[tuple]:
        with closing(duckdb.connect(self.file, read_only=True)) as connection:
            return connection.execute(query).fetchall()

    def step(self) -> str:
        """Build what has landed since on both, without tests; what dbt said on DuckDB."""
        self.postgres.dbt("build", *NO_TESTS)
        self.postgres.marquee("export", "raw")
        return self.duckdb.dbt("build", *NO_TESTS).stdout

    def differences(self) -> dict[str, list]:
        """Relations that are not equal, with columns and some rows in which they differ."""
        found = {}
        with (
            dbapi.connect(self.postgres.target.uri) as connection,
            closing(duckdb.connect(self.file, read_only=True)) as copy,
        ):
            names = [(s, name) for s in SCHEMAS for name in marts_in(connection, s)]
            assert len(names) > 40, names
            for schema, name in names:
                if name not in NOT_COMPARED:
                    there = table_of(connection, schema, name)
                    if differing := differences_in(copy, f"{schema}.{name}", there):
                        found[f"{schema}.{name}"] = differing
        return found


def table_of(connection: dbapi.Connection, schema: str, name: str) -> pa.Table:
    relation = describe(connection, schema, name)
    relation.partition = None
    query = query_of(schema, relation)
    return pa.Table.from_batches([typed(b, relation) for b in batches(connection, query)])


def differences_between(here: pa.Table, relation: str, there: pa.Table) -> list:
    """As ``differences_in``, of rows that another reader or engine has given."""
    with closing(duckdb.connect()) as copy:
        copy.execute("set timezone = 'UTC'")
        copy.register("here", here)
        copy.execute(f"create schema {relation.split('.', maxsplit=1)[0]}")
        copy.execute(f"create table {relation} as from here")
        return differences_in(copy, relation, there)


def differences_in(copy: duckdb.DuckDBPyConnection, relation: str, there: pa.Table) -> list:
    copy.register("there", there)
    columns = {row[0]: row[1] for row in copy.execute(f"describe {relation}").fetchall()}
    types = {row[0]: row[1] for row in copy.execute("describe there").fetchall()}
    if columns.keys() != types.keys() or (relation.startswith("marts.") and columns != types):
        return [columns, types]
    # a snapshot's numeric has no precision on PostgreSQL, and comes as text
    selected = [
        f'"{column}" is null as "{column}"'
        if (relation.split(".")[1], column) in CLOCKS
        else f'cast("{column}" as {kind}) as "{column}"'
        for column, kind in columns.items()
    ]

    def only(here: str, other: str, what: list[str]) -> list[tuple]:
        what = ", ".join(what)
        query = f"select {what} from {here} except all select {what} from {other} limit 3"
        return copy.execute(query).fetchall()

    rows = only("there", relation, selected) + only(relation, "there", selected)
    return [[c for c in selected if only("there", relation, [c])], rows] if rows else []


def give_target(warehouse: Built, name: str) -> None:
    """Add to the profile of a copy the target that profiles.yml.example has by this name."""
    example = yaml.safe_load(EXAMPLE.read_text("utf-8"))["marquee"]["outputs"][name]
    path = warehouse.folder / "profiles.yml"
    profile = yaml.safe_load(path.read_text("utf-8"))
    profile["marquee"]["outputs"][name] = example
    path.write_text(yaml.safe_dump(profile))


@pytest.fixture(scope="module")
def engines(
    built: Built, target: Target, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engines]:
    folder = tmp_path_factory.mktemp("duckdb")
    with copy_of(built, target, folder, kind=Built) as postgres:
        give_target(postgres, "duckdb")
        postgres.variables["MARQUEE_DUCKDB"] = str(folder / "warehouse.duckdb")
        on_duckdb = postgres.variables | {
            "DBT_TARGET": "duckdb",
            "DBT_TARGET_PATH": str(folder / "target-duckdb"),
        }
        yield Engines(postgres, Built(postgres.target, folder, variables=on_duckdb))


def test_without_raw_tables_a_build_says_how_to_get_them(engines: Engines):
    done = engines.duckdb.dbt("build", *NO_TESTS, check=False)
    assert done.returncode
    assert "Run: marquee export raw --to duckdb" in done.stdout
    assert "raw_transactions.transactions" in done.stdout


def test_the_whole_project_is_built_and_tested(engines: Engines, built: Built):
    engines.postgres.execute(
        "create schema raw_lake; create table raw_lake.files as select 1 as number"
    )
    said = engines.postgres.marquee("export", "raw").stdout
    assert "raw_transactions.transactions" in said
    assert "raw_lake" not in said, "its rows are where the lake is"
    engines.postgres.execute("drop schema raw_lake cascade")
    engines.duckdb.dbt("build")
    there, here = (
        {found["unique_id"]: found["status"] for found in json.loads(path.read_text())["results"]}
        for path in (built.target_path / "run_results.json", engines.results)
    )
    assert set(here.values()) <= {"success", "pass", "no-op"}
    kinds = {name.split(".")[0] for name in here}
    assert kinds >= {"model", "seed", "snapshot", "test", "unit_test"}
    assert here.keys() == there.keys(), "nothing is left out"


def test_a_first_build_holds_the_same(engines: Engines):
    assert engines.differences() == {}
    for name in NOT_COMPARED:
        assert engines.rows(f"select count(*) from marts.{name}") == [(0,)]
    assert engines.rows("select count(*) from marts.fct_transactions")[0][0] > 1000
    said = (
        "select comment from duckdb_columns()"
        " where table_name = 'fct_transactions' and column_name = 'amount'"
    )
    assert "currency" in engines.rows(said)[0][0]


def test_a_copy_that_cannot_be_made_says_why_and_leaves_the_last_one(engines: Engines):
    rows = "select count(*), max(_dlt_load_id) from raw_transactions.transactions"
    before = engines.rows(rows)
    refused = engines.postgres.marquee("export", "raw", "--to", "dev", check=False)
    assert refused.returncode == 1
    assert "is of type postgres, not duckdb or spark" in refused.stderr
    with closing(duckdb.connect(engines.file)):
        refused = engines.postgres.marquee("export", "raw", check=False)
    assert refused.returncode == 1
    assert f"{engines.file} cannot be written to" in refused.stderr
    assert "Close what has it open" in refused.stderr

    # what a whole copy would bring is told from what is there
    engines.postgres.execute("create table raw_transactions.aside as select 1 as number")
    killed = subprocess.Popen(
        [BIN / "marquee", "export", "raw"],
        cwd=PROJECT_DIR,
        env=engines.postgres.environment,
        stdout=subprocess.DEVNULL,
    )
    while killed.poll() is None and not _opened(killed, engines.file):
        time.sleep(0.02)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    assert engines.rows(rows) == before
    aside = "select table_name from duckdb_tables() where table_name = 'aside'"
    assert engines.rows(aside) == []
    engines.postgres.marquee("export", "raw")
    assert engines.rows(aside) == [("aside",)]
    engines.postgres.execute("drop table raw_transactions.aside")


def test_a_copy_keeps_no_rows_in_memory(
    engines: Engines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Batches go as the next ones come: DuckDB keeps what is registered until the end."""
    arrived: list[weakref.ref] = []
    alive: list[int] = []

    def noted(batch: pa.RecordBatch, table: Mart) -> pa.RecordBatch:
        alive.append(sum(earlier() is not None for earlier in arrived))
        rows = typed(batch, table)
        arrived.append(weakref.ref(rows))
        return rows

    monkeypatch.setattr(raw, "typed", noted)
    file = tmp_path / "copy.duckdb"
    rows = raw.copy_raw(engines.postgres.target, file)
    with closing(duckdb.connect(file)) as copy:
        for name, count in rows.items():
            assert copy.sql(f"select count(*) from {name}").fetchall() == [(count,)]
    assert len(arrived) > len(rows), "some table comes in several batches"
    assert max(alive) <= 1


def _opened(process: subprocess.Popen, file: Path) -> bool:
    with suppress(psutil.Error):
        return str(file) in {found.path for found in psutil.Process(process.pid).open_files()}
    return False


def land_changes(warehouse: Built, folder: Path) -> None:
    """Changed, late, broken and unread transactions, a changed index, a changed film."""
    known = warehouse.rows(
        "select transaction_id, user_id from marts.fct_transactions"
        " order by transaction_id limit 40"
    )
    file = folder / "second.csv"
    lines = ["transaction_id,event_ts,user_id,amount,merchant,status,currency"]
    for number, (transaction_id, user_id) in enumerate(known):  # changed, late, broken and unread
        amount = ["19.995", "-3", "much", "1e3"][number % 4]
        when = f"20{20 + number % 9}-02-03T04:05:06.789+01:00"
        lines.append(f"{transaction_id},{when},{user_id},{amount}, Fnac\u00a0,refunded,EUR")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    warehouse.marquee("ingest", "transactions", str(file))
    index = folder / "brands.tsv"
    sample = (Path(__file__).parents[1] / "sample/brands/brands.tsv").read_text("utf-8")
    kept = [line for line in sample.splitlines() if not line.startswith(GONE)]
    kept = [line.replace("15806336901", "15806336902") for line in kept]
    index.write_text("\n".join(kept) + "\n", encoding="utf-8")
    warehouse.marquee("ingest", "brands", str(index))
    warehouse.execute(
        "update raw_tmdb.movies set title = 'Ein anderer  Titel\u200b', runtime = 91,"
        " pulled_at = pulled_at + interval '3 days'"
        " where id = (select min(id) from raw_tmdb.movies)"
    )


def test_steps_hold_the_same(engines: Engines, tmp_path: Path):
    """Late, changed, broken and unread rows, a changed index, then replaced files."""
    land_changes(engines.postgres, tmp_path)
    arrivals = Arrivals(engines.postgres.target, random.Random(5), datetime.now(timezone.utc))
    history = [arrivals.lone_row(), arrivals.load(), arrivals.batch()]
    assert "is rebuilt in full" not in engines.step()
    assert engines.differences() == {}, history
    brand = "select count(*) from snapshots.snp_brands__brands where brand_name = '{}'"
    assert engines.rows(brand.format(CHANGED)) == [(2,)]
    assert engines.rows(f"{brand.format(GONE)} and dbt_valid_to is not null") == [(1,)]

    before = engines.rows("select max(loaded_at) from marts.fct_transactions")
    history += [arrivals.lone_row(is_replacement=True), arrivals.load(), arrivals.batch()]
    assert "is rebuilt in full" not in engines.step()
    assert engines.differences() == {}, history
    assert engines.rows("select max(loaded_at) from marts.fct_transactions") > before


def test_a_full_refresh_holds_the_same(engines: Engines):
    engines.duckdb.dbt("build", "--full-refresh", *NO_TESTS, "--exclude", "resource_type:snapshot")
    assert engines.differences() == {}


@pytest.mark.parametrize("engine", ["postgres", "duckdb"])
def test_a_rule_that_most_rows_break_fails_the_build(engines: Engines, engine: str):
    """As a function would that an engine computes otherwise: all would be rejects, and no fact."""
    warehouse: Built = getattr(engines, engine)
    broken = "{transactions_future_tolerance_hours: -9000000, films_earliest_date: '2100-01-01'}"
    marts = ("rejected_transactions", "rejected_movie_values")
    tests = ("assert_most_rows_of_a_file_keep_the_rules", "assert_most_films_keep_the_rules")
    selected = ("--select", *(f"+{mart}" for mart in marts), *tests)
    only_these = ("--indirect-selection", "empty")
    done = warehouse.dbt("build", "--vars", broken, *selected, *only_these, check=False)
    assert done.returncode == 1
    assert re.search(rf"{tests[0]} found: .* rows are marked future_timestamp", done.stdout)
    assert re.search(
        rf"{tests[1]} found: release_date: [0-9]+ of [0-9]+ films are rejected impossible_date\.",
        done.stdout,
    )
    allowed = broken[:-1] + ", transactions_max_marked_share: 1, films_max_rejected_share: 1}"
    warehouse.dbt("test", "--vars", allowed, "--select", *tests)
