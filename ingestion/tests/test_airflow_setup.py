"""What schedulers start, and what `marquee airflow` says before Airflow is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingestion.errors import UserError
from ingestion.run import land_sample
from ingestion.sources import brands
from ingestion.tests.conftest import query_of
from ingestion.warehouse.target import Target
from orchestration import service
from orchestration.service import Airflow


def test_without_airflow_it_says_how_to_get_it(target: Target, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(service, "ENVIRONMENT", tmp_path)
    with pytest.raises(UserError, match="make airflow"):
        Airflow(target).prepare()


def test_before_the_set_up_no_command_is_run(target: Target, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(service, "STATE_DIR", tmp_path)
    with pytest.raises(UserError, match="has not been set up yet"):
        Airflow(target).become(("dags", "list"))


def test_the_sample_lands_by_parts_and_never_beside_files_of_the_users_own(
    database: Target, tmp_path: Path
):
    report = land_sample("releases", database)
    assert not isinstance(report, str)
    assert report.rows["brand_releases"] > 0
    own = tmp_path / "brands.csv"
    own.write_text("Brand,Total,Releases,#1 Release,Lifetime Gross\nMarvel,$1,2,Thor,$1\n")
    brands.ingest_brands(own, database)
    assert land_sample("brands", database) == f"no sample, for {own} has landed"
    assert query_of(database)("select count(*) from raw_brands.brands") == [(1,)]
