"""What Superset exported, cleaned of all that differs from one installation to the next."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from bi.superset.assets import (
    always_filters,
    charts_on,
    column_from_dbt,
    filter_datasets,
    mart_models,
    of_kind,
)
from bi.superset.form import COLUMN, DEFAULTS, FILTER, METADATA, METRIC, Assets, is_chart, renamed
from bi.superset.queries import saved_queries

DERIVED = {  # worked out anew from the rest, by Superset or by `bundle`
    "datasets": {"description", "is_managed_externally", "external_url", "source_db_engine"},
    "charts": {"is_managed_externally", "external_url", "datasource_id"},
    "dashboards": {"is_managed_externally", "external_url", "tags"},
    "params": {"datasource", "dashboards", "slice_id", "viz_type", "extra_form_data", "url_params"},
    "metadata": {
        "global_chart_configuration",
        "show_native_filters",
        "filter_scopes",
        "color_scheme_domain",
        "shared_label_colors",
        "map_label_colors",
    },
    "filter": {"chartsInScope", "tabsInScope"},
}


def cleaned(
    exported: Mapping[str, str], known: Assets, manifest: Mapping[str, Any], schema: str
) -> Assets:
    """What Superset exported, as the files have it.

    Every dashboard comes with the charts on it and their datasets; charts on no dashboard and other
    databases are left out. Files keep their names; new ones are named after their titles.

    Args:
        exported: YAML text by path.
        known: the files' content so far.
        manifest: dbt's.
        schema: where the marts are on this target.
    """
    raw = {path: yaml.safe_load(text) for path, text in exported.items()}
    charts, datasets = of_kind(raw, "charts"), of_kind(raw, "datasets")
    models = mart_models(manifest)
    paths = {content["uuid"]: path for path, content in known.items()}
    result = {path: content for path, content in known.items() if path.startswith("databases/")}

    def add(kind: str, name: str, content: dict[str, Any]) -> None:
        result[paths.get(content["uuid"]) or f"{kind}/{_slug(name)}.yaml"] = content

    for dashboard in of_kind(raw, "dashboards").values():
        content = _clean_dashboard(dashboard)
        add("dashboards", dashboard["dashboard_title"], content)
        used = set()
        for uuid in charts_on(content):
            chart = charts[uuid]
            used.add(chart["dataset_uuid"])
            name = f"{content.get('slug') or ''} {chart['slice_name']}"
            add("charts", name, _clean_chart(chart, datasets[chart["dataset_uuid"]]))
        for uuid in used | set(filter_datasets(content)):
            dataset = datasets[uuid]
            model = models.get(dataset["table_name"], {"columns": {}})
            content = _clean_dataset(dataset, model)
            if dataset["schema"] == schema:
                content.pop("schema", None)
            add("datasets", dataset["table_name"], content)
    return result


def _clean_dataset(dataset: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    content = _without(dataset, "datasets")
    columns = []
    for column in dataset["columns"]:
        name = column["column_name"]
        base = column_from_dbt(name, model["columns"][name]) if name in model["columns"] else COLUMN
        own = {key: value for key, value in column.items() if _own(value, base.get(key))}
        if own:
            columns.append({"column_name": name} | own)
    metrics = [
        {key: value for key, value in metric.items() if _own(value, METRIC.get(key))}
        for metric in dataset["metrics"]
    ]
    content["columns"] = sorted(columns, key=lambda column: column["column_name"])
    content["metrics"] = sorted(metrics, key=lambda metric: metric["metric_name"])
    return {key: value for key, value in content.items() if value != []}


def _own(value: object, default: object) -> bool:
    """Whether a value says more than the default; Superset writes nothing in several ways."""
    return value != default and not (value in (None, "", {}, []) and default in (None, "", {}, []))


def _clean_chart(chart: dict[str, Any], dataset: dict[str, Any]) -> dict[str, Any]:
    content = _without(chart, "charts")
    context = content.pop("query_context", None)
    if queries := saved_queries(chart["viz_type"], context, always_filters(dataset)):
        content["queries"] = _stable(queries)
    params = {
        key: value
        for key, value in chart["params"].items()
        if key not in DERIVED["params"] and value not in (None, "", [], {})
    }
    return content | {"params": _stable(params)}


def _stable(value: Any) -> Any:
    """The same without the names that the browser makes up for filters, and keys in order."""
    if isinstance(value, dict):
        return {
            key: _stable(value[key])
            for key in sorted(value)
            if key not in ("filterOptionName", "optionName", "datasourceWarning")
        }
    return [_stable(each) for each in value] if isinstance(value, list) else value


def _clean_dashboard(dashboard: dict[str, Any]) -> dict[str, Any]:
    content = _without(dashboard, "dashboards")
    position = dashboard["position"]
    uuids = {n["meta"]["chartId"]: n["meta"]["uuid"] for n in position.values() if is_chart(n)}
    content["position"] = _clean_position(position)
    metadata = {
        key: value
        for key, value in dashboard.get("metadata", {}).items()
        if key not in DERIVED["metadata"] and _own(value, METADATA.get(key))
    }
    metadata["native_filter_configuration"] = [
        _clean_filter(each, uuids) for each in metadata.get("native_filter_configuration", [])
    ]
    configuration = {}
    for number, settings in metadata.pop("chart_configuration", {}).items():
        kept = {key: value for key, value in settings.items() if key != "id"}
        kept.get("crossFilters", {}).pop("chartsInScope", None)
        if int(number) in uuids and kept != {"crossFilters": {"scope": "global"}}:
            configuration[uuids[int(number)]] = renamed(kept, uuids)
    if configuration:
        metadata["chart_configuration"] = configuration
    return content | {"metadata": _stable(metadata)}


def _clean_position(position: dict[str, Any]) -> dict[str, Any]:
    """The layout, its parts in the order in which they are seen."""
    found: dict[str, Any] = {"DASHBOARD_VERSION_KEY": position["DASHBOARD_VERSION_KEY"]}
    todo = ["ROOT_ID", "HEADER_ID"]
    while todo:
        key = todo.pop()
        if key not in position:
            continue
        node = {name: value for name, value in position[key].items() if name != "parents"}
        if is_chart(node):
            ours = ("width", "height", "uuid", "sliceNameOverride")
            node["meta"] = {name: node["meta"][name] for name in ours if name in node["meta"]}
        found[key] = node
        todo += reversed(node.get("children", []))
    return found


def _clean_filter(each: dict[str, Any], uuids: Mapping[int, str]) -> dict[str, Any]:
    content = {
        key: value
        for key, value in each.items()
        if key not in DERIVED["filter"] and _own(value, FILTER.get(key))
    }
    excluded = each.get("scope", {}).get("excluded", [])
    names = sorted(uuids[number] for number in excluded if number in uuids)
    return content | {"scope": each["scope"] | {"excluded": names}}


def _without(content: dict[str, Any], kind: str) -> dict[str, Any]:
    kept = {"uuid": None, "database_uuid": None, "dataset_uuid": None}
    return {
        key: value
        for key, value in content.items()
        if key in kept
        or (key not in DERIVED[kind] and key != "version" and _own(value, DEFAULTS[kind].get(key)))
    }


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
