"""The transactions contract: what makes a line a typed row, and the reason where it does not.

The rules stand here twice. In Python they are complete, one line at a time. In SQL, for DuckDB,
they take the lines whose values are beyond doubt, which are nearly all, many times faster;
whatever is left over, Python decides. So SQL may leave a good line over, and must never take a
line that Python would refuse or read otherwise: a test compares the two.

Landing refuses only what cannot be typed or identified, and changes nothing silently. Two readings
are fixed: a time without an offset is UTC, and digits finer than a microsecond are cut off, as
timestamptz has no room for them.
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ingestion.sources.transactions.amounts import NO_FILE, Decimals, in_sql, plain, readings
from ingestion.sources.transactions.settings import FIELDS, REASONS, TEXT_FIELDS
from ingestion.texts import trim

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

UUID = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
_UUID = re.compile(rf"{UUID}|[0-9a-fA-F]{{32}}")
_TIME = re.compile(
    r"(\d{4})(-?)(\d\d)\2(\d\d)[Tt ](\d\d)(:?)(\d\d)(?:\6(\d\d)(?:[.,](\d+))?)?"
    r"(?:([Zz])|([+-])(\d\d)(?::?(\d\d))?)?",
    re.ASCII,
)
_WHOLE = re.compile(r"[+-]?\d{1,40}", re.ASCII)
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_EPOCH = datetime(1970, 1, 1)  # UTC, as all arithmetic here
_SMALLEST = Decimal("0.0001")
_BEYOND = Decimal(10) ** 14


class Refused(Exception):
    """A line that cannot land: ``code`` is a key of ``settings.REASONS``, ``reason`` a sentence."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.reason = f"{REASONS[code]}: {detail}" if detail else REASONS[code]


# In Python: complete


def row_of_json(line: bytes, decimals: Decimals = NO_FILE) -> tuple:
    """The typed row of a line of JSON, as ``tables.row_schema`` has it.

    Times are microseconds since 1970.

    Args:
        line: JSON in UTF-8.
        decimals: how its file writes amounts that are texts.

    Raises:
        Refused: the line cannot land.
    """
    fields, extra = fields_of_json(line)
    try:
        return row_of_fields(fields, extra, decimals)
    except RecursionError:
        raise Refused("not_json", "nested too deep") from None


def fields_of_json(line: bytes) -> tuple[dict[str, Any], Object]:
    """The contract's fields and the other ones of a line of JSON, as they are written.

    Raises:
        Refused: it is no JSON object, or has a field of the contract twice.
    """
    try:
        found = DECODER.decode(line.decode())
    except UnicodeDecodeError as error:
        raise Refused("not_utf8", f"byte {error.start + 1}") from None
    except RecursionError:
        raise Refused("not_json", "nested too deep") from None
    except json.JSONDecodeError as error:
        raise Refused("not_json", f"{error.msg} at character {error.pos + 1}") from None
    if not isinstance(found, Object):
        raise Refused("not_object")
    fields: dict[str, Any] = {}
    extra = Object()
    for name, value in found:
        if name not in _KNOWN:
            extra.append((name, value))
        elif name in fields:
            raise Refused("duplicate_field", name)
        else:
            fields[name] = value
    return fields, extra


def row_of_fields(
    fields: dict[str, Any],
    extra: Sequence[tuple[str, Any]] = (),
    decimals: Decimals = NO_FILE,
) -> tuple:
    """The same from a line's values, texts or what JSON holds; ``extra`` are the unknown fields.

    Raises:
        Refused: the line cannot land.
    """
    values = {}
    for name, typed in READERS.items():
        value = fields.get(name)
        if value is None:
            raise Refused("missing_field", name)
        given = trim(value) if type(value) is str else value
        values[name] = typed(given, decimals) if name == "amount" else typed(given)
    for name in TEXT_FIELDS:
        value = fields.get(name)
        if value is not None and type(value) is not str:
            raise Refused("wrong_type", f"{name} is {_brief(to_json(value))}")
        values[name] = value if value is None else _storable(value)
    return (*values.values(), to_json(Object(extra)) if extra else None)


