"""The project on Apache Spark and Iceberg: every mart holds what PostgreSQL's does, row for row.

``make test-spark`` runs it, in an environment that has Spark. Spark is a real server with two
executors, reached by Spark Connect; the tables are Iceberg's. After a first build, and after a step
that adds late, changed, replaced and broken rows.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import date, datetime, timezone
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
import yaml
from adbc_driver_postgresql import dbapi

from ingestion.errors import UserError
from ingestion.sample.transactions import generate
from ingestion.tests.built import Built
from ingestion.tests.iceberg_reader import IS_THERE as CAN_DUCKDB
from ingestion.tests.iceberg_reader import read_by_duckdb
from ingestion.tests.test_dbt_commands import NO_TESTS, copy_of
from ingestion.tests.test_duckdb import (
    CHANGED,
    GONE,
    NOT_COMPARED,
    SCHEMAS,
    differences_between,
    give_target,
    land_changes,
    table_of,
)
from ingestion.tests.test_incremental import Arrivals
from ingestion.warehouse.target import Target
from serving.export.marts import marts_in
from serving.spark.server import NAME, Server, java_home

pytestmark = pytest.mark.skipif(
    not os.environ.get("MARQUEE_SPARK_TESTS"), reason="make test-spark has an environment for it"
)


@dataclass
class Engines:
    """One copy of the built warehouse, and the Spark that its raw tables are copied to."""

    postgres: Built
    spark: Built
    server: Server

    @property
    def results(self) -> Path:
        return Path(self.spark.variables["DBT_TARGET_PATH"]) / "run_results.json"

    def rows(self, query: str) -> list[tuple]:
        return [tuple(row.values()) for row in self.arrow(query).to_pylist()]

    def arrow(self, query: str) -> pa.Table:
        return asked(self.server, query)

    def step(self) -> str:
        """Build what has landed since on both, without tests; what dbt said on Spark."""
        self.postgres.dbt("build", *NO_TESTS)
        self.postgres.marquee("export", "raw", "--to", "spark")
        return self.spark.dbt("build", *NO_TESTS).stdout

    def differences(self) -> dict[str, list]:
        """Relations that are not equal, with columns and some rows in which they differ."""
        found = {}
        with dbapi.connect(self.postgres.target.uri) as connection:
            names = [(s, name) for s in SCHEMAS for name in marts_in(connection, s)]
            assert len(names) > 40, names
            for schema, name in names:
                if name in NOT_COMPARED:
                    continue
                relation = f"{schema}.{name}"
                here = self.arrow(f"select * from {relation}")
                there = table_of(connection, schema, name)
                if differing := differences_between(here, relation, there):
                    found[relation] = differing
        return found


def asked(server: Server, query: str, settings: dict[str, str] | None = None) -> pa.Table:
    """What Spark answers in a session with these settings."""
    from pyspark.sql import SparkSession

    session = SparkSession.builder.remote(server.address).create()
    try:
        for name, value in (settings or {}).items():
            session.conf.set(name, value)
        return in_utc(session.sql(query).toArrow())
    finally:
        session.stop()


def in_utc(found: pa.Table) -> pa.Table:
    """The same, with moments of UTC that do not say so, as PostgreSQL's are."""
    for at, column in enumerate(found.schema):
        if pa.types.is_timestamp(column.type) and column.type.tz:
            plain = found.column(at).cast(pa.timestamp("us"))
            found = found.set_column(at, column.name, plain)
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if importlib.util.find_spec("pyspark") is None:
        pytest.skip("there is no Spark in this environment: make test-spark makes one")
    try:
        java_home()
    except UserError:
        pytest.skip("there is no Java")
    started = Server(tmp_path_factory.mktemp("spark"), port=0)
    try:
        started.start()
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="module")
def engines(
    server: Server, built: Built, target: Target, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engines]:
    folder = tmp_path_factory.mktemp("project")
    with copy_of(built, target, folder, kind=Built) as postgres:
        give_target(postgres, "spark")
        postgres.variables["MARQUEE_SPARK"] = server.address
        postgres.variables["MARQUEE_SPARK_RAW"] = str(folder / "raw")
        on_spark = postgres.variables | {
            "DBT_TARGET": "spark",
            "DBT_TARGET_PATH": str(folder / "target-spark"),
        }
        yield Engines(postgres, Built(postgres.target, folder, variables=on_spark), server)


