"""The transactions contract: what makes a line a typed row, and the reason where it does not.

The rules stand here twice. In Python they are complete, one line at a time. In SQL, for DuckDB,
they take the lines whose values are beyond doubt, which are nearly all, many times faster;
whatever is left over, Python decides. So SQL may leave a good line over, and must never take a
line that Python would refuse or read otherwise: a test compares the two.

Landing refuses only what cannot be typed or identified, and changes nothing silently. Three
readings are fixed: a time without an offset is UTC; digits finer than a microsecond are cut off, as
timestamptz has no room for them; a transaction_id that is a UUID is written as PostgreSQL writes
one, in lower case and with dashes. All other ids stay as they are.
"""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from ingestion.sources.transactions.amounts import NO_FILE, Decimals, in_sql, plain, readings
from ingestion.sources.transactions.envelopes import Deleted, unwrapped
from ingestion.sources.transactions.mapping.names import NamedTwice, Names
from ingestion.sources.transactions.settings import (
    FIELDS,
    IDS,
    MANDATORY,
    MAX_ID_LENGTH,
    NULL_WORDS,
    REASONS,
    TEXT_FIELDS,
)
from ingestion.texts import trim

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

UUID = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
UUID_WITHOUT_DASHES = "[0-9a-fA-F]{32}"
WHOLE = "-?[0-9]{1,40}"  # a number that can be an id
_UUID = re.compile(f"{UUID}|{UUID_WITHOUT_DASHES}")
_WHOLE = re.compile(WHOLE)
_TIME = re.compile(
    r"(\d{4})(-?)(\d\d)\2(\d\d)[Tt ](\d\d)(:?)(\d\d)(?:\6(\d\d)(?:[.,](\d+))?)?"
    r"(?:([Zz])|([+-])(\d\d)(?::?(\d\d))?)?",
    re.ASCII,
)
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
    """The typed row of a line of JSON with the contract's fields, as ``tables.row_schema`` has it.

    Times are microseconds since 1970.

    Args:
        line: JSON in UTF-8.
        decimals: how its file writes amounts that are texts.

    Raises:
        Refused: the line cannot land.
    """
    return row_of_fields(*fields_of_json(line, NAMES), decimals)


