"""Films as the stand-in keeps them: any value may be in any field, as tests want it."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections import defaultdict
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

LISTED = (  # the fields of a film in a list of films
    *("adult", "backdrop_path", "genre_ids", "id", "original_language", "original_title"),
    *("overview", "popularity", "poster_path", "release_date", "title", "video"),
    *("vote_average", "vote_count"),
)


Film = dict[str, Any]
# What append_to_response can ask for, where nothing is known
UNKNOWN_PARTS: Film = {"alternative_titles": {"titles": []}, "credits": {"cast": [], "crew": []}}


def appended_of(folder: Path) -> dict[int, Film]:
    """What the sample knows of films beyond ``/movie/{id}``, as TMDB appends it."""
    parts: dict[int, Film] = defaultdict(dict)
    for name, field, inner in (
        ("alternative_titles.csv", "alternative_titles", "titles"),
        ("authors.csv", "credits", "crew"),
    ):
        with (folder / name).open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                film = parts[int(row.pop("movie_id"))]
                entry: Film = {**row, "id": int(row["id"])} if "id" in row else {**row, "type": ""}
                film.setdefault(field, {inner: []})[inner].append(entry)
    return parts


def pull_of(row: dict[str, str]) -> Film:
    pull: Film = {**row, "pulled_on": date.fromisoformat(row["pulled_on"])}
    for name in ("id", "budget", "revenue", "vote_count"):
        pull[name] = int(row[name])
    for name in ("popularity", "vote_average"):
        pull[name] = float(row[name])
    pull["runtime"] = int(row["runtime"]) if row["runtime"] else None
    return pull


def listed(film: Film) -> Film:
    film = {"genre_ids": [genre["id"] for genre in genres_of(film)], **film}
    return {name: film.get(name) for name in LISTED}


def genres_of(film: Film) -> list[dict[str, Any]]:
    listed = film.get("genres")
    return [
        genre
        for genre in (listed if isinstance(listed, list) else [])
        if isinstance(genre, dict)
        and isinstance(genre.get("id"), int)
        and isinstance(genre.get("name"), str)
    ]


def number_of(value: Any) -> float:
    return value if isinstance(value, int | float) else 0


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else ""


def sortable(value: Any) -> tuple[float, str]:
    return number_of(value), text_of(value)


def released_within(released: Any, since: date | None, until: date | None) -> bool:
    if not since and not until:
        return True
    released = text_of(released)
    return bool(released) and (str(since or "") <= released <= str(until or "9999"))


@lru_cache(maxsize=10_000)
def _words_of(text: str) -> frozenset[str]:
    """The words of a title, without case, accents and punctuation."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return frozenset(re.findall(r"[a-z0-9]+", plain.replace("'", "")))


def words_of(value: Any) -> frozenset[str]:
    return _words_of(text_of(value))
