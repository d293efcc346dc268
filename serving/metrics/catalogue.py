"""The metrics that dbt's manifests declare, each with the marts that can answer it.

Nothing of MetricFlow is needed here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serving.metrics.errors import MetricsError
from serving.metrics.values import DAY, MOMENT, Kind, kind_of

GRAINS = ("day", "week", "month", "quarter", "year")
TIME_TO_FILTER = "time_to_filter"  # the dimension that since and until are compared with


@dataclass(frozen=True)
class Dimension:
    """What a metric can be grouped by and filtered on.

    Attributes:
        name: as requests say it; the column's in the mart.
        type: PostgreSQL's, as the mart's contract has it.
        description: of the column.
    """

    name: str
    type: str
    description: str


@dataclass(frozen=True)
class Model:
    """A semantic model: a mart, and what its metrics can be grouped by.

    Attributes:
        mart: name of the dbt model.
        entity: begins the names of its dimensions in MetricFlow.
        dimensions: by name.
        time: what since and until are compared with; None where the mart has no time.
    """

    mart: str
    entity: str
    dimensions: Mapping[str, Dimension]
    time: Kind | None

    def has(self, names: Sequence[str]) -> bool:
        """Whether it has all of these dimensions and grains of time."""
        return all(name in self.dimensions or (self.time and name in GRAINS) for name in names)

    def offers(self) -> list[str]:
        """All that its metrics can be grouped by."""
        return [*(GRAINS if self.time else ()), *self.dimensions]


@dataclass(frozen=True)
class Definition:
    """A metric of MetricFlow, over one mart."""

    name: str
    model: Model


@dataclass(frozen=True)
class Metric:
    """A metric, as requests name it.

    Attributes:
        name, label, description: as its YAML says.
        type: of its values: numeric, date or timestamp.
        within: what it must be grouped by, or filtered to one value of, as it does not add up
            over it: an amount's currency. ``day`` is a day of time.
        definitions: one for each mart that can answer it; the first that has all that is asked for
            does.
    """

    name: str
    label: str
    description: str
    type: str
    within: tuple[str, ...]
    definitions: tuple[Definition, ...]

    @property
    def marts(self) -> list[str]:
        return [definition.model.mart for definition in self.definitions]

    @property
    def group_by(self) -> list[str]:
        """Dimensions and grains of time of any of its marts."""
        return list(dict.fromkeys(n for d in self.definitions for n in d.model.offers()))

    @property
    def dimensions(self) -> dict[str, Dimension]:
        """Dimensions of any of its marts, by name."""
        return {n: x for d in reversed(self.definitions) for n, x in d.model.dimensions.items()}

    def __getitem__(self, model: Model) -> Definition:
        return next(d for d in self.definitions if d.model is model)


def read(semantic_manifest: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Metric]:
    """The metrics by name, with those that are another's over an aggregate.

    Args:
        semantic_manifest: dbt's semantic_manifest.json.
        manifest: dbt's manifest.json of the same parse, which has the columns' types.
    """
    columns = {
        node["relation_name"]: node["columns"]
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model"
    }
    models: dict[str, Model] = {}
    for each in semantic_manifest["semantic_models"]:
        model = _model(each, columns[each["node_relation"]["relation_name"]])
        models |= {measure["name"]: model for measure in each["measures"]}
    declared = {each["name"]: each for each in semantic_manifest["metrics"]}
    own = {
        name: Definition(name, models[each["type_params"]["input_measures"][0]["name"]])
        for name, each in declared.items()
    }
    found = {}
    for name, each in sorted(declared.items()):
        if _meta(each).get("is_part"):
            continue
        aggregates = [
            own[other] for other in sorted(declared) if _aggregate_of(declared[other]) == name
        ]
        found[name] = Metric(
            name=name,
            label=each["label"] or name,
            description=" ".join((each["description"] or "").split()),
            type=_meta(each).get("type", "numeric"),
            within=tuple(dict.fromkeys(_within(name, declared))),
            definitions=(own[name], *aggregates),
        )
    return found


def is_listed(name: str, semantic_manifest: dict[str, Any]) -> bool:
    """Whether a metric is one of its own, and not another's over an aggregate."""
    return not any(m["name"] == name and _aggregate_of(m) for m in semantic_manifest["metrics"])


def _meta(each: dict[str, Any]) -> dict[str, Any]:
    return (each.get("config") or {}).get("meta") or {}


def _aggregate_of(each: dict[str, Any]) -> str | None:
    return _meta(each).get("aggregate_of")


def _within(name: str, declared: dict[str, dict[str, Any]]) -> Iterator[str]:
    """What a metric does not add up over: its own word, and those of all that it is made of."""
    yield from _meta(declared[name]).get("within", ())
    for part in declared[name]["type_params"]["metrics"] or ():
        yield from _within(part["name"], declared)


def _model(each: dict[str, Any], columns: dict[str, Any]) -> Model:
    dimensions, time = {}, None
    for dimension in each["dimensions"]:
        column = columns.get(dimension["expr"] or dimension["name"])
        if dimension["name"] == TIME_TO_FILTER:
            time = DAY if kind_of(columns[dimension["expr"]]["data_type"]) is DAY else MOMENT
        elif dimension["type"] == "categorical" and column:
            description = " ".join((dimension["description"] or column["description"]).split())
            dimensions[dimension["name"]] = Dimension(
                dimension["name"], column["data_type"], description
            )
    mart = each["node_relation"]["alias"]
    return Model(mart, each["primary_entity"], dimensions, time)


def chosen(
    metrics: Sequence[Metric], group_by: Sequence[str], filtered: Sequence[str], *, has_time: bool
) -> Model:
    """The first mart that can answer all of the metrics, as they are asked for.

    Raises:
        MetricsError: there is none; with what the marts of these metrics do have.
    """
    first, *others = metrics
    common = [
        model
        for model in (definition.model for definition in first.definitions)
        if all(any(d.model is model for d in other.definitions) for other in others)
    ]
    if not common:
        marts = "; ".join(f"{m.name} is of {', '.join(m.marts)}" for m in metrics)
        raise MetricsError(
            "metrics",
            f"No mart has all of these metrics: {marts}.",
            "Ask for those of one mart at a time.",
        )
    for model in common:
        if model.has([*group_by, *filtered]) and (model.time or not has_time):
            return model
    asked = ", ".join(metric.name for metric in metrics)
    for parameter, names in (("group_by", group_by), ("filters", filtered)):
        for name in names:
            if not any(model.has([name]) for model in common):
                offered = list(dict.fromkeys(n for m in common for n in m.offers()))
                raise MetricsError(
                    parameter,
                    f"{asked} cannot be told by {name[:80]!r}.",
                    f"Take of these: {', '.join(offered)}.",
                )
    if has_time and not any(model.time for model in common):
        raise MetricsError(
            "since",
            f"{asked} has no time: it is as of the last build.",
            "Leave since and until out.",
        )
    have = "; ".join(f"{model.mart} has {', '.join(model.offers())}" for model in common)
    raise MetricsError(
        "group_by",
        f"No mart has {asked} by {', '.join(dict.fromkeys([*group_by, *filtered]))} at once.",
        f"Leave one out: {have}.",
    )
