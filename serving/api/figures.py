"""Requests for metrics: parameters to a query of ``serving.metrics``, over marts as served."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import orjson

from ingestion.errors import UserError
from serving.api.catalogue import Column, Mart, plain_type
from serving.api.problems import ProblemError, bad
from serving.api.query import COMPARED, FORMATS, LARGEST, MOST_VALUES, given, once, one_of
from serving.api.values import LONGEST
from serving.metrics import Filter, Metric, Metrics, MetricsError, Query

RESERVED = ("group_by", "since", "until", "order", "limit", "format")
MOST_NAMES = 20  # of metrics, of columns to group by
_OPERATORS = (*COMPARED, "ne", "in", "null")


@dataclass(frozen=True)
class Figures:
    """What is asked of metrics.

    Attributes:
        query: the SQL and its values.
        mart: that it reads.
        format: one of FORMATS.
        columns: of the answer.
    """

    query: Query
    mart: Mart
    format: str
    columns: tuple[Column, ...]

    def texts(self) -> list[str]:
        """The values as PostgreSQL reads them."""
        return [_text(value) for value in self.query.parameters]


def written(manifest: Path) -> tuple[Any, Any]:
    """A manifest, and what dbt wrote beside it for metrics: its path where that is not there.

    Raises:
        UserError: one of them cannot be read, or is not there as a whole.
    """
    path = semantic_of(manifest)
    try:
        nodes = orjson.loads(manifest.read_bytes())
        return nodes, orjson.loads(path.read_bytes()) if path.exists() else path
    except (OSError, ValueError) as error:
        raise UserError(
            f"{manifest} or {path.name} is none of dbt's: {error}\nMake it anew: marquee dbt parse"
        ) from error


def load(nodes: Any, semantic: Any, marts: dict[str, Mart]) -> Metrics:
    """The metrics of what `written` gave, over the marts as they are served.

    Raises:
        UserError: there are none, or they are none of dbt's.
    """
    if isinstance(semantic, dict):  # dbt may have written it for another target
        for model in semantic["semantic_models"]:
            place = model["node_relation"]
            if mart := marts.get(place["alias"]):
                place["relation_name"] = mart.relation
        for node in nodes["nodes"].values():
            if node["resource_type"] == "model" and node["name"] in marts:
                node["relation_name"] = marts[node["name"]].relation
    return Metrics.load(semantic, nodes)


def source(manifest: Path) -> bytes:
    """What defines the metrics; nothing where there are none."""
    path = semantic_of(manifest)
    return path.read_bytes() if path.exists() else b""


def semantic_of(manifest: Path) -> Path:
    """What dbt writes after a manifest, for metrics."""
    return manifest.with_name("semantic_manifest.json")


def parsed(metrics: Metrics, marts: dict[str, Mart], names: str, query_string: bytes) -> Figures:
    """The request that a path and a query string make.

    Raises:
        ProblemError: there is no such metric; a parameter is unknown, or cannot be answered.
    """
    asked = names.split(",")
    known = {metric.name: metric for metric in metrics.list()}
    for name in asked:
        if name not in known:
            near = difflib.get_close_matches(name, known, 3)
            remedy = f"Ask for {' or '.join(near)}." if near else "GET /v1/metrics lists them."
            raise ProblemError(404, f"There is no metric {name[:80]!r}.", remedy)
    dimensions = set().union(*(known[name].dimensions for name in asked))
    filters, plain = [], {}
    for name, values in given(query_string).items():
        dimension, operator = _dimension(name, dimensions)
        if dimension:
            filters.append(_filter(dimension, operator, name, values))
        elif name in RESERVED:
            plain[name] = once(name, values)
        else:
            raise _unknown(name, [known[one] for one in asked])
    form = one_of("format", plain.get("format", "json"), FORMATS)
    try:
        query = metrics.compile(
            asked,
            _names("group_by", plain.get("group_by")),
            since=plain.get("since"),
            until=plain.get("until"),
            filters=filters,
            order=_names("order", plain.get("order")),
            limit=_limit(plain.get("limit")),
        )
    except MetricsError as error:
        raise bad(error.parameter, error.problem, error.remedy) from None
    mart = marts.get(query.mart)
    if mart is None:
        raise ProblemError(404, f"{query.mart} is not served.", "GET /v1/marts lists what is.")
    return Figures(query, mart, form, tuple(_columns(query, form)))


def check_whole(rows: int) -> None:
    """Refuse an answer that would not be whole.

    Raises:
        ProblemError: there are more rows than an answer may have.
    """
    if rows > LARGEST:
        raise bad(
            "group_by",
            f"The answer has more than {LARGEST} rows.",
            "Group by less, filter, or give a limit with an order.",
        )


def _dimension(name: str, dimensions: set[str]) -> tuple[str, str]:
    if name in RESERVED:
        return "", ""
    if name in dimensions:
        return name, "eq"
    dimension, _, operator = name.rpartition("__")
    if dimension in dimensions and operator in _OPERATORS and operator:
        return dimension, operator
    return "", ""


def _filter(dimension: str, operator: str, name: str, values: list[str]) -> Filter:
    for value in values:
        if len(value) > LONGEST:
            raise bad(name, f"A value has {len(value)} characters.", f"Give at most {LONGEST}.")
    if operator == "in":
        if len(values) > MOST_VALUES:
            raise bad(name, f"There are {len(values)} values.", f"Give at most {MOST_VALUES}.")
        return Filter(dimension, "in", sorted(set(values)))
    value = once(name, values)
    if operator == "null":
        one_of(name, value, ("true", "false"))
    return Filter(dimension, operator, value)


def _names(parameter: str, text: str | None) -> list[str]:
    names = [] if text is None else text.split(",")
    if len(names) > MOST_NAMES:
        raise bad(parameter, f"There are {len(names)} names.", f"Give at most {MOST_NAMES}.")
    return names


def _limit(text: str | None) -> int:
    """Rows of the answer: without a limit one more than it may have, to see that it is whole."""
    if text is None:
        return LARGEST + 1
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and 0 < int(text) <= LARGEST):
        raise bad("limit", f"{text[:40]!r} is no number of rows.", f"Give 1 to {LARGEST}.")
    return int(text)


def _unknown(name: str, metrics: list[Metric]) -> ProblemError:
    offered = list(dict.fromkeys(n for metric in metrics for n in metric.dimensions))
    near = difflib.get_close_matches(name, [*offered, *RESERVED], 3) or [*RESERVED, *offered[:5]]
    return bad(name[:100], "There is no such parameter.", f"Use {' or '.join(near)}.")


def _columns(query: Query, form: str) -> Iterator[Column]:
    for one in query.columns:
        kind = plain_type(one.type)
        if form == "arrow" and one.is_metric and kind == "numeric":
            kind = "double precision"  # Arrow's decimals need a scale, which a mean has not
        yield Column(one.name, kind, one.description, nullable=True)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "{" + ",".join(_quoted(_text(one)) for one in value) + "}"
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, date) else str(value)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def sql(figures: Figures, placeholder: Callable[[int], str], columns: str) -> str:
    """A select of the answer's rows.

    Args:
        figures: what is asked.
        placeholder: what stands for a value, by its number, which begins at 1.
        columns: of the select, from ``page``.
    """
    return f"select {columns} from ({figures.query.render(placeholder)}) as page"  # noqa: S608
