"""Superset for real: set up over a warehouse of its own, the dashboards opened in Chromium.

Asked for by ``make test-superset``, which needs a Chromium (CHROMIUM names it) and minutes. The
pictures in docs/images are the ones that it takes.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import requests

from bi.superset.assets import of_kind, read, write
from ingestion.sample.live import live
from ingestion.tests.brokers import Broker
from ingestion.tests.conftest import reachable_folder, unused_port
from ingestion.warehouse.embedded import Server
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target

pytestmark = pytest.mark.skipif(
    not os.environ.get("MARQUEE_SUPERSET"), reason="asked for by make test-superset"
)

CHROMIUM = shutil.which(os.environ.get("CHROMIUM") or "chromium")
IMAGES = PROJECT_DIR / "docs" / "images"
PATIENCE = 120  # seconds
WIDTH = 1600
ROWS = int(os.environ.get("MARQUEE_SUPERSET_ROWS") or 0)  # transactions instead of the sample's
REPEATS = 5
DASHBOARDS = {
    "film-brands": "Film brands",
    "operations": "Operations",
    "transactions": "Transactions",
}


@dataclass
class Place:
    """A warehouse with the sample, and Superset over it."""

    home: Path
    port: int
    said: str = ""
    server: subprocess.Popen | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def state(self) -> Path:
        return self.home / "state"

    @property
    def target(self) -> Target:
        return Server(self.state).target

    @property
    def password(self) -> str:
        return re.search(r"password (\S+)", self.said)[1]

    def env(self) -> dict[str, str]:
        return os.environ | {
            "DBT_PROFILES_DIR": str(self.home),
            "DBT_TARGET_PATH": str(self.home / "target"),
            "DBT_LOG_PATH": str(self.home / "logs"),
            "MARQUEE_STATE_DIR": str(self.state),
        }

    def marquee(self, *args: str, check: bool = True) -> str:
        program = Path(sys.executable).with_name("marquee")
        done = subprocess.run(
            [program, *args],
            cwd=PROJECT_DIR,
            env=self.env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout[-4000:]
        return done.stdout

    def serve(self) -> None:
        """`marquee superset`, until it answers."""
        program = Path(sys.executable).with_name("marquee")
        log = self.home / "superset.out"
        with log.open("w") as out:
            self.server = subprocess.Popen(
                [program, "superset", f"--port={self.port}"],
                cwd=PROJECT_DIR,
                env=self.env(),
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + 5 * PATIENCE
        while time.monotonic() < deadline:
            assert self.server.poll() is None, log.read_text()
            try:
                requests.get(f"{self.address}/health", timeout=5).raise_for_status()
                break
            except requests.RequestException:
                time.sleep(0.5)
        self.said = self.said or log.read_text()

    def stop(self) -> None:
        if self.server and self.server.poll() is None:
            os.killpg(self.server.pid, signal.SIGTERM)
            self.server.wait(30)

    def sql(self, query: str, dbname: str | None = None) -> Any:
        """The first value that a query gives."""
        target = replace(self.target, dbname=dbname) if dbname else self.target
        with closing(target.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchone()[0]

    def execute(self, statement: str, dbname: str) -> None:
        with closing(replace(self.target, dbname=dbname).connect()) as connection:
            connection.autocommit = True
            connection.cursor().execute(statement)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    home = reachable_folder() if not ROWS else Path(tempfile.mkdtemp(prefix="marquee-test-"))
    home.chmod(0o711)
    place = Place(home, unused_port())
    try:
        if ROWS:
            file = home / "transactions.jsonl"
            place.marquee("generate", "transactions", f"--rows={ROWS}", "--seed=1", f"--out={file}")
            place.marquee("ingest", "transactions", str(file))
            file.unlink()
        place.marquee("run")
        started = time.monotonic()
        place.serve()
        print(f"\nSuperset set up and serving after {time.monotonic() - started:.0f} s")
        yield place
    finally:
        place.stop()
        Server(place.state).delete()
        shutil.rmtree(home, ignore_errors=True)


@dataclass
class Seen:
    """What the browser asked for a dashboard's charts, and got.

    Attributes:
        asked: body of the request by chart number.
        answers: what came back, by chart number: rows and seconds of the query, errors.
        elsewhere: answers that came from other hosts than this one.
    """

    asked: dict[int, dict] = field(default_factory=dict)
    answers: dict[int, list[dict]] = field(default_factory=dict)
    elsewhere: list[str] = field(default_factory=list)

    def note(self, response) -> None:
        if not response.url.startswith(("http://127.0.0.1", "data:", "blob:")):
            self.elsewhere.append(response.url)
        if "/api/v1/chart/data" not in response.url or response.request.method != "POST":
            return
        body = response.request.post_data_json
        number = (body.get("form_data") or {}).get("slice_id")
        if number:
            self.asked[number] = body
            self.answers[number] = response.json().get("result") or [{"error": response.text()}]


@pytest.fixture(scope="module")
def browser(place: Place):
    from playwright.sync_api import sync_playwright

    assert CHROMIUM, "There is no chromium; name one: make test-superset CHROMIUM=google-chrome"
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = chromium.new_context(
            viewport={"width": WIDTH, "height": 1000}, accept_downloads=True
        )
        context.set_default_timeout(PATIENCE * 1000)
        page = context.new_page()
        page.goto(f"{place.address}/login/")
        page.fill("#username", "admin")
        page.fill("#password", place.password)
        page.keyboard.press("Enter")
        page.wait_for_url("**/welcome/")
        page.close()
        yield context
        chromium.close()


@pytest.fixture(scope="module", params=DASHBOARDS)
def opened(request, browser, place: Place):
    """A dashboard with all its charts drawn: slug, page, what it asked."""
    slug = request.param
    page, seen = browser.new_page(), Seen()
    page.on("response", seen.note)
    started = time.monotonic()
    page.goto(f"{place.address}/superset/dashboard/{slug}/", wait_until="commit")
    page.wait_for_selector("[data-test-chart-name] .header-line")
    number = time.monotonic() - started
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    page.set_viewport_size({"width": WIDTH, "height": 4000})  # charts out of sight are not drawn
    _settle(page, slug)
    print(
        f"\n{DASHBOARDS[slug]}: first paint {paint / 1000:.1f} s, first number {number:.1f} s,"
        f" all charts {time.monotonic() - started:.1f} s"
    )
    yield slug, page, seen
    page.close()


def charts_of(slug: str) -> set[str]:
    """Names of the charts that the files put on a dashboard."""
    assets = read()
    charts = of_kind(assets, "charts")
    (dashboard,) = (d for d in of_kind(assets, "dashboards").values() if d["slug"] == slug)
    nodes = [n for n in dashboard["position"].values() if isinstance(n, dict)]
    return {charts[n["meta"]["uuid"]]["slice_name"] for n in nodes if n["type"] == "CHART"}


def _settle(page, slug: str) -> None:
    """Wait until every chart has been drawn and nothing is being asked."""
    page.wait_for_function(
        """count => {
            const charts = [...document.querySelectorAll('[data-test-chart-name]')];
            const drawn = chart => chart.querySelector('canvas, .header-line, table, .ant-alert');
            return charts.length === count && charts.every(drawn)
                && !document.querySelector('.loading, [data-test="loading-indicator"]');
        }""",
        arg=len(charts_of(slug)),
    )
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1500)  # charts move into place


def _number(text: str) -> tuple[float, float]:
    """A number as a chart prints it, and half of its last digit: € 10.8M is 10,800,000 ± 50,000."""
    digits, unit = re.search(r"([\d.,]+)([kMB%]?)", text).groups()
    digits = digits.replace(",", "")
    scale = {"k": 1e3, "M": 1e6, "B": 1e9, "%": 0.01, "": 1}[unit]
    decimals = len(digits.partition(".")[2])
    return float(digits) * scale, scale * 10**-decimals / 2


def _shown(page, chart: str) -> str:
    return page.locator(f"[data-test-chart-name='{chart}'] .header-line").inner_text()


@pytest.fixture
def stream(place: Place, tmp_path: Path) -> Iterator[None]:
    """Transactions of the last forty minutes, and a producer and a follower that go on."""
    start, rate = datetime.now(timezone.utc) - timedelta(minutes=40), 5
    blocks = islice(live(1, rate, start), 2)
    lines = [line for block in blocks for line in block.lines][: 40 * 60 * rate]
    (tmp_path / "history.jsonl").write_bytes(b"".join(lines))
    place.marquee("ingest", "transactions", str(tmp_path / "history.jsonl"))
    program = str(Path(sys.executable).with_name("marquee"))
    with Broker() as broker:
        broker.create("payments")
        commands = (
            ("generate", "transactions", f"--rate={rate}", f"--to={broker.url('payments')}"),
            ("ingest", "transactions", broker.url("payments"), "--follow"),
        )
        processes = [
            subprocess.Popen(
                [program, *command],
                cwd=PROJECT_DIR,
                env=place.env(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for command in commands
        ]
        try:
            yield
        finally:
            for process in processes:
                process.send_signal(signal.SIGINT)
            for process in processes:
                process.wait(PATIENCE)


@pytest.mark.skipif(bool(ROWS), reason="the picture is of the sample")
def test_live_grows_without_a_reload(browser, place: Place, stream):  # noqa: ARG001
    page, seen = browser.new_page(), Seen()
    page.on("response", seen.note)
    page.set_viewport_size({"width": WIDTH, "height": 2200})
    page.goto(f"{place.address}/superset/dashboard/live/")
    _settle(page, "live")
    origin = page.evaluate("performance.timeOrigin")
    chart = "Transactions of the last hour"
    numbers = [_number(_shown(page, chart))[0]]
    for _ in range(2):
        page.wait_for_function(
            """([chart, before]) => document.querySelector(
                `[data-test-chart-name='${chart}'] .header-line`)?.innerText !== before""",
            arg=[chart, _shown(page, chart)],
        )
        numbers.append(_number(_shown(page, chart))[0])
    assert page.evaluate("performance.timeOrigin") == origin
    assert numbers[0] < numbers[1] < numbers[2]
    counted = (
        "select count(*) from marts.transactions_live where event_at > now() at time zone 'UTC'"
    )
    assert numbers[2] <= place.sql(f"{counted} - interval '1 hour'")
    assert _number(_shown(page, "Age of the newest event, seconds"))[0] < PATIENCE
    for number, results in seen.answers.items():
        for result in results:
            assert not result.get("error"), (number, result)
            assert result["rowcount"] > 0, seen.asked[number]
    assert seen.elsewhere == []
    _settle(page, "live")
    _take(page, "live", IMAGES / "live.png")
    print(f"\n{chart}: {numbers}; newest event {_shown(page, 'Newest event, UTC')}")
    page.close()


def test_the_first_call_prints_the_password_and_the_second_does_not(place: Place):
    assert place.said.count("password") == 1
    assert "It is printed this once." in place.said
    again = place.marquee("superset", f"--port={place.port}")
    assert "running already" in again
    assert "password" not in again


def test_what_is_secret_stays_here(place: Place):
    file = place.state / "superset.json"
    assert file.stat().st_mode & 0o777 == 0o600
    secret = json.loads(file.read_text())["secret_key"]
    assert len(secret) > 40
    assert secret not in place.said
    others = requests.get(f"{place.address}/api/v1/dashboard/", timeout=30)
    assert others.json().get("count", 0) == 0  # nobody sees anything without logging in


def test_it_reads_as_the_reporter(place: Place):
    address = place.sql("select sqlalchemy_uri from dbs", "superset")
    assert re.match(r"postgresql\+psycopg2://marquee_reporter:X+@", address)


def test_every_chart_shows_data(opened):
    slug, page, seen = opened
    names = page.locator("[data-test-chart-name]").evaluate_all(
        "all => all.map(one => one.getAttribute('data-test-chart-name'))"
    )
    assert set(names) == charts_of(slug)
    assert len(seen.answers) == len(names)
    for number, results in seen.answers.items():
        for result in results:
            assert not result.get("error"), (number, result)
            assert result["rowcount"] > 0, seen.asked[number]
    for name in names:
        chart = page.locator(f"[data-test-chart-name='{name}']")
        assert chart.locator(".ant-alert").count() == 0, chart.inner_text()
        assert not re.search(r"No results|error", chart.inner_text(), re.IGNORECASE), name
        if chart.locator("canvas").count():
            drawn = chart.locator("canvas").first.evaluate(
                """canvas => {
                    const data = canvas.getContext('2d')
                        .getImageData(0, 0, canvas.width, canvas.height).data;
                    const colours = new Set();
                    for (let i = 0; i < data.length; i += 4)
                        if (data[i + 3]) colours.add(data.slice(i, i + 3).join());
                    return colours.size;
                }"""
            )
            assert drawn > 5, f"{name} is empty"
        else:
            assert chart.locator(".header-line, tbody tr").count() > 0, name


def test_amounts_are_of_one_currency(opened):
    slug, _, seen = opened
    if slug == "transactions":
        for number, results in seen.answers.items():
            for result in results:
                assert "currency_code IN ('EUR')" in result["query"], (number, result["query"])


def test_nothing_is_asked_of_other_sites(opened):
    _, _, seen = opened
    assert seen.elsewhere == []


@pytest.mark.skipif(bool(ROWS), reason="the pictures are of the sample")
def test_the_picture(opened):
    slug, page, _ = opened
    _take(page, slug, IMAGES / f"superset-{slug}.png")
    page.set_viewport_size({"width": WIDTH, "height": 4000})


def _take(page, slug: str, path: Path) -> None:
    """Save a picture of the whole dashboard."""
    from PIL import Image

    bottom = page.evaluate(
        """() => Math.max(...[...document.querySelectorAll(
            '[data-test-chart-name], .dashboard-markdown'
        )].map(part => part.getBoundingClientRect().bottom))"""
    )
    page.set_viewport_size({"width": WIDTH, "height": int(bottom) + 24})
    _settle(page, slug)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.open(io.BytesIO(page.screenshot()))
    # 256 colours are plenty for charts, and half the size
    picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"\n{path.relative_to(PROJECT_DIR)}: {path.stat().st_size / 1000:.0f} kB")
    assert 50_000 < path.stat().st_size < 400_000


def test_numbers_on_the_screen_are_those_of_the_marts(opened, place: Place):
    slug, page, _ = opened
    queries = {
        "film-brands": {
            "Films": "select count(distinct movie_key) from marts.bridge_brand_movie",
            "Mean rating": "select avg(vote_average) from marts.dim_movie where movie_key in"
            " (select movie_key from marts.bridge_brand_movie)",
            "Mean popularity": "select avg(popularity) from marts.dim_movie where movie_key in"
            " (select movie_key from marts.bridge_brand_movie)",
            "With a release list": "select count(distinct brand) from raw_brands.brand_releases",
            "Share found": "select sum(least(matched_release_count, index_release_count))"
            " / sum(index_release_count) from marts.dim_brand where index_release_count > 0",
            "Releases found": "select count(*) from marts.brand_match_audit"
            " where match_status = 'matched'",
        },
        "operations": {
            "Last run, seconds": "select duration_seconds from marts.ops_runs"
            " where command_name = 'run' order by started_at desc limit 1",
            "Failed nodes": "select count(*) from marts.ops_node_results"
            " where is_latest_build and is_failure",
            "Stale tables": "select count(*) from marts.ops_freshness"
            " where freshness_status <> 'pass'",
            "Rows landed": "select sum(rows_landed) from ops.landings",
        },
        "transactions": {
            "Total amount": "select sum(amount) from marts.fct_transactions",
            "Transactions": "select count(*) from marts.fct_transactions",
            "Approved transactions": "select count(*) from marts.fct_transactions"
            " inner join marts.dim_transaction_status using (transaction_status_key)"
            " where is_approved",
            "Mean amount": "select avg(amount) from marts.fct_transactions",
            "Approval rate": "select avg(case when approved_amount > 0 then 1.0 else 0 end)"
            " from marts.fct_transactions",
        },
    }
    for chart, query in queries[slug].items():
        shown, tolerance = _number(_shown(page, chart))
        stands = float(place.sql(query))
        assert shown == pytest.approx(stands, abs=tolerance * 1.001), chart
        print(f"\n{chart}: {_shown(page, chart)} on the screen, {stands:,.4f} in the marts", end="")


def test_how_long_the_queries_take(opened, place: Place):
    """Prints it; what is quick enough depends on the machine."""
    slug, _, seen = opened
    queries = {
        place.sql(f"select slice_name from slices where id = {number}", "superset"): result["query"]
        for number, results in seen.answers.items()
        for result in results
    }
    assert len(queries) == len(charts_of(slug))
    times = {}
    with closing(Server(place.state).login("reporter").connect()) as connection:
        cursor = connection.cursor()
        for name, query in queries.items():
            took = []
            for _ in range(REPEATS):
                started = time.perf_counter()
                cursor.execute(query)
                cursor.fetchall()
                took.append(time.perf_counter() - started)
            times[name] = statistics.median(took), min(took)
    rows = place.sql("select count(*) from marts.fct_transactions")
    print(f"\n{DASHBOARDS[slug]}, {rows:,} transactions: queries, median of {REPEATS} and best, ms")
    for name, (median, best) in sorted(times.items(), key=lambda item: -item[1][0])[:6]:
        print(f"  {name:<40} {1000 * median:>6.0f} {1000 * best:>6.0f}")


def test_every_chart_exports_csv(opened, place: Place):
    _, page, seen = opened
    for number, body in seen.asked.items():
        answer = page.request.post(
            f"{place.address}/api/v1/chart/data",
            data=body | {"result_format": "csv", "result_type": "post_processed"},
        )
        assert answer.status == 200, (number, answer.text()[:300])
        assert len(list(csv.reader(io.StringIO(answer.text().lstrip("\ufeff"))))) > 1, number


def _figures(rows: list[dict]) -> list[str]:
    """Rows in an order of their own, for where rows are alike the database chooses it."""
    return sorted(json.dumps(row, sort_keys=True) for row in rows)


def test_every_chart_answers_without_a_browser_as_it_does_in_one(opened, place: Place):
    """The route of reports and of those who fetch a chart's data by a program."""
    slug, page, seen = opened
    assert len(seen.answers) == len(charts_of(slug))
    for number, (shown,) in seen.answers.items():
        route = f"{place.address}/api/v1/chart/{number}/data/"
        answer = page.request.get(route)
        assert answer.status == 200, (number, answer.text()[:300])
        (alone,) = answer.json()["result"]
        assert alone["rowcount"] > 0, number
        assert _figures(alone["data"]) == _figures(shown["data"]), alone["query"]
        for kind in ("full", "post_processed"):
            answer = page.request.get(f"{route}?format=csv&type={kind}")
            assert answer.status == 200, (number, answer.text()[:300])
            rows = list(csv.reader(io.StringIO(answer.text().lstrip("\ufeff"))))
            assert len(rows) == len(shown["data"]) + 1, number


