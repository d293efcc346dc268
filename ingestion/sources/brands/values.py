"""A flat file's fields as values of the raw table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

from ingestion.sources.brands.settings import (
    Column,
)

# A file's columns from left to right; a text is the header of one that nobody asked for.
Layout = list[Column | str]


class UnreadableRow(ValueError):
    """A line that is no row: ``code`` for queries, ``str()`` for people."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def is_readable(text: str, column: Column | str) -> bool:
    try:
        row_of([text], [column])
    except UnreadableRow:
        return False
    return True


def row_of(fields: Sequence[str], layout: Layout) -> dict:
    """Values by column; those of extra columns, as text, below ``extra_fields``."""
    row: dict = {"extra_fields": None}
    extra = {}
    for column, text in zip(layout, fields, strict=True):
        if isinstance(column, Column):
            row[column.name] = _value(text, column)
        elif text:
            extra[column] = text
    return row | ({"extra_fields": extra} if extra else {})


_NO_TEXT = {"", "-", "\N{EN DASH}", "\N{EM DASH}", "n/a", "N/A"}
_NO_NUMBER = _NO_TEXT | {"na", "NA", "nan", "NaN", "nd", "n.d.", "null", "None"}


# No-break, thin and other spaces, apostrophes; first, no-break spaces whose encoding was mistaken.
_SPACE = re.compile(
    r"\N{LATIN CAPITAL LETTER A WITH CIRCUMFLEX}\xa0|\xe2\u20ac\xaf|[\s'\u2019\ufffd]"
)

_DOLLAR = re.compile(r"^(?:US ?\$|\$ ?US|USD|\$) ?| ?(?:US ?\$|\$ ?US|USD|\$)$", re.IGNORECASE)
_NUMBER = re.compile(
    r"(?P<whole>0|[1-9][0-9]*|[1-9][0-9]{0,2}(?:(?P<by>[ .,])[0-9]{3})(?:(?P=by)[0-9]{3})*)"
    r"(?:(?!(?P=by))[.,](?P<cents>[0-9]{1,2}))?"
)


def _value(text: str, column: Column) -> str | Decimal | int | None:
    value: str | Decimal | int | None
    if column.kind == "text":
        value = None if text in _NO_TEXT else text
    else:
        value = None if text in _NO_NUMBER else _number(text, column)
    if value is None and column.required:
        raise UnreadableRow("missing_value", f"{column.name} is empty.")
    return value


def _number(text: str, column: Column) -> Decimal | int:
    """``$1,234``, ``1 234,56``, ``1.234.567`` or ``1234``.

    One kind of separator groups by three, the other one is decimal.
    Three digits after a lone separator are a group: no sum of money has three decimals.
    """
    plain = _DOLLAR.sub("", _SPACE.sub(" ", text).strip())
    if column.kind == "rank":
        plain = plain.removeprefix("#").removesuffix(".").strip()
    found = _NUMBER.fullmatch(plain)
    if not found:
        raise UnreadableRow("bad_number", f"{column.name} is no number: {text[:80]!r}.")
    value = Decimal(re.sub(r"[ .,]", "", found["whole"]) + "." + (found["cents"] or "0"))
    if value >= 10**18:
        raise UnreadableRow("bad_number", f"{column.name} is too large: {text[:80]!r}.")
    if column.kind == "money":
        return value.quantize(Decimal("0.01"))
    if value % 1:
        raise UnreadableRow("bad_number", f"{column.name} is no whole number: {text[:80]!r}.")
    return int(value)
