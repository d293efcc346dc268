"""The data API on a real server over the built warehouse: what is read, by whom, in which form."""

from __future__ import annotations

import csv
import io
import json
import socket
import time
import uuid
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pyarrow as pa
import pytest
import requests

from ingestion.tests.api_server import Api, marts_of, rebuilt, serving, until, warehouse_of
from ingestion.tests.built import Built
from ingestion.warehouse.target import Target, role_names

for package in ("asyncpg", "fastapi", "orjson", "prometheus_client", "uvicorn"):
    pytest.importorskip(package, reason="make test-api installs it")


@pytest.fixture(scope="module")
def site(built: Built, target: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    with warehouse_of(built, target, tmp_path_factory.mktemp("api")) as warehouse:
        yield warehouse


@pytest.fixture(scope="module")
def api(site: Built) -> Iterator[Api]:
    with serving(site) as one:
        yield one


def pages(api: Api, mart: str, **params: object) -> Iterator[requests.Response]:
    """All pages of a walk."""
    while True:
        page = api.mart(mart, params)
        assert page.status_code == 200, page.text
        yield page
        if "next-cursor" not in page.headers:
            return
        params["cursor"] = page.headers["next-cursor"]


def test_every_public_model_is_listed_with_its_columns(api: Api, site: Built):
    models = marts_of(site)
    listed = {mart["name"]: mart for mart in api.get("/v1/marts").json()}
    assert listed.keys() == models.keys()
    for name, node in models.items():
        schema = api.get(f"/v1/marts/{name}/schema").json()
        columns = {column["name"]: column["description"] for column in schema["columns"]}
        assert columns == {
            column["name"]: column["description"].strip() for column in node["columns"].values()
        }
    assert listed["dim_city"]["key"] == ["city_key"]
    assert listed["bridge_movie_genre"]["key"] == ["movie_key", "genre_key"]
    assert listed["transactions_live"]["is_live"]
    assert not listed["fct_transactions"]["is_live"]
    assert listed["fct_transactions"]["build"]["invocation_id"] == site.one(
        "select invocation_id from ops.mart_builds where relation_name = 'marts.fct_transactions'"
    )


def test_it_reads_as_the_reporter_and_cannot_write(api: Api, site: Built):
    assert api.mart("dim_city").status_code == 200
    sessions = site.rows(
        "select usename, query from pg_stat_activity where application_name = 'marquee api'"
    )
    assert {user for user, _ in sessions} == {role_names()["reporter"]}


@pytest.mark.parametrize(
    ("params", "condition"),
    [
        ({"city_name": "Paris"}, "city_name = 'Paris'"),
        ({"city_name__eq": "Paris"}, "city_name = 'Paris'"),
        ({"city_name__in": ["Paris", "Lyon"]}, "city_name in ('Paris', 'Lyon')"),
        ({"date_day__gte": "2024-09-01"}, "date_day >= '2024-09-01'"),
        (
            {"date_day__gt": "2024-08-31", "date_day__lt": "2024-09-02"},
            "date_day = '2024-09-01'",
        ),
        ({"date_day__lte": "2024-08-31"}, "date_day <= '2024-08-31'"),
        ({"amount_bucket__null": "true"}, "amount_bucket is null"),
        ({"amount_bucket__null": "false", "currency_code": "EUR"}, "currency_code = 'EUR'"),
        ({"loaded_at__lt": "2099-01-01T00:00:00+02:00"}, "true"),
    ],
)
@pytest.mark.parametrize("form", ["ndjson", "csv"])
def test_filters_find_what_sql_finds(params: dict, condition: str, form: str, api: Api):
    wanted = api.warehouse.one(f"select count(*) from marts.daily_transactions where {condition}")
    found = 0
    for page in pages(api, "daily_transactions", limit=10_000, format=form, **params):
        found += len(page.text.splitlines()) - (form == "csv")
    assert found == wanted


def test_a_time_with_an_offset_is_that_moment(api: Api):
    moment = api.warehouse.one("select min(event_at) from marts.fct_transactions")
    there = f"{moment.isoformat(timespec='microseconds')}"
    for params, found in (
        ({"event_at": there}, True),
        ({"event_at": f"{there}Z"}, True),
        ({"event_at": f"{there}+02:00"}, False),
    ):
        assert bool(api.mart("fct_transactions", params).json()["data"]) is found


@pytest.mark.parametrize("mart", ["dim_movie", "brand_match_audit", "rejected_transactions"])
def test_all_formats_hold_the_same_rows(mart: str, api: Api):
    params = {"limit": 10_000, "order": "-" + next(iter(marts_of(api.warehouse)[mart]["columns"]))}
    rows = api.mart(mart, params).json()["data"]
    lines = api.mart(mart, params | {"format": "ndjson"}).text.splitlines()
    assert [json.loads(line) for line in lines] == rows
    text = io.StringIO(api.mart(mart, params | {"format": "csv"}).content.decode())
    records = list(csv.DictReader(text))
    assert len(records) == len(rows)
    table = pa.ipc.open_stream(api.mart(mart, params | {"format": "arrow"}).content).read_all()
    assert table.num_rows == len(rows)
    for record, row, arrow in zip(records, rows, table.to_pylist(), strict=True):
        for column, value in row.items():
            if value is None:
                assert (record[column], arrow[column]) == ("", None)
            elif isinstance(value, bool):
                assert (record[column], arrow[column]) == (str(value).lower(), value)
            elif isinstance(value, (int, float)):
                assert float(record[column]) == float(arrow[column]) == value
            else:
                assert record[column].replace(" ", "T", 1) == value.replace(" ", "T", 1)
    assert rows


def test_arrow_has_the_types_of_the_contract(api: Api):
    content = api.mart("fct_transactions", {"limit": 5, "format": "arrow"}).content
    schema = pa.ipc.open_stream(content).schema
    assert schema.field("amount").type == pa.decimal128(18, 4)
    assert schema.field("event_date").type == pa.date32()
    assert schema.field("event_at").type == pa.timestamp("us")
    assert schema.field("transaction_id").type == pa.string()


def test_every_mart_is_walked_whole_on_every_column(api: Api):
    """By pages, up and down: no row is lost and none comes twice, whatever the order's nulls."""
    wrong, walks = [], 0
    for mart, node in marts_of(api.warehouse).items():
        rows = api.warehouse.one(f"select count(*) from marts.{mart}")
        key = api.get(f"/v1/marts/{mart}/schema").json()["key"]
        columns = list(node["columns"]) if rows < 20_000 else [*key, *list(node["columns"])[-3:]]
        for column in dict.fromkeys(columns):
            for order in (column, f"-{column}"):
                selected = ",".join(dict.fromkeys([column, *key]))
                limit = min(10_000, rows // 3 + 1)
                found = [
                    line
                    for page in pages(
                        api, mart, order=order, limit=limit, select=selected, format="ndjson"
                    )
                    for line in page.text.splitlines()
                ]
                walks += 1
                if not len(found) == len(set(found)) == rows:
                    wrong.append((mart, order, rows, len(found), len(set(found))))
    assert wrong == []
    assert walks > 500


@pytest.mark.parametrize("form", ["json", "ndjson", "csv", "arrow"])
def test_pages_go_on_where_the_order_is_not_selected(form: str, api: Api):
    """A column with nulls, and rows that differ in nothing that is shown."""
    rows = api.warehouse.one("select count(*) from marts.dim_movie")
    params = {"order": "-revenue_usd", "select": "title", "limit": rows // 4, "format": form}
    assert api.warehouse.one("select count(*) from marts.dim_movie where revenue_usd is null")
    found = []
    for page in pages(api, "dim_movie", **params):
        if form == "arrow":
            found += pa.ipc.open_stream(page.content).read_all()["title"].to_pylist()
        elif form == "csv":
            found += [row["title"] for row in csv.DictReader(io.StringIO(page.content.decode()))]
        elif form == "json":
            found += [row["title"] for row in page.json()["data"]]
        else:
            found += [json.loads(line)["title"] for line in page.text.splitlines()]
    wanted = api.warehouse.rows("select title from marts.dim_movie order by 1")
    assert sorted(found) == sorted(title for (title,) in wanted)


def test_the_link_leads_to_the_next_page(api: Api):
    first = api.mart("dim_city", {"limit": 2, "order": "city_name"})
    second = api.get(f"/v1/marts/dim_city{first.links['next']['url']}")
    names = [row["city_name"] for page in (first, second) for row in page.json()["data"]]
    assert names == sorted(names)
    assert len(set(names)) == 4


BAD = [
    ("city_nam=Paris", 400, "city_nam", "city_name"),
    ("city_name=a&city_name=b", 400, "city_name", "__in"),
    ("limit=5&limit=6", 400, "limit", "once"),
    ("limit=0", 400, "limit", "10000"),
    ("limit=-1", 400, "limit", "10000"),
    ("limit=%D9%A3", 400, "limit", "10000"),
    ("limit=10001", 400, "limit", "marquee export"),
    ("limit=99999999999999999999", 400, "limit", "10000"),
    ("format=xml", 400, "format", "ndjson"),
    ("select=city_name,city_name", 400, "select", "once"),
    ("select=", 400, "select", "Name columns"),
    ("select=*", 400, "select", "Name columns"),
    ("select=city_name)from(pg_authid", 400, "select", "Name columns"),
    ('order=city_name"', 400, "order", "city_name"),
    ("order=city_name;drop table marts.dim_city", 400, "order", "city_name"),
    ("order=city_name,-city_name", 400, "order", "once"),
    ("order=(select 1)", 400, "order", "Name columns"),
    ('city_name"=1;--', 400, 'city_name"', "Use"),
    ("city_name__like=%25", 400, "city_name__like", "Use"),
    ("transaction_count=1.5", 400, "transaction_count", "whole number"),
    ("transaction_count=1e3", 400, "transaction_count", "whole number"),
    ("transaction_count=9223372036854775808", 400, "transaction_count", "2^63"),
    ("transaction_count=1%20or%201=1", 400, "transaction_count", "whole number"),
    ("transaction_count__in=1&transaction_count__in=x", 400, "transaction_count__in", "42"),
    ("amount=1e400000", 400, "amount", "number"),
    ("amount=1e4000", 400, "amount", "1e1000"),
    ("amount=NaN", 400, "amount", "number"),
    ("amount=", 400, "amount", "number"),
    ("date_day=2024-02-30", 400, "date_day", "2024-01-31"),
    ("date_day=20240230", 400, "date_day", "2024-01-31"),
    ("date_day='%20or%20true--", 400, "date_day", "2024-01-31"),
    ("loaded_at__gt=2024-01-01T00:00:00+02:00", 400, "loaded_at__gt", "%2B"),
    ("loaded_at__gt=2024-01-01T25:00:00", 400, "loaded_at__gt", "2024-01-31T12"),
    ("loaded_at__gt=0001-01-01T00:00:00%2B14:00", 400, "loaded_at__gt", "2024-01-31T12"),
    ("city_name__null=maybe", 400, "city_name__null", "true or false"),
    ("city_name=a%00b", 400, "city_name", "%00"),
    ("city_name=%ff%fe", 400, None, "UTF-8"),
    ("city_name=%ED%A0%80", 400, None, "UTF-8"),
    ("cursor=%C3%A9", 400, "cursor", "Begin again"),
    ("cursor=bm90IGEgY3Vyc29y", 400, "cursor", "Begin again"),
    ("cursor=W10", 400, "cursor", "Begin again"),
    ("cursor=" + "A" * 5000, 400, "cursor", "Begin again"),
    ("on_rebuild=explode", 400, "on_rebuild", "stop or continue"),
    ("city_name=" + "x" * 1001, 400, "city_name", "1000"),
    ("city_name=" + "x" * 20_000, 414, None, "shorter"),
    ("&".join(f"a{n}=1" for n in range(301)), 400, None, "fewer"),
    ("&".join(f"city_name__in={n}" for n in range(201)), 400, "city_name__in", "200"),
]


@pytest.mark.parametrize(("query", "status", "parameter", "remedy"), BAD)
def test_bad_parameters_are_named_with_the_remedy(query, status, parameter, remedy, api: Api):
    url = f"{api.base}/v1/marts/daily_transactions?{query}"
    request = requests.Request("GET", url, headers=api.session.headers).prepare()
    request.url = url.replace(" ", "%20").replace('"', "%22")  # as it is
    answer = api.session.send(request)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (answer.status_code, problem["status"]) == (status, status), problem
    assert problem.get("parameter") == parameter
    assert remedy in problem["remedy"] + problem["detail"], problem
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "value",
    ["'; drop table marts.dim_city; --", "Robert'); --", "$1", "%s", "{{ 1 }}", "\\", '"', "a,b"],
)
@pytest.mark.parametrize("form", ["json", "csv"])
def test_values_are_only_values(value: str, form: str, api: Api):
    found = api.mart("dim_city", {"city_name": value, "format": form})
    assert found.status_code == 200
    assert found.json()["data"] == [] if form == "json" else found.text.count("\n") == 1
    assert api.mart("dim_city").json()["data"]


def test_a_cursor_belongs_to_its_walk_and_its_values_are_checked(api: Api):
    page = api.mart("daily_transactions", {"limit": 1, "order": "transaction_count"}).json()
    other = api.mart("daily_transactions", {"limit": 1, "cursor": page["next"]})
    assert (other.status_code, other.json()["parameter"]) == (400, "cursor")
    from serving.api import cursors

    walk = json.loads(urlsafe_b64decode(page["next"] + "=="))
    walk[2][0] = "1; drop table marts.dim_city"
    forged = cursors.written(walk[0], walk[1], tuple(walk[2]))
    params = {"limit": 1, "order": "transaction_count", "cursor": forged}
    for form in ("json", "csv"):
        answer = api.mart("daily_transactions", params | {"format": form})
        assert answer.status_code == 400, answer.text


def test_paths_and_methods(api: Api):
    for path in ("/v1/marts/no_such", "/v1/marts/no_such/schema", "/v1/nothing", "/nothing"):
        answer = api.get(path)
        assert answer.status_code == 404, path
        assert answer.json()["remedy"]
        assert answer.headers["content-type"] == "application/problem+json"
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        for path in ("/v1/marts/dim_city", "/v1/marts"):
            answer = api.session.request(method, api.base + path, json={})
            assert answer.status_code == 405
    head = api.session.head(f"{api.base}/v1/marts/dim_city")
    assert (head.status_code, head.content) == (200, b"")


def test_without_a_key_nothing_is_read_even_from_the_cache(api: Api):
    api.mart("dim_city")
    wrong = api.key[:-1] + ("a" if api.key[-1] != "a" else "b")
    for headers in (
        {},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {wrong}"},
        {"Authorization": f"Basic {api.key}"},
        {"Authorization": "Bearer mq_\xff"},
    ):
        for path in ("/v1/marts", "/v1/marts/dim_city", "/v1/marts/dim_city/schema", "/v1/none"):
            answer = requests.get(api.base + path, headers=headers, timeout=60)
            assert answer.status_code == 401
            assert "marquee api key create" in answer.json()["remedy"]
            assert answer.headers["www-authenticate"] == "Bearer"
    for path in ("/health", "/ready", "/metrics", "/docs", "/openapi.json"):
        assert requests.get(api.base + path, timeout=60).status_code == 200


def test_keys_are_made_listed_revoked_and_never_stored(api: Api, site: Built):
    key = site.marquee("api", "key", "create", "Ada's notebook").stdout.strip()
    stored = site.folder / "state" / "api_keys.json"
    assert key.rpartition("_")[2] not in stored.read_text()
    assert stored.stat().st_mode & 0o777 == 0o600
    headers = {"Authorization": f"Bearer {key}"}

    def status() -> int:
        return requests.get(f"{api.base}/v1/marts", headers=headers, timeout=60).status_code

    until(lambda: status() == 200, "a new key holds")
    key_id = key.split("_")[1]
    (line,) = [
        text for text in site.marquee("api", "key", "list").stdout.splitlines() if key_id in text
    ]
    assert "Ada's notebook" in line
    assert "holds" in line
    site.marquee("api", "key", "revoke", key_id)
    until(lambda: status() == 401, "a revoked key holds no longer")
    assert "revoked" in site.marquee("api", "key", "list").stdout
    unknown = site.marquee("api", "key", "revoke", "ffffffff", check=False)
    assert unknown.returncode == 1
    assert "marquee api key list" in unknown.stderr


def test_a_key_has_its_rate(api: Api, site: Built):
    key = site.marquee("api", "key", "create", "eager", "--rate", "5").stdout.strip()
    headers = {"Authorization": f"Bearer {key}"}
    first = until(
        lambda: [
            a
            for a in [requests.get(f"{api.base}/v1/marts/dim_city", headers=headers, timeout=60)]
            if a.status_code != 401
        ],
        "the key holds",
    )[0]
    assert first.status_code == 200
    answers = [
        requests.get(f"{api.base}/v1/marts/dim_city", headers=headers, timeout=60)
        for _ in range(200)
    ]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert int(refused[0].headers["retry-after"]) >= 1
    assert "5 requests a second" in refused[0].json()["detail"]
    assert api.mart("dim_city").status_code == 200, "others are not held up"


def test_what_has_not_changed_is_not_sent_again(api: Api):
    first = api.mart("dim_movie", {"limit": 50})
    assert first.headers["warehouse-build"] == api.warehouse.one(
        "select invocation_id from ops.mart_builds where relation_name = 'marts.dim_movie'"
    )
    assert first.headers["content-encoding"] == "gzip"
    tag = {"If-None-Match": f'"other", {first.headers["etag"]}'}
    again = api.mart("dim_movie", {"limit": 50}, headers=tag)
    assert (again.status_code, again.content) == (304, b"")
    assert api.mart("dim_movie", {"limit": 51}, headers=tag).status_code == 200
    plain = api.mart("dim_movie", {"limit": 50}, headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == first.content
    rebuilt(api.warehouse, "dim_movie")
    until(
        lambda: api.mart("dim_movie", {"limit": 50}, headers=tag).status_code == 200, "a new build"
    )


def test_a_cursor_of_an_earlier_build_is_refused_or_goes_on(api: Api):
    first = api.mart("dim_city", {"limit": 3}).json()
    rebuilt(api.warehouse, "dim_city")
    until(lambda: api.mart("dim_city", {"limit": 3}).json()["build"] != first["build"], "a build")
    params = {"limit": 3, "cursor": first["next"]}
    stopped = api.mart("dim_city", params)
    assert (stopped.status_code, stopped.json()["parameter"]) == (409, "cursor")
    assert "on_rebuild=continue" in stopped.json()["remedy"]
    assert api.mart("dim_city", params | {"on_rebuild": "continue"}).json()["data"]


def test_equal_requests_at_once_are_one_query(api: Api):
    before = api.figure("marquee_api_queries_total")
    params = {"limit": 5000, "order": "-amount", "amount__gte": "3"}
    with ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(lambda _: api.mart("fct_transactions", params), range(200)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert api.figure("marquee_api_queries_total") - before == 1


def test_live_marts_are_not_kept(api: Api):
    before = api.figure("marquee_api_queries_total")
    for _ in range(2):
        answer = api.mart("transactions_live", {"limit": 5})
        assert answer.headers["cache-control"] == "no-store"
        assert "etag" not in answer.headers
    assert api.figure("marquee_api_queries_total") - before == 2


def test_a_client_that_reads_slowly_holds_no_lock(api: Api):
    """A page of megabytes that nobody takes: a rename of the table does not wait for it."""
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", int(api.base.rpartition(":")[2])))
        slow.sendall(
            f"GET /v1/marts/fct_transactions?limit=10000&order=amount&format=csv HTTP/1.1\r\n"
            f"Host: x\r\nAuthorization: Bearer {api.key}\r\n\r\n".encode()
        )
        assert slow.recv(12) == b"HTTP/1.1 200"
        api.warehouse.execute(
            "set lock_timeout = '20s';"
            "alter table marts.fct_transactions rename to fct_renamed;"
            "alter table marts.fct_renamed rename to fct_transactions"
        )


def test_what_takes_too_long_ends(site: Built):
    with serving(site, "--timeout", "1", "--connections", "1") as api:
        site_lock = closing(site.target.connect())
        with site_lock as connection, connection.cursor() as cursor:
            cursor.execute("lock table marts.dim_city in access exclusive mode")
            answer = api.mart("dim_city")
            assert answer.status_code == 504
            assert "marquee export" in answer.json()["remedy"]
        assert api.mart("dim_city").status_code == 200


def test_a_full_pool_is_said(site: Built):
    with (
        serving(site, "--timeout", "30", "--connections", "1") as api,
        closing(site.target.connect()) as connection,
        connection.cursor() as cursor,
        ThreadPoolExecutor(1) as pool,
    ):
        cursor.execute("lock table marts.dim_city in access exclusive mode")
        waiting = pool.submit(api.mart, "dim_city")
        held = "select count(*) from pg_locks where not granted"
        until(lambda: site.one(held), "a query waits")
        refused = requests.get(
            f"{api.base}/v1/marts/dim_genre",
            headers={"Authorization": f"Bearer {api.key}"},
            timeout=60,
        )
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert "busy" in refused.json()["detail"]
        connection.rollback()
        assert waiting.result().status_code == 200


def test_browsers_call_it_only_from_pages_that_are_named(api: Api, site: Built):
    page = {"Origin": "https://page.example"}
    assert "access-control-allow-origin" not in api.mart("dim_city", headers=page).headers
    with serving(site, "--cors-origin", "https://page.example") as other:
        allowed = other.mart("dim_city", headers=page)
        assert allowed.headers["access-control-allow-origin"] == "https://page.example"
        other_page = other.mart("dim_city", headers={"Origin": "https://other.example"})
        assert "access-control-allow-origin" not in other_page.headers


def test_behind_a_proxy_with_tls_it_leads_to_its_pages(api: Api):
    headers = {"X-Forwarded-Proto": "https"}
    page = requests.get(f"{api.base}/docs/", headers=headers, allow_redirects=False, timeout=60)
    assert page.status_code == 307
    assert page.headers["location"] == f"{api.base}/docs".replace("http:", "https:")


def test_openapi_has_every_mart_with_types_and_descriptions(api: Api):
    document = requests.get(f"{api.base}/openapi.json", timeout=60).json()
    for name, node in marts_of(api.warehouse).items():
        assert document["paths"][f"/v1/marts/{name}"]["get"]["operationId"] == f"read_{name}"
        properties = document["components"]["schemas"][name]["properties"]
        assert properties.keys() == {column["name"] for column in node["columns"].values()}
        assert all(one["description"] and one["type"] for one in properties.values())


def test_the_cache_stays_within_its_bytes(site: Built):
    with serving(site, "--cache-mb", "2") as api:
        for place in range(40):
            assert api.mart("dim_movie", {"limit": 150 + place}).status_code == 200
        health = api.health()
        assert 0 < health["cached_answers"] < 40
        assert health["cached_bytes"] <= 2 * 1024**2


def test_without_its_packages_the_command_says_how_to_get_them(site: Built, tmp_path):
    """Its import is blocked by a module of that name that cannot be found: none in sys.path."""
    hider = tmp_path / "sitecustomize.py"
    hider.write_text(
        "import importlib.util as util\nfind = util.find_spec\n"
        "util.find_spec = lambda name, *more: None if name == 'fastapi' else find(name, *more)\n"
    )
    site.variables["PYTHONPATH"] = str(tmp_path)
    try:
        done = site.marquee("api", "serve", check=False)
    finally:
        del site.variables["PYTHONPATH"]
    assert done.returncode == 1
    assert "fastapi" in done.stderr
    assert ".[api]" in done.stderr


def test_a_port_that_is_taken_is_said(api: Api, site: Built):
    done = site.marquee("api", "serve", "--port", api.base.rpartition(":")[2], check=False)
    assert done.returncode == 1
    assert "--port" in done.stderr


def test_ids_of_builds_are_dbts(site: Built):
    """The hook writes dbt's invocation, in the transaction of the model."""
    before = dict(site.rows("select relation_name, invocation_id from ops.mart_builds"))
    assert before.keys() == {f"marts.{name}" for name in marts_of(site)}
    assert {uuid.UUID(found).version for found in before.values()} == {4}
    site.dbt("run", "--select", "dim_genre")
    after = dict(site.rows("select relation_name, invocation_id from ops.mart_builds"))
    assert {name for name in after if after[name] != before[name]} == {"marts.dim_genre"}


def test_a_warehouse_without_the_table_of_builds_is_built_and_served(site: Built):
    """As one that an earlier version made: builds pass, answers are not kept, and the next
    release of the evidence makes the table."""
    site.execute("drop table ops.mart_builds")
    try:
        site.dbt("run", "--select", "dim_genre")
        with serving(site) as api:
            answer = api.mart("dim_genre")
            assert answer.status_code == 200
            assert "etag" not in answer.headers
            assert "marquee run" in api.health()["trouble"]
            site.execute("comment on table ops.invocations is 'Marquee: evidence of runs, 1'")
            site.dbt("run", "--select", "dim_genre")
            until(lambda: "etag" in api.mart("dim_genre").headers, "the build is known")
    finally:
        site.dbt("run", "--select", "path:models/marts", "--exclude", "dim_genre")


def test_time_passes_in_the_rate(site: Built):
    """A key that had to wait may send again."""
    with serving(site) as api:
        key = site.marquee("api", "key", "create", "patient", "--rate", "1").stdout.strip()
        headers = {"Authorization": f"Bearer {key}"}

        def status() -> int:
            return requests.get(f"{api.base}/v1/marts", headers=headers, timeout=60).status_code

        until(lambda: status() == 429, "the limit is reached")
        time.sleep(1.1)
        assert status() == 200
