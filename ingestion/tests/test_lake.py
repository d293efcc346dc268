"""``--to lake``: the same rows, rejects and ledger as in the warehouse, as Iceberg tables.

Real processes, a real PostgreSQL with the catalogue, a folder and a server that speaks S3. The
tables are read as others read them: by pyiceberg's own catalogue, and DuckDB over their files.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import date
from pathlib import Path

import duckdb
import fsspec
import pytest

pytest.importorskip("pyiceberg", reason="the extra lake: make test-lake")

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.expressions import EqualTo

from ingestion.lake.destination import Lake
from ingestion.lake.settings import FOLDERS, Location
from ingestion.sample.transactions import generate
from ingestion.tests.built import BIN, Built
from ingestion.tests.test_watch import line, until, watching
from ingestion.warehouse.target import Target

SEED = 5
VALUES = (
    "transaction_id, event_ts, user_id, amount, merchant, category, city, status, payment_method,"
    " currency, extra_fields, _file_line, _file_name, _file_checksum"
)


class Site(Built):
    """A warehouse with a lake, and what others see of it."""

    @property
    def place(self) -> Path:
        return self.folder / "lake"

    def land(self, *paths: Path | str, check: bool = True, **options: bool):
        flags = [f"--{name}" for name in options]
        return self.marquee(
            "ingest", "transactions", "--to", "lake", *map(str, paths), *flags, check=check
        )

    def catalogue(self, **properties: str) -> SqlCatalog:
        """The catalogue as pyiceberg opens it by itself."""
        target = self.target
        url = f"{target.user}:{target.password}@{target.host}:{target.port}/{target.dbname}"
        return SqlCatalog(
            "marquee",
            uri=f"postgresql+psycopg2://{url}?options=-csearch_path%3Draw_lake",
            **properties,
        )

    def table(self, name: str, **properties: str):
        return self.catalogue(**properties).load_table(f"raw_transactions.{name}")

    def read(self, query: str, **properties: str) -> list[tuple]:
        """Ask DuckDB about the tables."""
        with duckdb.connect() as connection:
            connection.execute("set timezone = 'UTC'")
            for name in FOLDERS:
                rows = self.table(name, **properties).scan().to_arrow()
                connection.register(name.lstrip("_"), rows)
            return connection.execute(query).fetchall()

    def is_whole(self) -> None:
        """Every row is of a load that counts, and each file has the rows that the ledger says."""
        for name, counted in (("transactions", "rows_landed"), ("rejects", "rows_rejected")):
            wrong = self.read(f"""
                with found as (
                    select _dlt_load_id, _file_checksum, count(*) as n from {name} group by all
                ),
                said as (
                    select _dlt_load_id, _file_checksum, {counted} as n, max(_dlt_load_id) filter
                        (where is_replacement) over (partition by path) as since
                    from files
                )
                select * from found full join (
                    select * from said
                    where n > 0 and _dlt_load_id >= coalesce(since, '')
                ) as said using (_dlt_load_id, _file_checksum)
                where found.n is distinct from said.n
            """)
            assert wrong == []
        listed = self.rows("select load_id from raw_lake._dlt_loads order by 1")
        assert self.read("select load_id from dlt_loads order by 1") == listed
        ledger = self.rows("select _dlt_load_id, _file_name from raw_lake.files order by 1, 2")
        assert self.read("select _dlt_load_id, _file_name from files order by 1, 2") == ledger


@pytest.fixture
def site(database: Target, tmp_path: Path) -> Site:
    found = Site(database, tmp_path)
    found.variables["LAKE__LOCATION"] = str(found.place)
    found.write_profile()
    return found


def made(site: Site, name: str, rows: int, seed: int) -> Path:
    path = site.folder / name
    generate(rows, seed, path, start=date(2026, 1, 1), end=date(2026, 1, 4))
    return path


def test_what_lands_is_what_lands_in_the_warehouse(site):
    files = [made(site, "a.jsonl", 3_000, 1)]
    files.append(site.folder / "b.csv")
    files[1].write_text(
        "transaction_id,event_ts,user_id,amount,note\n"
        "1,2026-01-01T23:30:00-02:00,7,5.1000,late\n2,2026-01-01,7,5.10,no time\n3,nonsense,,,\n"
        "4,2026-01-03 10:00,8,12,\n"
    )
    for command in ("tables", "compact", "expire"):
        site.marquee("lake", command)  # before anything has landed
    assert site.marquee("lake", "rejects").stdout == "The lake has no rejects.\n"
    assert "lake.transactions" in site.land(*files).stdout
    site.marquee("ingest", "transactions", *map(str, files))
    for table, columns in (
        ("transactions", VALUES),
        ("rejects", "raw_text, reason_code, reason, _file_line, _file_name, _file_checksum"),
        ("files", "path, bytes, lines_read, rows_landed, rows_rejected, header, _file_checksum"),
    ):
        query = f"select {columns} from {{}}{table}"
        ours = site.read(query.format(""))
        theirs = site.rows(query.format("raw_transactions."))
        plain = [
            tuple(json.dumps(v, separators=(",", ":")) if isinstance(v, dict) else v for v in row)
            for row in theirs
        ]
        assert Counter(map(normal, ours)) == Counter(map(normal, plain))
        assert ours
    site.is_whole()
    said = site.marquee("lake", "rejects", "--limit", "1").stdout
    for code, count in site.rows(
        "select reason_code, count(*) from raw_transactions.rejects group by 1"
    ):
        assert f"{count:>12,} {code}\n" in said
    first = "select _file_name, _file_line from raw_transactions.rejects order by reason_code, 1, 2"
    assert "{}:{}  ".format(*site.rows(first)[0]) in said
    assert "There are more: --limit 10\n" in said
    for file in files:
        content = file.read_bytes()
        kept = site.place / "raw/transactions" / hashlib.sha256(content).hexdigest()
        assert kept.with_name(kept.name + file.suffix).read_bytes() == content
    again = site.land(*files)
    assert again.stdout.count("has landed before") == 2
    assert site.read("select count(*) from files") == [(2,)]


def normal(row: tuple) -> tuple:
    """Values with one spelling: JSON without blanks, one type of decimal and time zone."""
    return tuple(map(_spelt, row))


def _spelt(value: object) -> str:
    with suppress(ValueError, TypeError):
        if str(value)[:1] == "{":
            return json.dumps(json.loads(str(value)))
    return str(value)


def test_a_day_is_a_partition_that_others_find_alone(site):
    site.land(made(site, "a.jsonl", 2_000, 1))
    table = site.table("transactions")
    days = {row["partition"]["event_date"]: row for row in table.inspect.partitions().to_pylist()}
    asked = "event_ts >= '2026-01-02T00:00:00+00:00' and event_ts < '2026-01-03T00:00:00+00:00'"
    tasks = list(table.scan(row_filter=asked).plan_files())
    (file,) = (task.file for task in tasks)
    assert "event_date=2026-01-02" in file.file_path
    assert len(days) > 3
    # the files alone, as DuckDB and any engine without a catalogue read them
    paths = [task.file.file_path.removeprefix("file://") for task in table.scan().plan_files()]
    found = duckdb.sql(
        "select count(*), count(distinct cast(event_ts at time zone 'UTC' as date))"
        f" from read_parquet({paths!r})"
    )
    assert found.fetchall() == [
        (site.one("select sum(rows_landed) from raw_lake.files"), len(days))
    ]


def test_a_file_that_is_replaced_takes_its_rows_with_it(site):
    grown, changed = site.folder / "grown.jsonl", site.folder / "changed.jsonl"
    grown.write_text(line() + "\n")
    changed.write_text(f"{line()}\n{line()}\nnonsense\n")
    site.land(grown, changed)
    with grown.open("a") as file:
        file.write(line() + "\n")
    assert "only its new lines are read" in site.land(grown).stdout
    changed.write_text(f"{line()}\n")
    refused = site.land(changed, check=False)
    assert refused.returncode == 1
    assert "has changed since it landed" in refused.stderr
    assert site.read("select count(*) from transactions") == [(4,)]
    site.land(changed, replace=True)
    names = "select parse_filename(_file_name) as name, count(*) from {} group by 1 order by 1"
    assert site.read(names.format("transactions")) == [("changed.jsonl", 1), ("grown.jsonl", 2)]
    assert site.read(names.format("rejects")) == []
    assert site.read(names.format("files")) == [("changed.jsonl", 2), ("grown.jsonl", 2)]
    site.is_whole()
    earlier = site.table("transactions").metadata.snapshots[1].snapshot_id
    old = site.table("transactions").scan(snapshot_id=earlier).to_arrow()
    assert old.num_rows == 4, "what was replaced can be read in the version before"


def test_a_file_that_is_refused_leaves_nothing(site):
    bad, good = site.folder / "bad.jsonl", site.folder / "good.jsonl"
    good.write_text(line() + "\n")
    with bad.open("w") as file:
        for _ in range(60_000):  # more than are held in memory
            file.write("nonsense\n")
        file.writelines(line() + "\n" for _ in range(20_000))
    done = site.land(bad, good, check=False)
    assert done.returncode == 1
    assert "60,000 of 80,000 lines cannot land" in done.stderr
    assert site.read("select count(*) from transactions") == [(1,)]
    assert site.read("select count(*) from rejects") == [(0,)]
    site.is_whole()
    data = [*site.place.glob("validated/**/*.parquet"), *site.place.glob("rejects/**/*.parquet")]
    assert len(data) == 1
    assert len(list(site.place.glob("raw/transactions/*"))) == 1


def test_killed_at_any_moment_nothing_is_half_there(site):
    chance = random.Random(SEED)
    lines = 0
    files = []
    for seed in range(4):
        files.append(made(site, f"{seed}.jsonl", 5_000, seed))
        lines += 5_000
        process = subprocess.Popen(
            [BIN / "marquee", "ingest", "transactions", "--to", "lake", *files],
            env=site.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(2 + 6 * chance.random())
        process.kill()
        process.wait()
        if site.one("select to_regclass('raw_lake.iceberg_tables') is not null") and site.one(
            "select count(*) = 4 from raw_lake.iceberg_tables"
        ):
            site.is_whole()
    site.land(*files)
    site.is_whole()
    (counted,) = site.read("select count(*), sum(lines_read), sum(rows_landed) from files")
    assert counted[:2] == (4, lines)
    assert site.read("select count(*) from transactions") == [(counted[2],)]


def test_killed_in_the_middle_of_its_commit_a_load_does_not_count(site):
    site.land(made(site, "a.jsonl", 1_000, 1))
    before = site.read("select count(*) from transactions")
    second = made(site, "b.jsonl", 1_000, 2)
    with closing(site.target.connect()) as connection, connection.cursor() as cursor:
        # rows and rejects are in, the ledger's table is not
        cursor.execute("select from raw_lake.iceberg_tables where table_name = 'files' for update")
        process = subprocess.Popen(
            [BIN / "marquee", "ingest", "transactions", "--to", "lake", second],
            env=site.environment,
        )
        until(
            lambda: site.one(
                "select count(*) > 0 from pg_stat_activity"
                " where wait_event_type = 'Lock' and application_name = 'marquee:lake'"
                " and query like 'UPDATE iceberg_tables%'"
            )
        )
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert site.read("select count(*) from transactions") == before
    site.is_whole()
    assert site.read("select count(*) from transactions") == before
    site.land(second)
    site.is_whole()
    assert site.read("select count(*) from files") == [(2,)]
    orphans = {*site.place.glob("validated/**/*.parquet")}
    site.marquee("lake", "expire", "--older-than", "0")
    assert len(orphans - {*site.place.glob("validated/**/*.parquet")}) > 0
    site.is_whole()


def test_small_files_are_joined_and_old_versions_go(site):
    for seed in range(4):
        site.land(made(site, f"{seed}.jsonl", 400, seed))
    rows = site.read(f"select {VALUES} from transactions order by all")
    table = site.table("transactions")
    files, versions = len(list(table.scan().plan_files())), len(table.metadata.snapshots)
    assert versions == 4
    printed = site.marquee("lake", "compact").stdout
    table = site.table("transactions")
    days = len(table.inspect.partitions())
    assert len(list(table.scan().plan_files())) == days < files
    assert f"{files:,} files, now {days:,}" in printed
    assert site.read(f"select {VALUES} from transactions order by all") == rows
    first = table.metadata.snapshots[0].snapshot_id
    assert table.scan(snapshot_id=first).to_arrow().num_rows < len(rows)
    on_disk = len(list(site.place.glob("validated/**/*.parquet")))
    site.marquee("lake", "expire")  # all is younger than a week
    assert len(list(site.place.glob("validated/**/*.parquet"))) == on_disk
    site.marquee("lake", "expire", "--older-than", "0")
    assert len(list(site.place.glob("validated/**/*.parquet"))) == days
    assert len(site.table("transactions").metadata.snapshots) == 1
    assert site.read(f"select {VALUES} from transactions order by all") == rows
    assert len(list(site.place.glob("raw/transactions/*"))) == 4
    site.is_whole()
    printed = site.marquee("lake", "tables").stdout
    assert f"{len(rows):,} rows" in printed
    assert site.table("transactions").metadata_location in printed
    again = site.land(site.folder / "0.jsonl")
    assert "has landed before" in again.stdout


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A server that speaks S3: what pyiceberg has to be told of it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir("bucket")
    yield {
        "s3.endpoint": f"http://{host}:{port}",
        "s3.access-key-id": "someone",
        "s3.secret-access-key": "secret",
        "s3.region": "us-east-1",
    }
    server.stop()


def test_in_a_store_it_is_the_same(site, store):
    site.variables["LAKE__LOCATION"] = "s3://bucket/lake"
    bucket = fsspec.filesystem("s3", use_listings_cache=False, skip_instance_cache=True)
    file = made(site, "a.jsonl", 600, 1)
    bucket.put(str(file), "bucket/in/a.jsonl")
    with watching(
        site, "s3://bucket/in/", "--every", "0.5", "--settle", "0.5", "--to", "lake"
    ) as process:
        until(lambda: "have landed" in ledger_says(site))
        assert process.poll() is None
    site.land("s3://bucket/in/a.jsonl")
    (counts,) = site.read("select count(*), sum(rows_landed) from files", **store)
    assert counts == (1, site.read("select count(*) from transactions", **store)[0][0])
    kept = f"bucket/lake/raw/transactions/{hashlib.sha256(file.read_bytes()).hexdigest()}.jsonl"
    assert bucket.cat_file(kept) == file.read_bytes()
    file.write_text(line() + "\n")
    bucket.put(str(file), "bucket/in/a.jsonl")
    site.land("s3://bucket/in/a.jsonl", replace=True)
    assert site.read("select count(*) from transactions", **store) == [(1,)]
    site.marquee("lake", "compact")
    site.marquee("lake", "expire", "--older-than", "0")
    data = [name for name in bucket.find("bucket/lake/validated") if name.endswith(".parquet")]
    assert len(data) == 1
    assert site.read("select count(*) from transactions", **store) == [(1,)]


def ledger_says(site: Site) -> str:
    """Whether the lake's ledger has a file, in the words of the watch."""
    if site.one("select to_regclass('raw_lake.files') is null"):
        return ""
    return "have landed" if site.one("select count(*) from raw_lake.files") else ""


