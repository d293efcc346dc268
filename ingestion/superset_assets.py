"""Superset's dashboards as code: the YAML below ``bi/superset``, and what it says of the marts.

The files are Superset's own export without what differs from one installation to the next: ids,
passwords, addresses, defaults. Columns of a dataset are not in them either: names, types and
descriptions come from dbt's manifest when the assets are imported.

A set of assets is a dict of path (``charts/x.yaml``) to content.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml

from ingestion.superset_queries import PLUGINS, query_context, saved_queries
from ingestion.warehouse.paths import PROJECT_DIR

FOLDER = PROJECT_DIR / "bi" / "superset"
KINDS = ("databases", "datasets", "charts", "dashboards")
MARTS = "marts"
VERSION = "1.0.0"  # of Superset's export format

# What Superset writes for nothing: put back on the way in, left out on the way out.
DEFAULTS: dict[str, dict[str, Any]] = {
    "databases": {
        "cache_timeout": None,
        "expose_in_sqllab": True,
        "allow_run_async": False,
        "allow_ctas": False,
        "allow_cvas": False,
        "allow_dml": False,
        "allow_csv_upload": False,
        "extra": {},
    },
    "datasets": {
        "main_dttm_col": None,
        "currency_code_column": None,
        "default_endpoint": None,
        "offset": 0,
        "cache_timeout": None,
        "catalog": None,
        "schema": MARTS,
        "sql": None,
        "params": None,
        "template_params": None,
        "filter_select_enabled": True,
        "fetch_values_predicate": None,
        "extra": None,
        "normalize_columns": False,
        "always_filter_main_dttm": False,
        "folders": None,
        "metrics": [],
        "columns": [],
    },
    "charts": {
        "description": None,
        "certified_by": None,
        "certification_details": None,
        "cache_timeout": None,
    },
    "dashboards": {
        "description": None,
        "css": "",
        "certified_by": None,
        "certification_details": None,
        "published": True,
        "theme_uuid": None,
    },
}
METRIC = {
    "verbose_name": None,
    "metric_type": None,
    "description": None,
    "d3format": None,
    "currency": None,
    "extra": {},
    "warning_text": None,
}
COLUMN = {
    "verbose_name": None,
    "is_dttm": False,
    "is_active": True,
    "type": None,
    "advanced_data_type": None,
    "groupby": True,
    "filterable": True,
    "expression": None,
    "description": None,
    "python_date_format": None,
    "datetime_format": None,
    "extra": {},
}
METADATA = {
    "timed_refresh_immune_slices": [],
    "expanded_slices": {},
    "refresh_frequency": 0,
    "default_filters": "{}",
    "color_scheme": "",
    "label_colors": {},
    "cross_filters_enabled": True,
    "native_filter_configuration": [],
    "chart_configuration": {},
}
ORDER = (  # of a file's keys: first what it is, last what is long
    "database_name",
    "table_name",
    "slice_name",
    "dashboard_title",
    "slug",
    "description",
    "viz_type",
    "uuid",
    "database_uuid",
    "dataset_uuid",
    "main_dttm_col",
    "currency_code_column",
    "columns",
    "metrics",
    "params",
    "queries",
    "metadata",
    "position",
)
FILTER = {
    "type": "NATIVE_FILTER",
    "description": "",
    "cascadeParentIds": [],
    "defaultDataMask": {"extraFormData": {}, "filterState": {}, "ownState": {}},
}
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

Assets = dict[str, dict[str, Any]]


def read(folder: Path = FOLDER) -> Assets:
    """The assets of a folder, by path relative to it."""
    return {
        path.relative_to(folder).as_posix(): yaml.safe_load(path.read_text(encoding="utf-8"))
        for kind in KINDS
        for path in sorted((folder / kind).rglob("*.yaml"))
    }


def write(assets: Assets, folder: Path = FOLDER) -> list[str]:
    """Make the folder hold these assets.

    Returns:
        Paths of the files that were written, changed or removed.
    """
    texts = {path: _dump(content) for path, content in assets.items()}
    there = {
        path.relative_to(folder).as_posix(): path
        for kind in KINDS
        for path in (folder / kind).rglob("*.yaml")
    }
    changed = sorted(there.keys() - texts.keys())
    for path in changed:
        there[path].unlink()
    for path, text in texts.items():
        file = folder / path
        if not file.exists() or file.read_text(encoding="utf-8") != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
            changed.append(path)
    return sorted(changed)


def of_kind(assets: Assets, kind: str) -> dict[str, dict[str, Any]]:
    """The assets of one kind, by UUID."""
    return {
        content["uuid"]: content for path, content in assets.items() if path.startswith(f"{kind}/")
    }


def mart_models(manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """dbt's models of the marts layer, by table name."""
    return {
        node["alias"]: node
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model" and node["config"].get("schema") == MARTS
    }


