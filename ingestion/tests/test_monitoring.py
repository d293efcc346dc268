"""Prometheus, Alertmanager, the exporters: real ones, over a real warehouse; make test-monitoring.

What goes wrong in the warehouse has to reach a webhook. The tests go on from each other, over one
warehouse, in their order.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from ingestion.tests.built import Built
from ingestion.tests.conftest import reachable_folder, unused_port
from ingestion.tests.monitors import (
    MONITORING,
    Monitors,
    Webhook,
    call,
    change,
    fire_at_once,
    impatient_copy,
    program,
    takes_url_files,
    until,
)
from ingestion.tests.test_evidence import file_of, line
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.profiles import write_profiles

pytestmark = pytest.mark.skipif(
    not os.environ.get("MARQUEE_MONITORING"), reason="make test-monitoring fetches the programs"
)


RULES = sorted(path.name.split(".")[0] for path in (MONITORING / "rules").glob("*.rules.yml"))


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return impatient_copy(tmp_path, {}, "http://127.0.0.1:1/alerts")


def test_the_configurations_are_valid(copy: Path):
    for tool, *args in (
        ("promtool", "check", "config", MONITORING / "prometheus.yml"),
        ("promtool", "check", "rules", *(MONITORING / "rules").glob("*.rules.yml")),
        ("amtool", "check-config", copy / "alertmanager.yml"),
        *([("amtool", "check-config", MONITORING / "alertmanager.yml")] * takes_url_files()),
    ):
        done = call(tool, *args)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", RULES)
def test_rules_pass_their_tests(name: str):
    done = call("promtool", "test", "rules", MONITORING / "rules" / f"{name}.test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", RULES)
def test_rules_that_are_broken_do_not_pass_their_tests(name: str, tmp_path: Path):
    """Each alert that never fires is missed; so is the time that it should have waited."""
    copy = Path(shutil.copytree(MONITORING / "rules", tmp_path / "rules"))
    alerts: list[str] = []

    def never(rules: dict) -> None:
        for group in rules["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    alerts.append(rule["alert"])
                    rule["expr"] = "vector(0) > 1"

    change(copy / f"{name}.rules.yml", never)
    done = call("promtool", "test", "rules", copy / f"{name}.test.yml")
    assert done.returncode == 1
    assert [alert for alert in alerts if alert not in done.stdout + done.stderr] == []
    shutil.copy(MONITORING / "rules" / f"{name}.rules.yml", copy)
    change(copy / f"{name}.rules.yml", fire_at_once)
    assert call("promtool", "test", "rules", copy / f"{name}.test.yml").returncode == 1


def test_configurations_that_are_broken_are_refused(copy: Path):
    change(copy / "prometheus.yml", lambda it: it["global"].update(scrape_intervall="1s"))
    assert call("promtool", "check", "config", copy / "prometheus.yml").returncode
    rules = copy / "rules" / "runs.rules.yml"
    change(rules, lambda it: it["groups"][1]["rules"][0].update(expr="marquee_up =="))
    assert call("promtool", "check", "rules", rules).returncode
    change(copy / "alertmanager.yml", lambda it: it["route"].update(receiver="nobody"))
    assert call("amtool", "check-config", copy / "alertmanager.yml").returncode


@pytest.fixture(scope="module")
def grafana(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of deploy/monitoring/grafana with Grafana's own types beside its check."""
    if not shutil.which("npm"):
        pytest.skip("there is no npm, so the panels are not checked against Grafana's types")
    copy = Path(shutil.copytree(MONITORING / "grafana", tmp_path_factory.mktemp("g") / "grafana"))
    npm = ["npm", "install", "--silent", "--no-audit", "--no-fund"]
    if subprocess.run(npm, cwd=copy / "check", check=False).returncode:
        pytest.skip("npm cannot fetch Grafana's types")
    return copy


