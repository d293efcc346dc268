"""Metrics as dbt's YAML declares them, asked by name: SQL for PostgreSQL and its parameters.

``Metrics.load`` reads what dbt has written, ``Metrics.compile`` makes a query of a request. Names
in the SQL are those of the manifest; what a user gives is either such a name or a parameter.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from ingestion.errors import UserError
from serving.metrics import catalogue
from serving.metrics.catalogue import GRAINS, TIME_TO_FILTER, Dimension, Metric, Model
from serving.metrics.compiler import Compiler
from serving.metrics.errors import MetricsError
from serving.metrics.values import DAY, Kind, bounds, kind_of, parsed

__all__ = ["Column", "Dimension", "Filter", "Metric", "Metrics", "MetricsError", "Query"]

SHAPES = 1_000  # of requests whose SQL is kept
_OPERATORS = {"eq": "=", "ne": "is distinct from", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
OPERATORS = (*_OPERATORS, "in", "null")
_MARK = re.compile(r"\bmarquee_value_(\d+)\b")


class Filter(NamedTuple):
    """A condition on a dimension.

    Attributes:
        dimension: its name.
        operator: eq, ne, gt, gte, lt, lte; in, with a list of values; null, with true or false.
        value: texts as of a URL, or values of Python.
    """

    dimension: str
    operator: str
    value: Any


class Column(NamedTuple):
    """A column of an answer: what it is called, PostgreSQL's type, and what it means."""

    name: str
    type: str
    is_metric: bool
    description: str


@dataclass(frozen=True)
class Query:
    """A query to run with the setting TimeZone at UTC.

    Attributes:
        template: the SQL, with marks where parameters go.
        parameters: values, in the order of the marks.
        columns: of the answer.
        mart: what it reads.
    """

    template: str
    parameters: tuple[Any, ...]
    columns: tuple[Column, ...]
    mart: str

    @property
    def sql(self) -> str:
        """With $1, $2 and so on, as asyncpg and PREPARE take parameters."""
        return self.render(lambda number: f"${number}")

    def render(self, placeholder: Callable[[int], str]) -> str:
        """With other placeholders, made from the parameter's number, which begins at 1."""
        return _MARK.sub(lambda mark: placeholder(int(mark[1])), self.template)

    def for_psycopg(self) -> tuple[str, dict[str, Any]]:
        """SQL and parameters as psycopg and psycopg2 take them."""
        sql = _MARK.sub(lambda mark: f"%(p{mark[1]})s", self.template.replace("%", "%%"))
        return sql, {f"p{number}": value for number, value in enumerate(self.parameters, start=1)}


class _Request(NamedTuple):
    """What decides on the SQL: all of a request but its values."""

    metrics: tuple[str, ...]
    group_by: tuple[str, ...]
    times: tuple[str, ...]  # operators of the bounds
    filters: tuple[tuple[str, str], ...]  # dimension and operator; null says which
    order: tuple[str, ...]
    limited: bool


