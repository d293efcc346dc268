"""The data API while builds run, the database is away, workers are killed."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import requests

from ingestion.tests.api_server import (
    Api,
    kill,
    marts_of,
    rebuilt,
    serving,
    until,
    warehouse_of,
)
from ingestion.tests.built import Built
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.target import Target

for package in ("asyncpg", "fastapi", "orjson", "prometheus_client", "uvicorn"):
    pytest.importorskip(package, reason="make test-api installs it")
own_server = pytest.mark.skipif(
    bool(os.environ.get("MARQUEE_TEST_URL")), reason="restarts the server"
)


@pytest.fixture(scope="module")
def site(built: Built, target: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    with warehouse_of(built, target, tmp_path_factory.mktemp("faults")) as warehouse:
        yield warehouse


@pytest.fixture
def server(site: Built) -> Iterator[Server]:
    """The session's server, which is running again afterwards."""
    found = Server(Path(site.one("show data_directory")).parent)
    try:
        yield found
    finally:
        if not found.running:
            found.start()


class Load:
    """Threads that read until told to stop, and what they got."""

    def __init__(self, api: Api, paths: list[str], threads: int = 4) -> None:
        self.api, self.paths, self.threads = api, paths, threads
        self.statuses: Counter[object] = Counter()
        self._stop = threading.Event()

    def __enter__(self) -> Load:
        self._pool = ThreadPoolExecutor(self.threads)
        self._all = [self._pool.submit(self._read, place) for place in range(self.threads)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown()
        for one in self._all:
            one.result()

    def _read(self, place: int) -> None:
        headers = {"Authorization": f"Bearer {self.api.key}"}
        while not self._stop.is_set():
            place += 1
            path = self.paths[place % len(self.paths)]
            url = f"{self.api.base}{path}{'&' if '?' in path else '?'}limit={place % 90 + 1}"
            try:
                status: object = requests.get(url, headers=headers, timeout=60).status_code
            except requests.ConnectionError:
                status = "connection"
            self.statuses[status] += 1

    def after(self, more: int) -> None:
        """Wait until so many more have been answered."""
        goal = self.statuses.total() + more
        until(lambda: self.statuses.total() >= goal, "requests are answered")


def see_builds(api: Api, count: int) -> None:
    """On connections of their own, which all workers take."""
    headers = {"Authorization": f"Bearer {api.key}"}
    url = f"{api.base}/v1/marts/dim_city"
    for _ in range(count):
        invocation = rebuilt(api.warehouse, "dim_city")

        def is_seen(build: str = invocation) -> bool:
            answers = [requests.get(url, headers=headers, timeout=60) for _ in range(4)]
            return all(answer.headers.get("warehouse-build") == build for answer in answers)

        until(is_seen, "the build is seen")


@own_server
def test_every_build_is_seen_by_all_workers_also_after_a_restart(site: Built, server: Server):
    with serving(site, "--workers", "2") as api:
        see_builds(api, 100)
        assert len(api.workers()) == 2
        server.stop()
        until(lambda: api.health()["warehouse"] == "away", "it is seen to be away")
        server.start()
        until(lambda: api.figure("marquee_api_warehouse_connected") == 2, "both are back")
        see_builds(api, 100)


@own_server
def test_while_the_database_is_away_the_cache_answers_and_says_so(site: Built, server: Server):
    with serving(site) as api:
        kept = api.mart("dim_movie", {"limit": 5})
        server.stop()
        until(lambda: api.health()["warehouse"] == "away", "it is seen to be away")
        old = api.mart("dim_movie", {"limit": 5})
        assert (old.status_code, old.content) == (200, kept.content)
        assert int(old.headers["age"]) >= 0
        assert old.headers["warning"].startswith("110 ")
        assert old.headers["warehouse-build"] == kept.headers["warehouse-build"]
        other = api.mart("dim_movie", {"limit": 6})
        assert other.status_code == 503
        assert int(other.headers["retry-after"]) >= 1
        assert "Traceback" not in other.text
        ready = requests.get(f"{api.base}/ready", timeout=60)
        assert (ready.status_code, ready.json()["status"]) == (503, 503)
        assert api.health()["stale_seconds"] > 0
        until(lambda: int(api.mart("dim_movie", {"limit": 5}).headers["age"]) > 0, "it grows old")

        server.start()
        until(lambda: api.health()["warehouse"] == "connected", "it is back")
        assert "age" not in api.mart("dim_movie", {"limit": 5}).headers
        assert api.mart("dim_movie", {"limit": 6}).status_code == 200


@own_server
def test_a_build_during_an_outage_is_seen_afterwards(site: Built, server: Server):
    with serving(site) as api:
        before = api.mart("dim_city").headers["etag"]
        server.stop()
        until(lambda: api.health()["warehouse"] == "away", "it is seen to be away")
        server.start()
        rebuilt(site, "dim_city")  # perhaps before it listens again
        until(lambda: api.mart("dim_city").headers.get("etag") not in (None, before), "it is seen")


def test_marts_are_rebuilt_under_load_without_an_error(site: Built):
    marts = ("dim_movie", "dim_city", "daily_transactions", "brand_performance")
    paths = [f"/v1/marts/{mart}?format={form}" for mart in marts for form in ("json", "csv")]
    with serving(site, "--workers", "2") as api, Load(api, paths) as load:
        load.after(50)
        for _ in range(2):
            site.dbt("run", "--full-refresh", "--select", *marts)
        load.after(50)
    assert set(load.statuses) == {200}, load.statuses
    build = site.one(
        "select invocation_id from ops.mart_builds where relation_name = 'marts.dim_city'"
    )
    with serving(site) as api:
        assert api.mart("dim_city").headers["warehouse-build"] == build


def test_pages_of_a_mart_that_is_rebuilt_are_never_empty(site: Built):
    """A read that waits for the rename sees the new rows, not a new table without them."""
    with serving(site) as api, ThreadPoolExecutor(4) as pool:
        stop = threading.Event()
        found: Counter[int] = Counter()

        def read(form: str) -> None:
            place = 0
            while not stop.is_set():
                place += 1
                params = {"format": form, "limit": 1000 + place % 900, "select": "genre_name"}
                found[len(api.mart("dim_genre", params).text.splitlines())] += 1

        readers = [pool.submit(read, form) for form in ("csv", "ndjson")]
        rows = site.one("select count(*) from marts.dim_genre")
        for _ in range(100):
            site.execute(
                "create table marts.dim_genre_new as select * from marts.dim_genre;"
                "alter table marts.dim_genre rename to dim_genre_old;"
                "select pg_sleep(0.01);"
                "alter table marts.dim_genre_new rename to dim_genre;"
                "grant select on marts.dim_genre to marquee_reporter;"
                "drop table marts.dim_genre_old"
            )
        stop.set()
        for reader in readers:
            reader.result()
    assert set(found) == {rows, rows + 1}, found  # CSV has a header


def test_a_killed_worker_loses_no_request_after_its_connection(site: Built):
    """Those that it had taken break off; all others are answered, and it is replaced."""
    with serving(site, "--workers", "2") as api:
        paths = ["/v1/marts/dim_movie", "/v1/marts/dim_city"]
        with Load(api, paths, threads=4) as load:
            for _ in range(3):
                before = until(lambda: len(found := api.workers()) == 2 and found, "two workers")
                load.after(30)
                kill(before[0])
                until(
                    lambda killed=before[0]: (
                        killed not in (found := api.workers()) and len(found) == 2
                    ),
                    "it is replaced",
                )
            load.after(60)
    broken = load.statuses.pop("connection", 0)
    assert set(load.statuses) == {200}, load.statuses
    assert broken <= 3 * 4, "at most what each client had open when a worker died"


def test_a_manifest_that_is_being_written_changes_nothing(site: Built):
    """It is read when it is whole, though nobody asks for that then."""
    manifest = site.target_path / "manifest.json"
    with serving(site) as api:
        before = api.get("/v1/marts").json()
        metric = "/v1/metrics/transaction_count"
        for path in (manifest, manifest.with_name("semantic_manifest.json")):
            whole = path.read_bytes()
            try:
                path.write_bytes(whole[: len(whole) // 2])
                rebuilt(site, "dim_city")  # it looks, as after a build
                time.sleep(1)
                assert [mart["name"] for mart in api.get("/v1/marts").json()] == [
                    mart["name"] for mart in before
                ]
                assert api.get(metric).status_code == 200
            finally:
                path.write_bytes(whole)
            rebuilt(site, "dim_city")
            until(lambda: api.get(metric).status_code == 200, "it is whole again")


def test_figures_are_those_of_all_workers(site: Built):
    with serving(site, "--workers", "2") as api:
        until(lambda: len(api.workers()) == 2, "two workers")
        until(lambda: api.figure("marquee_api_warehouse_connected") == 2, "both follow builds")
        headers = {"Authorization": f"Bearer {api.key}"}
        for place in range(60):  # each on a connection of its own
            url = f"{api.base}/v1/marts/dim_city?limit={place % 3 + 1}"
            assert requests.get(url, headers=headers, timeout=60).status_code == 200
        requests.get(f"{api.base}/v1/marts/dim_city?limit=x", headers=headers, timeout=60)
        of = 'marquee_api_requests_total{mart="dim_city",path="/v1/marts/{mart}",status="'
        for status, count in ((200, 60), (400, 1)):  # a few times a second each adds its own
            counted = partial(api.figure, f'{of}{status}"}}')
            until(lambda counted=counted, count=count: counted() == count, f"{count} of {status}")
        text = requests.get(f"{api.base}/metrics", timeout=60).text
        count = 'marquee_api_request_duration_seconds_count{path="/v1/marts/{mart}"}'
        assert api.figure(count) == 61
        hits, misses = (api.figure(f"marquee_api_cache_{n}_total") for n in ("hits", "misses"))
        assert hits + misses >= 61
        assert 3 <= misses - 1 <= 6 + 1, "each worker asks once for each page"
        assert 'le="+Inf"' in text
        built = api.figure("marquee_api_mart_build_timestamp_seconds")
        assert built > len(marts_of(site)) * 1_600_000_000