def test_the_whole_project_is_built_and_tested(engines: Engines, built: Built):
    said = engines.postgres.marquee("export", "raw", "--to", "spark").stdout
    assert "raw_transactions.transactions" in said
    engines.spark.dbt("build")
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
    comments = {row[0]: row[2] for row in engines.rows("describe marts.fct_transactions")}
    assert "currency" in comments["amount"]


@pytest.mark.parametrize("mart", ["fct_transactions", "brand_performance", "dim_movie"])
def test_others_read_the_marts(engines: Engines, mart: str, tmp_path: Path):
    """By the catalogue, as Iceberg's tables: pyiceberg, and DuckDB's own reader."""
    sql_catalog = pytest.importorskip("pyiceberg.catalog.sql")
    catalogue = sql_catalog.SqlCatalog(
        NAME, uri=f"sqlite:///{engines.server.folder / 'catalog.db'}"
    )
    table = catalogue.load_table(("marts", mart))
    found = {"pyiceberg": in_utc(table.scan().to_arrow())}
    if CAN_DUCKDB:
        found["DuckDB"] = in_utc(read_by_duckdb(table.metadata_location, tmp_path))
    with dbapi.connect(engines.postgres.target.uri) as connection:
        there = table_of(connection, "marts", mart)
    for reader, rows in found.items():
        assert rows.num_rows > 10
        assert differences_between(rows, f"marts.{mart}", there) == [], reader


def test_a_null_where_the_contract_allows_none_fails_the_build(engines: Engines):
    """Iceberg would take it: the query itself fails, and the table stays as it was."""
    mart, seed = "dim_transaction_status", "seeds.transaction_statuses"
    before = engines.arrow(f"select * from marts.{mart} order by 1")
    engines.arrow(
        f"update {seed} set status_description = null where transaction_status = 'PENDING'"
    )
    done = engines.spark.dbt("run", "--select", mart, check=False)
    assert done.returncode == 1
    assert f"marts.{mart}.status_description must not be null" in done.stdout
    assert engines.arrow(f"select * from marts.{mart} order by 1") == before
    engines.spark.dbt("seed", "--select", "transaction_statuses")
    engines.spark.dbt("run", "--select", mart)


def test_freshness_of_sources_is_told(engines: Engines):
    done = engines.spark.dbt("source", "freshness", check=False)
    sources = engines.results.with_name("sources.json")
    found = json.loads(sources.read_text())["results"]
    assert found, done.stdout
    assert {result["status"] for result in found} <= {"pass", "warn", "error"}, done.stdout


def test_a_step_holds_the_same(engines: Engines, tmp_path: Path):
    """Late, changed, broken, unread and replaced rows, a changed index."""
    before = engines.rows("select max(loaded_at) from marts.fct_transactions")
    land_changes(engines.postgres, tmp_path)
    arrivals = Arrivals(engines.postgres.target, random.Random(5), datetime.now(timezone.utc))
    history = [arrivals.lone_row(), arrivals.load(), arrivals.batch()]
    history += [arrivals.lone_row(is_replacement=True), arrivals.load(), arrivals.batch()]
    assert "is rebuilt in full" not in engines.step()
    assert engines.differences() == {}, history
    brand = "select count(*) from snapshots.snp_brands__brands where brand_name = '{}'"
    assert engines.rows(brand.format(CHANGED)) == [(2,)]
    assert engines.rows(f"{brand.format(GONE)} and dbt_valid_to is not null") == [(1,)]
    assert engines.rows("select max(loaded_at) from marts.fct_transactions") > before


def test_a_step_without_the_touched_days_leaves_out_none(engines: Engines):
    """Facts read the days that a model before them names; here a run builds all but that one."""
    [(before,)] = engines.rows("select max(loaded_at) from marts.fct_transactions")
    clock = before.replace(tzinfo=timezone.utc)  # loads that tests made up finish after now
    arrivals = Arrivals(engines.postgres.target, random.Random(6), clock)
    history = [arrivals.lone_row(), arrivals.load(), arrivals.batch()]
    engines.postgres.marquee("export", "raw", "--to", "spark")
    chosen = ("--select", "source:transactions+", "--exclude", "int_transaction_days__touched")
    engines.spark.dbt("run", *chosen)
    assert engines.rows("select max(loaded_at) from marts.fct_transactions") > [(before,)]
    engines.step()
    assert engines.differences() == {}, history


