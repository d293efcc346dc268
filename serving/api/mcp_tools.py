"""What assistants may call: the tools of the MCP server, and how their arguments become requests.

An argument is what the HTTP API has as a parameter, and is checked by the same code.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from serving.api import figures, making, query, routes
from serving.api.problems import ProblemError, bad
from serving.api.state import State

FORMATS = ["json", "ndjson", "csv"]  # Arrow is no text
NAMES = {"type": "array", "items": {"type": "string"}}
VALUE = {"type": ["string", "number", "boolean", "null"]}
FILTERS = {
    "type": "object",
    "description": (
        'Values by column; all must hold: {"city_name": "Paris", "amount__gte": 5, '
        '"city_name__in": ["Paris", "Lyon"], "city_name__null": false}. Endings: '
        "__in (a list), __gte, __gt, __lte, __lt, __null. Times are in UTC. Write large decimals "
        "as texts."
    ),
    "additionalProperties": {"anyOf": [VALUE, {"type": "array", "items": VALUE}]},
}
ORDER = NAMES | {"description": 'Columns of the answer; "-amount" sorts downwards.'}
LIMIT = {
    "type": "integer",
    "minimum": 1,
    "maximum": query.LARGEST,
    "description": f"Rows; at most {query.LARGEST}.",
}
FORMAT = {"type": "string", "enum": FORMATS, "description": "json, unless said; csv is shorter."}


def _schema(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


MART = {"type": "string", "description": "A name that list_marts gives."}
TOOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "list_marts": (
        "List the marts, the tables of the warehouse that can be read: what a row is, key, build.",
        _schema({}),
    ),
    "describe_mart": (
        "The columns of a mart: types, what may be null, what they mean. Read it before a query.",
        _schema({"mart": MART}, "mart"),
    ),
    "query_mart": (
        "Rows of a mart, filtered and sorted. `next` in the answer is the cursor of the next page; "
        "in csv and ndjson the last line names it. For totals and rates ask query_metrics instead.",
        _schema(
            {
                "mart": MART,
                "select": NAMES | {"description": "Columns of the answer; all, unless said."},
                "filters": FILTERS,
                "order": ORDER,
                "limit": LIMIT | {"default": query.LIMIT},
                "cursor": {
                    "type": "string",
                    "description": "`next` of the page before; the rest stays unchanged.",
                },
                "format": FORMAT,
            },
            "mart",
        ),
    ),
    "list_metrics": (
        "List the metrics: defined figures, what they can be grouped by, and what they must be "
        "grouped by or filtered to one value of (`within`), as they do not add up over it.",
        _schema({}),
    ),
    "query_metrics": (
        "Figures of one or several metrics of the same mart, for all or by group.",
        _schema(
            {
                "metrics": NAMES | {"minItems": 1, "description": "Names that list_metrics gives."},
                "group_by": NAMES
                | {"description": "Dimensions, or day, week, month, quarter, year."},
                "since": {
                    "type": "string",
                    "description": "A day, or a moment in UTC, from which on rows count.",
                },
                "until": {
                    "type": "string",
                    "description": "A day, which counts to its end; or a moment, before which.",
                },
                "filters": FILTERS
                | {"description": f"{FILTERS['description']} Also __ne: all but this."},
                "order": ORDER,
                "limit": LIMIT,
                "format": FORMAT,
            },
            "metrics",
        ),
    ),
}


async def call(state: State, name: str, arguments: dict[str, Any]) -> Any:
    """What a tool gives.

    Args:
        state: the marts, and the connections of the reporter.
        name: of TOOLS.
        arguments: as its schema has them.

    Returns:
        Text, or what JSON can be made of.

    Raises:
        ProblemError: it cannot be answered; says why, and what to do.
    """
    if name == "list_marts":
        return routes.marts_of(state)
    if name == "describe_mart":
        return routes.schema_of(state, arguments["mart"])
    if name == "list_metrics":
        return routes.metrics_of(state)
    given = dict(arguments)
    filters = given.pop("filters", {})
    if name == "query_mart":
        mart = given.pop("mart")
        query_string = _query_string(given, filters, query.RESERVED)
        asked = making.rows(state, mart, query_string)
        path = f"/v1/marts/{quote(mart)}"
    else:
        names = ",".join(given.pop("metrics"))
        query_string = _query_string(given, filters, figures.RESERVED)
        asked = await making.figures_of(state, names, query_string)
        path = f"/v1/metrics/{quote(names)}"
    build = state.build_of(asked.mart)
    key = making.key_of(state, path, query_string, build)
    answer = making.kept(state, key) or await making.made(state, key, asked, build)
    text = (await answer.plain()).decode()
    cursor = dict(answer.headers).get(b"next-cursor")
    if cursor and arguments.get("format", "json") != "json":
        text += f"next: {cursor.decode()}\n"
    return text


def _query_string(
    given: dict[str, Any], filters: dict[str, Any], reserved: tuple[str, ...]
) -> bytes:
    """The parameters of the same request over HTTP."""
    pairs = [(n, ",".join(v) if isinstance(v, list) else _text(v)) for n, v in given.items()]
    for name, values in filters.items():
        if name in reserved:
            raise bad(
                name,
                f"{name} is no filter.",
                f"Give it beside filters; a column of that name is {name}__eq.",
            )
        if values is None:
            pairs.append((f"{name}__null", "true"))
        elif isinstance(values, list):
            pairs += [(name, _text(value)) for value in values]
        else:
            pairs.append((name, _text(values)))
    found = urlencode(pairs)
    if len(found) > making.LONGEST_QUERY:
        raise ProblemError(
            414, f"The query has more than {making.LONGEST_QUERY} bytes.", "Give fewer values."
        )
    return found.encode()


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
