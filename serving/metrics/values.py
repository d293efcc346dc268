"""Values that requests compare with, as Python's types, which drivers bind as parameters."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

from serving.metrics.errors import MetricsError

INTEGER = (-(2**63), 2**63 - 1)
DIGITS = 1_000  # of a decimal; PostgreSQL takes more, nobody means it
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d{1,19}", re.ASCII)


class Kind(NamedTuple):
    """A family of PostgreSQL's types.

    Attributes:
        sql: what a parameter is cast to.
        words: what its values are, for messages.
        parse: makes a value of a text; raises ValueError.
    """

    sql: str
    words: str
    parse: Callable[[str], Any]


def _text(text: str) -> str:
    if "\0" in text:
        raise ValueError
    text.encode()  # half of a surrogate pair is no text; UnicodeEncodeError is a ValueError
    return text


def _whole(text: str) -> int:
    if not _WHOLE.fullmatch(text) or not INTEGER[0] <= int(text) <= INTEGER[1]:
        raise ValueError
    return int(text)


def _decimal(text: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation as error:
        raise ValueError from error
    if not number.is_finite() or len(text) > DIGITS or abs(number.adjusted()) > DIGITS:
        raise ValueError
    return number


def _boolean(text: str) -> bool:
    try:
        return {"true": True, "false": False}[text.lower()]
    except KeyError as error:
        raise ValueError from error


def _day(text: str) -> date:
    if not _DAY.fullmatch(text):
        raise ValueError
    return date.fromisoformat(text)


def _moment(text: str) -> datetime:
    # Python 3.10 reads neither Z nor all that later ones do
    moment = datetime.fromisoformat(re.sub("[Zz]$", "+00:00", text))
    return moment.astimezone(timezone.utc).replace(tzinfo=None) if moment.tzinfo else moment


TEXT = Kind("text", "text", _text)
NUMBER = Kind("numeric", "a number, such as 12.5", _decimal)
DAY = Kind("date", "a day, such as 2024-01-31", _day)
MOMENT = Kind("timestamp", "a time in ISO 8601, such as 2024-01-31T12:00:00Z", _moment)
_KINDS = {
    **dict.fromkeys(("smallint", "integer", "bigint"), Kind("bigint", "a whole number", _whole)),
    "boolean": Kind("boolean", "true or false", _boolean),
    "date": DAY,
    "timestamp": MOMENT,
    "timestamp without time zone": MOMENT,
    "text": TEXT,
}


def kind_of(data_type: str) -> Kind:
    """The family of a type, as contracts write it."""
    return NUMBER if data_type.startswith("numeric") else _KINDS.get(data_type, TEXT)


def parsed(parameter: str, name: str, value: Any, kind: Kind) -> Any:
    """A value for a parameter of SQL.

    Args:
        parameter: of the request, for messages.
        name: of what it is compared with.
        value: a text, as requests bring it, or a value of Python.
        kind: what it must be.

    Raises:
        MetricsError: it is none of that kind.
    """
    text = value.isoformat() if isinstance(value, date) else str(value)
    try:
        return kind.parse(text)
    except (ValueError, OverflowError) as error:
        raise MetricsError(
            parameter, f"{text[:80]!r} is no value of {name}.", f"Give {kind.words}."
        ) from error


def bounds(since: Any, until: Any, kind: Kind) -> tuple[Any, Any]:
    """The first moment that counts, and the first that does not any more.

    Args:
        since: a day, or a moment; None for no bound.
        until: a day, which counts to its end, or a moment, which does not count itself.
        kind: DAY or MOMENT, what they are compared with.

    Raises:
        MetricsError: one cannot be read, or the first is after the last.
    """
    low, high = (_bound(name, value, kind) for name, value in (("since", since), ("until", until)))
    if low is not None and high is not None and low >= high:
        raise MetricsError("since", f"{since} is after {until}.", "Give the earlier one as since.")
    return low, high


def _bound(name: str, value: Any, kind: Kind) -> Any:
    if value is None:
        return None
    text = value.isoformat() if isinstance(value, date) else str(value)
    if not _DAY.fullmatch(text):
        return parsed(name, name, text, kind)
    day = parsed(name, name, text, DAY)
    try:
        day += timedelta(days=name == "until")
    except OverflowError as error:
        raise MetricsError(name, f"{text} is the last day there is.", "Leave it out.") from error
    return day if kind is DAY else datetime(day.year, day.month, day.day)
