"""Metrics by name: what a request gets, what it is refused, and what its SQL does.

``make test-metrics`` runs this in the environment that has MetricFlow; what needs only dbt's
manifests runs in ``make test``, too.
"""

from __future__ import annotations

import json
from contextlib import closing
from datetime import date, datetime
from typing import Any

import pytest

from ingestion.tests.built import Built
from serving.metrics import Filter, Metrics, MetricsError

EUR = Filter("currency_code", "eq", "EUR")


@pytest.fixture(scope="module")
def metrics(built: Built) -> Metrics:
    place = built.target_path
    return Metrics.load(place / "semantic_manifest.json", place / "manifest.json")


@pytest.fixture
def compiled(metrics: Metrics) -> Metrics:
    pytest.importorskip("metricflow", reason="make test-metrics installs metricflow")
    return metrics


def rows(built: Built, query: Any, zone: str = "UTC") -> list[tuple]:
    with closing(built.target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"set timezone to '{zone}'")
        cursor.execute(*query.for_psycopg())
        return cursor.fetchall()


def test_metrics_are_described_and_dbt_knows_them(metrics: Metrics, built: Built) -> None:
    known = json.loads((built.target_path / "manifest.json").read_text())["metrics"]
    assert {m.name for m in metrics.list()} < {each["name"] for each in known.values()}
    assert [m.name for m in metrics.list() if not (m.label and m.description)] == []
    assert [n for m in metrics.list() for n, x in m.dimensions.items() if not x.description] == []


def test_all_that_adds_up_amounts_asks_for_a_currency(metrics: Metrics) -> None:
    amounts = {m.name for m in metrics.list() if "amount" in m.name or m.name == "brand_spend"}
    assert len(amounts) == 5
    assert amounts == {m.name for m in metrics.list() if "currency_code" in m.within}


REFUSED = [
    ({"names": []}, "metrics", "No metric"),
    ({"names": ["nothing"]}, "metrics", "no metric 'nothing'"),
    ({"names": ["popularity_sum"]}, "metrics", "no metric"),
    ({"names": ["amount", "amount"]}, "metrics", "twice"),
    ({"names": ["amount", "match_rate"]}, "metrics", "No mart has all"),
    ({"names": ["amount"]}, "group_by", "within one currency_code"),
    ({"names": ["mean_amount"], "group_by": ["city_name"]}, "group_by", "within one currency"),
    (
        {"names": ["amount"], "filters": [Filter("currency_code", "in", ["EUR", "USD"])]},
        "group_by",
        "within one currency_code",
    ),
    ({"names": ["amount"], "filters": [Filter("currency_code", "ne", "EUR")]}, "group_by", "one"),
    ({"names": ["brand_revenue_usd"]}, "group_by", "within one brand_name"),
    ({"names": ["match_rate"], "group_by": ["month"]}, "group_by", "'month'"),
    ({"names": ["match_rate"], "since": "2024-01-01"}, "since", "no time"),
    (
        {"names": ["transaction_count"], "group_by": ["merchant_name", "payment_method"]},
        "group_by",
        "at once",
    ),
    ({"names": ["transaction_count"], "group_by": ["x') }} or 1=1 --"]}, "group_by", "cannot"),
    ({"names": ["transaction_count"], "since": "yesterday"}, "since", "'yesterday'"),
    ({"names": ["transaction_count"], "until": "9999-12-31"}, "until", "last day"),
    (
        {"names": ["transaction_count"], "since": "2024-02-01", "until": "2024-01-01"},
        "since",
        "after",
    ),
    ({"names": ["run_count"], "since": "2024-01-01T25:00"}, "since", "no value"),
    (
        {"names": ["transaction_count"], "filters": [Filter("iso_day_of_week", "eq", "9" * 30)]},
        "filters",
        "no value",
    ),
    (
        {"names": ["transaction_count"], "filters": [Filter("city_name", "eq", "a\0b")]},
        "filters",
        "no value",
    ),
    (
        {"names": ["transaction_count"], "filters": [Filter("city_name", "like", "a%")]},
        "filters",
        "'like'",
    ),
    ({"names": ["transaction_count"], "filters": [Filter("city_name", "in", [])]}, "filters", "in"),
    ({"names": ["transaction_count"], "limit": 0}, "limit", "0 rows"),
    ({"names": ["transaction_count"], "limit": "1e9"}, "limit", "no value"),
    ({"names": ["transaction_count"], "order": ["amount"]}, "order", "no column"),
]


