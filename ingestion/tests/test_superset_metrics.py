"""Each metric of a Superset dataset against the metric of the same meaning, number by number.

``make test-metrics`` runs this in the environment that has MetricFlow.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from bi.superset.assets import of_kind, read
from ingestion.tests.built import Built
from serving.metrics import Filter, Metrics

# dataset and metric of Superset -> metric here, what both are grouped by
EQUAL: dict[tuple[str, str], tuple[str, list[str]]] = {
    **{
        (mart, metric): (f"{metric}{suffix}", ["currency_code", "city_name"])
        for mart, suffix in (
            ("daily_transactions", ""),
            ("daily_merchants", "_by_merchant"),
            ("hourly_transactions", "_by_hour"),
        )
        for metric in (
            *("amount", "approved_amount", "approval_rate", "mean_amount", "transaction_count"),
        )
    },
    ("daily_transactions", "approved_count"): ("approved_count", ["currency_code"]),
    ("daily_transactions", "latest_day"): ("latest_transaction_day", ["city_name"]),
    ("brand_match_audit", "releases"): ("release_count", ["match_status"]),
    ("brand_movies", "brands"): ("brand_with_films_count", ["genre_name"]),
    ("brand_movies", "films"): ("film_count", ["genre_name"]),
    ("brand_movies", "popularity"): ("brand_mean_popularity_by_film", ["brand_name"]),
    ("brand_movies", "popularity_of_all"): ("mean_popularity", ["genre_name"]),
    ("brand_movies", "rating"): ("brand_mean_rating_by_film", ["brand_name"]),
    ("brand_movies", "rating_of_all"): ("mean_rating", ["genre_name"]),
    ("brand_movies", "revenue"): ("brand_revenue_usd_by_film", ["brand_name"]),
    ("brand_movies", "votes"): ("brand_votes_by_film", ["brand_name"]),
    ("brand_movies", "votes_of_all"): ("votes", ["genre_name"]),
    ("brand_performance", "best_rank"): ("best_index_rank", ["brand_name"]),
    ("brand_performance", "brands"): ("brand_count", ["has_release_list"]),
    ("brand_performance", "coverage"): ("known_release_share", ["has_release_list"]),
    ("brand_performance", "films"): ("brand_film_count", ["brand_name"]),
    ("brand_performance", "index_releases"): ("index_release_count", ["has_release_list"]),
    ("brand_performance", "index_total"): ("index_total_gross_usd", ["brand_name"]),
    ("brand_performance", "listed_releases"): ("listed_release_count", ["has_release_list"]),
    ("brand_performance", "matched_releases"): ("matched_release_count", ["has_release_list"]),
    ("brand_performance", "popularity"): ("brand_mean_popularity", ["brand_name"]),
    ("brand_performance", "rating"): ("brand_mean_rating", ["brand_name"]),
    ("brand_performance", "revenue"): ("brand_revenue_usd", ["brand_name"]),
    ("brand_performance", "votes"): ("brand_votes", ["brand_name"]),
    ("latest_transactions", "transactions"): ("latest_transaction_count", ["city_name"]),
    ("ops_freshness", "stale"): ("stale_table_count", ["source_name"]),
    ("ops_node_results", "failures"): ("failed_node_count", ["resource_type"]),
    ("ops_node_results", "node_count"): ("node_count", ["resource_type"]),
    ("ops_node_results", "node_seconds"): ("node_seconds", ["resource_type"]),
    ("ops_rejects_daily", "rejects"): ("rejected_count", ["reason_code"]),
    ("ops_runs", "failed_runs"): ("failed_run_count", ["command_name"]),
    ("ops_runs", "last_success"): ("last_success_at", ["command_name"]),
    ("ops_runs", "rows_landed_sum"): ("rows_landed", ["command_name"]),
    ("ops_steps", "step_seconds"): ("step_seconds", ["step_name"]),
    ("ops_table_sizes", "size"): ("table_bytes", ["invocation_id"]),
    ("transactions_by_minute", "approved_amount"): ("recent_approved_amount", ["currency_code"]),
    ("transactions_by_minute", "rejected_count"): ("recent_rejected_count", ["outcome"]),
    ("transactions_by_minute", "transaction_count"): ("recent_transaction_count", ["outcome"]),
    ("transactions_live", "newest_age"): ("newest_event_age_seconds", ["city_name"]),
    ("transactions_live", "newest_event"): ("newest_event_at", ["city_name"]),
    ("transactions_live", "not_built"): ("not_built_count", ["city_name"]),
    ("transactions_live", "transactions"): ("live_transaction_count", ["city_name"]),
}
OF_ONE_DAY = ("brand_popularity_daily", "popularity")
WITHOUT = {
    ("daily_transactions", "weekday"): "a dimension, iso_day_of_week, to sort by",
    ("hourly_transactions", "latest_hour"): "a dimension, event_hour, to sort by",
    ("ops_runs", "last_duration"): "the value of one row: MetricFlow has no such aggregation",
}


def expressions() -> dict[tuple[str, str], str]:
    return {
        (dataset["table_name"], metric["metric_name"]): metric["expression"]
        for dataset in of_kind(read(), "datasets").values()
        for metric in dataset["metrics"]
    }


def test_each_metric_of_superset_has_a_counterpart_or_a_reason() -> None:
    assert {*EQUAL, *WITHOUT, OF_ONE_DAY} == expressions().keys()


@pytest.fixture(scope="module")
def metrics(built: Built) -> Metrics:
    pytest.importorskip("metricflow", reason="make test-metrics installs metricflow")
    place = built.target_path
    return Metrics.load(place / "semantic_manifest.json", place / "manifest.json")


def both(built: Built, metrics: Metrics, mart: str, name: str, **request: Any) -> list[list[tuple]]:
    """Rows of Superset's expression and of the metric, in one transaction: now() is one moment."""
    expression, group_by = request.pop("expression"), request["group_by"]
    query = metrics.compile([name], filters=[Filter(*f) for f in request.get("filters", [])],
                            group_by=group_by)  # fmt: skip
    assert query.mart == mart
    columns = ", ".join("date_day" if each == "day" else each for each in group_by)
    with closing(built.target.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("set timezone to 'UTC'")
        cursor.execute(f"select {columns}, {expression} from marts.{mart} group by {columns}")
        superset = cursor.fetchall()
        cursor.execute(*query.for_psycopg())
        return [superset, cursor.fetchall()]


@pytest.mark.parametrize("of_superset", EQUAL, ids=".".join)
def test_a_metric_of_superset_is_the_metric(
    of_superset: tuple[str, str], built: Built, metrics: Metrics
) -> None:
    name, group_by = EQUAL[of_superset]
    superset, ours = both(
        built, metrics, of_superset[0], name,
        group_by=group_by, expression=expressions()[of_superset],
    )  # fmt: skip
    assert set(superset) == set(ours)
    assert len(superset) == len(ours)


def test_a_level_of_a_day_is_the_metric(built: Built, metrics: Metrics) -> None:
    superset, ours = both(
        built, metrics, OF_ONE_DAY[0], "brand_mean_popularity_on_day",
        group_by=["brand_name", "day"], expression=expressions()[OF_ONE_DAY],
    )  # fmt: skip
    assert set(superset) == set(ours)
    assert ours
