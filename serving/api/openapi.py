"""The description of the API (OpenAPI 3.1), made of dbt's manifest: a path and a schema a mart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from serving.api.catalogue import Column, Mart, plain_type
from serving.api.figures import MOST_NAMES
from serving.api.formats import CONTENT_TYPES
from serving.api.query import FORMATS, LARGEST, LIMIT, MOST_VALUES
from serving.metrics import Metrics
from serving.metrics.catalogue import GRAINS

_TYPES: dict[str, dict[str, Any]] = {
    "smallint": {"type": "integer", "minimum": -(2**15), "maximum": 2**15 - 1},
    "integer": {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    "bigint": {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
    "numeric": {"type": "number"},
    "real": {"type": "number"},
    "double precision": {"type": "number"},
    "boolean": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "timestamp": {"type": "string", "description": "in UTC"},
    "timestamp with time zone": {"type": "string", "format": "date-time"},
}
_BOUNDS = {
    "gte": "At least this.",
    "gt": "More than this.",
    "lte": "At most this.",
    "lt": "Less than this.",
}
_PROBLEM = {
    "type": "object",
    "description": "Problem details (RFC 9457), with the parameter at fault and what to do.",
    "required": ["type", "title", "status", "detail", "remedy"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "remedy": {"type": "string"},
        "parameter": {"type": "string"},
    },
}
PROBLEMS = {
    "400": "A parameter cannot be used.",
    "401": "No key, or one that does not hold.",
    "404": "There is no such thing.",
    "409": "The mart was built anew since the first page.",
    "414": "The query is too long.",
    "422": "A value has no place in the format.",
    "429": "Too many requests of this key.",
    "503": "The warehouse does not answer, or is busy.",
    "504": "The query took too long.",
}


def complete(
    document: dict[str, Any], marts: dict[str, Mart], metrics: Metrics | None
) -> dict[str, Any]:
    """FastAPI's description with the marts, metrics, keys and errors."""
    components = document.setdefault("components", {})
    components["securitySchemes"] = {
        "key": {
            "type": "http",
            "scheme": "bearer",
            "description": "A key of `marquee api key create`.",
        }
    }
    schemas = components.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = _PROBLEM
    components["responses"] = {
        f"Problem{status}": {
            "description": text,
            "content": {
                "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
            },
        }
        for status, text in PROBLEMS.items()
    }
    # uvicorn's own answer, before any of this is asked
    plain = {"schema": {"type": "string"}, "example": "Invalid HTTP request received."}
    components["responses"]["Problem400"]["content"]["text/plain"] = plain
    components["parameters"] = shared = dict(_shared())
    for path, item in document["paths"].items():
        for operation in item.values():
            responses = operation["responses"]
            responses.pop("422", None)
            if path.startswith("/v1/"):
                operation["security"] = [{"key": []}]
                responses.update(_problems("401", "404", "414", "429"))
            elif path == "/ready":
                responses.update(_problems("503"))
    for mart in marts.values():
        schemas[mart.name] = _row(mart)
        operation = _operation(mart)
        operation["parameters"] = [_once(one, shared) for one in operation["parameters"]]
        document["paths"][f"/v1/marts/{mart.name}"] = {"get": operation}
    if metrics:
        document["paths"]["/v1/metrics/{metrics}"] = {"get": _metrics_operation(metrics, shared)}
    document["paths"] = dict(sorted(document["paths"].items(), key=_rank))
    return document