@pytest.mark.parametrize(("request_", "parameter", "said"), REFUSED)
def test_what_is_refused_says_what_to_ask_instead(
    request_: dict[str, Any], parameter: str, said: str, metrics: Metrics
) -> None:
    with pytest.raises(MetricsError) as told:
        metrics.compile(**request_)
    assert told.value.parameter == parameter
    assert said in told.value.problem
    assert told.value.remedy


def test_a_request_is_the_sum_that_one_writes_by_hand(compiled: Metrics, built: Built) -> None:
    low, high = built.rows("select min(date_day), max(date_day) from marts.daily_transactions")[0]
    query = compiled.compile(
        ["amount", "approval_rate"], ["month", "city_name"], since=low, until=high.isoformat(),
        filters=[EUR], order=["-amount"], limit=7,
    )  # fmt: skip
    assert [column.name for column in query.columns] == [
        *("month", "city_name", "amount", "approval_rate"),
    ]
    assert rows(built, query) == built.rows(
        "select cast(date_trunc('month', date_day) as date), city_name, sum(amount),"
        " 1.0 * sum(approved_count) / sum(transaction_count) from marts.daily_transactions"
        " where currency_code = 'EUR' group by 1, 2 order by 3 desc, 1, 2 limit 7"
    )


def test_days_are_the_same_in_any_time_zone(compiled: Metrics, built: Built) -> None:
    query = compiled.compile(["amount"], ["day", "currency_code"])
    assert rows(built, query) == rows(built, query, "America/Sao_Paulo")
    assert isinstance(rows(built, query)[0][0], date)


def test_moments_are_in_utc(compiled: Metrics) -> None:
    query = compiled.compile(["run_count"], since="2024-01-01T01:00:00+02:00", until="2024-01-01")
    assert query.parameters == (datetime(2023, 12, 31, 23), datetime(2024, 1, 2))


def test_aggregates_of_one_metric_agree(compiled: Metrics, built: Built) -> None:
    for metric in compiled.list():
        if len(metric.definitions) == 3:
            names = [definition.name for definition in metric.definitions]
            answers = [
                rows(built, compiled.compile([name], ["day", "currency_code"])) for name in names
            ]
            assert answers[0] == answers[1] == answers[2], names
            assert answers[0]


def test_the_mart_that_has_what_is_asked_for_answers(compiled: Metrics) -> None:
    def mart(*group_by: str) -> str:
        return compiled.compile(["transaction_count"], group_by).mart

    assert mart("month") == mart("payment_method") == "daily_transactions"
    assert mart("brand_name") == "daily_merchants"
    assert mart("event_hour") == "hourly_transactions"


@pytest.mark.parametrize("text", ["{{ 1/0 }}", "' or '1'='1", "x'; drop table t; --", "%s", "$1"])
def test_text_of_a_user_is_never_in_the_sql(text: str, compiled: Metrics, built: Built) -> None:
    query = compiled.compile(["transaction_count"], filters=[Filter("city_name", "eq", text)])
    assert text not in query.template
    assert query.parameters == (text,)
    assert rows(built, query) == [(0,)]


def test_a_filter_on_time_uses_the_index(compiled: Metrics, built: Built) -> None:
    query = compiled.compile(
        ["amount", "approval_rate"], ["day"], since="2024-01-01", until="2024-01-01", filters=[EUR]
    )
    sql, parameters = query.for_psycopg()
    with closing(built.target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("set enable_seqscan to off")
        cursor.execute(f"explain {sql}", parameters)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "date_day >= " in plan
    assert "Index" in plan
    assert "CTE" not in plan


def test_one_shape_is_compiled_once(compiled: Metrics, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(city: str) -> Any:
        return compiled.compile(["approved_count"], filters=[Filter("city_name", "eq", city)])

    first = ask("Paris")
    monkeypatch.setattr(type(compiled), "_written", None)
    assert ask("Lyon").template == first.template
    assert ask("Lyon").parameters == ("Lyon",)
