"""``marquee export raw --to lake``: what only the warehouse takes is in the lake, all at once."""

from __future__ import annotations

import signal
import subprocess
from contextlib import closing
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

pytest.importorskip("pyiceberg", reason="the extra lake: make test-lake")

from adbc_driver_postgresql import dbapi

from ingestion.tests.built import BIN
from ingestion.tests.test_duckdb import differences_in, table_of
from ingestion.tests.test_lake import Site, made, site  # noqa: F401 - a fixture
from ingestion.tests.test_watch import until

FILMS_AND_BRANDS = ("raw_brands", "raw_tmdb")


def names(site: Site) -> list[tuple[str, str]]:  # noqa: F811
    """Schema and name of the raw tables that have columns."""
    return site.rows(
        "select distinct table_schema::text, table_name::text from information_schema.columns"
        f" where table_schema in {FILMS_AND_BRANDS} order by 1, 2"
    )


def copied(site: Site, schema: str, name: str) -> pa.Table:  # noqa: F811
    found = site.catalogue().load_table((schema, name)).scan().to_arrow()
    utc = [f.with_type(pa.timestamp("us")) if pa.types.is_timestamp(f.type) else f
           for f in found.schema]  # fmt: skip
    return found.cast(pa.schema(utc))


def differences(site: Site) -> dict[str, list]:  # noqa: F811
    found = {}
    with dbapi.connect(site.target.uri) as connection, closing(duckdb.connect()) as copy:
        copy.execute("set timezone = 'UTC'")
        for schema, name in names(site):
            copy.register("here", copied(site, schema, name))
            copy.execute(
                f"create schema if not exists {schema}; create table {schema}.{name} as from here"
            )
            there = table_of(connection, schema, name)
            if differing := differences_in(copy, f"{schema}.{name}", there):
                found[f"{schema}.{name}"] = differing
    return found


@pytest.fixture
def landed(site: Site) -> Site:  # noqa: F811
    """A site whose warehouse has the sample's films and brands."""
    for source in ("brands", "releases", "tmdb"):
        site.marquee("ingest", source)
    return site


def test_films_and_brands_are_in_the_lake_as_they_are_in_the_warehouse(landed: Site):
    landed.land(made(landed, "a.jsonl", 300, 1))
    before = landed.read("select * from transactions order by all")
    said = landed.marquee("export", "raw", "--to", "lake").stdout
    movies = landed.one("select count(*) from raw_tmdb.movies")
    assert f"{movies:,} rows" in said
    assert str(landed.place) in said
    assert "raw_transactions" not in said
    assert len(names(landed)) > 10
    assert differences(landed) == {}
    assert landed.read("select * from transactions order by all") == before
    landed.is_whole()


def test_the_next_copy_takes_the_place_of_the_last(landed: Site):
    landed.marquee("export", "raw", "--to", "lake")
    table = landed.catalogue().load_table("raw_brands.brands")
    whole = table.scan().to_arrow()
    with closing(landed.target.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute("alter table raw_brands.brands add remark varchar")
        cursor.execute("update raw_brands.brands set remark = brand")
        cursor.execute("delete from raw_brands.brands where brand like 'M%'")
        cursor.execute("alter table raw_brands.files alter rows_read type varchar")
        cursor.execute("alter table raw_tmdb.movies drop tagline cascade")
        cursor.execute("delete from raw_tmdb.rejects")
    landed.marquee("export", "raw", "--to", "lake")
    assert differences(landed) == {}
    rows = landed.one("select count(*) from raw_brands.brands")
    assert 0 < rows < whole.num_rows
    table = landed.catalogue().load_table("raw_brands.brands")
    assert len(table.metadata.snapshots) == 2
    first = table.metadata.snapshots[0].snapshot_id
    assert table.scan(snapshot_id=first).to_arrow().num_rows == whole.num_rows

    printed = landed.marquee("lake", "tables").stdout
    assert f"{rows:,} rows" in printed
    landed.marquee("lake", "compact")
    landed.marquee("lake", "expire", "--older-than", "0")
    assert differences(landed) == {}
    assert len(landed.catalogue().load_table("raw_brands.brands").metadata.snapshots) == 1
    assert len(data_files(landed, "brands/brands")) == 1


def test_a_copy_that_is_killed_in_its_commit_does_not_count(landed: Site):
    landed.marquee("export", "raw", "--to", "lake")
    with closing(landed.target.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute("update raw_brands.brands set brand = brand || '!'")
        cursor.execute("update raw_tmdb.movies set title = title || '!'")
    with closing(landed.target.connect()) as connection, connection.cursor() as cursor:
        # brands are in by then, movies are not
        cursor.execute("select from raw_lake.iceberg_tables where table_name = 'movies' for update")
        process = subprocess.Popen(
            [BIN / "marquee", "export", "raw", "--to", "lake"], env=landed.environment
        )
        until(
            lambda: landed.one(
                "select count(*) > 0 from pg_stat_activity"
                " where wait_event_type = 'Lock' and application_name = 'marquee:lake'"
                " and query like 'UPDATE iceberg_tables%'"
            )
        )
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert {*differences(landed)} == {"raw_brands.brands", "raw_tmdb.movies"}
    landed.marquee("export", "raw", "--to", "lake")
    assert differences(landed) == {}
    assert len(data_files(landed, "brands/brands")) == 3
    landed.marquee("lake", "expire", "--older-than", "0")
    assert len(data_files(landed, "brands/brands")) == 1
    assert differences(landed) == {}


def test_a_value_that_no_file_takes_leaves_all_as_it_was(landed: Site):
    landed.marquee("export", "raw", "--to", "lake")
    before = {name: copied(landed, *name) for name in names(landed)}
    with closing(landed.target.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute("update raw_brands.brands set brand = brand || '!'")
        cursor.execute("update raw_tmdb.movies set pulled_at = 'infinity'")
    done = landed.marquee("export", "raw", "--to", "lake", check=False)
    assert done.returncode == 1
    assert "movies.pulled_at is infinite" in done.stderr
    assert {name: copied(landed, *name) for name in names(landed)} == before
    assert len(data_files(landed, "brands/brands")) == 1, "nothing is left of it"


def data_files(site: Site, folder: str) -> list[Path]:  # noqa: F811
    return list(site.place.glob(f"copied/{folder}/data/*.parquet"))
