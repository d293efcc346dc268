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
import socket
import threading
import time
import unicodedata
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NoReturn
from urllib.parse import parse_qs

from ingestion.sources.tmdb.settings import CHANGES_DAYS, LAST_PAGE, SAMPLE_DIR

PAGE_SIZE, CHANGES_PAGE_SIZE, MOST_APPENDED = 20, 100, 20
ERRORS = {  # HTTP status: (status_code, status_message) of TMDB's list of errors
    400: (22, "Invalid page: Pages start at 1 and max at 500. They are expected to be an integer."),
    401: (7, "Invalid API key: You must be granted a valid key."),
    404: (34, "The resource you requested could not be found."),
    422: (20, "Invalid date range: Should be a range no longer than 14 days."),
    429: (25, "Your request count (#) is over the allowed limit of (40)."),
    500: (11, "Internal error: Something went wrong, contact TMDB."),
    503: (46, "The API is undergoing maintenance. Try again later."),
    504: (24, "Your request to the backend server timed out. Try again."),
}
APPENDED_TOO_MUCH = (
    27,
    "Too many append to response objects: The maximum number of remote calls is 20.",
)
BAD_PARAMETERS = (5, "Invalid parameters: Your request parameters are incorrect.")
UNKNOWN_TEXTS = {"homepage": "", "overview": "", "tagline": ""}
IMAGES = {"backdrop_path": None, "poster_path": None}
LISTED = (  # the fields of a film in a list of films
    *("adult", "backdrop_path", "genre_ids", "id", "original_language", "original_title"),
    *("overview", "popularity", "poster_path", "release_date", "title", "video"),
    *("vote_average", "vote_count"),
)

Film = dict[str, Any]