def test_a_filter_and_a_download(browser, place: Place, tmp_path):
    page = browser.new_page()
    page.set_viewport_size({"width": WIDTH, "height": 4000})
    page.goto(f"{place.address}/superset/dashboard/transactions/")
    _settle(page, "transactions")
    before = _shown(page, "Transactions")
    city = page.locator("[data-test='NATIVE_FILTER-transactions-city-name']").first
    city.click()
    page.keyboard.type("Lyon")
    page.locator(".ant-select-item-option", has_text="Lyon").first.click()
    page.locator("[data-test='filter-bar__apply-button']").click()
    page.wait_for_function(
        """before => document.querySelector("[data-test-chart-name='Transactions'] .header-line")
            ?.innerText !== before""",
        arg=before,
    )
    _settle(page, "transactions")
    shown, tolerance = _number(_shown(page, "Transactions"))
    stands = place.sql(
        "select count(*) from marts.fct_transactions inner join marts.dim_city using (city_key)"
        " where city_name = 'Lyon'"
    )
    assert shown == pytest.approx(stands, abs=tolerance * 1.001)

    # the download holds what is filtered
    rows = _csv_of(page, "Amount by category", tmp_path / "chart.csv")
    print(f"\n{rows[0]} and {len(rows) - 1} more")
    stands = place.sql(
        "select sum(amount) from marts.fct_transactions inner join marts.dim_city using (city_key)"
        " where city_name = 'Lyon'"
    )
    assert sum(float(row["Amount"]) for row in rows) == pytest.approx(float(stands))
    page.close()


