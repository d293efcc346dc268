"""A stand-in for the TMDB API on loopback: its paths, shapes, limits and errors.

``StandIn.of_sample()`` serves the bundled sample, ``StandIn(films)`` any list of films. What it
refuses and how (status, ``status_code``, message) is what TMDB's list of errors says. It runs in a
thread (``with StandIn(...) as tmdb:``, then ``tmdb.base_url``), or by itself:
``python -m ingestion.sources.tmdb.standin --port 8089``.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import itertools
import json
import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from datetime import date, timedelta
from typing import Any

from ingestion.sources.tmdb.settings import CHANGES_DAYS, LAST_PAGE, SAMPLE_DIR
from ingestion.sources.tmdb.standin_films import (
    UNKNOWN_PARTS,
    Film,
    appended_of,
    genres_of,
    listed,
    number_of,
    pull_of,
    released_within,
    sortable,
    text_of,
    words_of,
)
from ingestion.sources.tmdb.standin_server import Fault, Handler, Server, refuse

PAGE_SIZE, CHANGES_PAGE_SIZE, MOST_APPENDED = 20, 100, 20
APPENDED_TOO_MUCH = (
    27,
    "Too many append to response objects: The maximum number of remote calls is 20.",
)
BAD_PARAMETERS = (5, "Invalid parameters: Your request parameters are incorrect.")
UNKNOWN_TEXTS = {"homepage": "", "overview": "", "tagline": ""}
IMAGES = {"backdrop_path": None, "poster_path": None}


class StandIn:
    """TMDB on 127.0.0.1.

    Args:
        films: as /movie/{id} gives them, in their latest state. Texts and images that are left out
            are unknown.
        pulls: what films were on earlier days: ``id``, ``pulled_on`` (a date) and the fields that
            move.
        as_of: the day it is at the server; None is the latest state. A film has the values of its
            last pull on or before that day, or of its first one where all are later. It does not
            exist yet where its release and all its pulls lie in the future.
        token: the one token or key it accepts; None accepts any, but not none.
        requests_per_second: more in any second are answered with 429.
        latency: seconds that each answer takes.
        page_size: films a page of /discover/movie.
        repeat: the last film of a page stands on the next one as well, as when one was added
            meanwhile.
        faults: what goes wrong.
        missing: ids that lists name and /movie/{id} does not have.

    Attributes:
        bodies: what /movie/{id} sends in place of a film, byte for byte: for what is not right.
        changes: ids of the films that changed, by day.
        requests: path and query of each request so far, without ``api_key``.
    """

    def __init__(
        self,
        films: Iterable[Film],
        pulls: Iterable[Film] = (),
        *,
        as_of: date | None = None,
        port: int = 0,
        token: str | None = None,
        requests_per_second: float | None = None,
        latency: float = 0.0,
        page_size: int = PAGE_SIZE,
        repeat: bool = False,
        faults: Iterable[Fault] = (),
        missing: Iterable[int] = (),
    ) -> None:
        self._films = {film["id"]: film for film in films}
        self._pulls: dict[int, list[Film]] = defaultdict(list)
        for pull in sorted(pulls, key=lambda pull: (pull["id"], pull["pulled_on"])):
            self._pulls[pull["id"]].append(pull)
        self.changes: dict[date, set[int]] = defaultdict(set)
        for film_id, history in self._pulls.items():
            for before, after in itertools.pairwise(history):
                if {**before, "pulled_on": None} != {**after, "pulled_on": None}:
                    self.changes[after["pulled_on"]].add(film_id)
        self.token, self.latency, self.page_size = token, latency, page_size
        self.repeat, self.faults, self.missing = repeat, list(faults), set(missing)
        self.requests_per_second = requests_per_second
        self.requests: list[str] = []
        self.bodies: dict[int, bytes] = {}
        self._recent: deque[float] = deque()
        self._lock = threading.Lock()
        self.as_of = as_of
        self._server = Server(("127.0.0.1", port), Handler)
        self._server.stand_in = self

    @classmethod
    def of_sample(cls, **options: Any) -> StandIn:
        """One that serves the bundled sample (see ``ingestion/sample/tmdb``)."""
        with gzip.open(SAMPLE_DIR / "movies.jsonl.gz", "rt", encoding="utf-8") as lines:
            films = {film["id"]: film for film in map(json.loads, lines)}
        for film_id, parts in appended_of(SAMPLE_DIR).items():
            films[film_id] |= parts
        with gzip.open(SAMPLE_DIR / "pulls.csv.gz", "rt", encoding="utf-8", newline="") as lines:
            pulls = [pull_of(row) for row in csv.DictReader(lines)]
        return cls(films.values(), pulls, **options)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/3"

    @property
    def as_of(self) -> date | None:
        return self._as_of

    @as_of.setter
    def as_of(self, day: date | None) -> None:
        with self._lock:
            self._as_of = day
            self._today = {film["id"]: film for film in self._films_on(day)}
            self._bodies: dict[Any, Any] = {}

    def change(self, film_id: int, **fields: Any) -> None:
        """Give a film other values from today (``as_of``) on, as an edit at TMDB would."""
        with self._lock:
            self._films[film_id] = {**self._films.get(film_id, {"id": film_id}), **fields}
            self.changes[self._as_of or date.today()].add(film_id)
        self.as_of = self._as_of

    def __enter__(self) -> StandIn:
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def serve_forever(self) -> None:
        self._server.serve_forever()

    # What films are on a day

    def _films_on(self, day: date | None) -> Iterable[Film]:
        for film in self._films.values():
            history = self._pulls.get(film["id"], []) if day else []
            known = [pull for pull in history if pull["pulled_on"] <= day]
            seen = known[-1] if known else history[0] if history else {}
            now = {**UNKNOWN_TEXTS, **IMAGES, **film, **seen}
            now.pop("pulled_on", None)
            released = text_of(now.get("release_date"))
            if not day or known or released <= day.isoformat():
                yield now

    # Answers. Each takes the query and returns the body; _refuse answers with an error

    def answer(self, path: str, query: dict[str, str]) -> bytes:
        """The body for one request.

        Raises:
            _RefusalError: TMDB would answer with an error.
        """
        with self._lock:
            if film := re.fullmatch(r"/3/movie/(\d+)", path):
                return self._movie(int(film[1]), query)
            answer = self._ANSWERS.get(path)
            return json.dumps(answer(self, query)).encode() if answer else refuse(404)

    def _movie(self, film_id: int, query: dict[str, str]) -> bytes:
        if len(query.get("append_to_response", "").split(",")) > MOST_APPENDED:
            refuse(400, APPENDED_TOO_MUCH)
        if film_id in self.missing or film_id not in self._today:
            refuse(404)
        if film_id in self.bodies:
            return self.bodies[film_id]
        asked = query.get("append_to_response", "").split(",")
        key = film_id, *(part for part in UNKNOWN_PARTS if part in asked)
        if key not in self._bodies:
            film = {**UNKNOWN_PARTS, **self._today[film_id]}
            left_out = set(UNKNOWN_PARTS).difference(key)
            shown = {name: value for name, value in film.items() if name not in left_out}
            self._bodies[key] = json.dumps(shown).encode()
        return self._bodies[key]

    def _discover(self, query: dict[str, str]) -> Any:
        page = _page(query)
        key = tuple(sorted((name, value) for name, value in query.items() if name != "page"))
        if key not in self._bodies:
            self._bodies[key] = self._discovered(query)
        return self._paged(self._bodies[key], page, self.page_size, self.repeat)

    def _discovered(self, query: dict[str, str]) -> list[Film]:
        since = _day(query, "primary_release_date.gte")
        until = _day(query, "primary_release_date.lte")
        votes = float(query.get("vote_count.gte", 0))
        name, _, direction = query.get("sort_by", "popularity.desc").rpartition(".")
        name = "release_date" if name == "primary_release_date" else name
        found = [
            film
            for film in self._today.values()
            if number_of(film.get("vote_count")) >= votes
            and (not film.get("adult") or query.get("include_adult") == "true")
            and released_within(film.get("release_date"), since, until)
        ]
        found.sort(key=lambda film: film["id"])
        found.sort(key=lambda film: sortable(film.get(name)), reverse=direction == "desc")
        return found

    def _search(self, query: dict[str, str]) -> Any:
        page = _page(query)
        words = words_of(query.get("query", ""))
        year = query.get("year") or query.get("primary_release_year") or ""
        found = [
            film
            for film in self._today.values()
            if words
            and any(words <= words_of(film.get(name)) for name in ("title", "original_title"))
            and text_of(film.get("release_date")).startswith(year)
        ]
        found.sort(
            key=lambda film: (
                words_of(film.get("title")) != words,
                -number_of(film.get("popularity")),
            )
        )
        return self._paged(found, page, PAGE_SIZE)

    def _changed(self, query: dict[str, str]) -> Any:
        page = _page(query)
        today = self._as_of or date.today()
        until = _day(query, "end_date") or today
        since = _day(query, "start_date") or until - timedelta(days=1)
        if not 0 <= (until - since).days <= CHANGES_DAYS:
            refuse(422)
        ids = set()
        for day, changed in self.changes.items():
            if since <= day <= min(until, today):
                ids |= changed
        # adult is not there for some
        found = [{"id": n, "adult": False} if n % 3 else {"id": n} for n in sorted(ids)]
        start = (page - 1) * CHANGES_PAGE_SIZE
        return {
            "results": found[start : start + CHANGES_PAGE_SIZE],
            "page": page,
            "total_pages": -(-len(found) // CHANGES_PAGE_SIZE),
            "total_results": len(found),
        }

    def _genres(self, _: dict[str, str]) -> Any:
        named = {
            genre["id"]: genre["name"] for film in self._films.values() for genre in genres_of(film)
        }
        by_name = sorted(named.items(), key=lambda genre: genre[1])
        return {"genres": [{"id": number, "name": name} for number, name in by_name]}

    def _paged(self, films: list[Film], page: int, size: int, repeat: bool = False) -> Any:
        start = (page - 1) * size
        shown = films[max(0, start - repeat) : start + size]
        return {
            "page": page,
            "results": [listed(film) for film in shown],
            "total_pages": -(-len(films) // size),
            "total_results": len(films),
        }

    _ANSWERS: Mapping[str, Callable[[StandIn, dict[str, str]], Any]] = {
        "/3/authentication": lambda *_: {
            "success": True,
            "status_code": 1,
            "status_message": "Success.",
        },
        "/3/configuration": lambda *_: {"images": {}, "change_keys": []},
        "/3/genre/movie/list": _genres,
        "/3/discover/movie": _discover,
        "/3/movie/changes": _changed,
        "/3/search/movie": _search,
    }

    # What happens to each request before it is answered

    def admit(self, path: str, credential: str | None) -> Fault | None:
        """Log a request and check its credential and the rate.

        Returns:
            The fault that befalls it, if one does.

        Raises:
            _RefusalError: 401 or 429.
        """
        with self._lock:
            self.requests.append(re.sub(r"[?&]api_key=[^&]*", "", path))
            if not credential or (self.token and credential != self.token):
                refuse(401)
            if self.requests_per_second:
                now = time.monotonic()
                while self._recent and self._recent[0] <= now - 1:
                    self._recent.popleft()
                if len(self._recent) >= self.requests_per_second:
                    refuse(429, headers={"Retry-After": "1"})
                self._recent.append(now)
            return next((fault for fault in self.faults if fault.befalls(path)), None)


# A film may be given with any value in any field, for tests of what clients make of that


def _page(query: dict[str, str]) -> int:
    page = query.get("page", "1")
    if not page.isdecimal() or not 1 <= int(page) <= LAST_PAGE:
        refuse(400)
    return int(page)


def _day(query: dict[str, str], name: str) -> date | None:
    try:
        return date.fromisoformat(query[name]) if query.get(name) else None
    except ValueError:
        return refuse(422, BAD_PARAMETERS)


def main() -> None:
    """Serve the bundled sample until interrupted."""
    parser = argparse.ArgumentParser(description="The bundled sample as a TMDB server on 127.0.0.1")
    parser.add_argument("--port", type=int, default=8089)
    parser.add_argument("--as-of", type=date.fromisoformat, help="the day it is there (YYYY-MM-DD)")
    parser.add_argument("--latency", type=float, default=0.0, help="seconds an answer takes")
    parser.add_argument("--requests-per-second", type=float, help="more are answered with 429")
    stand_in = StandIn.of_sample(**vars(parser.parse_args()))
    print(f"TMDB's stand-in at {stand_in.base_url} takes any token; Ctrl-C ends it", flush=True)
    try:
        stand_in.serve_forever()
    except KeyboardInterrupt:
        print("ended")


if __name__ == "__main__":
    main()