def test_dashboards_are_of_grafanas_types_and_broken_ones_are_not(grafana: Path):
    def check() -> subprocess.CompletedProcess:
        npm = ["npm", "run", "--silent", "check"]
        return subprocess.run(
            npm, cwd=grafana / "check", capture_output=True, text=True, check=False
        )

    done = check()
    assert done.returncode == 0, done.stdout
    path = grafana / "dashboards" / "marquee.json"
    whole = path.read_text("utf-8")
    for right, wrong in (
        ('"refresh"', '"refesh"'),  # of the dashboard
        ('"gridPos"', '"gridPosition"'),  # of a panel
        ('"colorMode": "value"', '"colorMode": "valu"'),  # an option's value
        ('"showHeader"', '"showHead"'),  # an option
        ('"lineWidth"', '"lineWidht"'),  # a series
        ('"legendFormat"', '"legend"'),  # a query
    ):
        assert right in whole
        path.write_text(whole.replace(right, wrong, 1), "utf-8")
        assert wrong.split(": ")[-1] in check().stdout
    path.write_text(whole, "utf-8")


@dataclass
class Watched:
    """A warehouse that ``marquee run`` has filled, and what watches it."""

    warehouse: Built
    monitors: Monitors
    webhook: Webhook

    def measure(self) -> None:
        """What the scheduler does each minute."""
        self.warehouse.marquee("metrics", "--output", str(self.file), check=False)

    @property
    def file(self) -> Path:
        return self.monitors.textfiles / "marquee.prom"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = reachable_folder()
    server = Server(folder / "state")
    monitors = None
    try:
        server.start(unused_port())
        write_profiles(server, folder / "profiles.yml")
        warehouse = Built(server.target, folder)
        warehouse.marquee("run")
        warehouse.execute("create role watcher login password 'watches' in role pg_monitor")
        warehouse.execute(f"grant connect on database {server.target.dbname} to watcher")
        to = server.target
        url = f"postgresql://watcher:watches@127.0.0.1:{to.port}/{to.dbname}?sslmode=disable"
        webhook = Webhook()
        monitors = Monitors(tmp_path_factory.mktemp("monitors"), url, webhook)
        made = Watched(warehouse, monitors, webhook)
        made.measure()
        monitors.start()
        yield made
    finally:
        if monitors:
            monitors.stop()
        server.delete()
        shutil.rmtree(folder)


def test_a_warehouse_that_is_well_raises_no_alert(watched: Watched):
    monitors = watched.monitors
    until(lambda: "MarqueeWatchdog" in monitors.alerts(), lambda: monitors.log("prometheus"))
    until(lambda: len(monitors.query("up == 1")) == 4, lambda: monitors.query("up"))
    until(
        lambda: monitors.query(
            "pg_up == 1 and on (warehouse) marquee_up == 1"
            " and on (warehouse) pg_exporter_last_scrape_error == 0"
        ),
        lambda: monitors.log("postgres"),
    )

    def fires() -> set[str]:
        found = monitors.alerts().items()  # disks are those of this machine
        return {name for name, those in found if those[0]["component"] != "host"}

    until(lambda: fires() == {"MarqueeWatchdog"}, fires)