def test_a_watch_lands_in_the_lake_too(site):
    inbox = site.folder / "inbox"
    inbox.mkdir()
    (inbox / "a.jsonl").write_text(line() + "\n")
    once = ("ingest", "watch", str(inbox), "--once", "--settle", "0.2")
    site.marquee(*once, "--to", "lake")
    site.marquee(*once, "--to", "lake")
    assert site.read("select count(*) from transactions") == [(1,)]
    site.marquee(*once)
    assert site.one("select count(*) from raw_transactions.transactions") == 1


def test_columns_that_come_later_are_null_in_rows_that_were_there(site, monkeypatch):
    from ingestion.sources.transactions import tables

    monkeypatch.setenv("MARQUEE_STATE_DIR", str(site.folder / "state"))
    place = Location("file", str(site.place))
    site.land(made(site, "a.jsonl", 300, 1))
    later = tables.COLUMNS["files"] | {"remark": {"data_type": "text"}}
    monkeypatch.setitem(tables.COLUMNS, "files", later)
    with Lake(site.target, place).open_load() as load:
        assert load.is_empty
    assert "remark" in site.table("files").schema().column_names
    assert site.table("files").scan(row_filter=EqualTo("remark", "x")).to_arrow().num_rows == 0
    assert site.read("select count(*), count(remark) from files") == [(1, 0)]


def test_the_extra_is_asked_for_where_it_is_missing(site, tmp_path):
    """In an environment that has all but the lake's packages."""
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden/pyiceberg.py").write_text("raise ImportError(name='pyiceberg')")
    site.variables["PYTHONPATH"] = os.pathsep.join([str(tmp_path / "hidden")])
    done = site.land(tmp_path / "x.jsonl", check=False)
    (tmp_path / "x.jsonl").write_text(line())
    done = site.land(tmp_path / "x.jsonl", check=False)
    assert done.returncode == 1
    assert "A lake needs the package pyiceberg." in done.stderr