# In ---------------------------------------------------------------------------------------------


def bundle(assets: Assets, manifest: Mapping[str, Any], schema: str, uri: str) -> dict[str, str]:
    """The assets as Superset imports them: YAML text by path.

    Args:
        assets: the files' content.
        manifest: dbt's, for columns and their descriptions.
        schema: where the marts are on this target.
        uri: SQLAlchemy address of the warehouse, password included.
    """
    models, charts = mart_models(manifest), of_kind(assets, "charts")
    datasets = of_kind(assets, "datasets")
    files = {
        "metadata.yaml": {"version": VERSION, "type": "assets", "timestamp": "2026-01-01T00:00:00"}
    }
    for path, content in assets.items():
        kind = path.split("/")[0]
        full = DEFAULTS[kind] | content | {"version": VERSION}
        if kind == "databases":
            full["sqlalchemy_uri"] = uri
        elif kind == "datasets":
            full |= _dataset_columns(full, models[full["table_name"]]) | {"schema": schema}
            full["metrics"] = [METRIC | metric for metric in full["metrics"]]
        elif kind == "charts":
            full["query_context"] = query_context(
                full["params"],
                full["viz_type"],
                full.pop("queries", None),
                _always(datasets[full["dataset_uuid"]]),
            )
            full["params"] = full["params"] | {"viz_type": full["viz_type"]}
        else:
            full = _with_ids(full, charts)
        files[path] = full
    return {path: yaml.safe_dump(content, sort_keys=False) for path, content in files.items()}


def _always(dataset: dict[str, Any]) -> list[dict[str, Any]]:
    """Filters of a chart that is asked without its dashboard: amounts are of one currency.

    That is dbt's reporting currency; on a dashboard the currency filter chooses.
    """
    if not (column := dataset.get("currency_code_column")):
        return []
    project = yaml.safe_load((PROJECT_DIR / "dbt_project.yml").read_text(encoding="utf-8"))
    return [{"col": column, "op": "IN", "val": [project["vars"]["reporting_currency"]]}]


def label(column: str) -> str:
    """A column's name for people: ``revenue_usd`` is "Revenue, USD"."""
    words = column.removesuffix("_usd").removesuffix("_name").replace("_", " ")
    return words[:1].upper() + words[1:] + (", USD" if column.endswith("_usd") else "")