def _csv_of(page, chart: str, path: Path) -> list[dict[str, str]]:
    """The rows that a chart's own menu downloads."""
    page.locator(f"[data-test-chart-name='{chart}']").get_by_label("More Options").click()
    page.get_by_role("menuitem", name="Download").hover()
    with page.expect_download() as download:
        page.get_by_text(re.compile(r"Export to \.?CSV", re.IGNORECASE)).first.click()
    download.value.save_as(path)
    return list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))


def test_the_slider_filters_the_latest_transactions_and_nothing_else(
    browser, place: Place, tmp_path
):
    page = browser.new_page()
    page.set_viewport_size({"width": WIDTH, "height": 5000})
    page.goto(f"{place.address}/superset/dashboard/transactions/")
    _settle(page, "transactions")
    before = _shown(page, "Transactions")
    low, high = (page.locator(f"[data-test='range-filter-{end}-input']") for end in ("from", "to"))
    low.fill("740")
    high.fill("745")
    high.press("Tab")
    seen = Seen()
    page.on("response", seen.note)
    page.locator("[data-test='filter-bar__apply-button']").click()
    page.wait_for_timeout(1000)
    _settle(page, "transactions")
    latest = place.sql("select id from slices where slice_name = 'Latest transactions'", "superset")
    assert list(seen.answers) == [latest]
    assert _shown(page, "Transactions") == before
    stands = place.sql(
        "select array_agg(transaction_id order by transaction_id) from marts.fct_transactions"
        " where amount between 740 and 745"
    )
    assert 0 < len(stands) < 1000
    rows = _csv_of(page, "Latest transactions", tmp_path / "latest.csv")
    assert sorted(row["Transaction"] for row in rows) == stands
    page.close()


