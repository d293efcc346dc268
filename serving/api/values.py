"""Values of parameters, checked by the type of their column before PostgreSQL sees them."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, timezone
from decimal import Decimal, InvalidOperation

from serving.api.catalogue import Column
from serving.api.problems import bad

LONGEST = 1000  # characters of a value
_WHOLE = re.compile(r"[+-]?[0-9]{1,30}", re.ASCII)
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[T ]([0-9]{2}:[0-9]{2})(?::([0-9]{2})(\.[0-9]{1,6})?)?"
    r"(Z|[+-][0-9]{2}:[0-9]{2})?)?",
    re.ASCII,
)
_BITS = {"smallint": 16, "integer": 32, "bigint": 64}
_DIGITS = 1000  # of a decimal, before the point or after it


def checked(column: Column, parameter: str, text: str) -> str:
    """A value as PostgreSQL reads it.

    Raises:
        ProblemError: it is no value of that type.
    """
    if len(text) > LONGEST:
        raise bad(
            parameter, f"The value has {len(text)} characters.", f"Give at most {LONGEST} of them."
        )
    if "\x00" in text:
        raise bad(parameter, "The value has a zero byte, which no text has.", "Leave out %00.")
    return _CHECKS.get(column.kind, _text)(column, parameter, text)


def _text(column: Column, parameter: str, text: str) -> str:  # noqa: ARG001
    return text


def _whole(column: Column, parameter: str, text: str) -> str:
    bits = _BITS[column.kind]
    if not _WHOLE.fullmatch(text):
        raise bad(parameter, f"{_shown(text)} is no whole number.", "Give one such as 42.")
    if not -(2 ** (bits - 1)) <= int(text) < 2 ** (bits - 1):
        raise bad(
            parameter,
            f"{_shown(text)} is beyond the range of {column.name}, which has {bits} bits.",
            f"Give a number from -2^{bits - 1} to 2^{bits - 1} - 1.",
        )
    return text


def _decimal(column: Column, parameter: str, text: str) -> str:  # noqa: ARG001
    remedy = "Give a number such as 12.5; a + is written %2B."
    if not _NUMBER.fullmatch(text):
        raise bad(parameter, f"{_shown(text)} is no number.", remedy)
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise bad(parameter, f"{_shown(text)} is no number.", remedy) from None
    if number and abs(number.adjusted()) > _DIGITS:
        raise bad(
            parameter,
            f"{_shown(text)} has more digits than can be compared.",
            f"Give a number between 1e-{_DIGITS} and 1e{_DIGITS}.",
        )
    return text


def _float(column: Column, parameter: str, text: str) -> str:
    number = _decimal(column, parameter, text)
    if abs(float(number)) > 1e308 or 0 < abs(Decimal(number)) < Decimal("1e-300"):
        raise bad(
            parameter, f"{_shown(text)} is beyond the range of {column.name}.", "Give less digits."
        )
    return number


def _boolean(column: Column, parameter: str, text: str) -> str:  # noqa: ARG001
    if text not in ("true", "false"):
        raise bad(parameter, f"{_shown(text)} is neither true nor false.", "Give true or false.")
    return text


def _date(column: Column, parameter: str, text: str) -> str:  # noqa: ARG001
    try:
        if _DATE.fullmatch(text):
            return date.fromisoformat(text).isoformat()
    except ValueError:
        pass
    raise bad(parameter, f"{_shown(text)} is no date.", "Give one such as 2024-01-31.")


def _timestamp(column: Column, parameter: str, text: str) -> str:
    """A moment in UTC: one without an offset is taken for UTC."""
    remedy = "Give one such as 2024-01-31T12:00:00Z; the + of an offset is written %2B."
    found = _TIME.fullmatch(text)
    if not found:
        raise bad(parameter, f"{_shown(text)} is no time.", remedy)
    day, minute, second, fraction, offset = found.groups()
    written = f"{day}T{minute or '00:00'}:{second or '00'}.{(fraction or '.')[1:]:0<6}"
    zone = "+00:00" if offset in (None, "Z") else offset
    try:
        moment = datetime.fromisoformat(f"{written}{zone}").astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise bad(parameter, f"{_shown(text)} is no time.", remedy) from None
    ending = "+00:00" if column.kind == "timestamp with time zone" else ""
    return f"{moment.replace(tzinfo=None).isoformat()}{ending}"


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


_CHECKS: dict[str, Callable[[Column, str, str], str]] = {
    "smallint": _whole,
    "integer": _whole,
    "bigint": _whole,
    "numeric": _decimal,
    "real": _float,
    "double precision": _float,
    "boolean": _boolean,
    "date": _date,
    "timestamp": _timestamp,
    "timestamp with time zone": _timestamp,
}