def _dataset_columns(dataset: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    """Columns from dbt, with what the file says of some, then the file's own calculated ones."""
    said = {column["column_name"]: column for column in dataset["columns"]}
    columns = []
    for name, column in model["columns"].items():
        columns.append(_from_dbt(name, column) | said.pop(name, {}))
    columns += [COLUMN | column for column in said.values()]
    return {"columns": columns, "description": _plain(model["description"])}


def _from_dbt(name: str, column: dict[str, Any]) -> dict[str, Any]:
    kind = (column.get("data_type") or "").upper()
    return COLUMN | {
        "column_name": name,
        "verbose_name": label(name),
        "type": kind,
        "is_dttm": kind.startswith(("DATE", "TIMESTAMP")),
        "description": _plain(column["description"]),
    }


def _plain(text: str) -> str:
    return " ".join(text.split())


def _with_ids(dashboard: dict[str, Any], charts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A dashboard with numbers for its charts: the import translates them into its own."""
    dashboard = json.loads(json.dumps(dashboard))
    position, metadata = dashboard["position"], METADATA | dashboard.get("metadata", {})
    nodes = [node for node in position.values() if _is_chart(node)]
    numbers = {node["meta"]["uuid"]: number for number, node in enumerate(nodes, 1)}
    for node in nodes:
        uuid = node["meta"]["uuid"]
        node["meta"] |= {"chartId": numbers[uuid], "sliceName": charts[uuid]["slice_name"]}
    for key, parents in _parents(position).items():
        position[key]["parents"] = parents
    metadata["native_filter_configuration"] = [
        FILTER | each for each in metadata["native_filter_configuration"]
    ]
    for each in metadata["native_filter_configuration"]:
        each["scope"]["excluded"] = [numbers[uuid] for uuid in each["scope"]["excluded"]]
    metadata["chart_configuration"] = {
        str(numbers[uuid]): {"id": numbers[uuid]} | _renamed(settings, numbers)
        for uuid, settings in metadata["chart_configuration"].items()
    }
    return dashboard | {"metadata": metadata}


def _is_chart(node: object) -> bool:
    return isinstance(node, dict) and node.get("type") == "CHART"


def _parents(position: dict[str, Any]) -> dict[str, list[str]]:
    """Ids of the parts above each part of the layout, from the root down."""
    found: dict[str, list[str]] = {}
    todo: list[tuple[str, list[str]]] = [("ROOT_ID", [])]
    while todo:
        key, above = todo.pop()
        if above:
            found[key] = above
        todo += [(child, [*above, key]) for child in position[key].get("children", [])]
    return found


def _renamed(settings: dict[str, Any], names: Mapping[Any, Any]) -> dict[str, Any]:
    """A chart's cross-filter settings with its charts called otherwise."""
    settings = json.loads(json.dumps(settings))
    scope = settings.get("crossFilters", {}).get("scope")
    if isinstance(scope, dict):
        scope["excluded"] = [names[each] for each in scope.get("excluded", []) if each in names]
    return settings


# Out --------------------------------------------------------------------------------------------


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
        for uuid in _charts_on(content):
            chart = charts[uuid]
            used.add(chart["dataset_uuid"])
            name = f"{content.get('slug') or ''} {chart['slice_name']}"
            add("charts", name, _clean_chart(chart, datasets[chart["dataset_uuid"]]))
        for uuid in used | set(_filter_datasets(content)):
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
        base = _from_dbt(name, model["columns"][name]) if name in model["columns"] else COLUMN
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
    if queries := saved_queries(chart["viz_type"], context, _always(dataset)):
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
    uuids = {n["meta"]["chartId"]: n["meta"]["uuid"] for n in position.values() if _is_chart(n)}
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
            configuration[uuids[int(number)]] = _renamed(kept, uuids)
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
        if _is_chart(node):
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


class _Dumper(yaml.SafeDumper):
    """YAML for people: lists indented, long texts unbroken, texts of several lines as blocks."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, indentless=False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def _dump(content: dict[str, Any]) -> str:
    rank = {key: number for number, key in enumerate(ORDER)}
    ordered = dict(sorted(content.items(), key=lambda item: (rank.get(item[0], 50), item[0])))
    return yaml.dump(ordered, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


# Held against dbt -------------------------------------------------------------------------------


def problems(
    assets: Assets, manifest: Mapping[str, Any], catalog: Mapping[str, Any] | None = None
) -> list[str]:
    """What the assets name that is not there, one line each; empty when all is well.

    Args:
        assets: the files' content.
        manifest: dbt's: a dataset is a model of the marts, a column one of its columns, and each
            dashboard an exposure that depends on the models it shows.
        catalog: dbt's, of the tables as they stand in the database.
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
    shown = {uuid for d in of_kind(assets, "dashboards").values() for uuid in _charts_on(d)}
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
        shown = _charts_on(dashboard)
        for uuid in shown:
            if uuid not in charts:
                yield f"{path}: the chart {uuid} is not there"
        for each in _filters(dashboard):
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
                f["id"] for f in _filters(dashboard)
            }:
                yield f"{path}: filter {each['name']} depends on {gone}, which is gone"
            yield from _reach(path, each, dashboard, assets, models)


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
    for uuid in _charts_on(dashboard):
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
        used = {charts[u]["dataset_uuid"] for u in _charts_on(dashboard) if u in charts}
        tables = {
            datasets[uuid]["table_name"]
            for uuid in used | set(_filter_datasets(dashboard))
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


def _charts_on(dashboard: dict[str, Any]) -> list[str]:
    """UUIDs of a dashboard's charts, in the order of the layout."""
    return [n["meta"]["uuid"] for n in dashboard["position"].values() if _is_chart(n)]


def _filters(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return dashboard.get("metadata", {}).get("native_filter_configuration", [])


def _filter_datasets(dashboard: dict[str, Any]) -> list[str]:
    """UUIDs of the datasets from which a dashboard's filters take their values."""
    targets = [target for each in _filters(dashboard) for target in each.get("targets", [])]
    return [str(UUID(t["datasetUuid"])) for t in targets if t.get("datasetUuid")]