def _transaction_id(value: Any) -> str:
    if type(value) is not str or not _UUID.fullmatch(value):
        raise Refused("bad_uuid", _brief(to_json(value)))
    digits = value.replace("-", "").lower()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _event_ts(value: Any) -> int:
    match = _TIME.fullmatch(value) if type(value) is str else None
    if not match:
        raise Refused("bad_timestamp", _brief(to_json(value)))
    year, _, month, day, hour, _, minute, second, fraction, _, sign, hours, minutes = match.groups()
    try:
        microsecond = int((fraction or "0")[:6].ljust(6, "0"))
        day_of_event = datetime(int(year), int(month), int(day))
        at = day_of_event.replace(
            hour=int(hour), minute=int(minute), second=int(second or 0), microsecond=microsecond
        )
        offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
        at = at + offset if sign == "-" else at - offset
    except (ValueError, OverflowError) as error:
        raise Refused("bad_timestamp", f"{_brief(to_json(value))} ({error})") from None
    if offset >= timedelta(hours=16) or int(minutes or 0) > 59:
        raise Refused("bad_timestamp", f"{_brief(to_json(value))} (no such offset)")
    return (at - _EPOCH) // timedelta(microseconds=1)


def _user_id(value: Any) -> int:
    if isinstance(value, str) and _WHOLE.fullmatch(value) and -(2**63) <= int(value) < 2**63:
        return int(value)
    raise Refused("bad_user_id", _brief(to_json(value)))


def _amount(value: Any, decimals: Decimals) -> Decimal:
    if isinstance(value, str):
        amount = plain(value) if isinstance(value, Number) else _written(value, decimals)
        if amount is not None and abs(amount) < _BEYOND and amount % _SMALLEST == 0:
            return amount.quantize(_SMALLEST)
    raise Refused("bad_amount", _brief(to_json(value)))


def _written(text: str, decimals: Decimals) -> Decimal | None:
    found = readings(text)
    if len(set(found.values())) > 1:
        if decimals.mark is None:
            raise Refused("ambiguous_amount", _brief(to_json(text)))
        return found[decimals.mark]
    return next(iter(found.values()), None)


def _storable(text: str) -> str:
    if _UNSTORABLE.search(text):
        raise Refused("bad_text", _brief(json.dumps(text)))
    return text


READERS: dict[str, Callable[..., Any]] = {
    "transaction_id": _transaction_id,
    "event_ts": _event_ts,
    "user_id": _user_id,
    "amount": _amount,
}
_KNOWN = frozenset(FIELDS)


class Number(str):
    """A JSON number as it is written, so that no digit is lost."""

    __slots__ = ()


class Object(list):
    """A JSON object as its (name, value) pairs, so that a name that is there twice is seen."""


def _constant(name: str) -> None:
    raise json.JSONDecodeError(f"{name} is not JSON", name, 0)


DECODER = json.JSONDecoder(
    object_pairs_hook=Object, parse_float=Number, parse_int=Number, parse_constant=_constant
)


def to_json(value: Any) -> str:
    """JSON text of what ``DECODER`` or a table gave; numbers as they were written."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, str):
        return json.dumps(_storable(value), ensure_ascii=False)
    if isinstance(value, Object):
        pairs = (f"{json.dumps(_storable(k), ensure_ascii=False)}: {to_json(v)}" for k, v in value)
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(to_json, value)) + "]"
    return json.dumps(value)  # true, false, null; from tables numbers too


def _brief(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:60]}..."


# In SQL: only what is beyond doubt

_WHOLE_NUMBER = "-?(0|[1-9][0-9]{0,17})"
_ISO_8601 = (
    r"[12][0-9]{3}-[0-9]{2}-[0-9]{2}[T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?"
    r"(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])?"
)


def _braced(pattern: str) -> str:
    return pattern.replace("{", "{{").replace("}", "}}")


# From a table `texts` of n (which line) and all values as text, null where there is none: n and the
# typed row of the lines whose values are beyond doubt. Where event_ts comes out null (30 February),
# there is doubt after all. The session's time zone must be UTC.
_TYPED = f"""
    select
        n,
        lower(transaction_id) as transaction_id,
        try_cast(event_ts as timestamptz) as event_ts,
        try_cast(user_id as bigint) as user_id,
        try_cast({{amount}} as decimal(18, 4)) as amount,
        {", ".join(TEXT_FIELDS)},
        extra_fields
    from texts
    where
        regexp_full_match(transaction_id, '{_braced(UUID)}')
        and regexp_full_match(event_ts, '{_braced(_ISO_8601)}')
        and regexp_full_match(user_id, '{_braced(_WHOLE_NUMBER)}')
        and regexp_full_match(amount, '{{pattern}}')
"""  # noqa: S608 - names of ours


def typed_by(decimals: Decimals, *, are_numbers: bool) -> str:
    """That query, for amounts that are numbers by themselves, or texts of a file."""
    pattern, amount = in_sql(decimals, are_numbers=are_numbers)
    return _TYPED.format(pattern=pattern, amount=amount)
