"""A request for rows of a mart: its parameters, checked, and the SQL that answers it.

Identifiers come from the manifest only. Values are never part of the SQL: they are parameters, or
settings of the transaction where a statement (COPY) takes no parameters.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from urllib.parse import parse_qsl

from serving.api import cursors
from serving.api.catalogue import Column, Mart
from serving.api.problems import ProblemError, bad
from serving.api.values import checked

FORMATS = ("json", "ndjson", "csv", "arrow")
COMPARED = {"": "=", "eq": "=", "gte": ">=", "gt": ">", "lte": "<=", "lt": "<"}
OPERATORS = (*COMPARED, "in", "null")
RESERVED = ("select", "order", "limit", "cursor", "format", "on_rebuild")
LIMIT, LARGEST = 100, 10_000  # rows of a page
MOST_VALUES, MOST_ORDER, MOST_PARAMETERS = 200, 5, 300
EXPORT = "marquee export marts --select {}"


@dataclass(frozen=True)
class Ordered:
    """A column that rows are sorted by. Nulls come last, whatever the direction."""

    column: Column
    descending: bool

    @property
    def sql(self) -> str:
        direction = " desc" if self.descending else ""
        return f"{self.column.quoted}{direction}{' nulls last' if self.column.nullable else ''}"


@dataclass(frozen=True)
class Filter:
    """A condition on a column: an operator of SQL, and its values."""

    column: Column
    operator: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Query:
    """What is asked of a mart.

    Attributes:
        mart: it.
        selected: columns of the answer.
        filters: all of which hold.
        order: the columns asked for, then those of the key, so that no two rows are equal.
        limit: rows of a page.
        format: one of FORMATS.
        after: values of ``order`` in the last row of the page before; None for the first page.
        build: the cursor's build of the mart, if it says one.
        goes_on: whether a walk goes on in another build than it began in.
    """

    mart: Mart
    selected: tuple[Column, ...]
    filters: tuple[Filter, ...]
    order: tuple[Ordered, ...]
    limit: int
    format: str
    after: tuple[str | None, ...] | None
    build: str | None
    goes_on: bool

    @property
    def print_of(self) -> str:
        """The same for pages of one walk, whatever the cursor, limit and format."""
        parts = (self.mart.name, self.filters, [(o.column.name, o.descending) for o in self.order])
        return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()

    def ends_with_order(self) -> bool:
        """Whether the answer has all columns that the next page's cursor is made of."""
        return {ordered.column.name for ordered in self.order} <= {c.name for c in self.selected}

    def sql(self, bind: Callable[[str], str], columns: str, rows: str) -> str:
        """A select.

        Args:
            bind: takes a value; returns what stands for it, of type text.
            columns: of the select.
            rows: its limit and offset.
        """
        where = [_condition(one, bind) for one in self.filters]
        if self.after is not None:
            where.append(_after(self.order, self.after, bind))
        conditions = f" where {' and '.join(where)}" if where else ""
        order = ", ".join(ordered.sql for ordered in self.order)
        return f"select {columns} from {self.mart.relation}{conditions} order by {order} {rows}"  # noqa: S608


def parsed(mart: Mart, query_string: bytes) -> Query:
    """The request that a query string makes.

    Raises:
        ProblemError: a parameter is unknown, repeated, or has a value that cannot be.
    """
    filters, plain = [], {}
    for name, values in given(query_string).items():
        found = _column_and_operator(mart, name)
        if found:
            filters.append(_filter(*found, name, values))
        elif name in RESERVED:
            plain[name] = once(name, values)
        else:
            raise _unknown(mart, name)
    order = _order(mart, plain.get("order"))
    query = Query(
        mart=mart,
        selected=_selected(mart, plain.get("select")),
        filters=tuple(sorted(filters, key=lambda one: (one.column.name, one.operator))),
        order=order,
        limit=_limit(mart, plain.get("limit")),
        format=one_of("format", plain.get("format", "json"), FORMATS),
        after=None,
        build=None,
        goes_on=one_of("on_rebuild", plain.get("on_rebuild", "stop"), ("stop", "continue"))
        == "continue",
    )
    if "cursor" not in plain:
        return query
    build, after = cursors.read(plain["cursor"], query.print_of, len(order))
    return Query(**(vars(query) | {"after": after, "build": build}))


def given(query_string: bytes) -> dict[str, list[str]]:
    """The parameters of a query string, each with all its values.

    Raises:
        ProblemError: it is not in UTF-8, or has too many.
    """
    try:
        pairs = parse_qsl(
            query_string.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=MOST_PARAMETERS,
        )
    except UnicodeDecodeError:
        raise ProblemError(
            400, "The query is not in UTF-8.", "Write each byte beyond ASCII as %XX of UTF-8."
        ) from None
    except ValueError:
        raise ProblemError(
            400, f"There are more than {MOST_PARAMETERS} parameters.", "Give fewer."
        ) from None
    given: dict[str, list[str]] = {}
    for name, value in pairs:
        given.setdefault(name, []).append(value)
    return given


def _column_and_operator(mart: Mart, name: str) -> tuple[Column, str] | None:
    if name in mart.columns and name not in RESERVED:
        return mart.columns[name], ""
    column, _, operator = name.rpartition("__")
    if column in mart.columns and operator in OPERATORS:
        return mart.columns[column], operator
    return None