class Metrics:
    """The metrics of a dbt project, from its manifests."""

    def __init__(self, semantic_manifest: dict[str, Any], manifest: dict[str, Any]) -> None:
        self._metrics = catalogue.read(semantic_manifest, manifest)
        self._listed = [n for n in self._metrics if catalogue.is_listed(n, semantic_manifest)]
        self._compiler = Compiler(semantic_manifest)
        self._known: OrderedDict[_Request, tuple[str, tuple[Column, ...]]] = OrderedDict()

    @classmethod
    def load(
        cls, semantic_manifest: Path | dict[str, Any], manifest: Path | dict[str, Any]
    ) -> Metrics:
        """Read semantic_manifest.json and manifest.json of one dbt parse, or take them as read.

        Raises:
            UserError: a file is not there, or is none of dbt's.
        """
        try:
            return cls(_read(semantic_manifest), _read(manifest))
        except (KeyError, TypeError) as error:
            raise UserError(
                f"dbt's manifests do not fit each other: {error!r}.\nMake them anew: dbt parse"
            ) from error

    def prepare(self) -> None:
        """Import MetricFlow and make its engine, so that the first query need not."""
        self._compiler.prepare()

    def list(self) -> Sequence[Metric]:
        """All metrics, by name; one that has several marts is there once."""
        return [self._metrics[name] for name in self._listed]

    def compile(
        self,
        names: Sequence[str],
        group_by: Sequence[str] = (),
        *,
        since: Any = None,
        until: Any = None,
        filters: Sequence[Filter] = (),
        order: Sequence[str] = (),
        limit: int | None = None,
    ) -> Query:
        """The query that answers a request.

        Args:
            names: of metrics.
            group_by: dimensions, and day, week, month, quarter or year.
            since: the first day, or the first moment.
            until: the last day, which counts to its end, or the moment before which it ends.
            filters: conditions, all of which must hold.
            order: columns of the answer, with - before those that descend; what they leave open
                is by the columns of group_by. Nulls come last.
            limit: rows at most.

        Raises:
            MetricsError: it cannot be answered so.
            UserError: MetricFlow is not installed.
        """
        metrics = self._named(names)
        _check_once("group_by", group_by)
        filters = [_checked(each) for each in filters]
        has_time = since is not None or until is not None
        model = catalogue.chosen(
            metrics, group_by, [each.dimension for each in filters], has_time=has_time
        )
        low, high = bounds(since, until, model.time) if model.time else (None, None)
        values = [bound for bound in (low, high) if bound is not None]
        one_day = low is not None and high is not None and high - low <= timedelta(days=1)
        for metric in metrics:
            _check_within(metric, group_by, filters, one_day=one_day)
        values += [v for each in filters for v in _values(each, model)]
        if limit is not None:
            values.append(_checked_limit(limit))
        request = _Request(
            metrics=tuple(metric.name for metric in metrics),
            group_by=tuple(group_by),
            times=(*([">="] if low is not None else []), *(["<"] if high is not None else [])),
            filters=tuple((each.dimension, _shape(each)) for each in filters),
            order=tuple(order),
            limited=limit is not None,
        )
        template, columns = self._template(request, metrics, model)
        return Query(template, tuple(values), columns, model.mart)

    def _named(self, names: Sequence[str]) -> Sequence[Metric]:
        if not names:
            raise MetricsError("metrics", "No metric is named.", "Name one or more.")
        _check_once("metrics", names)
        for name in names:
            if name not in self._metrics:
                raise MetricsError(
                    "metrics",
                    f"There is no metric {name[:80]!r}.",
                    f"Take of these: {', '.join(self._listed)}.",
                )
        return [self._metrics[name] for name in names]

    def _template(
        self, request: _Request, metrics: Sequence[Metric], model: Model
    ) -> tuple[str, tuple[Column, ...]]:
        """The SQL of a shape, from those that are known or from MetricFlow."""
        known = self._known.get(request)
        if known is None:
            known = self._known[request] = self._written(request, metrics, model)
            while len(self._known) > SHAPES:
                self._known.popitem(last=False)
        return known

    def _written(
        self, request: _Request, metrics: Sequence[Metric], model: Model
    ) -> tuple[str, tuple[Column, ...]]:
        order = [*_order(request, metrics)]
        marks = iter(f"marquee_value_{n}" for n in range(1, 1_000))
        where = [
            f"{_in_jinja(model, TIME_TO_FILTER)} {operator} cast({next(marks)} as {model.time.sql})"
            for operator in request.times
            if model.time
        ]
        where += [_condition(name, operator, model, marks) for name, operator in request.filters]
        columns = []
        selected = []
        for name in request.group_by:
            dimension = model.dimensions.get(name)
            kind = dimension.type if dimension else "date"
            column = f'"{_in_metricflow(model, name)}"'
            selected.append(f'{column if dimension else f"cast({column} as date)"} as "{name}"')
            description = dimension.description if dimension else f"First day of the {name}."
            columns.append(Column(name, kind, False, description))
        for metric in metrics:
            column = f'"{metric[model].name}"'
            selected.append(f'cast({column} as {metric.type}) as "{metric.name}"')
            columns.append(Column(metric.name, metric.type, True, metric.description))
        inner = self._compiler.sql(
            [metric[model].name for metric in metrics],
            [_in_metricflow(model, name) for name in request.group_by],
            where,
        )
        lines = [f"select {', '.join(selected)}", f"from (\n{inner}\n) as metrics"]
        if order:
            lines.append(f"order by {', '.join(order)}")
        if request.limited:
            lines.append(f"limit cast({next(marks)} as bigint)")
        return "\n".join(lines), tuple(columns)