def _once(parameter: dict[str, Any], shared: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A reference to a parameter of several marts; itself where its name means another, too."""
    name = parameter.get("name", "select")
    if name in ("select", "order") or shared.setdefault(name, parameter) != parameter:
        return parameter
    return {"$ref": f"#/components/parameters/{name}"}


def _rank(item: tuple[str, Any]) -> tuple[bool, str]:
    return not item[0].startswith("/v1/"), item[0]


def _problems(*statuses: str) -> dict[str, Any]:
    return {status: {"$ref": f"#/components/responses/Problem{status}"} for status in statuses}


def _shared() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, schema, text in (
        (
            "limit",
            {"type": "integer", "minimum": 1, "maximum": LARGEST, "default": LIMIT},
            "Rows of a page. For all rows of a large mart: `marquee export marts`.",
        ),
        ("cursor", {"type": "string"}, "`next` of the page before; the rest must be the same."),
        (
            "format",
            {"type": "string", "enum": list(FORMATS), "default": "json"},
            "json, JSON lines, CSV with a header, or a stream of Arrow.",
        ),
        (
            "on_rebuild",
            {"type": "string", "enum": ["stop", "continue"], "default": "stop"},
            "What a cursor of an earlier build does: answer 409, or go on in the new build.",
        ),
    ):
        yield name, {"name": name, "in": "query", "description": text, "schema": schema}


def value_schema(column: Column) -> dict[str, Any]:
    """The JSON schema of a value that is not null."""
    return dict(_TYPES.get(column.kind, {"type": "string"}))


def _row(mart: Mart) -> dict[str, Any]:
    properties = {}
    for column in mart.columns.values():
        schema = value_schema(column)
        if column.kind in ("numeric", "real", "double precision"):
            schema["type"] = ["number", "string"]  # NaN and infinity are texts
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        if column.nullable:
            schema["type"] = [*types, "null"]
        properties[column.name] = schema | {
            "description": column.description,
            "x-postgresql-type": column.type,
        }
    return {"type": "object", "description": mart.description, "properties": properties}


def _content(row: dict[str, Any]) -> dict[str, Any]:
    """Bodies of an answer, by content type."""
    page = {
        "type": "object",
        "required": ["build", "next", "data"],
        "properties": {
            "build": {"type": ["string", "null"], "description": "Which build the rows are of."},
            "next": {"type": ["string", "null"], "description": "Cursor of the next page."},
            "data": {"type": "array", "items": row},
        },
    }
    schemas = {"json": page, "ndjson": {"type": "string"}, "csv": {"type": "string"}}
    return {
        CONTENT_TYPES[name].decode().partition(";")[0]: {
            "schema": schemas.get(name, {"type": "string", "format": "binary"})
        }
        for name in FORMATS
    }


def _headers(*names: str) -> dict[str, Any]:
    texts = {
        "ETag": "Changes with the request and the build.",
        "Warehouse-Build": "The dbt invocation that built the mart.",
        "Link": "The next page.",
        "Next-Cursor": "Its cursor.",
        "Age": "Seconds since the warehouse answered last; only while it does not.",
    }
    return {name: {"description": texts[name], "schema": {"type": "string"}} for name in names}


def _operation(mart: Mart) -> dict[str, Any]:
    return {
        "tags": ["marts"],
        "operationId": f"read_{mart.name}",
        "summary": mart.description.partition(". ")[0].partition("\n")[0].rstrip("."),
        "description": mart.description,
        "security": [{"key": []}],
        "parameters": list(_parameters(mart)),
        "responses": {
            "200": {
                "description": "A page of rows.",
                "headers": _headers("ETag", "Warehouse-Build", "Link", "Next-Cursor", "Age"),
                "content": _content({"$ref": f"#/components/schemas/{mart.name}"}),
            },
            "304": {"description": "As If-None-Match has it."},
            **_problems(*PROBLEMS),
        },
    }


def _metrics_operation(metrics: Metrics, shared: dict[str, Any]) -> dict[str, Any]:
    listed = metrics.list()
    names = [metric.name for metric in listed]
    dimensions = {
        name: dimension for metric in listed for name, dimension in metric.dimensions.items()
    }
    groups = {"type": "string", "enum": [*GRAINS, *sorted(dimensions)]}
    row = {"type": "object", "description": "A column for each of group_by and of the metrics."}
    texts = {
        "since": "The first day, or moment in UTC.",
        "until": "The last day, which counts to its end; or the moment before which it ends.",
        "order": "Columns of the answer, `-` before one for descending.",
    }
    samples = {"since": "2024-01-01", "until": "2024-12-31", "order": f"-{names[0]}"}
    limit = shared["limit"]["schema"] | {"default": LARGEST}
    return {
        "tags": ["metrics"],
        "operationId": "read_metrics",
        "summary": "Figures of metrics",
        "description": "Metrics of one mart, separated by commas. Each dimension is a filter, as "
        "the columns of marts are: `currency_code=EUR`, `city_name__in=Paris`. Amounts need "
        "`currency_code`, to group by or as a filter. `/v1/metrics` lists all of them.",
        "security": [{"key": []}],
        "parameters": [
            {
                "name": "metrics",
                "in": "path",
                "required": True,
                "description": "Names, separated by commas.",
                "style": "simple",
                "schema": _listed({"type": "string", "enum": names}, names[:1]),
            },
            {
                "name": "group_by",
                "in": "query",
                "description": "Dimensions of the metrics, or day, week, month, quarter, year.",
                "style": "form",
                "explode": False,
                "schema": _listed(groups, ["month"]),
            },
            *(
                {
                    "name": name,
                    "in": "query",
                    "description": text,
                    "schema": {"type": "string", "examples": [samples[name]]},
                }
                for name, text in texts.items()
            ),
            shared["limit"] | {"description": "Rows of the answer.", "schema": limit},
            {"$ref": "#/components/parameters/format"},
            *(
                parameter
                for one in dimensions.values()
                for parameter in _filters(
                    Column(one.name, plain_type(one.type), one.description, nullable=True)
                )
            ),
        ],
        "responses": {
            "200": {
                "description": "All rows of the answer.",
                "headers": _headers("ETag", "Warehouse-Build", "Age"),
                "content": _content(row),
            },
            "304": {"description": "As If-None-Match has it."},
            **_problems(*PROBLEMS),
        },
    }


def _listed(items: dict[str, Any], example: list[str]) -> dict[str, Any]:
    return {
        "type": "array",
        "items": items,
        "minItems": 1,
        "maxItems": MOST_NAMES,
        "uniqueItems": True,
        "examples": [example],
    }


def _parameters(mart: Mart) -> Iterator[dict[str, Any]]:
    names = list(mart.columns)
    yield {
        "name": "select",
        "in": "query",
        "description": "Columns of the answer, separated by commas; all without it.",
        "schema": {"type": "string", "examples": [",".join(names[:2])]},
    }
    yield {
        "name": "order",
        "in": "query",
        "description": "Columns to sort by, `-` before one for descending; nulls come last.",
        "schema": {"type": "string", "examples": [f"-{names[-1]},{names[0]}"]},
    }
    for name, _ in _shared():
        yield {"$ref": f"#/components/parameters/{name}"}
    for column in mart.columns.values():
        yield from _filters(column)


def _filters(column: Column) -> Iterator[dict[str, Any]]:
    schema = value_schema(column)
    if column.kind == "text":
        schema["maxLength"] = 1000

    def parameter(suffix: str, text: str, schema: dict[str, Any]) -> dict[str, Any]:
        name = f"{column.name}{suffix}"
        return {"name": name, "in": "query", "description": text, "schema": schema}

    first = column.description.partition("\n")[0]
    yield parameter("", first, schema)
    if column.kind != "boolean":
        many = {"type": "array", "items": schema, "minItems": 1, "maxItems": MOST_VALUES}
        yield parameter("__in", "One of these; once for each value.", many)
        if column.kind != "text":
            for operator, text in _BOUNDS.items():
                yield parameter(f"__{operator}", text, schema)
    if column.nullable:
        yield parameter("__null", "Whether it is null.", {"type": "boolean"})
