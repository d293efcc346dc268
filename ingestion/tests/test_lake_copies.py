"""``marquee export raw --to lake`` and ``export marts``: copies of tables, all there at once."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

pytest.importorskip("pyiceberg", reason="the extra lake: make test-lake")

from adbc_driver_postgresql import dbapi

from ingestion.tests.built import BIN, Built
from ingestion.tests.iceberg_reader import read_by_duckdb
from ingestion.tests.test_dbt_commands import copy_of
from ingestion.tests.test_duckdb import differences_between, table_of
from ingestion.tests.test_lake import Site, made, site  # noqa: F401 - a fixture
from ingestion.tests.test_watch import until
from ingestion.warehouse.target import Target
from serving.export.marts import describe, marts_in

FILMS_AND_BRANDS = ("raw_brands", "raw_tmdb")


def names(site: Site) -> list[tuple[str, str]]:  # noqa: F811
    """Schema and name of the raw tables that have columns."""
    return site.rows(
        "select distinct table_schema::text, table_name::text from information_schema.columns"
        f" where table_schema in {FILMS_AND_BRANDS} order by 1, 2"
    )


def copied(site: Site, schema: str, name: str) -> pa.Table:  # noqa: F811
    return in_utc(site.catalogue().load_table((schema, name)).scan().to_arrow())


def in_utc(found: pa.Table) -> pa.Table:
    utc = [f.with_type(pa.timestamp("us")) if pa.types.is_timestamp(f.type) else f
           for f in found.schema]  # fmt: skip
    return found.cast(pa.schema(utc))


def differences(site: Site, schema: str | None = None) -> dict[str, list]:  # noqa: F811
    """Raw tables, or those of a schema, that are not equal in the lake."""
    found = {}
    with dbapi.connect(site.target.uri) as connection:
        there = [(schema, name) for name in marts_in(connection, schema)] if schema else names(site)
        for namespace, name in there:
            relation, rows = f"{namespace}.{name}", table_of(connection, namespace, name)
            if differing := differences_between(copied(site, namespace, name), relation, rows):
                found[relation] = differing
    return found


@pytest.fixture(scope="module")
def marts(built: Built, target: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site whose warehouse is the sample's, with all its marts in the lake."""
    folder = tmp_path_factory.mktemp("marts")
    with copy_of(built, target, folder, kind=Site) as found:
        found.variables["LAKE__LOCATION"] = str(found.place)
        said = found.marquee("export", "marts", "--to", "lake").stdout
        assert f"{found.one('select count(*) from marts.fct_transactions'):,} rows" in said
        yield found


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


def test_marts_are_in_the_lake_with_what_they_mean(marts: Site):
    assert differences(marts, "marts") == {}
    with dbapi.connect(marts.target.uri) as connection:
        mart = describe(connection, "marts", "fct_transactions")
    table = marts.catalogue().load_table("marts.fct_transactions")
    assert table.properties["comment"] == mart.description
    told = {field.name: field.doc for field in table.schema().fields}
    assert told == {column.name: column.description for column in mart.columns}
    assert all(told.values())


@pytest.mark.parametrize("mart", ["fct_transactions", "brand_performance", "dim_movie"])
def test_duckdb_reads_the_marts_by_itself(marts: Site, mart: str, tmp_path: Path):
    table = marts.catalogue().load_table(("marts", mart))
    found = in_utc(read_by_duckdb(table.metadata_location, tmp_path))
    assert found.num_rows > 10
    with dbapi.connect(marts.target.uri) as connection:
        there = table_of(connection, "marts", mart)
    assert differences_between(found, f"marts.{mart}", there) == []


def test_a_selection_leaves_the_other_marts_as_they_are(marts: Site):
    marts.execute(
        "create table marts.fct_odd (date_key int, day date, was int, n int);"
        " comment on column marts.fct_odd.n is 'How many.'; create view marts.odd as select 1 as n;"
        " insert into marts.fct_odd select 1, date '2026-03-31' - 40 * (g % 3), g, g"
        " from generate_series(1, 9) as g"
    )
    marts.marquee("export", "marts", "--to", "lake", "--select", "*odd")
    days = copied(marts, "marts", "fct_odd")["day"].to_pylist()
    assert [day.month for day in days] == [1] * 3 + [2] * 3 + [3] * 3, "by month"
    marts.execute(
        "alter table marts.fct_odd drop was, alter n type text, add extra int[];"
        " comment on column marts.fct_odd.n is 'As text.'; comment on table marts.fct_odd is 'Odd.'"
    )
    marts.marquee("export", "marts", "--to", "lake", "--select", "fct_odd")
    table = marts.catalogue().load_table("marts.fct_odd")
    told = {field.name: (str(field.field_type), field.doc) for field in table.schema().fields}
    assert told == {
        "date_key": ("int", None),
        "day": ("date", None),
        "n": ("string", "As text."),
        "extra": ("string", None),
    }
    assert table.properties["comment"] == "Odd."
    versions = {
        name: len(marts.catalogue().load_table(("marts", name)).metadata.snapshots)
        for name in ("fct_odd", "odd", "dim_movie")
    }
    assert versions == {"fct_odd": 2, "odd": 1, "dim_movie": 1}
    marts.execute("drop table marts.fct_odd; drop view marts.odd")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--format", "csv"], "Leave out --format and --excel"),
        (["--select", "no_such"], "There is no mart no_such"),
        (["--schema", "nowhere"], "finds no marts in the schema nowhere"),
    ],
)
def test_what_is_no_copy_of_marts_says_so(marts: Site, options: list[str], why: str):
    done = marts.marquee("export", "marts", "--to", "lake", *options, check=False)
    assert done.returncode == 1
    assert why in done.stderr
    assert "Traceback" not in done.stderr


def test_an_export_in_a_folder_called_lake_is_not_taken_for_the_lake(
    marts: Site, tmp_path: Path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    folder = ["export", "marts", "--select", "dim_city", "--to"]
    for to, code in (("./lake", 0), ("lake", 1)):
        done = subprocess.run(
            [BIN / "marquee", *folder, to],
            env=marts.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
    assert "To write into that: --to ./lake" in done.stderr


def data_files(site: Site, folder: str) -> list[Path]:  # noqa: F811
    return list(site.place.glob(f"copied/{folder}/data/*.parquet"))
