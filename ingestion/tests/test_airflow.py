"""Airflow for real: the DAG of orchestration/ over a warehouse of its own, its alerts, its page.

Asked for by ``make test-airflow``. The tests follow one another: the first run lands the sample.
The picture in docs/images is the one that it takes, where there is a Chromium (CHROMIUM names it).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import psutil
import pytest

from ingestion.pipeline import one_at_a_time
from ingestion.tests.airflow_place import AirflowPlace
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.paths import PROJECT_DIR

pytestmark = pytest.mark.skipif(
    not os.environ.get("MARQUEE_AIRFLOW"), reason="asked for by make test-airflow"
)

CHROMIUM = shutil.which(os.environ.get("CHROMIUM") or "chromium")
PICTURE = PROJECT_DIR / "docs" / "images" / "airflow.png"
LOADS = ("tmdb", "brands", "releases", "transactions", "rates")  # the last is of .dlt/config.toml
FEW = [
    "stg_brands__brands",
    "stg_brands__brand_releases",
]  # models, where a whole build says no more
LINE = (
    '{{"transaction_id": "backfill-{0}", "event_ts": "2026-02-0{0}T00:00:00Z", "user_id": 1,'
    ' "amount": 1, "currency": "EUR"}}\n'
)
MODEL = "models/staging/brands/stg_brands__brands.sql"


@pytest.fixture(scope="module")
def place() -> Iterator[AirflowPlace]:
    place = AirflowPlace()
    try:
        place.serve()
        yield place
    finally:
        place.remove()


def lands(process: psutil.Process) -> bool:
    """Whether it is a load that has not ended."""
    with suppress(psutil.Error):
        return "ingest" in process.cmdline()
    return False


def test_its_servers_listen_on_this_machine_alone(place: AirflowPlace):
    hosts = {
        connection.laddr.ip
        for process in place.processes()
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert hosts == {"127.0.0.1"}


def test_its_keys_and_its_logs_are_the_owners(place: AirflowPlace):
    assert (place.state / "airflow.json").stat().st_mode & 0o777 == 0o600
    assert (place.state / "airflow" / "passwords.json").stat().st_mode & 0o777 == 0o600
    assert (place.state / "airflow").stat().st_mode & 0o077 == 0
    assert place.password in place.said
    owner = "select pg_get_userbyid(datdba) from pg_database where datname = 'airflow'"
    assert place.sql(owner) == [("marquee_airflow",)]


def test_what_the_dag_promises(place: AirflowPlace):
    place.wait(lambda: place.api("GET", "/dags")["dags"], "the DAG")
    dag = place.api("GET", "/dags/marquee/details")
    assert (dag["max_active_runs"], dag["catchup"]) == (1, False)
    assert dag["timetable_summary"] == "0 2 * * *"
    assert place.api("GET", "/pools/marquee")["slots"] == 1
    tasks = {task["task_id"]: task for task in place.api("GET", "/dags/marquee/tasks")["tasks"]}
    assert {f"ingest.{name}" for name in LOADS} | {"dbt", "export", "metrics"} <= tasks.keys()
    for name, task in tasks.items():
        if name != "marts":  # runs nothing
            assert task["pool"] == "marquee"
            assert task["retries"] == 5
            assert task["retry_exponential_backoff"] == 2
            assert task["execution_timeout"] is not None
    names = {asset["name"] for asset in place.api("GET", "/assets?limit=200")["assets"]}
    assert {"marts", "marts.fct_transactions", "marts.dim_movie"} <= names


def test_the_scheduled_run_fills_the_warehouse(place: AirflowPlace):
    place.api("PATCH", "/dags/marquee", is_paused=False)
    place.wait(lambda: place.api("GET", "/dags/marquee/dagRuns")["dag_runs"], "a run")
    (run,) = place.api("GET", "/dags/marquee/dagRuns")["dag_runs"]
    assert run["run_type"] == "scheduled"
    assert place.ended(run["dag_run_id"]) == "success"
    assert set(place.states(run["dag_run_id"]).values()) == {"success"}
    assert place.rows()["raw_transactions.transactions"] > 90_000
    assert place.rows()["raw_rates.rates"] == 3
    assert place.sql("select count(*) > 0 from marts.fct_transactions") == [(True,)]
    # one night is one run in the evidence
    ids = "select distinct run_id from ops.invocations where run_id is not null"
    assert place.sql(ids) == [(run["dag_run_id"],)]
    events = place.api("GET", "/assets/events?limit=200")["asset_events"]
    assert {"marts", "marts.fct_transactions"} <= {event["name"] for event in events}
    manifest = json.loads((place.state / "export" / "manifest.json").read_text())
    assert "fct_transactions" in {mart["name"] for mart in manifest["marts"]}
    assert "marquee_up 1" in (place.state / "marquee.prom").read_text()
    assert place.webhook.received == []


def test_a_broken_model_fails_once_tells_somebody_and_goes_on_after_the_fix(place: AirflowPlace):
    place.set(select=FEW, retry_seconds=1)
    run = "broken"
    with place.edited(MODEL, "from source", "from sourcery"):
        place.trigger(run)
        assert place.ended(run) == "failed"
    tasks = place.tasks(run)
    assert (tasks["dbt"]["state"], tasks["dbt"]["try_number"]) == ("failed", 1)  # no retry
    assert tasks["export"]["state"] == "upstream_failed"
    assert tasks["metrics"]["state"] == "success"  # it tells of the failure
    place.wait(lambda: place.webhook.of(run), "an alert")
    (alert,) = place.webhook.of(run)
    assert (alert["event"], alert["task"]) == ("task failed", "dbt")
    assert "exit code 1" in alert["text"]
    assert run in alert["log"]

    again = {"dry_run": False, "dag_run_id": run, "only_failed": True, "reset_dag_runs": True}
    place.api("POST", "/dags/marquee/clearTaskInstances", **again)
    assert place.ended(run) == "success"
    assert place.tasks(run)["ingest.tmdb"]["try_number"] == 1  # what was done stays done
    assert len(place.webhook.of(run)) == 1


def test_what_passes_by_itself_is_tried_again_and_a_late_run_is_told(place: AirflowPlace):
    place.set(select=FEW, retry_seconds=1, deadline_minutes=0.05)
    run, before = "busy", place.rows()
    with one_at_a_time("brands", Server(place.state).target):
        place.trigger(run)
        place.wait(lambda: place.states(run).get("ingest.brands") == "up_for_retry", "a retry")
        place.wait(lambda: place.webhook.of(run), "an alert")
    assert place.ended(run) == "success"
    assert place.tasks(run)["ingest.brands"]["try_number"] > 1
    assert "exit code 75" in place.log(run, "ingest.brands")
    assert [alert["event"] for alert in place.webhook.of(run)] == ["run late"]
    assert place.rows() == before  # a run lands what is new, and nothing is


def test_a_task_that_takes_too_long_is_ended_and_not_tried_again(place: AirflowPlace):
    place.set(select=FEW, retry_seconds=1, timeout_minutes=0.01)
    run = place.trigger("slow")
    assert place.ended(run) == "failed"
    brands = place.tasks(run)["ingest.brands"]
    assert (brands["state"], brands["try_number"]) == ("failed", 1)
    assert "task failed" in {alert["event"] for alert in place.webhook.of(run)}
    place.wait(lambda: not any(map(lands, place.processes())), "the end of the load")


def test_a_backfill_lands_the_files_of_its_days(place: AirflowPlace, tmp_path: Path):
    for day in (1, 2, 3):  # the last is not asked for, the second has no file
        if day != 2:
            folder = tmp_path / f"dt=2026-02-0{day}"
            folder.mkdir()
            (folder / "a.jsonl").write_text(LINE.format(day))
    place.set(select=FEW, transactions=f"{tmp_path}/dt=%Y-%m-%d/*.jsonl", by_day=["rates"])
    before = place.rows()["raw_transactions.transactions"]
    days = ("--from-date", "2026-02-01", "--to-date", "2026-02-02T12:00:00")
    done = place.airflow("backfill", "create", "--dag-id", "marquee", *days)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = [
        run["dag_run_id"]
        for run in place.api("GET", "/dags/marquee/dagRuns?limit=100")["dag_runs"]
        if run["run_type"] == "backfill"
    ]
    assert len(runs) == 2
    for run in runs:
        assert place.ended(run) == "success"
        assert place.webhook.of(run) == []
    assert place.rows()["raw_transactions.transactions"] == before + 1
    first, second = (place.log(run, "ingest.transactions") for run in sorted(runs))
    assert "--since=2026-02-01" in first
    assert "--until=2026-02-01" in first
    assert "There is no file" in second
    assert "--since=2026-02-01" in place.log(sorted(runs)[0], "ingest.tmdb")
    modes = place.sql("select rows_landed from raw_rates._ingest_tables order by finished_at")
    assert modes[-2:] == [(1,), (1,)]


def test_dbts_models_are_tasks_where_the_settings_say_so(place: AirflowPlace):
    place.set(select=FEW, dbt="models")
    run = place.trigger("models", logical_date="2026-02-10T00:00:00Z")
    assert place.ended(run) == "success"
    tasks = place.tasks(run)
    for model in FEW:
        (task,) = (task for name, task in tasks.items() if name.startswith(f"dbt.{model}"))
        assert task["state"] == "success"
        assert task["pool"] == "default_pool"
    ours = f"select distinct command from ops.invocations where run_id = '{run}'"
    assert ("build",) in place.sql(ours)


@pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium")
def test_its_page_shows_the_runs(place: AirflowPlace):
    from playwright.sync_api import sync_playwright

    runs = place.api("GET", "/dags/marquee/dagRuns")["dag_runs"]
    run = next(run["dag_run_id"] for run in runs if run["run_type"] == "scheduled")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1600, "height": 800})
        page.goto(f"{place.address}/auth/login/")
        page.fill("[name=username]", "admin")
        page.fill("[name=password]", place.password)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{place.address}/")
        page.goto(f"{place.address}/dags/marquee/runs/{quote(run)}")
        page.get_by_label("Show Graph").click()
        page.get_by_label("Expand all task groups").click()
        page.get_by_text("transactions").first.wait_for()
        page.wait_for_load_state("networkidle")
        page.wait_for_timeout(2000)  # the graph moves into place
        page.screenshot(path=PICTURE)
        text = page.inner_text("body")
        chromium.close()
    assert {"prepare", "transactions", "dbt", "export", "metrics", "Success"} <= set(text.split())


def test_an_interrupt_ends_all_of_it(place: AirflowPlace):
    place.set(select=FEW)
    refused = place.airflow("dags", "test", "marquee", "2026-01-02")
    assert (refused.returncode, "End it first" in refused.stderr) == (1, True)
    assert place.stop() == []


def test_another_run_lands_nothing(place: AirflowPlace):
    before = place.rows()
    done = place.airflow("dags", "test", "marquee", "2026-01-02")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert place.rows() == before
    assert len(place.sql("select from ops.invocations where run_id like 'manual\\_\\_%'")) >= 6
