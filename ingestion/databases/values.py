"""Values of a column as Arrow has them, and which of them have no place there.

Whole columns are taken at once. Only where that fails is each value looked at by itself: it lands
exactly as it is, or its row is put aside.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timezone
from decimal import Decimal, InvalidOperation
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ingestion.databases.columns import Landing

FIRST, LAST = datetime(1, 1, 1), datetime(9999, 12, 31, 23, 59, 59, 999999)
_NUL = "\0"
_SHOWN = 200  # characters of a value
Bad = dict[int, str]  # number of a row to why it has no place


def column_of(values: Sequence[Any] | pa.Array, landing: Landing) -> tuple[pa.Array, Bad]:
    """The column in its type; null where a value has no place there.

    Args:
        values: Python's, as a driver gives them, or Arrow's.
        landing: how the column lands.
    """
    try:
        found = _at_once(values, landing)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return _one_by_one(values, landing)
    return _one_by_one(values, landing) if _has_bad(found, landing) else (found, {})


def shown(value: Any, most: int | None = _SHOWN) -> str:
    """A value for a message, or as a whole for the table of rejects."""
    text = value if isinstance(value, str) else _text(value)
    return text.replace(_NUL, "\\0")[:most]


def _at_once(values: Sequence[Any] | pa.Array, landing: Landing) -> pa.Array:
    kind = landing.arrow
    if not isinstance(values, pa.Array):
        in_doubt = {  # Arrow takes texts for bytes, and zones off times
            "binary": lambda: any(isinstance(v, str) for v in values),
            "time": lambda: any(getattr(v, "tzinfo", None) for v in values),
            "timestamp": lambda: any(getattr(v, "tzinfo", None) for v in values),
        }
        if landing.kind in ("bool", "json") or in_doubt.get(landing.kind, bool)():
            raise TypeError("look at each of them")
        is_text = isinstance(next((v for v in values if v is not None), None), str)
        values = pa.array(values, pa.string() if is_text else kind)
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if values.type == kind:
        return values
    if pa.types.is_string(values.type) and pa.types.is_timestamp(kind):
        # Arrow would take the zone off a text, and take a date for a time
        return values.cast(pa.timestamp("us")).cast(kind)
    if pa.types.is_string(values.type) and not (
        pa.types.is_decimal(kind) or pa.types.is_date(kind)
    ):
        raise TypeError("look at each of them")
    return values.cast(kind)


def _has_bad(column: pa.Array, landing: Landing) -> bool:
    if landing.kind in ("text", "json"):
        return bool(pc.any(pc.match_substring(column, _NUL)).as_py())
    if landing.kind not in ("date", "time", "timestamp"):
        return False
    number = column.cast(pa.int32() if landing.kind == "date" else pa.int64())
    bounds = pc.min_max(number).as_py()
    first, last = _limits(landing)
    return bounds["min"] is not None and (bounds["min"] < first or bounds["max"] > last)


def _limits(landing: Landing) -> tuple[int, int]:
    """The first and the last number that Arrow has for a date or a time."""
    if landing.kind == "date":
        return tuple((day.date() - date(1970, 1, 1)).days for day in (FIRST, LAST))  # type: ignore
    if landing.kind == "time":
        return 0, 86_399_999_999
    epoch = datetime(1970, 1, 1)
    return tuple((time - epoch) // (LAST.resolution) for time in (FIRST, LAST))  # type: ignore


def _one_by_one(values: Sequence[Any] | pa.Array, landing: Landing) -> tuple[pa.Array, Bad]:
    good: list[Any] = []
    bad: Bad = {}
    for number, value in enumerate(_python(values, landing)):
        try:
            fit = None if value is None else FITS[landing.kind](value)
            pa.scalar(fit, landing.arrow)
            good.append(fit)
        except (pa.ArrowException, TypeError, ValueError, OverflowError, InvalidOperation) as error:
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            bad[number] = f"{shown(value)}: {said}"
            good.append(None)
    return pa.array(good, landing.arrow), bad


def _python(values: Sequence[Any] | pa.Array, landing: Landing) -> Sequence[Any]:
    """Values of Python; dates and times that it does not know as texts that say so."""
    if not isinstance(values, pa.Array):
        return values
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if not pa.types.is_temporal(values.type):
        return values.to_pylist()
    first, last = _limits(landing)
    bits = pa.int32() if landing.kind == "date" else pa.int64()
    numbers = values.cast(bits).to_pylist()
    fine = pa.array([n if n is None or first <= n <= last else None for n in numbers], bits)
    known = fine.cast(landing.arrow).to_pylist()
    return [
        "beyond the years 1 to 9999, or infinity" if n is not None and v is None else v
        for n, v in zip(numbers, known, strict=True)
    ]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return f"0x{bytes(value).hex()}"
    return str(value)


def _fit_text(value: Any) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        raise TypeError("bytes that are no text")
    text = _text(value)
    if _NUL in text:
        raise ValueError("text with a NUL, which PostgreSQL cannot store")
    text.encode()
    return text


def _fit_json(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False, default=_text)
    json.loads(value)
    return _fit_text(value)


def _fit_int(value: Any) -> int:
    if isinstance(value, float | Decimal) and value != int(value):
        raise ValueError("no whole number")
    if isinstance(value, str) and not re.fullmatch(r"[+-]?\d+", value):
        raise ValueError("no whole number")
    return int(value)


def _fit_bool(value: Any) -> bool:
    if value not in (0, 1, True, False):
        raise ValueError("neither true nor false")
    return bool(value)


def _fit_decimal(value: Any) -> Decimal:
    found = Decimal(repr(value) if isinstance(value, float) else str(value))
    if not found.is_finite():
        raise ValueError("no number that a decimal can be")
    return found


def _fit_double(value: Any) -> float:
    if isinstance(value, str | bytes):
        raise TypeError("no number")
    return float(value)


def _fit_bytes(value: Any) -> bytes:
    if isinstance(value, str):
        raise TypeError("text where bytes belong")
    return bytes(value)


def _fit_date(value: Any) -> date:
    if isinstance(value, str):
        return date.fromisoformat(value)
    if isinstance(value, datetime):
        return value.date()
    return value


def _fit_time(value: Any) -> time:
    return time.fromisoformat(value) if isinstance(value, str) else value


def _fit_timestamp(value: Any) -> datetime:
    if isinstance(value, str):
        value = datetime.fromisoformat(value.replace("Z", "+00:00"))
    if value.tzinfo:  # Arrow would drop a zone
        return value.astimezone(timezone.utc)
    return value


FITS: dict[str, Callable[[Any], Any]] = {
    "bigint": _fit_int,
    "binary": _fit_bytes,
    "bool": _fit_bool,
    "date": _fit_date,
    "decimal": _fit_decimal,
    "double": _fit_double,
    "json": _fit_json,
    "text": _fit_text,
    "time": _fit_time,
    "timestamp": _fit_timestamp,
}
