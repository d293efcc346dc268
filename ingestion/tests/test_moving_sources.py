"""Sources that move while dbt builds: the marts agree all the same, and the next build catches up.

Files land and films are pulled between the nodes of one build, at moments that the test chooses: a
callback of dbt's says which node has finished.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingestion.pipeline import make_pipeline
from ingestion.sample.transactions import generate
from ingestion.sources import brands, transactions
from ingestion.tests.built import Built
from ingestion.tests.test_dbt_commands import NO_TESTS, Copy, copy_of
from ingestion.tests.test_torture import write_index
from ingestion.warehouse.target import Target

# What lands once a node has finished. Each source moves before, between and after what reads it.
MOMENTS = {
    "stg_transactions__loads": ("transactions", "tmdb"),
    "stg_transactions__files": ("transactions",),
    "int_transaction_files__replaced": ("transactions",),
    "int_transactions__checked": ("transactions",),
    "int_transactions__unread": ("transactions",),
    "int_transaction_days__touched": ("transactions",),
    "int_transactions__attributes": ("transactions",),
    "fct_transactions": ("transactions", "brands"),
    "daily_transactions": ("transactions",),
    "rejected_transactions": ("transactions",),
    "stg_tmdb__loads": ("tmdb",),
    "stg_tmdb__movies": ("tmdb",),
    "stg_tmdb__movie_companies": ("tmdb",),
    "snp_tmdb__movies": ("tmdb",),
    "int_movie_genres__listed": ("tmdb",),
    "int_movie_companies__listed": ("tmdb",),
    "int_movie_metrics__daily": ("tmdb",),
    "dim_movie_history": ("tmdb",),
    "dim_genre": ("tmdb",),
    "fct_movie_metrics": ("tmdb",),
    "bridge_movie_genre": ("tmdb",),
    "int_brand_releases__candidates": ("tmdb", "brands"),
    "stg_brands__loads": ("brands",),
    "stg_brands__files": ("brands",),
    "int_brand_files__latest": ("brands",),
    "snp_brands__brands": ("brands",),
    "int_brands__latest": ("brands",),
    "dim_brand": ("brands", "tmdb", "transactions"),
}

# A pull as dlt leaves it, in one transaction: two films come again, with another dlt id and their
# lists below it, of which one has a genre and a company more; one film is new.
PULL = """
    create temporary table pulled on commit drop as
        (select * from raw_tmdb.movies order by id limit 2)
        union all
        (select * from raw_tmdb.movies order by id desc limit 1);
    create temporary table renamed on commit drop as
    select _dlt_id as old, md5(_dlt_id || '{load}') as new from pulled;
    update pulled set
        title = title || ' {load}', pulled_at = now(), _dlt_load_id = '{load}',
        vote_count = vote_count + 1,
        _dlt_id = (select new from renamed where old = pulled._dlt_id);
    delete from raw_tmdb.movies where _dlt_id in (
        select old from renamed join pulled on new = pulled._dlt_id
        where pulled.id in (select id from raw_tmdb.movies order by id limit 2)
    );
    update pulled set id = id + 1, imdb_id = null
    where id in (select id from raw_tmdb.movies);
    insert into raw_tmdb.movies select * from pulled;
    insert into raw_tmdb.movie_metrics
        (movie_id, pulled_at, popularity, vote_average, vote_count, revenue, _dlt_load_id, _dlt_id)
    select id, pulled_at, popularity, vote_average, vote_count, revenue, '{load}', md5(_dlt_id)
    from pulled;
    insert into raw_tmdb._dlt_loads (load_id, schema_name, status, inserted_at)
    values ('{load}', 'tmdb', 0, now());
"""
LIST = """
    create temporary table listed on commit drop as
    select lists.* from raw_tmdb.{table} as lists join renamed on old = _dlt_parent_id;
    update listed set _dlt_id = md5(_dlt_id || '{load}'),
        _dlt_parent_id = (select new from renamed where old = _dlt_parent_id),
        _dlt_root_id = (select new from renamed where old = _dlt_root_id);
    insert into listed (id, name, _dlt_root_id, _dlt_parent_id, _dlt_list_idx, _dlt_id)
    select {number}, 'New {load}', min(new), min(new), {number}, md5('{load}') from renamed;
    delete from raw_tmdb.{table} as lists where not exists (
        select from raw_tmdb.movies where movies._dlt_id = lists._dlt_parent_id
    );
    insert into raw_tmdb.{table} select * from listed;
    drop table listed;
