"""The way in: keys, limits, the cache. What is in the cache is answered here, below FastAPI."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple

from serving.api import making, measures
from serving.api.answers import Headers, tag_of
from serving.api.builds import Build
from serving.api.catalogue import Mart
from serving.api.making import LONGEST_QUERY, Asked
from serving.api.problems import ProblemError
from serving.api.state import CacheKey, State

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Sent = dict[bytes, bytes]  # headers of a request

MART = re.compile(r"/v1/marts/([^/]+)")
METRICS = re.compile(r"/v1/metrics/([^/]+)")
MART_PATH, METRICS_PATH = "/v1/marts/{mart}", "/v1/metrics/{metrics}"
METHODS = ("GET", "HEAD")
LONGEST_KNOWN = 1024  # bytes of a query string that is remembered
PATHS = ("/v1/marts", "/v1/metrics", "/health", "/ready", "/metrics", "/docs", "/openapi.json")
LOG = logging.getLogger("marquee.api")
_NO_GZIP = re.compile(rb"gzip\s*;\s*q=0(\.0*)?\s*(,|$)")


class Known(NamedTuple):
    """A request that was answered from a build, so that the next one like it costs little.

    Attributes:
        asked: what it asks.
        build: that its answer is of.
        marts: as they were described then.
        key: of its answer.
        tag: its ETag.
        headers: of all answers of the build.
        label: names its path in the figures.
        mart: names its mart there.
    """

    asked: Asked
    build: Build | None
    marts: dict[str, Mart]
    key: CacheKey
    tag: bytes
    headers: Headers
    label: str
    mart: str


class Gate:
    """An ASGI application around another one, which serves what is not kept here.

    Args:
        app: FastAPI's.
        state: of this process.
    """

    def __init__(self, app: Any, state: State) -> None:
        self.app, self.state = app, state
        self._known: dict[tuple[str, bytes], Known] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        path, status, known = scope["path"], 500, None
        try:
            if path.startswith("/v1/"):
                sent: Sent = dict(scope["headers"])
                self._admit(sent, scope["query_string"])
                known = self._seen(scope) or await self._asked(scope)
            if known:
                status = await self._answer(sent, send, known)
            else:
                status = await self._passed(scope, receive, send)
        except ProblemError as problem:
            status = await answer(send, problem.status, problem.headers(), problem.body())
        except Exception:
            LOG.exception("A request failed: %s", path)
            trouble = ProblemError(
                500, "The server made a mistake.", "Its log says which; tell its operator."
            )
            with suppress(RuntimeError):  # where an answer has begun
                await answer(send, 500, trouble.headers(), trouble.body())
        finally:
            label, mart = (known.label, known.mart) if known else self._label(path)
            measures.GATHERED.answered(label, mart, status, time.perf_counter() - started)

    async def _passed(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Let FastAPI answer; the status that it sends."""
        status = 500

        async def noted(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        await self.app(scope, receive, noted)
        return status

    def _label(self, path: str) -> tuple[str, str]:
        if mart := MART.fullmatch(path):
            return MART_PATH, mart[1] if mart[1] in self.state.marts else ""
        if path in PATHS:
            return path, ""
        if METRICS.fullmatch(path):
            return METRICS_PATH, ""
        known = path.startswith("/v1/marts/") and path.endswith("/schema")
        return "/v1/marts/{mart}/schema" if known else "other", ""

    def _admit(self, sent: Sent, query_string: bytes) -> None:
        """Refuse who has no key, or sends too much.

        Raises:
            ProblemError: it is refused.
        """
        scheme, _, given = sent.get(b"authorization", b"").partition(b" ")
        key = self.state.keys.check(given.strip()) if scheme.lower() == b"bearer" else None
        if key is None:
            raise ProblemError(
                401,
                "The request has no key that holds.",
                "Send the header Authorization: Bearer KEY; `marquee api key create` makes a key.",
            )
        if wait := self.state.rates.take(key):
            raise ProblemError(
                429,
                f"The key may send {key.rate} requests a second.",
                "Wait for as long as Retry-After says.",
                retry_after=max(1, round(wait)),
            )
        if len(query_string) > LONGEST_QUERY:
            raise ProblemError(
                414,
                f"The query has more than {LONGEST_QUERY} bytes.",
                "Give fewer or shorter values.",
            )

    def _seen(self, scope: Scope) -> Known | None:
        """What is known of a request from one like it, while that is true."""
        known = self._known.get((scope["path"], scope["query_string"]))
        if known is None or scope["method"] not in METHODS:
            return None
        state = self.state
        if known.marts is not state.marts or state.build_of(known.asked.mart) is not known.build:
            return None
        return known

    async def _asked(self, scope: Scope) -> Known | None:
        """What a request asks; nothing if FastAPI answers it, whose routing costs more.

        Raises:
            ProblemError: it cannot be answered.
        """
        path, query_string = scope["path"], scope["query_string"]
        if found := MART.fullmatch(path):
            _check_method(scope)
            asked = making.rows(self.state, found[1], query_string)
            label, mart = MART_PATH, asked.mart.name
        elif found := METRICS.fullmatch(path):
            _check_method(scope)
            asked = await making.figures_of(self.state, found[1], query_string)
            label, mart = METRICS_PATH, ""
        else:
            return None
        build = self.state.build_of(asked.mart)
        key = making.key_of(self.state, path, query_string, build)
        tag = tag_of(*key)
        headers = _headers(build, tag)
        known = Known(asked, build, self.state.marts, key, tag, headers, label, mart)
        if build and len(query_string) <= LONGEST_KNOWN:
            if len(self._known) >= making.MOST_KNOWN:
                self._known.clear()
            self._known[path, query_string] = known
        return known

    async def _answer(self, sent: Sent, send: Send, known: Known) -> int:
        """Answer from the cache, or with what is made of the mart's latest build; the status."""
        build, headers = known.build, known.headers
        if build and not self.state.builds.is_connected:
            headers = [*headers, *self._age()]
        given = sent.get(b"if-none-match")
        if build and given and known.tag in [one.strip() for one in given.split(b",")]:
            return await answer(send, 304, headers, b"")
        found = making.kept(self.state, known.key) or await making.made(
            self.state, known.key, known.asked, build
        )
        packed = found.is_packable and accepts_gzip(sent.get(b"accept-encoding", b""))
        content = found.packed if packed else found.content
        if content is None:
            content = await (found.in_gzip() if packed else found.plain())
            self.state.answers.resize(known.key)
        if packed:
            headers = [*headers, (b"content-encoding", b"gzip")]
        return await answer(send, 200, found.headers + headers, content)

    def _age(self) -> Headers:
        """Headers that say how old what is known of the builds may be."""
        age = int(self.state.builds.age)
        return [
            (b"age", str(age).encode()),
            (b"warning", b'110 marquee "The warehouse does not answer"'),
        ]


def _headers(build: Build | None, tag: bytes) -> Headers:
    """Headers that say which build an answer is of."""
    if build is None:
        return [(b"cache-control", b"no-store"), (b"vary", b"accept-encoding, authorization")]
    return [
        (b"cache-control", b"private, no-cache"),
        (b"vary", b"accept-encoding, authorization"),
        (b"warehouse-build", build.invocation_id.encode()),
        (b"etag", tag),
    ]


def _check_method(scope: Scope) -> None:
    if scope["method"] not in METHODS:
        raise ProblemError(405, "It can only be read.", "Send GET.")


def accepts_gzip(accepted: bytes) -> bool:
    """Whether the header Accept-Encoding allows it."""
    return b"gzip" in accepted and not _NO_GZIP.search(accepted)


async def answer(send: Send, status: int, headers: Headers, content: bytes) -> int:
    """Send an answer whole; returns its status."""
    headers = [*headers, (b"x-content-type-options", b"nosniff")]
    if status != 304:
        headers.append((b"content-length", b"%d" % len(content)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
    return status
