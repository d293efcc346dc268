"""HTTP client of the TMDB API, version 3: polite, patient and silent about the token.

Facts about the API (limits, error bodies, oddities) are from TMDB's reference and its OpenAPI
description.
"""

from __future__ import annotations

import logging
import random
import re
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import date, timedelta
from itertools import islice
from typing import Any
from urllib.parse import urlencode, urlsplit

from ingestion.errors import PassingError, UserError
from ingestion.sources.tmdb.limits import TokenBucket, seconds_to_wait
from ingestion.sources.tmdb.rows import Reject, fit, ids
from ingestion.sources.tmdb.settings import (
    APPENDED,
    CHANGES_DAYS,
    FILM_FIELDS,
    FIRST_FILM,
    GENRES_COLUMNS,
    LAST_FILM,
    LAST_PAGE,
    TmdbSettings,
)
from ingestion.sources.tmdb.transport import Answer, NoAnswerError, Transport, parse
from ingestion.terminal import one_line

LONGEST_BACKOFF = 60.0  # seconds
LONGEST_RETRY_AFTER = 300.0  # seconds; a server that asks for more is left alone
NOT_FOUND = {
    6,
    34,
}  # TMDB's own codes for what it does not have; other 404s are not its
MOST_PAGES = 200_000  # of lists in one pull; all of TMDB's films are about 50,000
MOST_REJECTS = 1000  # entries of lists that are kept of one pull
REMEDY = (
    "Put a valid token in TMDB_API_TOKEN, in .env, or in .dlt/secrets.toml"
    ' ([sources.tmdb] api_token = "...").'
)


class TmdbUnavailable(PassingError):
    """TMDB did not give a usable answer, however often it was asked."""


