"""A mapping in SQL, for DuckDB: what is beyond doubt. All else is left to ``values``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from ingestion.sources.transactions.amounts import Decimals
from ingestion.sources.transactions.contract import (
    ISO_8601,
    Piece,
    amount_in_sql,
    id_in_sql,
    matches,
    quoted,
    time_in_sql,
)
from ingestion.sources.transactions.mapping.spec import UNITS, Amount, Mapping, Moment, Text
from ingestion.sources.transactions.mapping.values import MADE, SEPARATOR
from ingestion.sources.transactions.settings import IDS, TEXT_FIELDS

_YEARS = range(1970, 2100)
_MONTHS = "(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_CODES = {
    "%Y": "[12][0-9]{3}",
    "%y": "[0-9]{2}",
    "%m": "(0[1-9]|1[0-2])",
    "%d": "(0[1-9]|[12][0-9]|3[01])",
    "%H": "([01][0-9]|2[0-3])",
    "%I": "(0[1-9]|1[0-2])",
    "%M": "[0-5][0-9]",
    "%S": "[0-5][0-9]",
    "%p": "(AM|PM)",
    "%b": _MONTHS,
}
_SHORT = {
    "%m": "(0?[1-9]|1[0-2])",
    "%d": "(0?[1-9]|[12][0-9]|3[01])",
    "%H": "(0?[0-9]|1[0-9]|2[0-3])",
    "%I": "(0?[1-9]|1[0-2])",
}
_ASCII = "[ -~]*"


def pieces(
    mapping: Mapping, decimals: Decimals, numbers: frozenset[str]
) -> dict[str, Piece] | None:
    """The fields from a table of the mapping's columns; None where Python has to do all.

    Args:
        mapping: what becomes what.
        decimals: how the file writes amounts.
        numbers: the columns that are numbers by themselves, and no text.
    """
    moment = _moment(mapping.moment)
    amount = _amount(mapping.amount, decimals, numbers)
    if moment is None or amount is None:
        return None
    fields = {name: Piece("", "null") for name in TEXT_FIELDS}
    for name, text in mapping.fields.items():
        fields[name] = _text(name, text)
    fields |= {"event_ts": moment, "amount": amount[0]}
    if mapping.amount.refund_status:
        status = quoted(mapping.amount.refund_status)
        value = f"case when {amount[1]} then {status} else {fields['status'].value} end"
        fields["status"] = Piece(fields["status"].condition, value)
    skipped = [_is_skipped(name, values) for name, values in mapping.skip_rows.items()]
    fields["amount"] = Piece(
        " and ".join([fields["amount"].condition, *(f"not {each}" for each in skipped)]),
        fields["amount"].value,
    )
    return fields


def named(name: str) -> str:
    """A column of the mapping in SQL; words for no value are null in it, and empty texts too."""
    return '"' + name.replace('"', '""') + '"'


def _first(sources: Iterable[str]) -> str:
    columns = [named(name) for name in sources]
    return columns[0] if len(columns) == 1 else f"coalesce({', '.join(columns)})"


def _is_skipped(name: str, values: tuple[str, ...]) -> str:
    """Beyond doubt it is not, where a value is ASCII without blanks around."""
    column = f"coalesce({named(name)}, '')"
    wanted = ", ".join(quoted(value.lower()) for value in values)
    return f"(lower(trim({column})) in ({wanted}) or not {matches(column, _ASCII)})"


def _text(name: str, text: Text) -> Piece:
    if text.key:
        parts = ", ".join(f"coalesce({named(each)}, '')" for each in text.key)
        some = " or ".join(f"{named(each)} is not null" for each in text.key)
        made = f"concat({quoted(MADE)}, md5(concat_ws({quoted(SEPARATOR)}, {parts})))"
        return Piece(f"({some})", made)
    if not text.sources:
        return Piece("", quoted(text.default or ""))
    found, condition = _first(text.sources), ""
    if text.values:
        cases = " ".join(
            f"when {quoted(value.casefold())} then {quoted(meaning)}"
            for value, meaning in text.values.items()
        )
        condition = matches(f"coalesce({found}, '')", _ASCII)
        found = f"case lower(trim({found})) {cases} else {found} end"
    if text.default is not None:
        found = f"coalesce({found}, {quoted(text.default)})"
    if name not in IDS:
        return Piece(condition, found)
    piece = id_in_sql(name, f"({found})")
    condition = " and ".join(part for part in (condition, piece.condition) if part)
    return piece._replace(condition=condition)


# Times


def _moment(moment: Moment) -> Piece | None:
    if moment.timezone_from:
        return None
    if moment.join:
        given = f"concat_ws(' ', {', '.join(named(name) for name in moment.join)})"
    else:
        given = _first(moment.sources)
    if moment.unit:
        return _counted(moment, given)
    if not moment.formats:
        if moment.timezone == "UTC":
            return time_in_sql(given)
        local = f"try_cast({given} as timestamp)"
        return _in_zone(matches(given, ISO_8601), local, moment.timezone)
    patterns = [_pattern(form) for form in moment.formats]
    if None in patterns:
        return None
    read = [
        (matches(given, pattern or ""), f"try_strptime({given}, {quoted(form)})")
        for form, pattern in zip(moment.formats, patterns, strict=True)
    ]
    cases = " ".join(f"when {condition} then {value}" for condition, value in read)
    condition = " or ".join(condition for condition, _ in read)
    local = read[0][1] if len(read) == 1 else f"case {cases} end"
    return _in_zone(f"({condition})", local, moment.timezone)


def _in_zone(condition: str, local: str, zone: str) -> Piece:
    days = ", ".join(quoted(day.isoformat()) for day in changes_of(zone))
    if days:
        condition += f" and strftime({local}, '%Y-%m-%d') not in ({days})"
    inside = f"year({local}) between {_YEARS[0]} and {_YEARS[-1]}"
    return Piece(f"{condition} and {inside}", f"timezone({quoted(zone)}, {local})")


@lru_cache(maxsize=100)
def changes_of(zone: str) -> tuple[date, ...]:
    """The days on which the clocks of a zone change, and the day before: local times that may be
    there twice, or not at all, are of them."""
    there, found = ZoneInfo(zone), set()
    day = datetime(_YEARS[0] - 1, 12, 30)
    before = day.replace(tzinfo=there).utcoffset()
    while day.year <= _YEARS[-1] + 1 and day.year < 2101:
        following = day + timedelta(days=1)
        after = following.replace(tzinfo=there).utcoffset()
        if after != before:
            found |= {day.date(), following.date()}
        day, before = following, after
    return tuple(sorted(found))


def _pattern(form: str) -> str | None:
    """What a format reads beyond doubt; None where Python and DuckDB may differ."""
    pieces = re.findall(r"%.|[^%]+", form)
    pattern = ""
    for at, piece in enumerate(pieces):
        if not piece.startswith("%"):
            pattern += re.escape(piece)
            continue
        if piece not in _CODES:
            return None
        is_alone = not any(
            near.startswith("%") for near in pieces[max(at - 1, 0) : at + 2] if near is not piece
        )
        pattern += _SHORT.get(piece, _CODES[piece]) if is_alone else _CODES[piece]
    return pattern


def _counted(moment: Moment, given: str) -> Piece | None:
    factor = UNITS[moment.unit or "seconds"]
    if factor < 1:
        return None
    start = 0
    if moment.origin:
        origin = moment.origin.replace(tzinfo=ZoneInfo(moment.timezone))
        start = int(origin.timestamp()) * 1_000_000 + origin.microsecond
    digits = 17 - len(str(factor))
    return Piece(
        matches(given, f"[0-9]{{1,{min(digits, 16)}}}"),
        f"make_timestamptz({start} + try_cast({given} as bigint) * {factor})",
    )


# Amounts


def _amount(
    amount: Amount, decimals: Decimals, numbers: frozenset[str]
) -> tuple[Piece, str] | None:
    """The amount, and whether it is money that comes back."""
    are_numbers = all(name in numbers for name in amount.columns)
    if amount.debit:
        out, back = (
            _number(amount, each, decimals, are_numbers) for each in (amount.debit, amount.credit)
        )
        is_out = f"({out.condition} and {_first(amount.credit)} is null)"
        is_back = f"({back.condition} and {_first(amount.debit)} is null)"
        is_refund = f"(coalesce({_first(amount.credit)} is not null and {back.value} <> 0, false))"
        condition = f"({is_out} or {is_back})"
        number = f"abs(coalesce({out.value}, {back.value}))"
    else:
        given = _number(amount, amount.sources, decimals, are_numbers)
        condition, number = given.condition, f"abs({given.value})"
        wrong = ">" if amount.spending == "negative" else "<"
        is_refund = f"coalesce({given.value} {wrong} 0, false)"
        if amount.direction:
            says = f"lower(trim(coalesce({named(amount.direction)}, '')))"
            wanted = ", ".join(quoted(value.lower()) for value in amount.refund_values)
            is_refund = f"(({says} in ({wanted})) <> ({given.value} < 0))"
            condition += f" and {matches(says, _ASCII)}"
    if amount.divide_by > 1:
        part = f"{1 / amount.divide_by:.3f}".rstrip("0")
        number = f"cast(cast({number} as decimal(14, 0)) * {part} as decimal(18, 4))"
    if not amount.refund_status:
        number = f"case when {is_refund} then -({number}) else {number} end"
    return Piece(condition, number), is_refund


def _number(
    amount: Amount, sources: tuple[str, ...], decimals: Decimals, are_numbers: bool
) -> Piece:
    text = _first(sources)
    if amount.thousands and not are_numbers:
        text = f"replace({text}, {quoted(amount.thousands)}, '')"
    if amount.divide_by > 1:
        pattern = "-?(0|[1-9][0-9]{0,12})"
        return Piece(matches(text, pattern), f"try_cast({text} as decimal(18, 4))")
    return amount_in_sql(text, decimals, are_numbers=are_numbers)
