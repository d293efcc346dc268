"""``marquee ingest rest``: a real HTTP server that misbehaves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs import PluggableRunContext

from ingestion.days import Days
from ingestion.errors import UserError
from ingestion.pipeline import LoadReport, make_pipeline
from ingestion.sources import rest
from ingestion.warehouse.paths import PROJECT_DIR
from ingestion.warehouse.target import Target

TOKEN = "Kk9TokenZz7"
PAGE = 3  # rows; pages overlap by one


@dataclass
class Api:
    """A JSON API; ``faults`` are answered before anything else, one each request.

    Attributes:
        rows: of ``/orders``.
        asked: path and query of each request, with the time.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    faults: list[Callable[[Any], None]] = field(default_factory=list)
    asked: list[tuple[str, float]] = field(default_factory=list)
    port: int = 0

    def answer(self, handler: Any) -> None:
        self.asked.append((handler.path, time.monotonic()))
        if self.faults:
            self.faults.pop(0)(handler)
            return
        if handler.headers["Authorization"] != f"Bearer {TOKEN}":
            send(handler, 401, {"error": f"{handler.headers['Authorization']} is wrong"})
            return
        url = urlsplit(handler.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/endless":
            page = int(query.get("page", 0))
            send(
                handler,
                200,
                {"data": [{"id": page}], "next": self.link(f"/endless?page={page + 1}")},
            )
        elif url.path == "/orders":
            found = [row for row in self.rows if row["at"] >= query.get("since", "")]
            start = int(query.get("start", 0))
            more = start + PAGE < len(found)
            following = self.link(
                f"/orders?start={start + PAGE - 1}&since={query.get('since', '')}"
            )
            send(
                handler,
                200,
                {"data": found[start : start + PAGE], "next": following if more else None},
            )
        else:
            send(handler, 404, {})

    def link(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"


def send(handler: Any, status: int, body: Any, **headers: str) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


def drip(handler: Any) -> None:
    """A body that never ends."""
    handler.send_response(200)
    handler.end_headers()
    try:
        for _ in range(100):
            handler.wfile.write(b" " * 70_000)
            handler.wfile.flush()
            time.sleep(0.1)
    except OSError:
        pass


@pytest.fixture
def api() -> Iterator[Api]:
    found = Api(rows=[{"id": n, "at": f"2024-01-0{n}", "lines": [{"qty": n}]} for n in range(1, 8)])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.answer(self)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.port = server.server_port
        Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()


CONFIG = """
[runtime]
dlthub_telemetry = false
request_backoff_factor = 0.01

[sources.rest.sensors]
{limits}

[sources.rest.sensors.client]
base_url = "http://127.0.0.1:{port}"
paginator = {{ type = "json_link", next_url_path = "next" }}

[sources.rest.sensors.client.auth]
type = "bearer"

[[sources.rest.sensors.resources]]
name = "{resource}"
primary_key = "id"

[sources.rest.sensors.resources.endpoint]
path = "{resource}"
data_selector = "data"
{more}
"""
SINCE = """
params = { since = "{incremental.start_value}" }
incremental = { cursor_path = "at", initial_value = "2024-01-01" }
"""


@dataclass
class Site:
    api: Api
    warehouse: Target
    folder: Path
    monkeypatch: pytest.MonkeyPatch

    def land(
        self,
        more: str = "",
        token: str = TOKEN,
        resource: str = "orders",
        limits: str = "",
        days: Days | None = None,
    ) -> LoadReport:
        place = self.folder / ".dlt"
        place.mkdir(exist_ok=True)
        text = CONFIG.format(port=self.api.port, more=more, resource=resource, limits=limits)
        (place / "config.toml").write_text(text)
        (place / "secrets.toml").write_text(
            f'[sources.rest.sensors.client.auth]\ntoken = "{token}"\n'
        )
        self.monkeypatch.setenv("DLT_PROJECT_DIR", str(self.folder))
        Container()[PluggableRunContext].reload(str(self.folder))
        pipeline = make_pipeline(
            "sensors", self.warehouse, self.folder / "dlt", replace_strategy="insert-from-staging"
        )
        return rest.ingest(rest.configured("sensors"), self.warehouse, pipeline, days=days)

    def rows(self, query: str) -> list[tuple]:
        with closing(self.warehouse.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("set search_path to raw_sensors")
            cursor.execute(query)
            return cursor.fetchall()


@pytest.fixture
def site(
    api: Api, database: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Site]:
    yield Site(api, database, tmp_path, monkeypatch)
    Container()[PluggableRunContext].reload(str(PROJECT_DIR))


def test_pages_that_overlap_land_each_row_once(site: Site) -> None:
    report = site.land()
    assert len(site.api.asked) == 3
    assert site.rows("select count(*), count(distinct id), sum(id) from orders") == [(7, 7, 28)]
    assert site.rows("select count(*), sum(qty) from orders__lines") == [(7, 28)]
    assert report.rows["orders"] >= 7
    assert site.rows(
        "select table_name, place, mode, key_columns, cursor_value from _ingest_tables"
    ) == [("orders", f"http://127.0.0.1:{site.api.port}/orders", "full", '["id"]', None)]
    assert site.rows(
        "select count(*) from _ingest_tables inner join _dlt_loads on load_id = _dlt_load_id"
    ) == [(1,)]


def test_later_runs_ask_from_the_cursor_on(site: Site) -> None:
    site.land(SINCE)
    site.api.rows[6] |= {"lines": [{"qty": 70}]}  # changed within the last moment
    site.api.rows.append({"id": 8, "at": "2024-01-08", "lines": []})
    site.api.asked.clear()
    site.land(SINCE)
    assert [path for path, _ in site.api.asked] == ["/orders?since=2024-01-07"]
    assert site.rows("select count(*), max(at) from orders") == [(8, "2024-01-08")]
    assert site.rows("select sum(qty) from orders__lines") == [(28 + 63,)]
    assert site.rows(
        "select mode, cursor_column, cursor_value from _ingest_tables order by finished_at"
    ) == [("incremental", "at", "2024-01-07"), ("incremental", "at", "2024-01-08")]


def test_a_backfill_reads_some_days_and_leaves_the_cursor_where_it_is(site: Site) -> None:
    site.land(SINCE)
    with closing(site.warehouse.connect()) as connection, connection, connection.cursor() as cursor:
        cursor.execute("delete from raw_sensors.orders where at >= '2024-01-02'")
    days = Days(date(2024, 1, 2), date(2024, 1, 3))
    assert site.land(SINCE, days=days).rows["orders"] == 2
    assert site.land(SINCE, days=days).rows["orders"] == 2  # merged by key
    assert [at for (at,) in site.rows("select at from orders order by at")] == [
        *("2024-01-01", "2024-01-02", "2024-01-03")
    ]
    site.api.rows.append({"id": 8, "at": "2024-01-08", "lines": []})
    site.land(SINCE)
    assert "since=2024-01-07" in site.api.asked[-1][0]


def test_a_backfill_of_what_has_no_days_is_refused(site: Site) -> None:
    days = Days(date(2024, 1, 2), date(2024, 1, 3))
    for more in ("", SINCE.replace('"2024-01-01"', "7")):
        with pytest.raises(UserError, match="No resource of sensors can be read by days"):
            site.land(more, days=days)
    assert site.api.asked == []


def test_it_waits_as_it_is_told_and_tries_again(site: Site) -> None:
    site.api.faults = [
        lambda handler: send(handler, 429, {}, Retry_After="1"),
        lambda handler: send(handler, 500, b"oops"),
        lambda handler: send(handler, 503, b""),
    ]
    site.land()
    times = [at for _, at in site.api.asked]
    assert len(times) == 6
    assert times[1] - times[0] >= 1
    assert site.rows("select count(*) from orders") == [(7,)]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (
            lambda handler: send(handler, 200, b"<html>Down</html>"),
            "/orders gives an answer that is no JSON",
        ),
        (
            lambda handler: send(handler, 404, {"token": TOKEN}),
            "/orders answers 404; nothing has landed.",
        ),
        (
            lambda handler: send(handler, 200, b" " * 2_000_000),
            "has no end within 1 MB in an answer",
        ),
        (drip, "has no end within 0.5 s for an answer"),
    ],
)
def test_what_it_gives_that_is_wrong_is_said_and_nothing_lands(
    site: Site, fault: Callable, told: str
) -> None:
    site.land()
    before = site.rows("select id, _dlt_load_id from orders order by id")
    site.api.faults = [fault]
    with pytest.raises(UserError) as error:
        site.land(limits="max_body_mb = 1\ntimeout = 0.5")
    assert told in error.value.message
    assert TOKEN not in error.value.message
    assert len(error.value.message.splitlines()) == 2
    assert site.rows("select id, _dlt_load_id from orders order by id") == before
    assert site.rows("select count(*) from _ingest_tables") == [(1,)]
    site.land()
    assert site.rows("select count(*) from orders") == [(7,)]


def test_a_token_that_is_refused_is_not_shown(site: Site) -> None:
    with pytest.raises(UserError) as error:
        site.land(token="Kk9WrongZz7")
    assert (
        "/orders refuses the login: 401.\nCheck client.auth below [sources.rest.sensors]"
        in error.value.message
    )
    assert "Kk9WrongZz7" not in error.value.message
    left = [p for p in (site.folder / "dlt").rglob("*") if p.is_file()]
    assert left
    assert [p for p in left if b"Kk9WrongZz7" in p.read_bytes()] == []


def test_pages_that_never_end_are_refused(site: Site) -> None:
    with pytest.raises(
        UserError, match="/endless has no end within 20 answers; nothing has landed"
    ):
        site.land(resource="endless", limits="max_requests = 20")
    assert len(site.api.asked) == 21
    assert site.rows("select to_regclass('raw_sensors.endless')") == [(None,)]


def test_a_run_that_was_killed_is_read_again(site: Site) -> None:
    site.land(SINCE)
    site.api.rows.append({"id": 8, "at": "2024-01-08", "lines": []})
    settings = rest.configured("sensors")
    pipeline = make_pipeline(
        "sensors", site.warehouse, site.folder / "dlt", replace_strategy="insert-from-staging"
    )
    pipeline.extract(rest.api_source(settings, rest.Limits(settings)))  # and no more
    assert pipeline.has_pending_data
    site.land(SINCE)
    assert site.rows("select count(*), count(distinct id), max(at) from orders") == [
        (8, 8, "2024-01-08")
    ]


@pytest.mark.parametrize("name", ["tmdb", "Sensors", "a.b"])
def test_a_name_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="no schema for an API"):
        rest.configured(name)


def test_a_configuration_that_cannot_be_is_refused(site: Site) -> None:
    with pytest.raises(UserError, match="nothing is no API that is configured"):
        rest.configured("nothing")
    with pytest.raises(UserError, match=r"\[sources.rest.sensors\] cannot be: .*paginator"):
        site.land(more='paginator = { type = "nonsense" }')
