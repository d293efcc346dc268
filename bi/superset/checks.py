"""Whether the assets fit dbt's manifest: all that they name is there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from bi.superset.assets import charts_on, filter_datasets, filters_of, mart_models, of_kind
from bi.superset.form import MARTS, Assets
from bi.superset.queries import PLUGINS

# Where a chart names columns or metrics; a string or a list of them.
NAMES_COLUMNS = (
    "groupby",
    "groupbyColumns",
    "groupbyRows",
    "columns",
    "all_columns",
    "x_axis",
    "entity",
    "series",
    "granularity_sqla",
    "dimension",
)

UNCACHED = -1  # a dataset's cache_timeout: Superset remembers no answers

NAMES_METRICS = (
    "metric",
    "metrics",
    "metrics_b",
    "percent_metrics",
    "secondary_metric",
    "timeseries_limit_metric",
    "timeseries_limit_metric_b",
    "series_limit_metric",
    "x",
    "y",
    "size",
)


def problems(
    assets: Assets, manifest: Mapping[str, Any], catalog: Mapping[str, Any] | None = None
) -> list[str]:
    """What the assets name that is not there, one line each; empty when all is well.

    Args:
        assets: the files' content.
        manifest: dbt's: a dataset is a model of the marts, a column one of its columns, and each
            dashboard an exposure that depends on the models it shows.
        catalog: dbt's, of the tables as they are in the database.
    """
    return [
        *_dataset_problems(assets, manifest, catalog),
        *_chart_problems(assets, manifest),
        *_dashboard_problems(assets, manifest),
        *_exposure_problems(assets, manifest),
    ]


def _dataset_problems(
    assets: Assets, manifest: Mapping[str, Any], catalog: Mapping[str, Any] | None
) -> Iterator[str]:
    models = mart_models(manifest)
    for path, dataset in _files(assets, "datasets"):
        if dataset.get("sql") or dataset.get("schema", MARTS) != MARTS:
            yield f"{path}: a dataset is a table of the schema {MARTS}"
            continue
        model = models.get(dataset["table_name"])
        if not model:
            yield f"{path}: dbt has no mart {dataset['table_name']}"
            continue
        if dataset["database_uuid"] not in of_kind(assets, "databases"):
            yield f"{path}: its database is not there"
        columns = set(model["columns"])
        if catalog is not None:
            table = catalog["nodes"].get(model["unique_id"], {"columns": {}})
            for gone in sorted(columns - {name.lower() for name in table["columns"]}):
                yield f"{path}: the table {dataset['table_name']} has no column {gone}"
        for key in ("main_dttm_col", "currency_code_column"):
            if (name := dataset.get(key)) and name not in columns:
                yield f"{path}: {key} names {name}, which {dataset['table_name']} lacks"
        for column in dataset.get("columns", []):
            name, expression = column["column_name"], column.get("expression")
            for gone in _gone(expression, columns) if expression else {name} - columns:
                yield f"{path}: column {name} names {gone}, which {dataset['table_name']} lacks"
        for metric in dataset.get("metrics", []):
            for gone in _gone(metric["expression"], columns):
                yield (
                    f"{path}: metric {metric['metric_name']} names {gone},"
                    f" which {dataset['table_name']} lacks"
                )


def _gone(expression: str, columns: set[str]) -> list[str]:
    """Columns that an SQL expression names and that are not there."""
    import sqlglot

    parsed = sqlglot.parse_one(expression, read="postgres")
    return sorted({column.name for column in parsed.find_all(sqlglot.exp.Column)} - columns)


def _dataset_names(
    dataset: dict[str, Any], models: Mapping[str, dict[str, Any]]
) -> tuple[set[str], set[str]]:
    """Columns and metrics that charts may name."""
    model = models.get(dataset["table_name"], {"columns": {}})
    own = {column["column_name"] for column in dataset.get("columns", [])}
    return set(model["columns"]) | own, {m["metric_name"] for m in dataset.get("metrics", [])}


def _chart_problems(assets: Assets, manifest: Mapping[str, Any]) -> Iterator[str]:
    models, datasets = mart_models(manifest), of_kind(assets, "datasets")
    shown = {uuid for d in of_kind(assets, "dashboards").values() for uuid in charts_on(d)}
    for path, chart in _files(assets, "charts"):
        if chart["uuid"] not in shown:
            yield f"{path}: no dashboard shows it"
        dataset = datasets.get(chart["dataset_uuid"])
        if not dataset:
            yield f"{path}: its dataset is not there"
            continue
        if chart["viz_type"] not in PLUGINS and not chart.get("queries"):
            yield (
                f"{path}: nothing here knows what a {chart['viz_type']} asks; save the chart in"
                " Superset, then export it"
            )
        columns, metrics = _dataset_names(dataset, models)
        known = {"column": columns, "metric": metrics, "name": columns | metrics}
        table = dataset["table_name"]
        for kind, name in _named(chart["params"]):
            if kind == "expression":
                yield f"{path}: {name!r} is SQL; it belongs in the dataset {table}, by a name"
            elif name not in known[kind]:
                yield f"{path}: {kind} {name} is not in the dataset {table}"


def _named(params: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Columns and metrics that a chart names, each with its kind."""
    for keys, kind in ((NAMES_COLUMNS, "column"), (NAMES_METRICS, "metric")):
        for key in keys:
            value = params.get(key)
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, str):
                    yield kind, each
                elif isinstance(each, dict):
                    yield _adhoc(each)
    for each in [*params.get("adhoc_filters", []), *params.get("adhoc_filters_b", [])]:
        if each.get("expressionType") == "SQL":
            yield "expression", each.get("sqlExpression", "")
        else:
            yield "column", each["subject"]
    for each in params.get("order_by_cols", []):
        yield "column", json.loads(each)[0]
    for name in params.get("column_config", {}):
        yield "name", name.removeprefix("%")
    if name := params.get("x_axis_sort"):
        yield "name", name


