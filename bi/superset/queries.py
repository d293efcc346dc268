"""What a chart asks of its data when no browser is there to ask: Superset's query context.

Reports, and ``GET /api/v1/chart/ID/data/``, use the query that is saved with a chart. In the
browser the chart's plugin makes it from the chart's settings. It is made here in the same way when
the assets are imported, so that the files hold the settings only. Of a plugin that is not known
here the files keep the queries that the browser saved.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Params = dict[str, Any]
Query = dict[str, Any]


def query_context(
    params: Params, viz_type: str, saved: list[Query] | None, always: list[dict[str, Any]]
) -> str | None:
    """What a chart asks, as Superset saves it; the import fills in where the data are.

    Args:
        params: the chart's settings.
        viz_type: name of its plugin.
        saved: its queries, where the plugin is not known here.
        always: filters besides its own.

    Returns:
        JSON, or None where no query is known.
    """
    build = PLUGINS.get(viz_type)
    queries = [_base(params) | build(params)] if build else saved
    if not queries:
        return None
    context = {
        "datasource": {"id": 0, "type": "table"},
        "force": False,
        "queries": [q | {"filters": [*always, *q.get("filters", [])]} for q in queries],
        "form_data": params | {"viz_type": viz_type},
        "result_format": "json",
        "result_type": "full",
    }
    return json.dumps(context)


def saved_queries(
    viz_type: str, context: str | None, always: list[dict[str, Any]]
) -> list[Query] | None:
    """The queries to keep in a chart's file: those of a plugin that is not known here."""
    if viz_type in PLUGINS or not context:
        return None
    return [_kept(query, always) for query in json.loads(context)["queries"]]


def _kept(query: Query, always: list[dict[str, Any]]) -> Query:
    own = [each for each in query.get("filters", []) if each not in always]
    return {
        key: value
        for key, value in (query | {"filters": own}).items()
        if key != "datasource" and value not in (None, "", [], {})
    }


def _base(params: Params) -> Query:
    """What every plugin's query has."""
    query = {
        "filters": [
            _filter(each)
            for each in params.get("adhoc_filters", [])
            if each["expressionType"] == "SIMPLE" and each["clause"] == "WHERE"
        ],
        "extras": {"having": "", "where": ""},
        "columns": [],
        "metrics": [],
        "annotation_layers": [],
        "series_limit": params.get("limit", 0),
        "order_desc": params.get("order_desc", True),
    }
    if grain := params.get("time_grain_sqla"):
        query["extras"]["time_grain_sqla"] = grain
    for name, key in (
        ("row_limit", "row_limit"),
        ("series_limit_metric", "timeseries_limit_metric"),
    ):
        if key in params:
            query[name] = params[key]
    return query


def _filter(each: dict[str, Any]) -> dict[str, Any]:
    found = {"col": each["subject"], "op": each["operator"]}
    return found | {"val": each["comparator"]} if "comparator" in each else found


def _axis(params: Params) -> dict[str, Any]:
    name = params["x_axis"]
    axis = {
        "columnType": "BASE_AXIS",
        "sqlExpression": name,
        "label": name,
        "expressionType": "SQL",
        "isColumnReference": True,
    }
    grain = params.get("time_grain_sqla")
    return axis | {"timeGrain": grain} if grain else axis


def _sorted_by(params: Params) -> list[list[Any]]:
    """By the metric that decides which rows stay, the largest first unless said otherwise."""
    metric = params.get("timeseries_limit_metric") or next(iter(params.get("metrics", [])), None)
    return [[metric, not params.get("order_desc", True)]] if metric else []


def _big_number(params: Params) -> Query:
    return {"metrics": [params["metric"]]}


def _pie(params: Params) -> Query:
    metric = params["metric"]
    share = {"columns": [metric], "rename_columns": [f"{metric}__contribution"]}
    query = {
        "columns": params["groupby"],
        "metrics": [metric],
        "post_processing": [{"operation": "contribution", "options": share}],
    }
    return query | {"orderby": [[metric, False]]} if params.get("sort_by_metric") else query


def _table(params: Params) -> Query:
    if params.get("query_mode") == "raw":
        order = [json.loads(each) for each in params.get("order_by_cols", [])]
        return {"columns": params["all_columns"], "orderby": order}
    return {
        "columns": params["groupby"],
        "metrics": params.get("metrics", []),
        "orderby": _sorted_by(params),
    }


def _bubble(params: Params) -> Query:
    return {
        "columns": [params[key] for key in ("entity", "series") if params.get(key)],
        "metrics": [params[key] for key in ("x", "y", "size")],
    }


def _heat_map(params: Params) -> Query:
    metric, group = params["metric"], params["groupby"]
    order = []
    for name, key in ((params["x_axis"], "sort_x_axis"), (group, "sort_y_axis")):
        if way := params.get(key):
            order.append([metric if "value" in way else name, way.endswith("asc")])
    across = {"x": params["x_axis"], "y": group}.get(params.get("normalize_across", ""))
    options = {"metric": metric} | ({"group_by": across} if across else {})
    return {
        "columns": [_axis(params), group],
        "metrics": [metric],
        "orderby": order,
        "post_processing": [{"operation": "rank", "options": options}],
    }


def _series(params: Params) -> Query:
    """Lines and bars: rows by what is on the axis, a column for each metric and group."""
    axis, metrics, groups = params["x_axis"], params["metrics"], params.get("groupby", [])
    pivot = {
        "index": [axis],
        "columns": groups,
        "aggregates": {metric: {"operator": "mean"} for metric in metrics},
        "drop_missing_columns": False,
    }
    steps: list[dict[str, Any]] = [{"operation": "pivot", "options": pivot}]
    if groups and len(metrics) == 1:
        options: dict[str, Any] = {"columns": {metrics[0]: None}, "level": 0, "inplace": True}
        steps.append({"operation": "rename", "options": options})
    by = params.get("x_axis_sort")
    if by and not groups:
        way: dict[str, Any] = {"is_sort_index": True} if by == axis else {"by": by}
        options = way | {"ascending": params.get("x_axis_sort_asc", True)}
        steps.append({"operation": "sort", "options": options})
    return {
        "columns": [_axis(params), *groups],
        "metrics": metrics,
        "orderby": _sorted_by(params),
        "series_columns": groups,
        "post_processing": [*steps, {"operation": "flatten"}],
    }


PLUGINS: dict[str, Callable[[Params], Query]] = {
    "big_number_total": _big_number,
    "bubble_v2": _bubble,
    "echarts_timeseries_bar": _series,
    "echarts_timeseries_line": _series,
    "heatmap_v2": _heat_map,
    "pie": _pie,
    "table": _table,
}
