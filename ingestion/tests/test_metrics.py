"""``marquee metrics``: what Prometheus' own parser reads of it, and whether it is true."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ingestion.evidence.metrics import Metric
from ingestion.tests.built import Built
from ingestion.tests.test_dbt_commands import copy_of
from ingestion.tests.test_evidence import file_of, line
from ingestion.tests.test_torture import Site
from ingestion.warehouse.target import Target

Found = dict[tuple[str, frozenset], float]


@pytest.fixture(scope="module")
def site(built: Built, target: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with copy_of(built, target, tmp_path_factory.mktemp("metrics"), kind=Site) as copy:
        yield copy


def read(text: str) -> Found:
    found: Found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation.endswith("."), family.name
        assert family.type in ("gauge", "counter"), family.name
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found, "each series once"
            assert sample.name.endswith("_total") == (family.type == "counter")
            found[key] = sample.value
    return found


def metric(found: Found, name: str, **labels: str) -> float:
    return found[f"marquee_{name}", frozenset(labels.items())]


def test_the_figures_are_those_of_the_warehouse(site: Site):
    found = read(site.marquee("metrics").stdout)
    run = {"program": "marquee", "command": "run"}
    assert metric(found, "up") == 1
    [(status, code)] = site.rows(  # of the warehouse that tests share, which others may have run
        "select status, exit_code from ops.invocations where program = 'marquee'"
        " and command = 'run' and ended_at is not null order by ended_at desc limit 1"
    )
    assert metric(found, "run_last_success", **run) == (status == "succeeded")
    # a run that was killed has none
    assert found.get(("marquee_run_last_exit_code", frozenset(run.items()))) == code
    assert 0 < metric(found, "run_last_duration_seconds", **run) < 3600
    assert metric(found, "run_last_success_timestamp_seconds", **run) == pytest.approx(
        time.time(), abs=7200
    )
    rows = site.one("select count(*) from raw_transactions.transactions")
    landed = {"source": "transactions", "table": "transactions"}
    assert metric(found, "rows_landed_total", **landed) == rows
    rejects = site.one("select count(*) from raw_transactions.rejects")
    assert metric(found, "rows_rejected_total", source="transactions") == rejects > 0
    tests = site.one(
        "select count(distinct unique_id) from ops.node_results"
        " where resource_type in ('test', 'unit_test')"
    )
    counts = [value for (name, _), value in found.items() if name == "marquee_tests"]
    assert sum(counts) == tests
    assert metric(found, "test_failures", owner="Film data") == 0
    films = {"source": "tmdb", "table": "movies"}
    loaded = metric(found, "source_freshness_loaded_timestamp_seconds", **films)
    assert loaded == pytest.approx(time.time(), abs=7200)
    assert metric(found, "source_freshness_status", **films) == 0
    checked = metric(found, "source_freshness_checked_timestamp_seconds", **films)
    assert loaded <= checked <= time.time()
    size = site.one("select pg_database_size(current_database())")
    assert metric(found, "database_size_bytes") == pytest.approx(size, rel=0.05)
    assert metric(found, "schema_size_bytes", schema="raw_transactions") > 1e6


def test_what_fails_shows(site: Site, tmp_path: Path):
    before = read(site.marquee("metrics").stdout)
    name = "not_null_dim_city_city_name"
    site.execute(
        "alter table marts.dim_city alter city_name drop not null;"
        " update marts.dim_city set city_name = null where city_name = 'Lyon'"
    )
    site.dbt("test", "--select", name, check=False)
    site.marquee("ingest", "transactions", "/nowhere", check=False)
    site.marquee("ingest", "transactions", str(file_of(tmp_path, line(), "{}", line(), line())))
    found = read(site.marquee("metrics").stdout)
    assert metric(found, "test_failures", owner="Payments data") == 1
    for table, rows in (("transactions", 3), ("files", 1)):
        labels = {"source": "transactions", "table": table}
        grown = metric(found, "rows_landed_total", **labels)
        assert grown - metric(before, "rows_landed_total", **labels) == rows
    assert metric(found, "source_last_rows_timestamp_seconds", source="transactions") > metric(
        before, "source_last_rows_timestamp_seconds", source="transactions"
    )
    site.execute(
        "update ops.invocations set status = 'failed', exit_code = 1 where command = 'run'"
        " and program = 'marquee'"
    )
    failed = read(site.marquee("metrics").stdout)
    run = {"program": "marquee", "command": "run"}
    assert metric(failed, "run_last_success", **run) == 0
    assert ("marquee_run_last_success_timestamp_seconds", frozenset(run.items())) not in failed


def test_the_file_is_whole_at_every_moment(site: Site, tmp_path: Path):
    file = tmp_path / "marquee.prom"
    site.marquee("metrics", "--output", str(file))
    first = file.stat().st_ino
    assert read(file.read_text())
    assert file.stat().st_mode & 0o777 == 0o644
    site.marquee("metrics", "--output", str(file))
    assert file.stat().st_ino != first, "another file in its place, not written over"
    assert [path.name for path in tmp_path.iterdir()] == ["marquee.prom"]
    done = site.marquee("metrics", "--output", str(tmp_path / "no" / "folder"), check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 2)


def test_a_server_that_is_away_shows_in_the_file(site: Site, tmp_path: Path):
    away = Site(replace(site.target, port=1), tmp_path)
    away.write_profile()
    file = tmp_path / "marquee.prom"
    done = away.marquee("metrics", "--output", str(file), check=False)
    assert done.returncode == 75
    assert read(file.read_text()) == {("marquee_up", frozenset()): 0}


def test_a_warehouse_without_evidence_has_its_size(database: Target, tmp_path: Path):
    site = Site(database, tmp_path)
    site.write_profile()
    found = read(site.marquee("--log-format", "json", "metrics").stdout)
    assert {name for name, _ in found} == {"marquee_up", "marquee_database_size_bytes"}


def test_labels_are_escaped():
    odd = 'a "quoted" \\ back\\nslash\nand a line'
    made = Metric("marquee_odd", "gauge", "What\nis \\ odd.")
    made.add(1.5, owner=odd)
    [family] = text_string_to_metric_families("".join(f"{text}\n" for text in made.lines()))
    [sample] = family.samples
    assert sample.labels == {"owner": odd}
    assert sample.value == 1.5
    assert json.dumps(family.documentation) == json.dumps("What\nis \\ odd.")