def fields_of_json(line: bytes, names: Names) -> tuple[dict[str, Any], Object]:
    """The wanted fields and the other ones of a line of JSON, as they are written.

    Raises:
        Refused: it is no JSON object, or has a wanted field twice.
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
    try:
        return fields_of_pairs(unwrapped(found, partial(_mandatory_in, names)), names)
    except Deleted:
        raise Refused("deleted") from None


def _mandatory_in(names: Names, found: list[str]) -> int:
    """How many of the names are of mandatory fields; of a mapping, of its columns."""
    try:
        wanted = [name for name in names.layout(found) if name]
    except NamedTwice:
        return len(found)
    return sum(name in MANDATORY for name in wanted) if names is NAMES else len(wanted)


def fields_of_pairs(
    pairs: Sequence[tuple[str, Any]], names: Names
) -> tuple[dict[str, Any], Object]:
    """The wanted fields of a record, and what the extra fields have of it.

    Raises:
        Refused: it has a wanted field twice.
    """
    try:
        layout = names.layout([name for name, _ in pairs])
    except NamedTwice as twice:
        raise Refused("duplicate_field", twice.name) from None
    fields: dict[str, Any] = {}
    extra = Object()
    for wanted, (name, value) in zip(layout, pairs, strict=True):
        if wanted is not None:
            fields[wanted] = value
        if wanted is None or wanted in names.kept:
            extra.append((name, value))
    for wanted, (first, *path) in names.paths:
        if wanted not in fields:
            value = _below(dict(extra).get(first), path)
            if value is not None:
                fields[wanted] = value
    return fields, extra


def _below(value: Any, path: list[str]) -> Any:
    for name in path:
        value = dict(value).get(name) if isinstance(value, Object) else None
    return value


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
        given = trim(value) if type(value) is str else value
        if given is None or (type(given) is str and given in NULL_WORDS):
            raise Refused("missing_field", name)
        values[name] = typed(given, decimals) if name == "amount" else typed(given)
    for name in TEXT_FIELDS:
        value = fields.get(name)
        if value is not None and type(value) is not str:
            raise Refused("wrong_type", f"{name} is {brief(to_json(value))}")
        values[name] = None if value is None or value in NULL_WORDS else _storable(value)
    try:
        return (*values.values(), to_json(Object(extra)) if extra else None)
    except RecursionError:
        raise Refused("not_json", "nested too deep") from None


def _transaction_id(value: Any) -> str:
    text = _id("transaction_id", value)
    if not _UUID.fullmatch(text):
        return text
    digits = text.replace("-", "").lower()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _event_ts(value: Any) -> int:
    return _microseconds(value, None)


def _microseconds(value: Any, zone: tzinfo | None) -> int:
    match = _TIME.fullmatch(value) if type(value) is str else None
    if not match:
        raise Refused("bad_timestamp", brief(to_json(value)))
    year, _, month, day, hour, _, minute, second, fraction, z, sign, hours, minutes = match.groups()
    try:
        microsecond = int((fraction or "0")[:6].ljust(6, "0"))
        day_of_event = datetime(int(year), int(month), int(day))
        at = day_of_event.replace(
            hour=int(hour), minute=int(minute), second=int(second or 0), microsecond=microsecond
        )
        offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
        if zone and not (z or sign):
            at = localised(at, zone, value).astimezone(timezone.utc).replace(tzinfo=None)
        else:
            at = at + offset if sign == "-" else at - offset
    except (ValueError, OverflowError) as error:
        raise Refused("bad_timestamp", f"{brief(to_json(value))} ({error})") from None
    if offset >= timedelta(hours=16) or int(minutes or 0) > 59:
        raise Refused("bad_timestamp", f"{brief(to_json(value))} (no such offset)")
    return (at - _EPOCH) // timedelta(microseconds=1)


def in_utc(value: str, zone: tzinfo) -> str:
    """An ISO 8601 time in UTC; without an offset it is one of a time zone.

    Raises:
        Refused: it is no such time, or the zone does not have it.
    """
    return (_EPOCH + timedelta(microseconds=_microseconds(value, zone))).isoformat()


def localised(at: datetime, zone: tzinfo, text: str) -> datetime:
    """A time as one of a zone; of the hour that a clock shows twice in autumn, the first.

    Raises:
        Refused: the zone does not have it, as clocks were put forward.
    """
    there = at.replace(tzinfo=zone)
    if there.astimezone(timezone.utc).astimezone(zone).replace(tzinfo=None) != at:
        raise Refused("bad_timestamp", f"{brief(to_json(text))} is no time in {zone}")
    return there


def _user_id(value: Any) -> str:
    return _id("user_id", value)


def _id(field: str, value: Any) -> str:
    is_id = isinstance(value, str) and 0 < len(value) <= MAX_ID_LENGTH
    if not is_id or (isinstance(value, Number) and not _WHOLE.fullmatch(value)):
        raise Refused(f"bad_{field}", brief(to_json(value)))
    return str(_storable(value))


def _amount(value: Any, decimals: Decimals) -> Decimal:
    if isinstance(value, str):
        amount = plain(value) if isinstance(value, Number) else written(value, decimals)
        if amount is not None and abs(amount) < _BEYOND and amount % _SMALLEST == 0:
            return amount.quantize(_SMALLEST)
    raise Refused("bad_amount", brief(to_json(value)))


def written(text: str, decimals: Decimals) -> Decimal | None:
    """The number that a text shows; None where it shows none.

    Raises:
        Refused: it could be two, and its file does not say which.
    """
    found = readings(text)
    if len(set(found.values())) > 1:
        if decimals.mark is None:
            raise Refused("ambiguous_amount", brief(to_json(text)))
        return found[decimals.mark]
    return next(iter(found.values()), None)


def _storable(text: str) -> str:
    if _UNSTORABLE.search(text):
        raise Refused("bad_text", brief(json.dumps(text)))
    return text


READERS: dict[str, Callable[..., Any]] = {
    "transaction_id": _transaction_id,
    "event_ts": _event_ts,
    "user_id": _user_id,
    "amount": _amount,
}
NAMES = Names(FIELDS)


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


def brief(text: str) -> str:
    """The beginning of a text, for a reason."""
    return text if len(text) <= 60 else f"{text[:60]}..."


# In SQL: only what is beyond doubt

_ID = f"[!#-~]([ !#-~]{{0,{MAX_ID_LENGTH - 2}}}[!#-~])?"  # a quote in CSV is one of Python's
_TIME_OF_DAY = r"[T ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?"
ISO_8601 = rf"[12][0-9]{{3}}-[0-9]{{2}}-[0-9]{{2}}{_TIME_OF_DAY}"
_OFFSET = "(Z|[+-](0[0-9]|1[0-4]):[0-5][0-9])?"


class Piece(NamedTuple):
    """A field in SQL.

    Attributes:
        condition: when its value is beyond doubt.
        value: the typed value then.
        checks: what both of them need, by name, so that it is worked out once.
    """

    condition: str
    value: str
    checks: dict[str, str] = {}  # noqa: RUF012 - never changed


def id_in_sql(field: str, text: str) -> Piece:
    """An id, from an expression that is text."""
    if field != "transaction_id":
        return Piece(matches(text, _ID), text)
    # without dashes it is one of Python's
    other = f"{matches(text, _ID)} and not {matches(text, UUID_WITHOUT_DASHES)}"
    return Piece(
        f"(is_uuid or ({other}))",
        f"case when is_uuid then lower({text}) else {text} end",
        {"is_uuid": matches(text, UUID)},
    )


def time_in_sql(text: str) -> Piece:
    """A time, from an expression that is text. The session's time zone must be UTC."""
    return Piece(matches(text, ISO_8601 + _OFFSET), f"try_cast({text} as timestamptz)")