def _unknown(mart: Mart, name: str) -> ProblemError:
    near = difflib.get_close_matches(name, [*mart.columns, *RESERVED], 3)
    said = " or ".join(near) if near else f"what /v1/marts/{mart.name}/schema lists"
    return bad(name[:100], f"{mart.name} has no such parameter.", f"Use {said}.")


def once(name: str, values: list[str]) -> str:
    """The value of a parameter that is given once.

    Raises:
        ProblemError: it is given more often.
    """
    if len(values) > 1:
        raise bad(name, "The parameter is given more than once.", "Give it once.")
    return values[0]


def _filter(column: Column, operator: str, name: str, values: list[str]) -> Filter:
    if operator == "in":
        if len(values) > MOST_VALUES:
            raise bad(name, f"There are {len(values)} values.", f"Give at most {MOST_VALUES}.")
        return Filter(column, "in", tuple(sorted({checked(column, name, v) for v in values})))
    if len(values) > 1:
        raise bad(
            name,
            "The parameter is given more than once.",
            f"Give it once, or {column.name}__in once for each value.",
        )
    if operator == "null":
        is_null = one_of(name, values[0], ("true", "false")) == "true"
        return Filter(column, "is null" if is_null else "is not null")
    return Filter(column, COMPARED[operator], (checked(column, name, values[0]),))


def one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    """A value that has to be one of those that are known.

    Raises:
        ProblemError: it is none of them.
    """
    if value not in known:
        raise bad(name, f"{value[:40]!r} is none of its values.", f"Give {' or '.join(known)}.")
    return value


def _names(mart: Mart, parameter: str, text: str) -> Iterator[str]:
    seen = set()
    for name in text.split(","):
        column = name.removeprefix("-") if parameter == "order" else name
        if column not in mart.columns:
            near = difflib.get_close_matches(column, mart.columns, 3) or list(mart.columns)[:5]
            raise bad(
                parameter,
                f"{mart.name} has no column {column[:100]!r}.",
                f"Name columns, separated by commas, such as {', '.join(near)}.",
            )
        if column in seen:
            raise bad(parameter, f"{column} is named twice.", "Name it once.")
        seen.add(column)
        yield name


def _selected(mart: Mart, text: str | None) -> tuple[Column, ...]:
    names = mart.columns if text is None else _names(mart, "select", text)
    return tuple(mart.columns[name] for name in names)


def _order(mart: Mart, text: str | None) -> tuple[Ordered, ...]:
    asked = [] if text is None else list(_names(mart, "order", text))
    if len(asked) > MOST_ORDER:
        raise bad("order", f"There are {len(asked)} columns.", f"Name at most {MOST_ORDER}.")
    order = [Ordered(mart.columns[n.removeprefix("-")], n.startswith("-")) for n in asked]
    named = {ordered.column.name for ordered in order}
    # the key goes the way of the first column, so that an index may serve both
    down = bool(order) and order[0].descending
    return (*order, *(Ordered(c, down) for c in mart.key if c.name not in named))


def _limit(mart: Mart, text: str | None) -> int:
    if text is None:
        return LIMIT
    remedy = f"Give a whole number from 1 to {LARGEST}."
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) > 0):
        raise bad("limit", f"{text[:40]!r} is no number of rows.", remedy)
    if int(text) > LARGEST:
        raise bad(
            "limit",
            f"A page has at most {LARGEST} rows.",
            f"Follow the pages, or write all rows to files: {EXPORT.format(mart.name)} --to FOLDER",
        )
    return int(text)


def _cast(column: Column, placeholder: str) -> str:
    return placeholder if column.kind == "text" else f"cast({placeholder} as {column.kind})"


def _condition(one: Filter, bind: Callable[[str], str]) -> str:
    name = one.column.quoted
    values = [_cast(one.column, bind(value)) for value in one.values]
    if one.operator == "in":
        return f"{name} in ({', '.join(values)})"
    return f"{name} {one.operator} {values[0]}" if values else f"{name} {one.operator}"


def _after(
    order: tuple[Ordered, ...], values: tuple[str | None, ...], bind: Callable[[str], str]
) -> str:
    """The condition of rows that come after the row with these values."""
    marks = [
        None if value is None else _cast(one.column, bind(value))
        for one, value in zip(order, values, strict=True)
    ]
    if not any(one.column.nullable or one.descending != order[0].descending for one in order):
        names = ", ".join(one.column.quoted for one in order)
        sign = "<" if order[0].descending else ">"
        return f"({names}) {sign} ({', '.join(map(str, marks))})"
    ways: list[str] = []
    equal: list[str] = []
    for one, mark in zip(order, marks, strict=True):
        name = one.column.quoted
        if mark is not None:  # after a null comes none: nulls are last
            beyond = f"{name} {'<' if one.descending else '>'} {mark}"
            beyond = f"({beyond} or {name} is null)" if one.column.nullable else beyond
            ways.append(" and ".join([*equal, beyond]))
        equal.append(f"{name} is null" if mark is None else f"{name} = {mark}")
    return f"({' or '.join(ways)})" if ways else "false"
