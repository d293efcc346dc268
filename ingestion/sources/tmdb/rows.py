"""What of TMDB's answers becomes rows, and what is put aside because it cannot be right.

A bad value costs itself: its column is null, or holds what cannot be right, and the models pass
over that (``int_movies__checked``). Each one is a row of ``raw_tmdb.rejects``, with its text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

from ingestion.sources.tmdb.settings import (
    APPENDED,
    AT_LEAST,
    AT_MOST,
    AUTHORS,
    COLLECTION_FIELDS,
    FILM_FIELDS,
    GENRES_COLUMNS,
    LIST_FIELDS,
    LONGEST_REJECT,
    LONGEST_TEXT,
    NEEDED,
)

NUMBER = re.compile(r"[+-]?\d{1,40}(\.\d{1,40})?", re.ASCII)  # a clean number in a text
DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
TRUTHS = {"true": True, "false": False, "1": True, "0": False}
# dlt marks types of its own by these at the beginning of a text, and would read such a text as one
MARKS_OF_DLT = tuple(map(chr, range(0xF026, 0xF02F)))
EXACT = Context(prec=60)
REASONS = {
    "missing": "There is none, and one is needed.",
    "not_text": "It is no text.",
    "not_a_number": "It is no number.",
    "not_whole": "It is no whole number.",
    "too_large": "It is larger than can be right.",
    "negative": "It is negative.",
    "not_a_date": "It is no day, written YYYY-MM-DD.",
    "not_a_boolean": "It is neither true nor false.",
    "not_a_list": "It is no list.",
    "not_an_object": "It is no object.",
    "not_an_id": "It is no number that TMDB could have given.",
    "too_long": f"It is longer than {LONGEST_TEXT:,} characters.",
    "unstorable_text": "It has characters that no database keeps; they are left out.",
}


@dataclass(frozen=True)
class Reject:
    """One value that cannot be right.

    Attributes:
        path: where it was asked for, such as ``/movie/603``.
        field: its place in the answer, such as ``genres[1].id``.
        reason_code: one of ``REASONS``.
        value: as it came.
        movie_id: the film it is of; None for lists.
    """

    path: str
    field: str
    reason_code: str
    value: Any
    movie_id: int | None = None

    def row(self, pulled_at: datetime) -> dict[str, Any]:
        """The row of ``raw_tmdb.rejects``."""
        text = json.dumps(plain(self.value), ensure_ascii=False)
        return {
            "path": self.path,
            "field": self.field,
            "movie_id": self.movie_id,
            "reason_code": self.reason_code,
            "reason": REASONS[self.reason_code],
            "raw_text": text[:LONGEST_REJECT],
            "pulled_at": pulled_at,
        }


class _Fitting:
    """Values of one answer, sorted: those that fit their columns, and those put aside."""

    def __init__(self, path: str, movie_id: int | None = None) -> None:
        self.path, self.movie_id = path, movie_id
        self.rejects: list[Reject] = []

    def put_aside(self, place: str, reason: str, value: Any) -> None:
        self.rejects.append(Reject(self.path, place, reason, value, self.movie_id))

    def fitted(
        self, values: dict[str, Any], columns: dict[str, Any], place: str = ""
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Values of the columns, and all that is left over and not null."""
        row, left = {}, {name: value for name, value in values.items() if name not in columns}
        for name, column in columns.items():
            value = values.get(name)
            row[name], reason = fit(value, column)
            if reason and row[name] is None:
                left[name] = value
            reason = reason or _broken_rule(f"{place}{name}", row[name])
            if reason:
                self.put_aside(f"{place}{name}", reason, value)
        return row, {name: value for name, value in left.items() if value is not None}

    def entries(
        self, items: list[Any], columns: dict[str, Any], name: str
    ) -> tuple[list[dict[str, Any]], list[Any]]:
        """The entries of a list, and what is left over of each.

        One that says nothing of what is needed is put aside as a whole; its place stays, empty.
        """
        rows, rest = [], []
        needed = [column for column in columns if f"{name}.{column}" in NEEDED]
        for at, item in enumerate(items):
            before, place = len(self.rejects), f"{name}[{at}]"
            row, left = dict.fromkeys(columns), item
            if isinstance(item, dict):
                row, left = self.fitted(item, columns, f"{place}.")
            if not any(row[column] not in (None, "") for column in needed):
                del self.rejects[before:]
                reason = "missing" if isinstance(item, dict) else "not_an_object"
                self.put_aside(place, reason, item)
            rows.append(row)
            rest.append(left)
        return rows, rest


def film_row(film: dict[str, Any], pulled_at: datetime) -> tuple[dict[str, Any], list[Reject]]:
    """The row of a film, from what /movie/{id} gives, and what was put aside of it.

    "" as a release date becomes null; other empty texts and zeros stay as TMDB has them. A field
    with no column, and a value that does not fit its column, go to ``extra_fields`` unless null.
    """
    film_id, _ = fit(film["id"], FILM_FIELDS["id"])
    fitting = _Fitting(f"/movie/{film_id}", film_id)
    row, extra = fitting.fitted(_flattened(film, fitting), FILM_FIELDS)
    collection = extra.pop("belongs_to_collection", None)
    if isinstance(collection, dict):
        row["belongs_to_collection"], collection = fitting.fitted(
            collection, COLLECTION_FIELDS, "belongs_to_collection."
        )
    elif collection is not None:
        fitting.put_aside("belongs_to_collection", "not_an_object", collection)
    if collection:
        extra["belongs_to_collection"] = collection
    for name, columns in LIST_FIELDS.items():
        items = extra.get(name)
        if isinstance(items, list):
            row[name], extra[name] = fitting.entries(items, columns, name)
            if name in APPENDED or not any(extra[name]):
                del extra[name]
        elif items is not None:
            fitting.put_aside(name, "not_a_list", items)
    row |= {"extra_fields": plain(extra) or None, "pulled_at": pulled_at}
    return row, fitting.rejects