def test_the_metrics_are_as_promtool_wants_them(watched: Watched):
    with watched.file.open() as file:
        done = subprocess.run(
            [*program("promtool"), "check", "metrics"],
            stdin=file, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_stopped_server_is_told_and_then_its_return(watched: Watched):
    watched.warehouse.marquee("db", "stop")
    watched.measure()
    alert = watched.webhook.waits_for("MarqueeServerDown", job="node")
    assert alert["receiver"] == "on-call"
    assert "MarqueeServerDown" in alert["commonLabels"]["alertname"]
    watched.webhook.waits_for("MarqueeServerDown", job="postgres")
    watched.warehouse.marquee("db", "start")
    watched.measure()
    for job in ("node", "postgres"):
        watched.webhook.waits_for("MarqueeServerDown", "resolved", job=job)


def test_a_failed_build_is_told(watched: Watched):
    warehouse = watched.warehouse
    warehouse.execute(
        "alter table seeds.currencies rename to aside; create sequence seeds.currencies"
    )
    assert warehouse.marquee("dbt", "build", "--fail-fast", check=False).returncode == 1
    warehouse.execute(
        "drop sequence seeds.currencies; alter table seeds.aside rename to currencies"
    )
    watched.measure()
    alert = watched.webhook.waits_for("MarqueeBuildFailed", command="build")
    assert alert["receiver"] == "on-call"
    assert alert["annotations"]["summary"] == "The last build of marquee failed"


def test_a_failed_test_is_told_to_its_owner(watched: Watched):
    watched.warehouse.execute(
        "alter table marts.dim_city alter city_name drop not null;"
        " update marts.dim_city set city_name = null where city_name = 'Lyon'"
    )
    watched.warehouse.marquee("dbt", "test", "-s", "not_null_dim_city_city_name", check=False)
    watched.measure()
    alert = watched.webhook.waits_for("MarqueeTestsFailed", owner="Payments data")
    assert alert["receiver"] == "payments-data"


def test_stale_sources_are_told_to_their_owner(watched: Watched):
    watched.warehouse.execute("update raw_tmdb.movies set _dlt_load_id = '1000000000.0'")
    watched.warehouse.marquee("dbt", "source", "freshness", "-s", "source:tmdb", check=False)
    watched.measure()
    alert = watched.webhook.waits_for("MarqueeSourceStale", source="tmdb", table="movies")
    assert alert["receiver"] == "film-data"
    assert not watched.webhook.told("MarqueeSourceStale", source="brands")


def test_a_rise_of_rejects_is_told(watched: Watched, tmp_path: Path):
    def rejects_rise() -> bool:
        return "MarqueeRejectsRise" in watched.monitors.alerts()

    # four bad rows of forty are a tenth, and too few to wake somebody
    lines = [line() if number >= 4 else '{"amount": 1}' for number in range(40)]
    watched.warehouse.marquee("ingest", "transactions", str(file_of(tmp_path, *lines)))
    watched.measure()
    grown = 'source:marquee_rows_rejected:increase1d{source="transactions"}'
    until(lambda: watched.monitors.query(f"{grown} == 4"), lambda: watched.monitors.query(grown))
    assert not rejects_rise()
    lines = [line() if number >= 40 else '{"amount": 1}' for number in range(100)]
    more = file_of(tmp_path, *lines)
    watched.warehouse.marquee("ingest", "transactions", str(more))
    watched.measure()
    alert = watched.webhook.waits_for("MarqueeRejectsRise", source="transactions")
    assert alert["receiver"] == "payments-data"


def test_a_server_that_is_away_silences_what_follows_from_it(watched: Watched):
    def state(name: str) -> str:
        found = watched.monitors.held(name)
        return found[0]["status"]["state"] if found else ""

    assert state("MarqueeBuildFailed") == "active"
    watched.warehouse.marquee("db", "stop")
    watched.measure()
    until(lambda: state("MarqueeServerDown") == "active", lambda: state("MarqueeServerDown"))
    until(lambda: state("MarqueeBuildFailed") == "suppressed", lambda: state("MarqueeBuildFailed"))
    watched.warehouse.marquee("db", "start")
    watched.measure()
    until(lambda: state("MarqueeBuildFailed") == "active", lambda: state("MarqueeBuildFailed"))


def test_a_full_disk_is_told_and_that_it_has_room_again(watched: Watched, tmp_path: Path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "marquee", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a disk cannot be mounted here")
    try:
        with suppress(OSError), (disk / "rows").open("wb") as file:
            while True:
                file.write(bytes(65536))
        alert = watched.webhook.waits_for("MarqueeDiskFull", mountpoint=str(disk))
        assert (alert["receiver"], alert["labels"]["severity"]) == ("on-call", "critical")
        (disk / "rows").unlink()
        watched.webhook.waits_for("MarqueeDiskFull", "resolved", mountpoint=str(disk))
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_lock_that_others_wait_for_is_told(watched: Watched):
    with closing(watched.warehouse.target.connect()) as holder:
        holder.cursor().execute("lock table marts.dim_city")
        waiter = watched.warehouse.target.connect()
        waiting = threading.Thread(
            target=lambda: waiter.cursor().execute("select count(*) from marts.dim_city")
        )
        waiting.start()
        alert = watched.webhook.waits_for("MarqueeSessionsBlocked")
        assert alert["labels"]["datname"] == watched.warehouse.target.dbname
        idle = "marquee_pg_sessions_longest_idle_in_transaction_seconds > 1"
        until(lambda: watched.monitors.query(idle), lambda: watched.monitors.log("postgres"))
    waiting.join()
    waiter.close()
    watched.webhook.waits_for("MarqueeSessionsBlocked", "resolved")


def write_wal(warehouse: Built) -> None:
    """Fill a file of it, which is then to be archived."""
    warehouse.execute(
        "create table if not exists public.change as select 1; drop table public.change"
    )
    warehouse.execute("select pg_switch_wal()")


def test_an_archive_that_fails_is_told(watched: Watched):
    warehouse, monitors = watched.warehouse, watched.monitors
    warehouse.marquee("db", "start", "--archive", str(warehouse.folder / "archive"))
    place = Path(warehouse.one("select current_setting('basic_archive.archive_directory')"))
    works = "marquee_pg_archive_failing == 0"
    until(lambda: monitors.query(works), lambda: monitors.log("postgres"))
    away = place.rename(place.with_name("away"))
    write_wal(warehouse)
    watched.webhook.waits_for("MarqueeArchiveFails")
    waits = "marquee_pg_archive_waiting_files > 0 and marquee_pg_archive_waiting_seconds > 3"
    until(lambda: monitors.query(waits), lambda: monitors.query("marquee_pg_archive_waiting_files"))
    away.rename(place)
    write_wal(warehouse)
    watched.webhook.waits_for("MarqueeArchiveFails", "resolved")


def test_every_panel_shows_something(watched: Watched):
    """But for what is not there in this warehouse, which has no replicas, and no run lost."""
    empty = {
        'sum by (status) (marquee_runs_unfinished{warehouse="marquee"})',
        'marquee_pg_replicas_replay_lag_seconds{warehouse="marquee"}',
        'marquee_pg_replication_slots_retained_bytes{warehouse="marquee"}',
    }
    asked = list(expressions())
    assert len(asked) > 50
    monitors = watched.monitors
    missing = [it for it in asked if it not in empty and not monitors.query(it)]
    time.sleep(1)
    assert [it for it in missing if not monitors.query(it)] == []  # a moment of a scrape is none
    assert empty <= set(asked)
    assert not any(monitors.query(it) for it in empty), "these need no exception any more"


def expressions() -> Iterator[str]:
    """What the panels of the warehouse's dashboards ask, as Grafana would fill it in.

    That of the API is asked where there is one: test_api_monitoring.py.
    """
    for path in sorted((MONITORING / "grafana" / "dashboards").glob("*.json")):
        if path.stem == "api":
            continue
        for panel in json.loads(path.read_text("utf-8"))["panels"]:
            for target in panel.get("targets", ()):
                found = target["expr"].replace("$warehouse", "marquee")
                yield found.replace("$__rate_interval", "2m")


def test_no_success_for_a_day_is_told(watched: Watched):
    watched.warehouse.execute(
        "update ops.invocations set started_at = started_at - interval '27 hours',"
        " ended_at = ended_at - interval '27 hours'"
    )
    watched.measure()
    watched.webhook.waits_for("MarqueeNoRecentSuccess")


def test_metrics_that_are_old_broken_or_missing_are_told(watched: Watched):
    hours_ago = time.time() - 7200
    os.utime(watched.file, (hours_ago, hours_ago))
    alert = watched.webhook.waits_for("MarqueeMetricsStale")
    assert alert["receiver"] == "warehouse-team"
    watched.file.unlink()
    watched.webhook.waits_for("MarqueeMetricsMissing")
    other = watched.file.with_name("other.prom")
    other.write_text("this is no metric\n")
    watched.webhook.waits_for("MarqueeMetricsUnreadable")


def test_an_exporter_that_is_away_is_told(watched: Watched):
    watched.monitors.end("postgres")
    watched.webhook.waits_for("MarqueeTargetDown", job="postgres")
