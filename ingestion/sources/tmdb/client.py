"""HTTP client of the TMDB API, version 3: polite, patient and silent about the token.

Facts about the API (limits, error bodies, oddities) are from TMDB's reference and its OpenAPI
description.
"""

from __future__ import annotations

import json
import logging
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import requests

from ingestion.errors import UserError
from ingestion.sources.tmdb.settings import (
    CHANGES_DAYS,
    FIRST_FILM,
    LAST_FILM,
    LAST_PAGE,
    TmdbSettings,
)

LONGEST_BACKOFF = 60.0  # seconds
LONGEST_RETRY_AFTER = 300.0  # seconds; a server that asks for more is left alone
REMEDY = (
    "Put a valid token in TMDB_API_TOKEN, in .env, or in .dlt/secrets.toml"
    ' ([sources.tmdb] api_token = "...").'
)


class TmdbUnavailable(UserError):
    """TMDB did not give a usable answer, however often it was asked."""


class TokenBucket:
    """Hands out permissions to start a request, to any number of threads.

    It holds one permission at most and makes a new one somewhat slower than ``rate`` allows: a
    server that counts strictly sees no second with more, though threads wake late and in bunches.
    """

    def __init__(self, rate: float) -> None:
        self._every = 1 / (0.96 * rate) if rate > 0 else 0.0
        self._next = time.monotonic()
        self._lock = threading.Lock()

    def take(self) -> float:
        """Take one permission; return the seconds until it holds."""
        with self._lock:
            now = time.monotonic()
            holds = max(self._next, now)
            self._next = holds + self._every
            return holds - now

    def pause(self, seconds: float) -> None:
        """Give none out for so long: the server has asked for it."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


class TmdbClient:
    """One account's access to TMDB, shared by many threads.

    Args:
        token: a v4 read access token (sent as a bearer token), or a v3 API key (32 hexadecimal
            digits, sent as ``api_key``): each as TMDB wants it.
        settings: base URL, rate, tries, threads.

    Raises:
        UserError: the token cannot be one, TMDB refuses it (401, 403), or it refuses a request (any
            other 4xx, but a film's 404).
        TmdbUnavailable: 429, 5xx, timeouts, broken connections or broken bodies until the tries ran
            out.
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
        self._local = threading.local()
        self._sessions: list[requests.Session] = []
        self._pool = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="tmdb")
        self._stop = threading.Event()
        self.notes: list[str] = []
        logging.getLogger("urllib3.connectionpool").addFilter(_without_key)

    def __enter__(self) -> TmdbClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for session in self._sessions:
            session.close()

    # What TMDB is asked for

    def genres(self) -> list[dict[str, Any]]:
        """The official genres of films: ``{"id": 28, "name": "Action"}``."""
        return self._get("/genre/movie/list").get("genres") or []

    def discover(self, since: date | None, until: date | None) -> list[int]:
        """Ids of the films released from ``since`` to ``until`` (both included), each once.

        No list goes beyond page 500: a range with more is halved until its parts fit. Without any
        bounds films with no release date are in as well, if all fit in 500 pages.
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
        first = self._get("/discover/movie", **params, page=1)
        first_day, last_day = since or FIRST_FILM, until or LAST_FILM
        if _pages(first) > LAST_PAGE and first_day < last_day:
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
        self, ids: Iterable[int]
    ) -> Iterator[tuple[int, dict[str, Any] | TmdbUnavailable | None]]:
        """Each id with the film's details, as /movie/{id} gives them (with Decimal for floats).

        None stands for a film that TMDB does not have (404), and the error for one that it fails to
        give: the caller knows how many of those to bear.
        """
        futures = [(film_id, self._pool.submit(self._film, film_id)) for film_id in ids]
        try:
            for film_id, future in futures:
                yield film_id, future.result()
        finally:
            for _, future in futures:
                future.cancel()

    def search(self, titles: Iterable[str], candidates: int) -> list[int]:
        """Ids of the first films that /movie/search finds for each title, so many a title."""

        def look_up(title: str) -> list[int]:
            return _ids(self._get("/search/movie", query=title, page=1))[:candidates]

        return [film for found in self._pool.map(look_up, titles) for film in found]

    # How

    def _film(self, film_id: int) -> dict[str, Any] | TmdbUnavailable | None:
        try:
            return self._get(f"/movie/{film_id}", accept=lambda body: body.get("id") == film_id)
        except _NotFoundError:
            return None
        except TmdbUnavailable as error:
            return error.with_traceback(None)

    def _changed_within(self, since: date, until: date) -> list[int]:
        params = {"start_date": since.isoformat(), "end_date": until.isoformat()}
        first = self._get("/movie/changes", **params, page=1)
        if _pages(first) > LAST_PAGE and since < until:
            middle = since + (until - since) // 2
            return self._changed_within(since, middle) + self._changed_within(
                max(middle, since + timedelta(days=1)), until
            )
        return self._rest_of("/movie/changes", params, first)

    def _rest_of(self, path: str, params: dict[str, Any], first: dict[str, Any]) -> list[int]:
        pages = _pages(first)
        if pages > LAST_PAGE:
            self.notes.append(
                f"TMDB lists {pages:,} pages of {path} for one day and gives {LAST_PAGE}:"
                " the rest is left out."
            )
        following = self._pool.map(
            lambda page: _ids(self._get(path, **params, page=page)),
            range(2, min(pages, LAST_PAGE) + 1),
        )
        return _ids(first) + [film for page in following for film in page]

    def _get(
        self,
        path: str,
        accept: Callable[[dict[str, Any]], bool] = lambda _: True,
        **params: Any,
    ) -> dict[str, Any]:
        """The JSON object at a path, tried again as long as that can help."""
        fault = ""
        for tried in range(1, self._settings.max_tries + 1):
            self._sleep(self._bucket.take())
            body, fault, wait = self._try(path, params, accept)
            if body is not None:
                return body
            delay = min(LONGEST_BACKOFF, self._settings.backoff * 2 ** (tried - 1))
            delay *= random.uniform(0.5, 1)  # noqa: S311 - spreads the load, hides nothing
            if wait is not None and wait > LONGEST_RETRY_AFTER:
                raise TmdbUnavailable(
                    f"TMDB asks to be left alone for {wait:,.0f} seconds.\n"
                    "Run this again then: it goes on where it stopped."
                )
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
    ) -> tuple[dict[str, Any] | None, str, float | None]:
        """One request: its body, or what was wrong with it and how long the server asks to wait.

        Raises nothing from inside an ``except``: with an error of the HTTP library chained to it
        the URL, where a key can stand, would get into tracebacks and dlt's traces.
        """
        fault, body, response = "", None, None
        try:
            response = self._send(path, params)
            if response.status_code == 200:
                body = _parse(response.content)
        except requests.RequestException as error:
            fault = type(error).__name__
        except ValueError:
            fault = "a body that is not JSON"
        if body is not None and not accept(body):
            body, fault = None, "a body that is something else"
        if response is None or fault or body is not None:
            return body, fault, None

        status = response.status_code
        if status in {408, 429} or status >= 500:
            return None, f"HTTP {status}", _retry_after(response.headers.get("Retry-After"))
        if status in {401, 403}:
            raise UserError(f"TMDB refuses the token (HTTP {status}).\n{REMEDY}")
        kind = _NotFoundError if status == 404 else UserError
        raise kind(
            f"TMDB refuses {path}: HTTP {status} {self._message(response)}".rstrip()
            + f"\nCheck [sources.tmdb] in .dlt/config.toml; base_url is {self._base_url}."
        )

    def _send(self, path: str, params: dict[str, Any]) -> requests.Response:
        session = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            # one host, no redirects: proxies and certificates are found once, not at each request
            session.trust_env = not _is_loopback(self._base_url)
            self._local.options = session.merge_environment_settings(
                self._base_url, {}, False, None, None
            )
            self._sessions.append(session)
        headers = {"Accept": "application/json", "Accept-Encoding": "gzip, deflate"}
        if self._by_key:
            params = {**params, "api_key": self._secret}
        else:
            headers["Authorization"] = f"Bearer {self._secret}"
        request = requests.Request("GET", self._base_url + path, headers=headers, params=params)
        return session.send(
            request.prepare(),
            timeout=self._settings.timeout,
            allow_redirects=False,  # the token is for this host only
            **self._local.options,
        )

    def _sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds) if seconds > 0 else self._stop.is_set():
            raise TmdbUnavailable("The pull was stopped.")

    def _message(self, response: requests.Response) -> str:
        try:
            text = str(_parse(response.content).get("status_message", ""))
        except ValueError:
            return ""
        return text.replace(self._secret, "***")[:200]


class _NotFoundError(UserError):
    """TMDB has nothing at this path (404)."""


class _WithoutKey(logging.Filter):
    """Blots out API keys: urllib3 writes URLs to its debug log."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = re.sub(r"(api_key=)[^&\s'\"]+", r"\1***", record.getMessage())
        record.args = ()
        return True


_without_key = _WithoutKey()


def _parse(content: bytes) -> dict[str, Any]:
    body = json.loads(content, parse_float=Decimal, parse_constant=lambda _: None)
    if not isinstance(body, dict):
        raise ValueError("not an object")  # noqa: TRY004 - as wrong as JSON that cannot be read
    return body


def _pages(body: dict[str, Any]) -> int:
    pages = body.get("total_pages")
    return pages if isinstance(pages, int) else 1


def _ids(body: dict[str, Any]) -> list[int]:
    return [film["id"] for film in body.get("results") or [] if isinstance(film.get("id"), int)]


def _retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header (a number of them, or a date: RFC 9110) asks to wait."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            then = parsedate_to_datetime(value)
        except ValueError:
            return None
        if then.tzinfo is None:
            then = then.replace(tzinfo=timezone.utc)
        seconds = (then - datetime.now(timezone.utc)).total_seconds()
    return max(0.0, seconds) if seconds < float("inf") else None


def _is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in {"127.0.0.1", "::1", "localhost"}
