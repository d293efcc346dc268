"""The API's dashboard and alerts on a real Prometheus, which scrapes a real API."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import yaml

from ingestion.tests.api_server import Api, serving, until, warehouse_of
from ingestion.tests.built import Built
from ingestion.tests.conftest import unused_port
from ingestion.tests.monitors import MONITORING, Monitors, Webhook, program
from ingestion.tests.redis_server import PROGRAM, RedisServer
from ingestion.tests.test_api_faults import Load
from ingestion.warehouse.target import Target

for package in ("asyncpg", "fastapi", "orjson", "prometheus_client", "uvicorn"):
    pytest.importorskip(package, reason="make test-api installs it")
if not PROGRAM:
    pytest.skip("there is no redis-server: apt install redis-server", allow_module_level=True)
try:
    program("prometheus")
except FileNotFoundError:
    pytest.skip("make test-api fetches Prometheus", allow_module_level=True)

PATHS = [
    "/v1/marts/dim_city?format=csv",
    "/v1/marts/dim_movie?format=json",
    "/v1/metrics/transaction_count?group_by=city_name",
]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis")).start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def api(
    built: Built, target: Target, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("watched")
    with (
        warehouse_of(built, target, folder) as warehouse,
        serving(warehouse, "--workers", "2", "--redis", redis.url) as one,
    ):
        yield one


@pytest.fixture(scope="module")
def prometheus(api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Monitors]:
    """Prometheus alone, over a copy of its configuration that asks for this API."""
    monitors = Monitors(tmp_path_factory.mktemp("prometheus"), "", Webhook())
    monitors.ports = {"prometheus": unused_port()}
    asked = [{"targets": [api.base.removeprefix("http://")], "labels": {"warehouse": "marquee"}}]
    (monitors.copy / "targets" / "api.yml").write_text(yaml.safe_dump(asked))
    monitors.start_prometheus()
    try:
        yield monitors
    finally:
        monitors.stop()


def expressions() -> Iterator[str]:
    """What the panels ask, as Grafana would fill it in."""
    dashboard = json.loads((MONITORING / "grafana" / "dashboards" / "api.json").read_text("utf-8"))
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield (
                target["expr"].replace("$warehouse", "marquee").replace("$__rate_interval", "1m")
            )


def test_every_panel_shows_something(api: Api, prometheus: Monitors):
    asked = list(expressions())
    assert len(asked) >= 20
    with Load(api, PATHS) as load:
        load.after(100)
        missing: list[str] = []

        def all_show() -> bool:
            missing[:] = [one for one in asked if not shows(prometheus, one)]
            return not missing

        try:
            until(all_show, "every panel shows something")
        except AssertionError:
            pytest.fail(f"nothing is shown by {missing}")
    assert set(load.statuses) == {200}


def shows(prometheus: Monitors, expression: str) -> bool:
    return any(sample["value"][1] != "NaN" for sample in prometheus.query(expression))


def test_it_says_what_prometheus_wants_to_read(api: Api):
    """promtool's rules for names, but for one: Prometheus' client has no unit for an info."""
    text = requests.get(f"{api.base}/metrics", timeout=60).text
    done = subprocess.run(
        [*program("promtool"), "check", "metrics"],
        input=text, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_redis_that_is_away_is_told_and_its_return(
    api: Api, redis: RedisServer, prometheus: Monitors
):
    def fires() -> bool:
        return "MarqueeApiRedisAway" in prometheus.alerts()

    assert api.health()["redis"] == "connected"
    until(lambda: prometheus.query("marquee_api_redis_connected == 2"), "both are connected")
    assert not fires()
    redis.kill()
    until(fires, "it is told")
    redis.start()
    until(lambda: not fires(), "it is told that it is back")


def test_keys_that_do_not_hold_are_told(api: Api, prometheus: Monitors):
    """The threshold is one request a second over a quarter of an hour."""

    def refused() -> None:
        page = requests.get(f"{api.base}/v1/marts", headers={"Authorization": "no"}, timeout=60)
        assert page.status_code == 401

    refused()
    first = 'marquee_api_requests_total{status="401"}'
    until(lambda: prometheus.query(first), "the first one is counted")
    assert "MarqueeApiKeysRefused" not in prometheus.alerts()
    for _ in range(1500):
        refused()
    until(lambda: "MarqueeApiKeysRefused" in prometheus.alerts(), "it is told")


def test_the_file_of_targets_names_no_api_that_may_not_be_there():
    """An API that nobody started would be a target that is down."""
    text = Path(MONITORING / "targets" / "api.yml").read_text("utf-8")
    assert yaml.safe_load(text) == []
    example = text.partition("brackets:\n")[2].replace("# ", "").replace("[]", "")
    assert yaml.safe_load(example) == [
        {"targets": ["api:8000"], "labels": {"warehouse": "marquee"}}
    ]