def _adhoc(each: dict[str, Any]) -> tuple[str, str]:
    column = (each.get("column") or {}).get("column_name")
    if column and each.get("expressionType") != "SQL":
        return "column", column
    return "expression", each.get("sqlExpression") or each.get("label") or ""


def _dashboard_problems(assets: Assets, manifest: Mapping[str, Any]) -> Iterator[str]:
    models = mart_models(manifest)
    charts, datasets = of_kind(assets, "charts"), of_kind(assets, "datasets")
    for path, dashboard in _files(assets, "dashboards"):
        shown = charts_on(dashboard)
        for uuid in shown:
            if uuid not in charts:
                yield f"{path}: the chart {uuid} is not there"
        yield from _remembered(path, dashboard, assets)
        for each in filters_of(dashboard):
            for gone in sorted(set(each["scope"]["excluded"]) - set(shown)):
                yield f"{path}: filter {each['name']} leaves out {gone}, which is not shown"
            for target in each.get("targets", []):
                dataset = datasets.get(target.get("datasetUuid"))
                if "datasetUuid" in target and not dataset:
                    yield f"{path}: the dataset of filter {each['name']} is not there"
                elif dataset:
                    column = target["column"]["name"]
                    columns, metrics = _dataset_names(dataset, models)
                    if column not in columns:
                        yield f"{path}: filter {each['name']} names {column}, which is gone"
                    sort = each.get("sortMetric")
                    if sort and sort not in metrics:
                        yield f"{path}: filter {each['name']} sorts by {sort}, which is gone"
            for gone in set(each.get("cascadeParentIds", [])) - {
                f["id"] for f in filters_of(dashboard)
            }:
                yield f"{path}: filter {each['name']} depends on {gone}, which is gone"
            yield from _reach(path, each, dashboard, assets, models)


def _remembered(path: str, dashboard: dict[str, Any], assets: Assets) -> Iterator[str]:
    """A dashboard that asks anew by itself has data that are not kept from the last time."""
    if not dashboard.get("metadata", {}).get("refresh_frequency"):
        return
    charts, datasets = of_kind(assets, "charts"), of_kind(assets, "datasets")
    used = {charts[uuid]["dataset_uuid"] for uuid in charts_on(dashboard) if uuid in charts}
    for uuid in sorted(used & datasets.keys()):
        if datasets[uuid].get("cache_timeout") != UNCACHED:
            yield (
                f"{path}: it asks anew by itself, and {datasets[uuid]['table_name']} is"
                f" remembered; set cache_timeout to {UNCACHED} there"
            )


def _reach(
    path: str,
    each: dict[str, Any],
    dashboard: dict[str, Any],
    assets: Assets,
    models: Mapping[str, dict[str, Any]],
) -> Iterator[str]:
    """A filter is on for the charts whose data have its column, and for no other.

    One for dates has no column: it is for charts whose data have a date.
    """
    charts, datasets = of_kind(assets, "charts"), of_kind(assets, "datasets")
    target = (each.get("targets") or [{}])[0]
    for uuid in charts_on(dashboard):
        if uuid not in charts or charts[uuid]["dataset_uuid"] not in datasets:
            continue
        chart, dataset = charts[uuid], datasets[charts[uuid]["dataset_uuid"]]
        if "column" in target:
            has = target["column"]["name"] in _dataset_names(dataset, models)[0]
        else:
            has = bool(dataset.get("main_dttm_col"))
            filters = chart["params"].get("adhoc_filters", [])
            if has and not any(one.get("operator") == "TEMPORAL_RANGE" for one in filters):
                yield f"{path}: {chart['slice_name']} has no time range for filter {each['name']}"
        if has == (uuid in each["scope"]["excluded"]):
            yield (
                f"{path}: filter {each['name']} is {'off' if has else 'on'} for"
                f" {chart['slice_name']}, whose data {'have' if has else 'lack'} its column"
            )


def _exposure_problems(assets: Assets, manifest: Mapping[str, Any]) -> Iterator[str]:
    models = mart_models(manifest)
    charts, datasets = of_kind(assets, "charts"), of_kind(assets, "datasets")
    exposures = {
        each["label"]: each
        for each in manifest["exposures"].values()
        if each["type"] == "dashboard"
    }
    for path, dashboard in _files(assets, "dashboards"):
        title = dashboard["dashboard_title"]
        exposure = exposures.pop(title, None)
        if not exposure:
            yield f"{path}: dbt has no exposure with the label {title}"
            continue
        place = f"/superset/dashboard/{dashboard['slug']}/"
        if not (exposure.get("url") or "").endswith(place):
            yield f"exposure {exposure['name']}: its url does not end with {place}"
        used = {charts[u]["dataset_uuid"] for u in charts_on(dashboard) if u in charts}
        tables = {
            datasets[uuid]["table_name"]
            for uuid in used | set(filter_datasets(dashboard))
            if uuid in datasets
        }
        wanted = {models[table]["unique_id"] for table in tables if table in models}
        stands = set(exposure["depends_on"]["nodes"])
        for node in sorted(wanted - stands):
            yield f"exposure {exposure['name']}: depends_on lacks {node.split('.')[-1]}"
        for node in sorted(stands - wanted):
            yield f"exposure {exposure['name']}: {node.split('.')[-1]} is on no chart of it"
    for exposure in exposures.values():
        yield f"exposure {exposure['name']}: there is no dashboard {exposure['label']}"


def _files(assets: Assets, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    return ((path, content) for path, content in assets.items() if path.startswith(f"{kind}/"))