"""


class Moving(Copy):
    """A copy of the built warehouse, in which something lands at chosen moments."""

    count = 0

    def land(self, source: str) -> None:
        self.count += 1
        getattr(self, f"land_{source}")()

    def land_transactions(self) -> None:
        """A new file, one that grew by a broken line, and one that was changed."""
        inbox = self.folder / "in"
        inbox.mkdir(exist_ok=True)
        generate(200, self.count, inbox / f"new-{self.count}.jsonl")
        generate(100, 1000 + self.count, inbox / "changed.jsonl")
        with (inbox / "grows.jsonl").open("a") as grows:
            known = self.one("select min(transaction_id::text) from raw_transactions.transactions")
            for transaction_id in (known, str(uuid.uuid4())):
                line = {"transaction_id": transaction_id, "user_id": 1, "amount": self.count}
                at = f"2025-12-{self.count % 28 + 1:02}T10:00:00Z"
                new = {"merchant": f"Shop {self.count}", "city": f"City {self.count}"}
                print(json.dumps(line | {"event_ts": at} | new), file=grows)
            print("{ not a line", file=grows)
        pipeline = make_pipeline("transactions", self.target, self.folder / "dlt")
        transactions.ingest([inbox], self.target, pipeline=pipeline, replace=True)

    def land_brands(self) -> None:
        write_index(self.folder, self.count)
        pipeline = make_pipeline("brands", self.target, self.folder / "dlt")
        brands.ingest_brands(self.folder / "index.txt", self.target, pipeline)

    def land_tmdb(self) -> None:
        load = f"{2_000_000_000 + self.count}.5"
        lists = "".join(
            LIST.format(load=load, table=table, number=900_000 + self.count)
            for table in ("movies__genres", "movies__production_companies")
        )
        pull, _, listing = PULL.partition("    insert into raw_tmdb.movie_metrics")
        self.execute(
            pull.format(load=load)
            + lists
            + ("    insert into raw_tmdb.movie_metrics" + listing).format(load=load)
        )

    def build_while(self, moments: dict[str, tuple[str, ...]], *words: str) -> None:
        """Build, and land between the nodes; every moment must come."""
        left = dict(moments)

        def land(event) -> None:
            if event.info.name == "NodeFinished":
                for source in left.pop(event.data.node_info.node_name, ()):
                    self.land(source)

        self.invoke("build", *words, callbacks=[land])
        assert not left


@pytest.fixture
def moving(built: Built, target: Target, tmp_path: Path) -> Iterator[Moving]:
    with copy_of(built, target, tmp_path, kind=Moving) as copy:
        yield copy


def marts(copy: Copy) -> dict[str, tuple]:
    return {table: found for table, found in copy.marts().items() if table.startswith("marts.")}


def test_what_lands_during_a_build_waits_for_the_next(moving: Moving):
    before = moving.one("select count(*) from marts.fct_transactions")
    for source in ("transactions", "brands", "tmdb"):
        moving.land(source)
    moving.build_while(MOMENTS, "--threads", "1")
    moving.invoke("test", "--exclude-resource-type", "unit_test")
    landed = "select count(distinct _dlt_load_id) from raw_transactions.files"
    seen = "select count(distinct dlt_load_id) from intermediate.int_transactions__checked"
    assert moving.one(landed) > moving.one(seen)
    moving.invoke("build")
    incremental = marts(moving)
    moving.invoke("build", "--full-refresh", *NO_TESTS)
    assert marts(moving) == incremental
    assert moving.one("select count(*) from marts.dim_movie where title like '%.5'") > 2
    assert moving.one("select count(*) from marts.fct_transactions") > before


def test_tests_read_what_the_last_build_read(moving: Moving):
    """`dbt test` by itself, after something has landed."""
    for source in ("transactions", "brands", "tmdb"):
        moving.land(source)
    moving.invoke("test", "--exclude-resource-type", "unit_test")
