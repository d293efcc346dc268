"""``--since`` and ``--until``: files of days, and what is refused."""

from __future__ import annotations

from datetime import date, datetime, timezone
from pathlib import Path

import pytest

from ingestion.days import Days, asked
from ingestion.errors import UserError
from ingestion.sources import transactions
from ingestion.sources.transactions.inputs.days import files_of_days
from ingestion.tests.conftest import query_of
from ingestion.warehouse.target import Target

THREE = Days(date(2026, 1, 1), date(2026, 1, 3))
LINE = (
    '{{"transaction_id": "{0}", "event_ts": "2026-01-01T00:00:00Z", "user_id": 1, "amount": 1}}\n'
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder a day, of three days and more; the second has no file."""
    for day in ("2026-01-01", "2026-01-03", "2026-01-04"):
        path = tmp_path / f"dt={day}" / "a.jsonl"
        path.parent.mkdir()
        path.write_text(LINE.format(day))
    return tmp_path


def names(found) -> list[str]:
    return [Path(file.place).parent.name for file in found]


@pytest.mark.parametrize("end", ["*.jsonl", "a.jsonl", ""])
def test_the_files_of_the_days_are_found_and_days_without_one_are_told(folder: Path, end: str):
    found = files_of_days([f"{folder}/dt=%Y-%m-%d/{end}"], THREE)
    assert names(found) == ["dt=2026-01-01", "dt=2026-01-03"]
    assert [note for note in found.notes if "dt=2026-01-02" in note] == found.notes
    assert len(found.notes) == 1


def test_each_file_is_there_once_and_lands_once(folder: Path, database: Target):
    paths = [f"{folder}/dt=%Y-%m-%d/*.jsonl", f"{folder}/dt=%Y-*/a.jsonl"]
    found = files_of_days(paths, THREE)
    assert sorted(names(found)) == ["dt=2026-01-01", "dt=2026-01-03", "dt=2026-01-04"]
    for rows in (3, 0):
        report = transactions.ingest(files_of_days(paths, THREE), database)
        assert report.rows["transactions"] == rows
    assert query_of(database)("select count(*) from transactions") == [(3,)]


def test_days_without_any_file_are_no_error(folder: Path, database: Target):
    found = files_of_days([f"{folder}/%Y/%m/%d.csv"], THREE)
    report = transactions.ingest(found, database)
    assert report.rows["transactions"] == 0
    assert sum("There is no" in note for note in report.notes) == 3


def test_a_per_cent_sign_is_written_twice(tmp_path: Path):
    (tmp_path / "100%-26001.jsonl").write_text(LINE.format(1))
    found = files_of_days(
        [f"{tmp_path}/100%%-%y%j.jsonl"], Days(date(2026, 1, 1), date(2026, 1, 1))
    )
    assert len(found) == 1


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("data/*.jsonl", "has none"),
        ("data/100%%.jsonl", "has none"),
        ("dt=%Y-%m-%d/%H.jsonl", "%H in .* is no part of a day"),
        ("dt=%Y-%m-%d/100%", "% in .* is no part of a day"),
    ],
)
def test_a_path_that_has_no_day_is_refused(path: str, told: str):
    with pytest.raises(UserError, match=told) as refused:
        files_of_days([path], THREE)
    assert len(refused.value.message.splitlines()) == 2


@pytest.mark.parametrize("path", ["postgresql://u:s3cr%40t@h/d?table=t", "s3://u:s3cr%40t@b/k"])
def test_no_password_of_a_url_is_said(path: str):
    with pytest.raises(UserError) as refused:
        files_of_days([path], Days(date(2026, 1, 1), date(2026, 1, 2)))
    assert "s3cr" not in refused.value.message


def test_what_else_is_wrong_with_a_path_stays_an_error(tmp_path: Path):
    with pytest.raises(UserError, match="not read from ftp"):
        files_of_days(["ftp://host/%Y.csv"], THREE)
    with pytest.raises(UserError, match="--since YYYY-MM-DD"):
        transactions.ingest([f"{tmp_path}/dt=%Y-%m-%d/a.csv"], None)


@pytest.mark.parametrize(
    ("since", "until", "told"),
    [
        (None, date(2026, 1, 1), "needs a first day"),
        (date(2026, 1, 2), date(2026, 1, 1), "is later than"),
        (date(1, 1, 1), date(2026, 1, 1), "more than 3,660"),
    ],
)
def test_days_that_cannot_be_are_refused(since: date | None, until: date, told: str):
    with pytest.raises(UserError, match=told):
        asked(since, until)


def test_without_a_last_day_today_is_the_last():
    today = datetime.now(timezone.utc).date()
    found = asked(date(2026, 1, 1), None)
    assert found is not None
    assert found.last >= today
    assert asked(None, None) is None