def test_the_amount_range_reaches_merchants_and_hours(browser, place: Place):
    page = browser.new_page()
    page.set_viewport_size({"width": WIDTH, "height": 5000})
    page.goto(f"{place.address}/superset/dashboard/transactions/")
    _settle(page, "transactions")
    page.locator("[data-test='NATIVE_FILTER-transactions-amount-bucket']").first.click()
    page.keyboard.type(">=500")
    page.locator(".ant-select-item-option", has_text=">=500").first.click()
    seen = Seen()
    page.on("response", seen.note)
    page.locator("[data-test='filter-bar__apply-button']").click()
    page.wait_for_timeout(1000)
    _settle(page, "transactions")
    assert len(seen.answers) == len(charts_of("transactions"))
    fact = "from marts.fct_transactions where amount >= 500"
    count, amount = (place.sql(f"select {what} {fact}") for what in ("count(*)", "sum(amount)"))
    for chart, column, stands in (
        ("Top merchants by amount", "amount", amount),
        ("Transactions by hour of the day, UTC", "transaction_count", count),
        ("Amount by hour of the day, UTC", "amount", amount),
        ("Weekdays", "amount", amount),
    ):
        number = place.sql(f"select id from slices where slice_name = '{chart}'", "superset")
        rows = seen.answers[number][0]["data"]
        assert sum(float(row[column]) for row in rows) == pytest.approx(float(stands)), chart
    number = place.sql("select id from slices where slice_name = 'Weekdays'", "superset")
    assert [row["weekday_name"] for row in seen.answers[number][0]["data"]] == [
        "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday",
    ]  # fmt: skip
    page.close()