@dataclass
class Fault:
    """Something that goes wrong with some requests.

    Attributes:
        status: answer with this HTTP status and TMDB's error body for it.
        body: or spoil the answer: ``truncated``, ``not json``, or ``hang`` (for ``seconds``).
        path: regular expression that the path and query have to match.
        every: it befalls each n-th of the requests that match, from the first on.
        times: how often at most.
        headers: sent along, such as ``Retry-After``.
    """

    status: int | None = None
    body: str | None = None
    path: str = ""
    every: int = 1
    times: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 5.0
    seen: int = 0
    done: int = 0

    def befalls(self, path: str) -> bool:
        if not re.search(self.path, path) or (self.times is not None and self.done >= self.times):
            return False
        self.seen += 1
        befallen = (self.seen - 1) % self.every == 0
        self.done += befallen
        return befallen


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
        self._changes: dict[date, set[int]] = defaultdict(set)
        for film_id, history in self._pulls.items():
            for before, after in itertools.pairwise(history):
                if {**before, "pulled_on": None} != {**after, "pulled_on": None}:
                    self._changes[after["pulled_on"]].add(film_id)
        self.token, self.latency, self.page_size = token, latency, page_size
        self.repeat, self.faults, self.missing = repeat, list(faults), set(missing)
        self.requests_per_second = requests_per_second
        self.requests: list[str] = []
        self.bodies: dict[int, bytes] = {}
        self._recent: deque[float] = deque()
        self._lock = threading.Lock()
        self.as_of = as_of
        self._server = _Server(("127.0.0.1", port), _Handler)
        self._server.stand_in = self

    @classmethod
    def of_sample(cls, **options: Any) -> StandIn:
        """One that serves the bundled sample (see ``ingestion/sample/tmdb``)."""
        with gzip.open(SAMPLE_DIR / "movies.jsonl.gz", "rt", encoding="utf-8") as lines:
            films = [json.loads(line) for line in lines]
        with gzip.open(SAMPLE_DIR / "pulls.csv.gz", "rt", encoding="utf-8", newline="") as lines:
            pulls = [_pull(row) for row in csv.DictReader(lines)]
        return cls(films, pulls, **options)

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
            self._changes[self._as_of or date.today()].add(film_id)
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
            released = _text(now.get("release_date"))
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
            return json.dumps(answer(self, query)).encode() if answer else _refuse(404)

    def _movie(self, film_id: int, query: dict[str, str]) -> bytes:
        if len(query.get("append_to_response", "").split(",")) > MOST_APPENDED:
            _refuse(400, APPENDED_TOO_MUCH)
        if film_id in self.missing or film_id not in self._today:
            _refuse(404)
        if film_id in self.bodies:
            return self.bodies[film_id]
        if film_id not in self._bodies:
            self._bodies[film_id] = json.dumps(self._today[film_id]).encode()
        return self._bodies[film_id]

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
            if _number(film.get("vote_count")) >= votes
            and (not film.get("adult") or query.get("include_adult") == "true")
            and _within(film.get("release_date"), since, until)
        ]
        found.sort(key=lambda film: film["id"])
        found.sort(key=lambda film: _sortable(film.get(name)), reverse=direction == "desc")
        return found

    def _search(self, query: dict[str, str]) -> Any:
        page = _page(query)
        words = _words(query.get("query", ""))
        year = query.get("year") or query.get("primary_release_year") or ""
        found = [
            film
            for film in self._today.values()
            if words
            and any(words <= _words(film.get(name)) for name in ("title", "original_title"))
            and _text(film.get("release_date")).startswith(year)
        ]
        found.sort(
            key=lambda film: (
                _words(film.get("title")) != words,
                -_number(film.get("popularity")),
            )
        )
        return self._paged(found, page, PAGE_SIZE)

    def _changed(self, query: dict[str, str]) -> Any:
        page = _page(query)
        today = self._as_of or date.today()
        until = _day(query, "end_date") or today
        since = _day(query, "start_date") or until - timedelta(days=1)
        if not 0 <= (until - since).days <= CHANGES_DAYS:
            _refuse(422)
        ids = set()
        for day, changed in self._changes.items():
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
            genre["id"]: genre["name"]
            for film in self._films.values()
            for genre in _genres_of(film)
        }
        by_name = sorted(named.items(), key=lambda genre: genre[1])
        return {"genres": [{"id": number, "name": name} for number, name in by_name]}

    def _paged(self, films: list[Film], page: int, size: int, repeat: bool = False) -> Any:
        start = (page - 1) * size
        shown = films[max(0, start - repeat) : start + size]
        return {
            "page": page,
            "results": [_listed(film) for film in shown],
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
                _refuse(401)
            if self.requests_per_second:
                now = time.monotonic()
                while self._recent and self._recent[0] <= now - 1:
                    self._recent.popleft()
                if len(self._recent) >= self.requests_per_second:
                    _refuse(429, headers={"Retry-After": "1"})
                self._recent.append(now)
            return next((fault for fault in self.faults if fault.befalls(path)), None)


class _RefusalError(Exception):
    def __init__(self, status: int, error: tuple[int, str], headers: Mapping[str, str]) -> None:
        super().__init__(error[1])
        self.status, self.headers = status, headers
        body = {"success": False, "status_code": error[0], "status_message": error[1]}
        if status >= 500:
            del body["success"]  # some of TMDB's errors come without
        self.body = json.dumps(body).encode()


def _refuse(
    status: int, error: tuple[int, str] | None = None, headers: Mapping[str, str] | None = None
) -> NoReturn:
    raise _RefusalError(status, error or ERRORS[status], headers or {})


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    stand_in: StandIn


class _Handler(BaseHTTPRequestHandler):
    """HTTP/1.1 with connections that stay open. Reads no more of a request than TMDB needs."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)

    def handle_one_request(self) -> None:
        try:
            line = self.rfile.readline(65537)
            headers = {}
            while (header := self.rfile.readline(65537)) not in {b"\r\n", b"\n", b""}:
                name, _, value = header.partition(b":")
                headers[name.strip().lower()] = value.strip()
            self.close_connection = headers.get(b"connection", b"").lower() == b"close"
            words = line.split()
            if len(words) != 3:
                self.close_connection = True
                return
            self._answer(words[1].decode("ascii", "replace"), headers)
        except (OSError, ValueError):
            self.close_connection = True  # the client has gone

    def _answer(self, target: str, headers: dict[bytes, bytes]) -> None:
        stand_in = self.server.stand_in
        path, _, text = target.partition("?")
        query = {name: values[-1] for name, values in parse_qs(text).items()} if text else {}
        scheme, _, bearer = headers.get(b"authorization", b"").decode().partition(" ")
        credential = bearer.strip() if scheme.lower() == "bearer" else query.pop("api_key", None)
        status, extra, fault = 200, {}, None
        if stand_in.latency:
            time.sleep(stand_in.latency)
        try:
            fault = stand_in.admit(target, credential)
            if fault and fault.status:
                _refuse(fault.status, headers=fault.headers)
            body = stand_in.answer(path, query)
        except _RefusalError as refusal:
            status, body, extra = refusal.status, refusal.body, refusal.headers
        length = len(body)
        if fault and fault.body:
            if fault.body == "hang":
                time.sleep(fault.seconds)
            body = body[: length // 2]
            self.close_connection = True
            if fault.body == "not json":
                length = len(body)
        headers_out = {"Content-Type": "application/json;charset=utf-8", "Content-Length": length}
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n" + "".join(
            f"{name}: {value}\r\n" for name, value in {**headers_out, **extra}.items()
        )
        self.wfile.write(head.encode() + b"\r\n" + body)


def _pull(row: dict[str, str]) -> Film:
    pull: Film = {**row, "pulled_on": date.fromisoformat(row["pulled_on"])}
    for name in ("id", "budget", "revenue", "vote_count"):
        pull[name] = int(row[name])
    for name in ("popularity", "vote_average"):
        pull[name] = float(row[name])
    pull["runtime"] = int(row["runtime"]) if row["runtime"] else None
    return pull


def _listed(film: Film) -> Film:
    film = {"genre_ids": [genre["id"] for genre in _genres_of(film)], **film}
    return {name: film.get(name) for name in LISTED}


# A film may be given with any value in any field, for tests of what clients make of that


def _genres_of(film: Film) -> list[dict[str, Any]]:
    listed = film.get("genres")
    return [
        genre
        for genre in (listed if isinstance(listed, list) else [])
        if isinstance(genre, dict)
        and isinstance(genre.get("id"), int)
        and isinstance(genre.get("name"), str)
    ]


def _number(value: Any) -> float:
    return value if isinstance(value, int | float) else 0


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _sortable(value: Any) -> tuple[float, str]:
    return _number(value), _text(value)


def _page(query: dict[str, str]) -> int:
    page = query.get("page", "1")
    if not page.isdecimal() or not 1 <= int(page) <= LAST_PAGE:
        _refuse(400)
    return int(page)


def _day(query: dict[str, str], name: str) -> date | None:
    try:
        return date.fromisoformat(query[name]) if query.get(name) else None
    except ValueError:
        return _refuse(422, BAD_PARAMETERS)


def _within(released: Any, since: date | None, until: date | None) -> bool:
    if not since and not until:
        return True
    released = _text(released)
    return bool(released) and (str(since or "") <= released <= str(until or "9999"))


@lru_cache(maxsize=10_000)
def _words_of(text: str) -> frozenset[str]:
    """The words of a title, without case, accents and punctuation."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return frozenset(re.findall(r"[a-z0-9]+", plain.replace("'", "")))


def _words(value: Any) -> frozenset[str]:
    return _words_of(_text(value))


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