def _read(manifest: Path | dict[str, Any]) -> dict[str, Any]:
    if not isinstance(manifest, Path):
        return manifest
    try:
        return json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"There is no {manifest} of dbt's.\nMake it: dbt parse") from error


def _in_metricflow(model: Model, name: str) -> str:
    if name == "day" and model.time is DAY:
        return f"{model.entity}__{TIME_TO_FILTER}"  # a day already: it need not be cut
    return f"{model.entity}__{name}" if name in model.dimensions else f"metric_time__{name}"


def _in_jinja(model: Model, name: str) -> str:
    return f"{{{{ Dimension('{model.entity}__{name}') }}}}"


def _condition(name: str, operator: str, model: Model, marks: Iterator[str]) -> str:
    column = _in_jinja(model, name)
    if operator in ("null", "not null"):
        return f"{column} is {operator}"
    kind = kind_of(model.dimensions[name].type)
    if operator == "in":
        return f"{column} = any(cast({next(marks)} as {kind.sql}[]))"
    return f"{column} {_OPERATORS[operator]} cast({next(marks)} as {kind.sql})"


def _order(request: _Request, metrics: Sequence[Metric]) -> Iterator[str]:
    columns = [*request.group_by, *(metric.name for metric in metrics)]
    _check_once("order", [name.removeprefix("-") for name in request.order])
    for name in request.order:
        if name.removeprefix("-") not in columns:
            raise MetricsError(
                "order",
                f"{name[:80]!r} is no column of the answer.",
                f"Take of these, with - before to descend: {', '.join(columns)}.",
            )
    rest = [n for n in request.group_by if not {n, f"-{n}"} & set(request.order)]
    for name in (*request.order, *rest):
        direction = "desc" if name.startswith("-") else "asc"
        yield f'"{name.removeprefix("-")}" {direction} nulls last'


def _checked(each: Filter) -> Filter:
    if each.operator not in OPERATORS:
        raise MetricsError(
            "filters",
            f"{each.operator[:80]!r} is no way to compare.",
            f"Take of these: {', '.join(OPERATORS)}.",
        )
    if each.operator == "in" and (isinstance(each.value, str) or not each.value):
        raise MetricsError("filters", f"{each.dimension}: in needs a list.", "Give values.")
    if each.dimension in GRAINS:
        raise MetricsError(
            "filters", f"{each.dimension} is no dimension.", "For time, use since and until."
        )
    return each


def _shape(each: Filter) -> str:
    """The operator; a null that is denied is another."""
    if each.operator != "null":
        return each.operator
    return "null" if _is_true(each) else "not null"


def _is_true(each: Filter) -> bool:
    return bool(parsed("filters", each.dimension, each.value, kind_of("boolean")))


def _values(each: Filter, model: Model) -> Sequence[Any]:
    if each.operator == "null":
        return []
    kind: Kind = kind_of(model.dimensions[each.dimension].type)
    if each.operator == "in":
        return [[parsed("filters", each.dimension, value, kind) for value in each.value]]
    return [parsed("filters", each.dimension, each.value, kind)]


def _check_within(
    metric: Metric, group_by: Sequence[str], filters: Sequence[Filter], *, one_day: bool
) -> None:
    """Refuse what does not add up: amounts of several currencies."""
    single = {
        each.dimension
        for each in filters
        if each.operator == "eq" or (each.operator == "in" and len(set(each.value)) == 1)
    } | ({"day"} if one_day else set())
    for name in metric.within:
        if name not in group_by and name not in single:
            ask = "since and until of one day" if name == "day" else f"a filter on one {name}"
            raise MetricsError(
                "group_by",
                f"{metric.name} holds within one {name}, and does not add up over several.",
                f"Group by {name}, or give {ask}.",
            )


def _check_once(parameter: str, names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise MetricsError(parameter, f"{name[:80]!r} is there twice.", "Name it once.")


def _checked_limit(limit: Any) -> int:
    number: int = parsed("limit", "limit", limit, kind_of("bigint"))
    if number < 1:
        raise MetricsError("limit", f"{number} rows are none.", "Give 1 or more.")
    return number
