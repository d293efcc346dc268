"""Superset's dashboards as code: the YAML below ``bi/superset``, and what it says of the marts.

The files are Superset's own export without what differs from one installation to the next: ids,
passwords, addresses, defaults. Columns of a dataset are not in them either: names, types and
descriptions come from dbt's manifest when the assets are imported.

A set of assets is a dict of path (``charts/x.yaml``) to content.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import yaml

from bi.superset.form import (
    COLUMN,
    DEFAULTS,
    FILTER,
    MARTS,
    METADATA,
    METRIC,
    VERSION,
    Assets,
    as_yaml,
    is_chart,
    one_line,
    renamed,
)
from bi.superset.queries import query_context
from ingestion.warehouse.paths import PROJECT_DIR

FOLDER = PROJECT_DIR / "bi" / "superset"
KINDS = ("databases", "datasets", "charts", "dashboards")


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
    texts = {path: as_yaml(content) for path, content in assets.items()}
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
                always_filters(datasets[full["dataset_uuid"]]),
            )
            full["params"] = full["params"] | {"viz_type": full["viz_type"]}
        else:
            full = _with_ids(full, charts)
        files[path] = full
    return {path: yaml.safe_dump(content, sort_keys=False) for path, content in files.items()}


def always_filters(dataset: dict[str, Any]) -> list[dict[str, Any]]:
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
        columns.append(column_from_dbt(name, column) | said.pop(name, {}))
    columns += [COLUMN | column for column in said.values()]
    return {"columns": columns, "description": one_line(model["description"])}


def column_from_dbt(name: str, column: dict[str, Any]) -> dict[str, Any]:
    kind = (column.get("data_type") or "").upper()
    return COLUMN | {
        "column_name": name,
        "verbose_name": label(name),
        "type": kind,
        "is_dttm": kind.startswith(("DATE", "TIMESTAMP")),
        "description": one_line(column["description"]),
    }


def _with_ids(dashboard: dict[str, Any], charts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A dashboard with numbers for its charts: the import translates them into its own."""
    dashboard = json.loads(json.dumps(dashboard))
    position, metadata = dashboard["position"], METADATA | dashboard.get("metadata", {})
    nodes = [node for node in position.values() if is_chart(node)]
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
        str(numbers[uuid]): {"id": numbers[uuid]} | renamed(settings, numbers)
        for uuid, settings in metadata["chart_configuration"].items()
    }
    return dashboard | {"metadata": metadata}


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


def charts_on(dashboard: dict[str, Any]) -> list[str]:
    """UUIDs of a dashboard's charts, in the order of the layout."""
    return [n["meta"]["uuid"] for n in dashboard["position"].values() if is_chart(n)]


def filters_of(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return dashboard.get("metadata", {}).get("native_filter_configuration", [])


def filter_datasets(dashboard: dict[str, Any]) -> list[str]:
    """UUIDs of the datasets from which a dashboard's filters take their values."""
    targets = [target for each in filters_of(dashboard) for target in each.get("targets", [])]
    return [str(UUID(t["datasetUuid"])) for t in targets if t.get("datasetUuid")]