def test_a_download_holds_no_formula(browser, place: Place):
    """A text of the data that a spreadsheet would run is quoted, however many rows there are."""
    number = place.sql("select id from slices where slice_name = 'Latest transactions'", "superset")
    latest = "select max(transaction_id) from marts.latest_transactions"
    latest = place.sql(
        f"{latest} where event_at = (select max(event_at) from marts.latest_transactions)"
    )
    change = "update marts.latest_transactions set city_name = '{}' where transaction_id = '{}'"
    town = place.sql(
        f"select city_name from marts.latest_transactions where transaction_id = '{latest}'"
    )
    place.execute(change.format("=cmd|calc!A0", latest), place.target.dbname)
    try:
        page = browser.new_page()
        route = f"{place.address}/api/v1/chart/{number}/data/?format=csv&force=true"
        rows = list(csv.DictReader(io.StringIO(page.request.get(route).text().lstrip("\ufeff"))))
        page.close()
    finally:
        place.execute(change.format(town, latest), place.target.dbname)
    (row,) = (row for row in rows if row["Transaction"] == latest)
    assert row["City"].startswith("'=cmd")


def test_descriptions_of_dbt_are_in_the_datasets(place: Place):
    said = place.sql(
        "select table_columns.description from table_columns"
        " inner join tables on table_columns.table_id = tables.id"
        " where table_name = 'daily_transactions' and column_name = 'approved_count'",
        "superset",
    )
    assert said == "Number of transactions whose status counts as approved."


