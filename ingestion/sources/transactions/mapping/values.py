"""A mapping in Python: complete, one record at a time (in SQL, see ``in_sql``, it is quick)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from ingestion.sources.transactions import contract
from ingestion.sources.transactions.amounts import NO_FILE, Decimals, plain
from ingestion.sources.transactions.contract import Number, Refused
from ingestion.sources.transactions.mapping.spec import UNITS, Amount, Mapping, Moment, Text
from ingestion.sources.transactions.settings import NULL_WORDS, TEXT_FIELDS
from ingestion.texts import trim

MADE = "#"  # before an id that is made of columns
SEPARATOR = "\x1f"  # between the columns of it
# Zones by their American and European abbreviations; all others are ambiguous.
_ABBREVIATED = {
    **dict.fromkeys(("UTC", "GMT", "Z", "WET"), 0),
    **{"CET": 1, "CEST": 2, "MEZ": 1, "MESZ": 2, "BST": 1, "WEST": 1, "EET": 2, "EEST": 3},
    **{"EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7},
}
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

Fields = dict[str, Any]


def row_of(
    mapping: Mapping,
    found: Fields,
    extra: Sequence[tuple[str, Any]] = (),
    decimals: Decimals = NO_FILE,
) -> tuple | None:
    """The typed row of a record; None for one that the mapping leaves out.

    Args:
        mapping: what becomes what.
        found: values by the mapping's columns.
        extra: names and values of what no field has as its value.
        decimals: how the file writes amounts.

    Raises:
        Refused: the record cannot land.
    """
    texts = {name: _text(value) for name, value in found.items()}
    if is_skipped(mapping, texts):
        return None
    row: Fields = {name: _value(text, texts) for name, text in mapping.fields.items()}
    row |= {name: str(row[name]) for name in TEXT_FIELDS if row.get(name) is not None}
    row["event_ts"] = _moment(mapping.moment, texts)
    amount, is_refund = _amount(mapping.amount, texts, decimals)
    row["amount"] = amount
    if is_refund and mapping.amount.refund_status:
        row["status"] = mapping.amount.refund_status
    return contract.row_of_fields(row, extra)


def is_skipped(mapping: Mapping, texts: dict[str, str | None]) -> bool:
    return any(
        trim(texts.get(name) or "").casefold() in (value.casefold() for value in values)
        for name, values in mapping.skip_rows.items()
    )


def _text(value: Any) -> str | None:
    """A value as text; None for nothing. Numbers stay ``Number``."""
    if isinstance(value, str):
        return None if not value or value in NULL_WORDS else value
    return None if value is None else contract.to_json(value)


def _first(sources: Sequence[str], texts: dict[str, str | None]) -> str | None:
    return next((texts[name] for name in sources if texts.get(name) is not None), None)


def _value(text: Text, texts: dict[str, str | None]) -> str | None:
    if text.key:
        parts = [texts.get(name) or "" for name in text.key]
        return _made_of(parts) if any(parts) else None
    found = _first(text.sources, texts)
    if found is not None and text.values:
        by_value = _folded(tuple(text.values.items()))
        found = by_value.get(trim(found).casefold(), found)
    if found is None:
        return text.default
    return found


def _made_of(parts: list[str]) -> str:
    joined = SEPARATOR.join(parts).encode(errors="surrogatepass")
    return MADE + hashlib.md5(joined, usedforsecurity=False).hexdigest()


@lru_cache(maxsize=100)
def _folded(values: tuple[tuple[str, str], ...]) -> dict[str, str]:
    return {value.casefold(): meaning for value, meaning in values}


# Times


def _moment(moment: Moment, texts: dict[str, str | None]) -> str | None:
    if moment.join:
        parts = [trim(texts.get(name) or "") for name in moment.join]
        given: str | None = " ".join(part for part in parts if part) or None
    else:
        given = _first(moment.sources, texts)
    if given is None:
        return None
    text = trim(given)
    zone = _zone_of(moment, texts)
    if moment.unit:
        return _counted(moment, text, zone)
    if not moment.formats:
        return contract.in_utc(text, zone)
    for form in moment.formats:
        try:
            at = datetime.strptime(text, form)
        except ValueError:
            continue
        return _local(at, zone, text)
    forms = " or ".join(moment.formats)
    raise Refused("bad_timestamp", f"{contract.brief(contract.to_json(text))} is not {forms}")


def _local(at: datetime, zone: tzinfo, text: str) -> str:
    if at.tzinfo is None:
        at = contract.localised(at, zone, text)
    try:
        return at.astimezone(timezone.utc).replace(tzinfo=None).isoformat()
    except OverflowError as error:
        raise Refused("bad_timestamp", f"{contract.brief(text)} ({error})") from None


def _counted(moment: Moment, text: str, zone: tzinfo) -> str:
    number = plain(text)
    origin = (
        moment.origin.replace(tzinfo=zone).astimezone(timezone.utc) if moment.origin else _EPOCH
    )
    try:
        if number is None:
            raise Refused("bad_timestamp", f"{contract.brief(contract.to_json(text))} is no number")
        since = int(number * Decimal(str(UNITS[moment.unit or "seconds"])))
        at = origin + timedelta(microseconds=since)
    except OverflowError:
        raise Refused(
            "bad_timestamp", f"{contract.brief(text)} {moment.unit} are too many"
        ) from None
    return at.replace(tzinfo=None).isoformat()


def _zone_of(moment: Moment, texts: dict[str, str | None]) -> tzinfo:
    given = texts.get(moment.timezone_from) if moment.timezone_from else None
    return zone_named(trim(given) if given else moment.timezone)


@lru_cache(maxsize=1000)
def zone_named(name: str) -> tzinfo:
    """A time zone by its name, common abbreviation, or offset as ``+01:00`` or ``GMT+1``.

    Raises:
        Refused: there is none.
    """
    if name.upper() in _ABBREVIATED:
        return timezone(timedelta(hours=_ABBREVIATED[name.upper()]))
    offset = name.upper().removeprefix("GMT").removeprefix("UTC")
    if offset[:1] in ("+", "-"):
        hours, _, minutes = offset[1:].partition(":")
        if len(hours) == 4 and not minutes:
            hours, minutes = hours[:2], hours[2:]
        if hours.isdecimal() and int(hours) < 16 and (minutes or "0").isdecimal():
            span = timedelta(hours=int(hours), minutes=int(minutes or 0))
            return timezone(-span if offset[0] == "-" else span)
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        raise Refused("bad_timestamp", f"there is no time zone {contract.brief(name)}") from None


# Amounts


def _amount(
    amount: Amount, texts: dict[str, str | None], decimals: Decimals
) -> tuple[Number | None, bool]:
    """The amount as the warehouse has it, and whether it is money that comes back."""
    if amount.debit:
        out = number_of(amount, _first(amount.debit, texts), decimals)
        back = number_of(amount, _first(amount.credit, texts), decimals)
        if out and back:
            raise Refused("bad_amount", f"both debit ({out}) and credit ({back})")
        if out is None and back is None:
            return None, False
        number, is_refund = (abs(back), True) if back else (abs(out or Decimal(0)), False)
    else:
        given = number_of(amount, _first(amount.sources, texts), decimals)
        if given is None:
            return None, False
        number = abs(given)
        if amount.direction:
            says = trim(texts.get(amount.direction) or "").casefold()
            is_refund = says in (value.casefold() for value in amount.refund_values)
            is_refund ^= given < 0
        else:
            is_refund = given != 0 and (given < 0) == (amount.spending == "positive")
    if amount.divide_by > 1:
        number /= amount.divide_by
    if is_refund and not amount.refund_status:
        number = -number
    return Number(f"{number:f}"), is_refund


def number_of(amount: Amount, text: str | None, decimals: Decimals) -> Decimal | None:
    """The number that a text shows, with its sign; None for no text.

    Raises:
        Refused: it is no number, or could be two.
    """
    if text is None:
        return None
    bare, is_negative = bare_number(amount, text)
    number = plain(text) if isinstance(text, Number) else contract.written(bare, decimals)
    if number is None:
        raise Refused("bad_amount", contract.brief(contract.to_json(text)))
    return -number if is_negative and not isinstance(text, Number) else number


def bare_number(amount: Amount, text: str) -> tuple[str, bool]:
    """Digits and marks of a number alone, and whether it is negative."""
    bare, sign = trim(text).replace("\u2212", "-"), ""
    before = None
    while bare != before:
        before = bare
        for symbol in amount.symbols:
            if bare.casefold().startswith(symbol.casefold()):
                bare = trim(bare[len(symbol) :])
            if bare.casefold().endswith(symbol.casefold()):
                bare = trim(bare[: len(bare) - len(symbol)])
        if sign:
            continue
        if bare.startswith("(") and bare.endswith(")"):
            bare, sign = trim(bare[1:-1]), "-"
        elif bare[:1] in ("+", "-"):
            bare, sign = trim(bare[1:]), bare[:1]
        elif bare[-1:] == "-":
            bare, sign = trim(bare[:-1]), "-"
    if sign and bare[:1] in ("+", "-"):
        return text, False  # two signs are none
    if amount.thousands:
        bare = bare.replace(amount.thousands, "")
    return bare, sign == "-"
