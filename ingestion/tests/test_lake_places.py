"""A lake that is elsewhere than its setting says, or gone; tables that the catalogue forgets."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("pyiceberg", reason="the extra lake: make test-lake")

from ingestion.tests.test_lake import Site, made, site  # noqa: F401 - a fixture

COUNT = "select count(*) from transactions"


@pytest.fixture
def landed(site: Site) -> Site:  # noqa: F811
    """A site with a lake that has 300 transactions, and a copy of a mart."""
    site.land(made(site, "a.jsonl", 300, 1))
    site.execute("create schema marts; create table marts.dim_one as select 1 as n")
    site.marquee("export", "marts", "--to", "lake")
    return site


def refused(site: Site, *command: str) -> str:  # noqa: F811
    """What a command says that ends with an error of two lines."""
    done = site.marquee(*command, check=False)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 2, done.stderr
    return done.stderr


def commands(site: Site) -> list[tuple[str, ...]]:  # noqa: F811
    """All that need the lake's tables."""
    return [
        ("ingest", "transactions", "--to", "lake", str(made(site, "b.jsonl", 50, 2))),
        ("export", "marts", "--to", "lake"),
        ("lake", "tables"),
        ("lake", "rejects"),
        ("lake", "compact"),
        ("lake", "expire"),
    ]


def test_a_lake_elsewhere_than_its_setting_says_is_left_alone(landed: Site):
    before = sorted(landed.place.rglob("*"))
    there = landed.variables["LAKE__LOCATION"]
    other = landed.folder / "other"
    landed.variables["LAKE__LOCATION"] = str(other)
    for command in commands(landed):
        said = refused(landed, *command)
        assert there in said
        assert str(other) in said
        assert "marquee lake forget --all" in said
    assert sorted(landed.place.rglob("*")) == before
    assert not list(other.rglob("*.parquet"))
    landed.variables["LAKE__LOCATION"] = there
    landed.land(made(landed, "b.jsonl", 50, 2))
    landed.is_whole()


def test_a_lake_by_another_name_of_its_folder_is_the_same(landed: Site):
    link = landed.folder / "link"
    link.symlink_to(landed.place)
    landed.variables["LAKE__LOCATION"] = str(link)
    rows = landed.read(COUNT)[0][0]
    for command in commands(landed):
        landed.marquee(*command)
    assert landed.read(COUNT)[0][0] > rows
    landed.is_whole()


def test_a_lake_whose_files_are_gone_says_so_and_begins_anew(landed: Site):
    shutil.rmtree(landed.place)
    for command in commands(landed):
        said = refused(landed, *command)
        assert "cannot be read" in said
        assert "marquee lake forget" in said
    assert landed.marquee("lake", "forget", "--all", check=False).returncode == 1, "nobody agreed"
    said = landed.marquee("lake", "forget", "--all", "--yes").stdout
    assert "raw_transactions.transactions" in said
    assert "marts.dim_one" in said
    assert landed.rows("select * from raw_lake.files") == []
    assert landed.rows("select * from raw_lake.iceberg_tables") == []
    landed.land(landed.folder / "a.jsonl")
    assert landed.read(COUNT)[0][0] > 250
    landed.is_whole()


def test_a_copy_is_forgotten_alone(landed: Site):
    rows = landed.read(COUNT)
    files = list((landed.place / "copied").rglob("*.parquet"))
    assert "go with their ledger" in refused(landed, "lake", "forget", "raw_transactions.files")
    assert "There are: marts.dim_one" in refused(landed, "lake", "forget", "marts.dim_two")
    for words in ((), ("marts.dim_one", "--all")):
        done = landed.marquee("lake", "forget", *words, check=False)
        assert done.returncode == 1
        assert "or say --all" in done.stderr
    said = landed.marquee("lake", "forget", "marts.dim_one").stdout
    assert "marts.dim_one" in said
    assert not landed.catalogue().table_exists("marts.dim_one")
    assert [path for path in files if Path(path).exists()] == files
    assert landed.read(COUNT) == rows
    landed.marquee("export", "marts", "--to", "lake")
    assert landed.catalogue().load_table("marts.dim_one").scan().to_arrow().num_rows == 1


def test_tables_that_others_keep_elsewhere_are_left_alone(landed: Site):
    """Trino and Spark may make tables in the same catalogue."""
    theirs = landed.folder / "theirs"
    catalogue = landed.catalogue()
    catalogue.create_namespace("own")
    one = catalogue.load_table("marts.dim_one")
    table = catalogue.create_table("own.things", one.schema(), location=f"file://{theirs}")
    for _ in range(2):
        table.append(one.scan().to_arrow())
    before = sorted(theirs.rglob("*"))
    landed.marquee("lake", "compact")
    landed.marquee("lake", "expire", "--older-than", "0")
    assert "own.things" not in landed.marquee("lake", "tables").stdout
    assert sorted(theirs.rglob("*")) == before
    assert len(catalogue.load_table("own.things").metadata.snapshots) == 2