def test_export_gives_the_files_back_and_edits_besides(place: Place, tmp_path):
    write(read(), tmp_path)
    assert "0 files changed" in place.marquee("superset", "export", "--to", str(tmp_path))
    place.execute(
        "update slices set slice_name = 'Cities' where slice_name = 'Transactions by city'",
        "superset",
    )
    assert place.marquee("superset", "export", "--to", str(tmp_path)).splitlines() == [
        str(tmp_path / "charts/transactions_city.yaml"),
        "1 files changed.",
    ]
    assert read(tmp_path)["charts/transactions_city.yaml"]["slice_name"] == "Cities"


def test_another_import_makes_nothing_twice(browser, place: Place):
    counts = "select count(*) from {}"
    tables = ("dashboards", "slices", "tables", "dbs", "ab_user")
    before = [place.sql(counts.format(table), "superset") for table in tables]
    file = place.state / "superset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"imported": "something older"}))
    said = place.marquee("superset", f"--port={place.port}")
    assert "Importing" in said
    assert "password" not in said
    assert [place.sql(counts.format(table), "superset") for table in tables] == before
    assert place.sql("select count(*) from slices where slice_name = 'Cities'", "superset") == 0
    numbers = place.sql("select array_agg(id) from slices", "superset")
    page = browser.new_page()
    for number in numbers:
        answer = page.request.get(f"{place.address}/api/v1/chart/{number}/data/?format=csv")
        assert answer.status == 200, number
        assert answer.text().count("\n") > 1
    page.close()


def test_a_forgotten_password_is_replaced(place: Place):
    def answer(password: str) -> int:
        login = {"username": "admin", "password": password, "provider": "db"}
        place_of_it = f"{place.address}/api/v1/security/login"
        return requests.post(place_of_it, json=login, timeout=30).status_code

    assert answer(place.password) == 200
    fresh = place.marquee("superset", "password").strip()
    assert answer(place.password) == 401
    assert answer(fresh) == 200


def test_a_lost_key_overwrites_nothing(place: Place):
    file = place.state / "superset.json"
    kept = file.read_text()
    file.unlink()
    try:
        said = place.marquee("superset", f"--port={place.port}", check=False)
    finally:
        file.write_text(kept)
        file.chmod(0o600)
    assert "secret key is not in" in said
    assert said.count("\n") <= 3


def test_it_stops_when_asked_and_starts_again(place: Place):
    place.stop()
    with pytest.raises(requests.RequestException):
        requests.get(f"{place.address}/health", timeout=5)
    started = time.monotonic()
    place.serve()
    print(f"\nstarted again in {time.monotonic() - started:.0f} s")