def amount_in_sql(text: str, decimals: Decimals, *, are_numbers: bool) -> Piece:
    """An amount, from an expression that is text: a number by itself, or as its file writes it."""
    pattern, value = in_sql(text, decimals, are_numbers=are_numbers)
    return Piece(matches(text, pattern), f"try_cast({value} as decimal(18, 4))")


def pieces(decimals: Decimals, *, are_numbers: bool) -> dict[str, Piece]:
    """The fields of a table whose columns are called as they are."""
    return {
        **{field: id_in_sql(field, field) for field in IDS},
        "event_ts": time_in_sql("event_ts"),
        "amount": amount_in_sql("amount", decimals, are_numbers=are_numbers),
        **{field: Piece("", field) for field in TEXT_FIELDS},
    }


def typed_by(fields: dict[str, Piece]) -> str:
    """The query that types a table ``texts`` of ``n`` (which line) and texts, null for none.

    Words for no value are null in it already. The query gives ``n`` and the typed row of the lines
    whose values are beyond doubt. Where event_ts comes out null (30 February), there is doubt after
    all.
    """
    values = ", ".join(f"{fields[name].value} as {name}" for name in FIELDS)
    conditions = " and ".join(piece.condition for piece in fields.values() if piece.condition)
    checks = "".join(
        f", {check} as {name}" for piece in fields.values() for name, check in piece.checks.items()
    )
    return (
        f"select n, {values}, extra_fields from (select *{checks} from texts)"  # noqa: S608
        f" where {conditions}"
    )


def matches(text: str, pattern: str) -> str:
    """Whether a text is all of a pattern; not where it is null."""
    return f"coalesce(regexp_full_match({text}, {quoted(pattern)}), false)"


def quoted(text: str) -> str:
    """A text of SQL."""
    return "'" + text.replace("'", "''") + "'"