def _flattened(film: dict[str, Any], fitting: _Fitting) -> dict[str, Any]:
    """The film with the lists that came with it beside its own, of the crew only its authors."""
    objects = {field for field, _ in APPENDED.values()}
    flat = {name: value for name, value in film.items() if name not in objects}
    for name, (field, inner) in APPENDED.items():
        part = film.get(field)
        if isinstance(part, dict):
            flat[name] = part.get(inner)
        elif part is not None:
            fitting.put_aside(field, "not_an_object", part)
    if isinstance(flat.get("crew"), list):
        flat["crew"] = [one for one in flat["crew"] if _is_author(one)]
    return flat


def _is_author(credit: Any) -> bool:
    return not isinstance(credit, dict) or credit.get("department") in {*AUTHORS, None}


def genre_rows(genres: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[Reject]]:
    """The rows of TMDB's list of genres, and what was put aside of it."""
    fitting = _Fitting("/genre/movie/list")
    rows, _ = fitting.entries(genres, GENRES_COLUMNS, "genres")
    return rows, fitting.rejects


def fit(value: Any, column: dict[str, Any]) -> tuple[Any, str | None]:
    """The value as the column's type, and what is wrong with it.

    None is right for every column. A text that is a clean number is read as one.
    """
    if value is None:
        return None, None
    return _FITS[column["data_type"]](value, column)


def _text(value: Any, _: dict[str, Any]) -> tuple[Any, str | None]:
    if not isinstance(value, str):
        return None, "not_text"
    kept = plain(value)
    if kept.isspace():
        kept = ""
    return kept, "unstorable_text" if plain(value) != value else None


def _date(value: Any, _: dict[str, Any]) -> tuple[Any, str | None]:
    if value == "":  # TMDB's way of saying that it does not know
        return None, None
    if isinstance(value, str) and DAY.fullmatch(value.strip()):
        try:
            return date.fromisoformat(value.strip()), None
        except ValueError:
            pass
    return None, "not_a_date"


def _bool(value: Any, _: dict[str, Any]) -> tuple[Any, str | None]:
    known = value if isinstance(value, bool) else TRUTHS.get(str(value).strip().lower())
    return known, "not_a_boolean" if known is None else None


def _number(value: Any) -> Decimal | None:
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        value = Decimal(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    number = Decimal(value)
    return number if number.is_finite() else None


def _whole(value: Any, _: dict[str, Any]) -> tuple[Any, str | None]:
    number = _number(value)
    if number is None:
        return None, "not_a_number"
    if abs(number) >= 2**63:
        return None, "too_large"
    return (int(number), None) if number == int(number) else (None, "not_whole")


def _decimal(value: Any, column: dict[str, Any]) -> tuple[Any, str | None]:
    number = _number(value)
    if number is None:
        return None, "not_a_number"
    largest = Decimal(10) ** (column["precision"] - column["scale"])
    if abs(number) < largest:  # and rounding may lead there
        step = Decimal(1).scaleb(-column["scale"])
        number = number.quantize(step, rounding=ROUND_HALF_EVEN, context=EXACT)
    return (number, None) if abs(number) < largest else (None, "too_large")


_FITS = {"text": _text, "date": _date, "bool": _bool, "bigint": _whole, "decimal": _decimal}


def _broken_rule(place: str, value: Any) -> str | None:
    """What is wrong with a value that fits its column, as the models judge it as well."""
    field_name = re.sub(r"\[\d+\]", "", place)
    if value is None or value == "":
        return "missing" if field_name in NEEDED else None
    if isinstance(value, str):
        return "too_long" if len(value) > LONGEST_TEXT and place not in _LONG else None
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        if field_name in AT_LEAST and value < AT_LEAST[field_name]:
            return "negative"
        if field_name in AT_MOST and value > AT_MOST[field_name]:
            return "too_large"
    return None


_LONG = {"overview", "tagline", "homepage"}  # texts that are long, and that no model reads


def plain(value: Any) -> Any:
    """The value as PostgreSQL's text and JSON, and dlt, can hold it."""
    if isinstance(value, dict):
        return {plain(name): plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, str):
        kept = value.replace("\0", "").encode("utf-8", "replace").decode()
        return kept.lstrip("".join(MARKS_OF_DLT)) if kept.startswith(MARKS_OF_DLT) else kept
    if isinstance(value, Decimal):
        number = float(value)
        return number if abs(number) < float("inf") else str(value)
    return str(value) if isinstance(value, int) and abs(value) >= 2**63 else value


def ids(entries: Any, path: str, field_name: str = "results") -> Iterator[int | Reject]:
    """The id of each film of a list, or what is wrong with the entry."""
    if not isinstance(entries, list):
        yield Reject(path, field_name, "missing" if entries is None else "not_a_list", entries)
        return
    for at, entry in enumerate(entries):
        place = f"{field_name}[{at}]"
        if not isinstance(entry, dict):
            yield Reject(path, place, "not_an_object", entry)
            continue
        number, _ = fit(entry.get("id"), FILM_FIELDS["id"])
        yield number if number and number > 0 else Reject(path, f"{place}.id", "not_an_id", entry)
