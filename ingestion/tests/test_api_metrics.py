"""Metrics over HTTP: the same figures as SQL by hand, the rules, and what is refused."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator

import pyarrow as pa
import pytest

from ingestion.tests.api_server import Api, marts_of, rebuilt, serving, until, warehouse_of
from ingestion.tests.built import Built
from ingestion.warehouse.target import Target

for package in ("asyncpg", "fastapi", "metricflow", "orjson", "prometheus_client", "uvicorn"):
    pytest.importorskip(package, reason="make test-api installs it")


@pytest.fixture(scope="module")
def api(built: Built, target: Target, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("figures")
    with warehouse_of(built, target, folder) as warehouse, serving(warehouse) as one:
        yield one


def test_metrics_are_listed_with_what_they_can_be_asked_by(api: Api):
    listed = {metric["name"]: metric for metric in api.get("/v1/metrics").json()}
    assert len(listed) > 40
    assert listed["amount"]["within"] == ["currency_code"]
    assert {"month", "city_name", "merchant_name"} <= set(listed["amount"]["group_by"])
    assert listed["amount"]["description"]
    served = marts_of(api.warehouse).keys()
    assert {mart for metric in listed.values() for mart in metric["marts"]} <= served


def test_every_metric_answers(api: Api):
    for metric in api.get("/v1/metrics").json():
        group_by = [name for name in metric["within"] if name in metric["group_by"]]
        page = api.get(f"/v1/metrics/{metric['name']}", {"group_by": ",".join(group_by) or None})
        assert page.status_code == 200, (metric["name"], page.text)
        for row in page.json()["data"]:
            assert row.keys() == {*group_by, metric["name"]}


def test_figures_are_those_of_sql(api: Api):
    page = api.get(
        "/v1/metrics/amount,transaction_count",
        {
            "group_by": "month,city_name",
            "currency_code": "EUR",
            "city_name__in": ["Paris", "Lyon"],
            "since": "2024-02-01",
            "until": "2024-10-31",
            "order": "-amount",
        },
    )
    wanted = api.warehouse.rows(
        "select date_trunc('month', date_day)::date, city_name, sum(amount), sum(transaction_count)"
        " from marts.daily_transactions where currency_code = 'EUR'"
        " and city_name in ('Paris', 'Lyon') and date_day between '2024-02-01' and '2024-10-31'"
        " group by 1, 2 order by 3 desc, 1, 2"
    )
    found = [
        (row["month"], row["city_name"], row["amount"], row["transaction_count"])
        for row in json.loads(page.text, parse_float=str, parse_int=str)["data"]
    ]
    assert [(str(m), c, str(a), str(n)) for m, c, a, n in wanted] == found
    assert found


def test_all_formats_hold_the_same_rows(api: Api):
    path = "/v1/metrics/transaction_count,mean_amount"
    params = {
        "group_by": "city_name,currency_code",
        "currency_code__in": ["EUR", 'a "quoted" \\ one, {x}'],
    }
    rows = api.get(path, params).json()["data"]
    lines = api.get(path, params | {"format": "ndjson"}).text.splitlines()
    assert [json.loads(line) for line in lines] == rows
    records = list(csv.DictReader(io.StringIO(api.get(path, params | {"format": "csv"}).text)))
    content = api.get(path, params | {"format": "arrow"}).content
    table = pa.ipc.open_stream(content).read_all().to_pylist()
    assert len(rows) == len(records) == len(table) > 1
    for row, record, arrow in zip(rows, records, table, strict=True):
        assert row["city_name"] == record["city_name"] == arrow["city_name"]
        for metric in ("transaction_count", "mean_amount"):
            assert row[metric] == float(record[metric]) == arrow[metric]


def test_figures_are_kept_until_their_mart_is_built_anew(api: Api):
    path, params = "/v1/metrics/transaction_count", {"group_by": "city_name"}
    first = api.get(path, params)
    queries = api.figure("marquee_api_queries_total")
    again = api.get(path, params)
    assert again.json() == first.json()
    assert api.figure("marquee_api_queries_total") == queries
    tag = first.headers["etag"]
    assert api.get(path, params, headers={"If-None-Match": tag}).status_code == 304
    rebuilt(api.warehouse, "dim_city")  # another mart changes nothing
    assert api.get(path, params).headers["etag"] == tag
    invocation = rebuilt(api.warehouse, "daily_transactions")
    until(
        lambda: api.get(path, params).headers["warehouse-build"] == invocation,
        "the build is seen",
    )
    assert api.get(path, params).headers["etag"] != tag


def test_an_answer_that_would_not_be_whole_is_refused(api: Api):
    day = "day,city_name,currency_code,category_name,transaction_status,payment_method"
    page = api.get("/v1/metrics/transaction_count", {"group_by": f"{day},amount_bucket"})
    assert (page.status_code, page.json()["parameter"]) == (400, "group_by")
    assert "10000 rows" in page.json()["detail"]
    page = api.get("/v1/metrics/transaction_count", {"group_by": day, "limit": 7})
    assert len(page.json()["data"]) == 7


@pytest.mark.parametrize(
    ("names", "params", "status", "parameter"),
    [
        ("nothing", {}, 404, None),
        ("amount; drop table x", {}, 404, None),
        ("amount", {}, 400, "group_by"),
        ("amount", {"currency_code__in": ["EUR", "USD"]}, 400, "group_by"),
        ("amount,film_count", {"group_by": "currency_code"}, 400, "metrics"),
        ("transaction_count,transaction_count", {}, 400, "metrics"),
        ("transaction_count", {"group_by": "nothing"}, 400, "group_by"),
        ("transaction_count", {"group_by": ""}, 400, "group_by"),
        ("transaction_count", {"group_by": "day,day"}, 400, "group_by"),
        ("transaction_count", {"group_by": "1); drop table x --"}, 400, "group_by"),
        ("transaction_count", {"group_by": ",".join(["day"] * 21)}, 400, "group_by"),
        ("transaction_count", {"group_by": ["day", "month"]}, 400, "group_by"),
        ("transaction_count", {"since": "yesterday"}, 400, "since"),
        ("transaction_count", {"since": "2024-02-30"}, 400, "since"),
        ("transaction_count", {"since": "2024-02-02", "until": "2024-02-01"}, 400, "since"),
        ("film_count", {"since": "2024-02-02"}, 400, "since"),
        ("transaction_count", {"order": "amount"}, 400, "order"),
        ("transaction_count", {"limit": "0"}, 400, "limit"),
        ("transaction_count", {"limit": "10001"}, 400, "limit"),
        ("transaction_count", {"limit": "1e3"}, 400, "limit"),
        ("transaction_count", {"format": "xml"}, 400, "format"),
        ("transaction_count", {"city": "Paris"}, 400, "city"),
        ("transaction_count", {"city_name__like": "P%"}, 400, "city_name__like"),
        ("transaction_count", {"city_name__": "P"}, 400, "city_name__"),
        ("transaction_count", {"city_name__null": "yes"}, 400, "city_name__null"),
        ("transaction_count", {"city_name": ["Paris", "Lyon"]}, 400, "city_name"),
        ("transaction_count", {"city_name": "x" * 1001}, 400, "city_name"),
        ("transaction_count", {"city_name": "a\0b"}, 400, "filters"),
        ("transaction_count", {"city_name__in": ["x"] * 201}, 400, "city_name__in"),
    ],
)
def test_what_cannot_be_answered_says_why(names, params, status, parameter, api: Api):
    page = api.get(f"/v1/metrics/{names}", params)
    assert page.status_code == status, page.text
    assert page.headers["content-type"] == "application/problem+json"
    problem = page.json()
    assert problem.get("parameter") == parameter
    assert all(problem[part] for part in ("detail", "remedy"))


@pytest.mark.parametrize("value", ["{{ 1 }}", "'; drop table x; --", "%s", "$1", "\\", "%(p1)s"])
def test_a_value_stays_a_value(value: str, api: Api):
    for form in ("json", "csv"):
        for name in ("city_name", "city_name__in", "city_name__ne"):
            params = {name: value, "group_by": "city_name", "format": form}
            page = api.get("/v1/metrics/transaction_count", params)
            assert page.status_code == 200, page.text
            lines = page.json()["data"] if form == "json" else page.text.splitlines()[1:]
            assert bool(lines) == name.endswith("__ne")


def test_it_can_only_be_read_and_with_a_key(api: Api):
    assert (
        api.session.post(f"{api.base}/v1/metrics/transaction_count", timeout=60).status_code == 405
    )
    page = api.get("/v1/metrics/transaction_count", headers={"Authorization": "Bearer no"})
    assert page.status_code == 401