class TmdbClient:
    """One account's access to TMDB, shared by many threads.

    Args:
        token: a v4 read access token (sent as a bearer token), or a v3 API key (32 hexadecimal
            digits, sent as ``api_key``): each as TMDB wants it.
        settings: base URL, rate, tries, threads.

    Attributes:
        notes: sentences worth a user's attention.
        rejects: entries of lists that cannot be right.

    Raises:
        UserError: the token cannot be one, TMDB refuses it (401, 403), or it refuses a request (any
            other 3xx or 4xx, but a film's).
        TmdbUnavailable: 429, 5xx, timeouts, broken connections or broken bodies until the tries ran
            out; a body that is too large or nested too deep.
    """

    def __init__(self, token: str, settings: TmdbSettings) -> None:
        token = token.strip().removeprefix("Bearer ").strip()
        if not re.fullmatch(r"[\x21-\x7e]+", token):
            raise UserError(f"The TMDB token has blanks or other odd characters in it.\n{REMEDY}")
        self._secret = token
        self._by_key = re.fullmatch(r"[0-9a-fA-F]{32}", token) is not None
        self._settings = settings
        self._base_url = settings.base_url.rstrip("/")
        if urlsplit(self._base_url).scheme not in {"http", "https"}:
            raise UserError(
                f"base_url '{self._base_url}' is no web address.\n"
                "Check [sources.tmdb] in .dlt/config.toml."
            )
        self._bucket = TokenBucket(settings.requests_per_second)
        self._transport = Transport(
            self._base_url,
            settings.timeout,
            int(settings.max_body_mb * 1e6),
            trusts_environment=not _is_loopback(self._base_url),
        )
        self._pool = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="tmdb")
        self._stop = threading.Event()
        self._pages_read = 0
        self.notes: list[str] = []
        self.rejects: list[Reject] = []
        logging.getLogger("urllib3.connectionpool").addFilter(_without_key)

    def __enter__(self) -> TmdbClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._transport.close()

    # What TMDB is asked for

    def genres(self) -> list[dict[str, Any]]:
        """The official genres of films: ``{"id": 28, "name": "Action"}``, each id once."""
        path = "/genre/movie/list"
        entries = self.get(path).get("genres")
        numbers = self._sort_out(ids(entries, path, "genres"))
        listed = entries if isinstance(entries, list) else []
        named = (entry for entry in listed if isinstance(entry, dict))
        by_id = {fit(entry.get("id"), GENRES_COLUMNS["id"])[0]: entry for entry in named}
        return [{**by_id[number], "id": number} for number in dict.fromkeys(numbers)]

    def discover(self, since: date | None, until: date | None) -> list[int]:
        """Ids of the films released from ``since`` to ``until`` (both included), each once.

        No list goes beyond page 500: a range with more is halved until its parts fit, if there is
        a page 500. Without any bounds films with no release date are in as well, if all fit.
        """
        params: dict[str, Any] = {"sort_by": "primary_release_date.asc"}
        if self._settings.min_vote_count > 0:
            params["vote_count.gte"] = self._settings.min_vote_count
        if self._settings.include_adult:
            params["include_adult"] = "true"
        if since:
            params["primary_release_date.gte"] = since.isoformat()
        if until:
            params["primary_release_date.lte"] = until.isoformat()
        first = self.get("/discover/movie", **params, page=1)
        first_day, last_day = since or FIRST_FILM, until or LAST_FILM
        if first_day < last_day and self._overflows("/discover/movie", params, first):
            middle = first_day + (last_day - first_day) // 2
            halves = (first_day, middle), (middle + timedelta(days=1), last_day)
            found = [film for half in halves for film in self.discover(*half)]
        else:
            found = self._rest_of("/discover/movie", params, first)
        return list(dict.fromkeys(found))  # the same film can stand on two adjacent pages

    def changed(self, since: date, until: date) -> set[int]:
        """Ids of all films changed from ``since`` to ``until``, both included.

        Windows share their edge days, as TMDB does not say at which hour of the last day one ends.
        """
        changed: set[int] = set()
        while True:
            end = min(until, since + timedelta(days=CHANGES_DAYS - 1))
            changed.update(self._changed_within(since, end))
            if end >= until:
                return changed
            since = end

    def films(
        self, film_ids: Iterable[int]
    ) -> Generator[tuple[int, dict[str, Any] | TmdbUnavailable | None], None, None]:
        """Each id with the film's details, as /movie/{id} gives them (with Decimal for floats).

        None stands for a film that TMDB does not have (404), and the error for one that it fails to
        give: the caller knows how many of those to bear.
        """
        rest = iter(film_ids)
        asked: deque[tuple[int, Future[dict[str, Any] | TmdbUnavailable | None]]] = deque()
        try:
            while True:
                # few at a time: all answers of a chunk may be more than fits into memory
                for film_id in islice(rest, 2 * self._settings.concurrency - len(asked)):
                    asked.append((film_id, self._pool.submit(self._film, film_id)))
                if not asked:
                    return
                film_id, answer = asked.popleft()
                yield film_id, answer.result()
        finally:
            for _, answer in asked:
                answer.cancel()

    def search(self, titles: Iterable[str], candidates: int) -> list[int]:
        """Ids of the first films that /movie/search finds for each title, so many a title."""

        def look_up(title: str) -> list[int]:
            params = {"query": title, "page": 1}
            return self._listed("/search/movie", params)[:candidates]

        return [film for found in self._pool.map(look_up, titles) for film in found]

    def take_rejects(self) -> list[Reject]:
        """What was put aside of lists since the last call."""
        taken, self.rejects = self.rejects, []
        return taken

    # How

    def _film(self, film_id: int) -> dict[str, Any] | TmdbUnavailable | None:
        def is_the_film(body: dict[str, Any]) -> bool:
            return fit(body.get("id"), FILM_FIELDS["id"])[0] == film_id

        try:
            parts = ",".join(field for field, _ in APPENDED.values())
            return self.get(f"/movie/{film_id}", accept=is_the_film, append_to_response=parts)
        except _NotFoundError:
            return None
        except TmdbUnavailable as error:
            return error.with_traceback(None)
        except _RefusedError as error:
            return TmdbUnavailable(error.message)

    def _changed_within(self, since: date, until: date) -> list[int]:
        params: dict[str, Any] = {"start_date": since.isoformat(), "end_date": until.isoformat()}
        first = self.get("/movie/changes", **params, page=1)
        if since < until and self._overflows("/movie/changes", params, first):
            middle = since + (until - since) // 2
            return self._changed_within(since, middle) + self._changed_within(
                max(middle, since + timedelta(days=1)), until
            )
        return self._rest_of("/movie/changes", params, first)

    def _overflows(self, path: str, params: dict[str, Any], first: dict[str, Any]) -> bool:
        """Whether a list has more pages than TMDB gives: it says so, and the last has films too."""
        pages = _pages(first)
        if pages is None or pages <= LAST_PAGE:
            return False
        last = self._listed(path, {**params, "page": LAST_PAGE})
        return not set(last).issubset(_ids(path, {**params, "page": 1}, first))

    def _rest_of(self, path: str, params: dict[str, Any], first: dict[str, Any]) -> list[int]:
        """Ids of a list: up to the page that TMDB says is the last, or one with nothing new."""
        pages = _pages(first)
        found = dict.fromkeys(self._sort_out(_ids(path, {**params, "page": 1}, first)))
        last, at_once = min(pages or LAST_PAGE, LAST_PAGE), self._settings.concurrency
        for start in range(2, last + 1, at_once):
            some = range(start, min(start + at_once, last + 1))
            listed = self._pool.map(lambda n: self._listed(path, {**params, "page": n}), some)
            for page in listed:
                news = set(page).difference(found)
                found.update(dict.fromkeys(page))
                if not news:
                    return list(found)
        if pages and pages > LAST_PAGE:
            self.notes.append(
                f"TMDB lists {pages:,} pages of {path} for one day and gives {LAST_PAGE}:"
                " the rest is left out."
            )
        return list(found)

    def _listed(self, path: str, params: dict[str, Any]) -> list[int]:
        return self._sort_out(_ids(path, params, self.get(path, **params)))

    def _sort_out(self, entries: Iterable[int | Reject]) -> list[int]:
        """The ids; what is none is kept for those who land rejects, unless it floods."""
        good: list[int] = []
        for entry in entries:
            if isinstance(entry, int):
                good.append(entry)
            elif len(self.rejects) < MOST_REJECTS:
                self.rejects.append(entry)
        return good

    def get(
        self,
        path: str,
        accept: Callable[[dict[str, Any]], bool] = lambda _: True,
        **params: Any,
    ) -> dict[str, Any]:
        """The JSON object at a path, tried again as long as that can help."""
        fault = ""
        self._pages_read += "page" in params
        if self._pages_read > MOST_PAGES:
            raise TmdbUnavailable(
                f"TMDB's lists do not end: {MOST_PAGES:,} pages are read.\n"
                "Ask for fewer films: set first_release or min_vote_count in .dlt/config.toml."
            )
        for tried in range(1, self._settings.max_tries + 1):
            self._sleep(self._bucket.take())
            body, fault, wait, lasting = self._try(path, params, accept)
            if body is not None:
                return body
            delay = min(LONGEST_BACKOFF, self._settings.backoff * 2 ** min(tried - 1, 60))
            delay *= random.uniform(0.5, 1)  # noqa: S311 - spreads the load, hides nothing
            if wait is not None and wait > LONGEST_RETRY_AFTER:
                raise TmdbUnavailable(
                    f"TMDB asks to be left alone for {wait:,.0f} seconds.\n"
                    "Run this again then: it goes on where it stopped."
                )
            if lasting:
                break
            if fault == "HTTP 429":
                self._bucket.pause(delay if wait is None else wait)
            elif tried < self._settings.max_tries:
                self._sleep(delay if wait is None else wait)
        raise TmdbUnavailable(
            f"TMDB gave no usable answer to {path} in {tried} tries (last: {fault}).\n"
            "Run this again later: it goes on where it stopped."
        )

    def _try(
        self, path: str, params: dict[str, Any], accept: Callable[[dict[str, Any]], bool]
    ) -> tuple[dict[str, Any] | None, str, float | None, bool]:
        """One request: its body, or what was wrong with it, how long the server asks to wait, and
        whether to ask again is no use.
        """
        try:
            answer = self._transport.get(path, *self._credentials(params))
            if answer.status == 200:
                body = parse(answer.content)
                good = accept(body)
                return body if good else None, "a body that is something else", None, False
        except NoAnswerError as error:
            return None, str(error), None, error.lasting

        status = answer.status
        if status in {408, 429} or status >= 500:
            return None, f"HTTP {status}", seconds_to_wait(answer.headers.get("Retry-After")), False
        if status == 401:
            raise UserError(f"TMDB refuses the token (HTTP {status}).\n{REMEDY}")
        code, said = self._message(answer)
        if status == 403:
            raise _RefusedError(f"TMDB refuses the token (HTTP {status}) {said}.\n{REMEDY}")
        kind = _NotFoundError if status == 404 and code in NOT_FOUND else _RefusedError
        raise kind(
            f"TMDB refuses {path}: HTTP {status} {said}".rstrip()
            + f"\nCheck [sources.tmdb] in .dlt/config.toml; base_url is {self._base_url}."
        )

    def _credentials(self, params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        """Parameters and headers of a request, with the token."""
        if self._by_key:
            return {**params, "api_key": self._secret}, {}
        return params, {"Authorization": f"Bearer {self._secret}"}

    def _sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds) if seconds > 0 else self._stop.is_set():
            raise TmdbUnavailable("The pull was stopped.")

    def _message(self, answer: Answer) -> tuple[Any, str]:
        """TMDB's code for an error, and what it says about it."""
        try:
            body = parse(answer.content)
        except NoAnswerError:
            return None, ""
        text = str(body.get("status_message") or "").replace(self._secret, "***")
        return fit(body.get("status_code"), FILM_FIELDS["id"])[0], one_line(text)


class _RefusedError(UserError):
    """TMDB does not want to answer this request, however often it is asked."""


class _NotFoundError(_RefusedError):
    """TMDB has nothing at this path: HTTP 404, and a code of its own that says so."""


class _WithoutKey(logging.Filter):
    """Blots out API keys: urllib3 writes URLs to its debug log."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = re.sub(r"(api_key=)[^&\s'\"]+", r"\1***", record.getMessage())
        record.args = ()
        return True


_without_key = _WithoutKey()


def _pages(body: dict[str, Any]) -> int | None:
    """How many pages a list has; None where TMDB does not say so in earnest."""
    pages, _ = fit(body.get("total_pages"), FILM_FIELDS["id"])
    return pages if pages and pages > 0 else None if body.get("results") else 1


def _ids(path: str, params: dict[str, Any], body: dict[str, Any]) -> Iterator[int | Reject]:
    return ids(body.get("results"), f"{path}?{urlencode(params)}")


def _is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in {"127.0.0.1", "::1", "localhost"}
