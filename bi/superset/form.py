"""The form of the files: what Superset writes for nothing, the order of keys, YAML for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import yaml

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


METRIC: dict[str, Any] = {
    "verbose_name": None,
    "metric_type": None,
    "description": None,
    "d3format": None,
    "currency": None,
    "extra": {},
    "warning_text": None,
}


COLUMN: dict[str, Any] = {
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


Assets = dict[str, dict[str, Any]]


def one_line(text: str) -> str:
    """A description without line ends."""
    return " ".join(text.split())


def is_chart(node: object) -> bool:
    """Whether a part of a dashboard's layout is a chart."""
    return isinstance(node, dict) and node.get("type") == "CHART"


def renamed(settings: dict[str, Any], names: Mapping[Any, Any]) -> dict[str, Any]:
    """A chart's cross-filter settings with its charts called otherwise."""
    settings = json.loads(json.dumps(settings))
    scope = settings.get("crossFilters", {}).get("scope")
    if isinstance(scope, dict):
        scope["excluded"] = [names[each] for each in scope.get("excluded", []) if each in names]
    return settings


class _Dumper(yaml.SafeDumper):
    """YAML for people: lists indented, long texts unbroken, texts of several lines as blocks."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, indentless=False)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def as_yaml(content: dict[str, Any]) -> str:
    """A file's text: keys in ``ORDER``, the others by name."""
    rank = {key: number for number, key in enumerate(ORDER)}
    ordered = dict(sorted(content.items(), key=lambda item: (rank.get(item[0], 50), item[0])))
    return yaml.dump(ordered, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
