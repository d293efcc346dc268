"""The dashboards' files against dbt: everything they name is there; what is gone is said.

Superset itself is not needed here; ``make test-superset`` starts it.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from bi.superset import assets
from bi.superset.assets import bundle, mart_models, of_kind, read, write
from bi.superset.checks import problems
from bi.superset.cleaning import cleaned
from ingestion.tests.built import Built
from ingestion.warehouse.paths import PROJECT_DIR

ATTRIBUTION = "This product uses the TMDB API but is not endorsed or certified by TMDB."
SLIDER = "Amount of a transaction"
URI = "postgresql+psycopg2://reader:s3cret@127.0.0.1:5432/warehouse"


@pytest.fixture(scope="module")
def manifest(built: Built) -> dict[str, Any]:
    return json.loads((built.target_path / "manifest.json").read_text())


@pytest.fixture(scope="module")
def catalog(built: Built) -> dict[str, Any]:
    return json.loads((built.target_path / "catalog.json").read_text())


def test_everything_the_dashboards_name_is_there(manifest, catalog):
    assets = read()
    assert problems(assets, manifest, catalog) == []
    titles = {each["dashboard_title"] for each in of_kind(assets, "dashboards").values()}
    assert titles == {"Film brands", "Live", "Operations", "Transactions"}


def _rename(model: str, column: str) -> Callable[[SimpleNamespace], None]:
    def change(what):
        columns = mart_models(what.manifest)[model]["columns"]
        columns["renamed"] = columns.pop(column)

    return change


def _model_goes(what):
    del what.manifest["nodes"]["model.marquee.daily_merchants"]


def _column_goes_from_the_database(what):
    del what.catalog["nodes"]["model.marquee.brand_performance"]["columns"]["index_rank"]


def _metric_goes(what):
    dataset = what.assets["datasets/brand_movies.yaml"]
    dataset["metrics"] = [m for m in dataset["metrics"] if m["metric_name"] != "popularity"]


def _live_is_remembered(what):
    del what.assets["datasets/transactions_by_minute.yaml"]["cache_timeout"]


def _chart_goes(what):
    del what.assets["charts/films_comparison.yaml"]


def _chart_is_not_shown(what):
    position = what.assets["dashboards/film_brands.yaml"]["position"]
    del position["CHART-comparison"]


def _dataset_goes(what):
    del what.assets["datasets/hourly_transactions.yaml"]


def _sql_in_a_chart(what):
    metric = {"expressionType": "SQL", "sqlExpression": "sum(amount)", "label": "a"}
    what.assets["charts/transactions_amount.yaml"]["params"]["metric"] = metric


def _filter_leaves_a_chart_out(what):
    city = what.assets["charts/transactions_city.yaml"]["uuid"]
    filters = what.assets["dashboards/transactions.yaml"]["metadata"]["native_filter_configuration"]
    filters[0]["scope"]["excluded"].append(city)


def _filter_named(what, dashboard: str, name: str) -> dict:
    metadata = what.assets[f"dashboards/{dashboard}.yaml"]["metadata"]
    return next(f for f in metadata["native_filter_configuration"] if f["name"] == name)


def _amount_range_leaves_merchants_out(what):
    merchants = what.assets["charts/transactions_merchants.yaml"]["uuid"]
    _filter_named(what, "transactions", "Amount range")["scope"]["excluded"].append(merchants)


def _slider_reaches_sums(what):
    daily = what.assets["charts/transactions_daily.yaml"]["uuid"]
    _filter_named(what, "transactions", SLIDER)["scope"]["excluded"].remove(daily)


def _slider_leaves_the_latest_out(what):
    latest = what.assets["charts/transactions_latest.yaml"]["uuid"]
    _filter_named(what, "transactions", SLIDER)["scope"]["excluded"].append(latest)


def _filter_hangs_on_what_is_gone(what):
    _filter_named(what, "transactions", SLIDER)["cascadeParentIds"] = ["NATIVE_FILTER-gone"]


def _filter_is_on_for_all(what):
    filters = what.assets["dashboards/film_brands.yaml"]["metadata"]["native_filter_configuration"]
    filters[1]["scope"]["excluded"] = []


def _filter_sorts_by_what_is_gone(what):
    filters = what.assets["dashboards/transactions.yaml"]["metadata"]["native_filter_configuration"]
    filters[0]["sortMetric"] = "gone"


def _exposure_goes(what):
    del what.manifest["exposures"]["exposure.marquee.film_brands_dashboard"]


def _exposure_forgets_a_model(what):
    exposure = what.manifest["exposures"]["exposure.marquee.transactions_dashboard"]
    exposure["depends_on"]["nodes"].remove("model.marquee.daily_merchants")


def _exposure_names_another_model(what):
    exposure = what.manifest["exposures"]["exposure.marquee.transactions_dashboard"]
    exposure["depends_on"]["nodes"].append("model.marquee.fct_transactions")


def _plugin_is_not_known(what):
    what.assets["charts/films_votes.yaml"]["viz_type"] = "sankey_v2"


def _link_leads_elsewhere(what):
    what.assets["dashboards/film_brands.yaml"]["slug"] = "brands"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_rename("brand_performance", "brand_name"), "films_index_total.yaml: column brand_name"),
        (_rename("daily_transactions", "approved_amount"), "metric approved_amount names approved"),
        (_rename("daily_transactions", "date_day"), "main_dttm_col names date_day"),
        (_rename("daily_merchants", "currency_code"), "currency_code_column names currency_code"),
        (_rename("brand_movies", "genre_name"), "filter Genre names genre_name"),
        (_rename("brand_match_audit", "score"), "column score"),
        (_model_goes, "dbt has no mart daily_merchants"),
        (_column_goes_from_the_database, "brand_performance has no column index_rank"),
        (_metric_goes, "metric popularity is not in the dataset brand_movies"),
        (_chart_goes, "is not there"),
        (_chart_is_not_shown, "films_comparison.yaml: no dashboard shows it"),
        (_dataset_goes, "transactions_hourly.yaml: its dataset is not there"),
        (_sql_in_a_chart, "'sum(amount)' is SQL"),
        (_filter_leaves_a_chart_out, "filter Currency is off for Transactions by city"),
        (_amount_range_leaves_merchants_out, "filter Amount range is off for Top merchants by"),
        (_slider_reaches_sums, f"filter {SLIDER} is on for Amount by day"),
        (_slider_leaves_the_latest_out, f"filter {SLIDER} is off for Latest transactions"),
        (_filter_hangs_on_what_is_gone, f"filter {SLIDER} depends on NATIVE_FILTER-gone"),
        (_rename("latest_transactions", "transaction_amount"), "names transaction_amount"),
        (_rename("latest_transactions", "event_at"), "main_dttm_col names event_at"),
        (_rename("hourly_transactions", "amount_bucket"), "column amount_bucket names"),
        (_rename("brand_performance", "release_coverage_note"), "column release_coverage_note"),
        (_filter_is_on_for_all, "filter Genre is on for Total by brand"),
        (_filter_sorts_by_what_is_gone, "filter Currency sorts by gone"),
        (_live_is_remembered, "asks anew by itself, and transactions_by_minute is remembered"),
        (_exposure_goes, "no exposure with the label Film brands"),
        (_exposure_forgets_a_model, "depends_on lacks daily_merchants"),
        (_exposure_names_another_model, "fct_transactions is on no chart"),
        (_plugin_is_not_known, "nothing here knows what a sankey_v2 asks"),
        (_link_leads_elsewhere, "does not end with /superset/dashboard/brands/"),
    ],
)
def test_what_does_not_fit_is_named(manifest, catalog, change, said):
    what = SimpleNamespace(
        assets=read(), manifest=copy.deepcopy(manifest), catalog=copy.deepcopy(catalog)
    )
    change(what)
    found = problems(what.assets, what.manifest, what.catalog)
    assert any(said in line for line in found), found


def test_datasets_carry_the_descriptions_of_dbt(manifest):
    files = bundle(read(), manifest, "marts", URI)
    models = mart_models(manifest)
    datasets = [yaml.safe_load(t) for path, t in files.items() if path.startswith("datasets/")]
    assert len(datasets) == 16
    for dataset in datasets:
        columns = {column["column_name"]: column for column in dataset["columns"]}
        for name, column in models[dataset["table_name"]]["columns"].items():
            assert columns[name]["description"] == " ".join(column["description"].split())
            assert columns[name]["type"] == column["data_type"].upper()
        assert dataset["description"]


def test_marts_of_another_target_have_their_own_schema(manifest):
    files = bundle(read(), manifest, "analytics_marts", URI)
    schemas = {yaml.safe_load(t)["schema"] for p, t in files.items() if p.startswith("datasets/")}
    assert schemas == {"analytics_marts"}


def test_what_comes_out_is_what_went_in(manifest, tmp_path):
    assets = read()
    schema = "analytics_marts"
    back = cleaned(bundle(assets, manifest, schema, URI), assets, manifest, schema)
    assert back == assets
    write(assets, tmp_path)
    # nor is anything in another order; keys of metrics come in Superset's own
    assert {path.split("/")[0] for path in write(back, tmp_path)} <= {"datasets"}


def _contexts(files: dict[str, str]) -> dict[str, dict[str, Any]]:
    charts = {path: yaml.safe_load(t) for path, t in files.items() if path.startswith("charts/")}
    return {path: json.loads(chart["query_context"]) for path, chart in charts.items()}


def test_every_chart_is_saved_with_the_query_that_it_asks(manifest):
    assets = read()
    contexts = _contexts(bundle(assets, manifest, "marts", URI))
    assert contexts.keys() == {path for path in assets if path.startswith("charts/")}
    for path, context in contexts.items():
        params = assets[path]["params"]
        named = params.get("metrics") or [params[k] for k in ("metric", "x") if k in params]
        (query,) = context["queries"]
        assert query["metrics"][: len(named)] == named
        assert query["metrics"] or query["columns"] == params["all_columns"]
        assert context["form_data"] == params | {"viz_type": assets[path]["viz_type"]}


def test_a_chart_that_is_asked_alone_adds_up_amounts_of_one_currency(manifest):
    assets = read()
    datasets = of_kind(assets, "datasets")
    currency = {"col": "currency_code", "op": "IN", "val": ["EUR"]}
    for path, context in _contexts(bundle(assets, manifest, "marts", URI)).items():
        of_amounts = "currency_code_column" in datasets[assets[path]["dataset_uuid"]]
        assert of_amounts == path.startswith("charts/transactions_")
        assert (currency in context["queries"][0]["filters"]) == of_amounts


def test_a_chart_of_another_plugin_keeps_the_query_that_the_browser_saved(manifest):
    assets = read()
    chart = assets["charts/transactions_city.yaml"]
    chart["viz_type"] = "sankey_v2"
    chart["queries"] = [{"columns": ["city_name"], "filters": [], "metrics": ["amount"]}]
    files = bundle(assets, manifest, "marts", URI)
    (query,) = _contexts(files)["charts/transactions_city.yaml"]["queries"]
    assert query["columns"] == ["city_name"]
    assert [each["col"] for each in query["filters"]] == ["currency_code"]
    chart["queries"][0].pop("filters")
    back = cleaned(files, assets, manifest, "marts")
    assert back["charts/transactions_city.yaml"] == chart
    assert problems(assets, manifest) == []


def test_files_are_written_in_one_way_and_hold_nothing_of_one_machine(tmp_path):
    write(read(), tmp_path)
    for kind in assets.KINDS:
        for path in (assets.FOLDER / kind).rglob("*.yaml"):
            text = path.read_text()
            assert (tmp_path / path.relative_to(assets.FOLDER)).read_text() == text
            assert not re.search(r"chartId|datasetId|password|sqlalchemy_uri|127\.0\.0\.1", text)
    assert write(read(), tmp_path) == []


def test_a_file_that_is_gone_from_the_assets_is_removed(tmp_path):
    assets = read()
    write(assets, tmp_path)
    del assets["charts/films_votes.yaml"]
    assert write(assets, tmp_path) == ["charts/films_votes.yaml"]
    assert not (tmp_path / "charts/films_votes.yaml").exists()


def test_amounts_of_different_currencies_are_never_added_up():
    dashboard = read()["dashboards/transactions.yaml"]
    currency = dashboard["metadata"]["native_filter_configuration"][0]
    assert currency["targets"][0]["column"]["name"] == "currency_code"
    assert currency["scope"]["excluded"] == []
    settings = currency["controlValues"]
    assert settings["enableEmptyFilter"]  # one must be chosen
    assert not settings["multiSelect"]
    assert settings["defaultToFirstItem"]  # and one is, the most frequent, before charts are drawn
    assert currency["requiredFirst"]
    assert currency["sortMetric"] == "transaction_count"


def test_the_amount_range_reaches_every_chart_of_transactions():
    """And the slider single transactions only: a sum is not an amount to compare with."""
    assets = read()
    filters = assets["dashboards/transactions.yaml"]["metadata"]["native_filter_configuration"]
    assert next(f for f in filters if f["name"] == "Amount range")["scope"]["excluded"] == []
    slider = next(f for f in filters if f["name"] == SLIDER)
    assert slider["filterType"] == "filter_range"
    on = set(of_kind(assets, "charts")) - set(slider["scope"]["excluded"])
    assert {
        chart["slice_name"]
        for path, chart in assets.items()
        if path.startswith("charts/transactions_") and chart["uuid"] in on
    } == {"Latest transactions"}


def test_brands_are_compared_by_films_where_their_films_are_known():
    """A brand without a release list has one film; a bar of that one would mislead."""
    assets = read()
    tables = {uuid: d["table_name"] for uuid, d in of_kind(assets, "datasets").items()}
    compared = {
        chart["slice_name"]: chart["params"].get("adhoc_filters", [])
        for path, chart in assets.items()
        if path.startswith("charts/films_")
        and tables[chart["dataset_uuid"]] in ("brand_movies", "brand_popularity_daily")
        and chart["viz_type"] != "big_number_total"
    }
    assert len(compared) == 5
    for name, filters in compared.items():
        assert ("has_release_list", True) in {(f["subject"], f["comparator"]) for f in filters}, (
            name
        )
    side_by_side = assets["charts/films_brand_table.yaml"]["params"]
    assert "release_coverage_note" in side_by_side["groupby"]
    assert "coverage" in side_by_side["metrics"]


def test_films_are_shown_with_the_attribution_that_tmdb_asks_for():
    nodes = read()["dashboards/film_brands.yaml"]["position"].values()
    texts = [n["meta"]["code"] for n in nodes if isinstance(n, dict) and n["type"] == "MARKDOWN"]
    assert any(ATTRIBUTION in text for text in texts)


def test_the_requirements_name_no_address():
    text = (PROJECT_DIR / "bi/superset/requirements.txt").read_text()
    assert "://" not in text
    assert "apache-superset==6.1.0" in text