def test_old_versions_and_small_files_go(engines: Engines):
    def count(of: str) -> int:
        return engines.rows(f"select count(*) from marts.fct_transactions.{of}")[0][0]

    before = engines.arrow("select * from marts.fct_transactions order by all")
    files = count("files")
    assert count("snapshots") > 1
    said = engines.spark.dbt("run-operation", "tidy_tables", "--args", "{days: 0}").stdout
    assert "marts.fct_transactions: " in said
    assert "raw_transactions.transactions: " in said
    assert count("snapshots") == 1
    assert count("files") <= files
    assert engines.arrow("select * from marts.fct_transactions order by all") == before


def test_transactions_of_a_lake_are_read_where_they_are(
    server: Server, database: Target, tmp_path: Path
):
    """The same files land in PostgreSQL and in a lake, then a changed one in place of the first.

    Films and brands are copied into the lake.
    """
    pytest.importorskip("pyiceberg")
    site = Built(database, tmp_path, variables={"LAKE__LOCATION": str(tmp_path / "lake")})
    site.write_profile()
    give_target(site, "spark")
    profile = yaml.safe_load((tmp_path / "profiles.yml").read_text("utf-8"))
    output = profile["marquee"]["outputs"].pop("spark") | {"schema": "lakeside"}
    settings = output["server_side_parameters"]
    del settings["spark.marquee.raw"]
    settings["spark.marquee.lake"] = "marquee"
    catalogue = {f"spark.sql.catalog.{name}": value for name, value in lake_of(database).items()}
    settings |= catalogue
    profile["marquee"]["outputs"]["lakeside"] = output
    (tmp_path / "profiles.yml").write_text(yaml.safe_dump(profile))
    on_spark = {"MARQUEE_SPARK": server.address, "DBT_TARGET": "lakeside"}
    on_spark["DBT_TARGET_PATH"] = str(tmp_path / "target-spark")
    spark = Built(database, tmp_path, variables=site.variables | on_spark)
    marts = ("fct_transactions", "rejected_transactions", "brand_performance")
    selected = ("--select", *(f"+{mart}" for mart in marts), *NO_TESTS)

    file, other = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    generate(2_000, 1, file, start=date(2026, 1, 1), end=date(2026, 1, 4))
    generate(500, 2, other, start=date(2026, 1, 3), end=date(2026, 1, 6))
    for source in ("brands", "releases", "tmdb"):
        site.marquee("ingest", source)
    for paths in ([file, other], [file]):
        for to in ("warehouse", "lake"):
            names = map(str, paths)
            site.marquee("ingest", "transactions", *names, "--replace", "--to", to)
        site.marquee("export", "raw", "--to", "lake")
        site.dbt("build", *selected)
        spark.dbt("build", *selected)
        assert site.one("select count(*) from marts.fct_transactions") > 1_500
        assert site.one("select sum(movie_count) from marts.brand_performance") > 100
        for mart in marts:
            with dbapi.connect(database.uri) as connection, closing(duckdb.connect()) as copy:
                copy.register("here", asked(server, f"select * from lakeside_marts.{mart}"))
                there = table_of(connection, "marts", mart)
                copy.register("there", there)
                # lake and warehouse have loads of their own
                what = ", ".join(set(there.column_names) - {"loaded_at", "dlt_load_id"})
                for one, two in (("here", "there"), ("there", "here")):
                    query = f"select {what} from {one} except all select {what} from {two}"
                    assert copy.execute(query).fetchmany(3) == [], (mart, one)
        lines = file.read_text("utf-8").splitlines()
        file.write_text("\n".join(lines[:1_500]) + "\n", encoding="utf-8")

    site.marquee("export", "marts", "--to", "lake")
    for mart in marts:
        here = asked(server, f"select * from marquee.marts.{mart}", catalogue)
        with dbapi.connect(database.uri) as connection:
            there = table_of(connection, "marts", mart)
        assert differences_between(here, f"marts.{mart}", there) == []


def lake_of(database: Target) -> dict[str, str]:
    """The catalog of the lake in a warehouse, by the name that the lake has (docs/lake.md)."""
    address = f"{database.host}:{database.port}/{database.dbname}"
    return {
        "marquee": "org.apache.iceberg.spark.SparkCatalog",
        "marquee.type": "jdbc",
        "marquee.uri": f"jdbc:postgresql://{address}?currentSchema=raw_lake",
        "marquee.jdbc.user": database.user,
        "marquee.jdbc.password": database.password,
        "marquee.jdbc.schema-version": "V1",
        "marquee.warehouse": "unused",
    }
