"""The way in: keys, limits, the cache. What is in the cache is answered here, below FastAPI."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode

from serving.api import figures, formats, measures
from serving.api.answers import SMALLEST_PACKED, Answer, Headers, tag_of
from serving.api.builds import Build
from serving.api.catalogue import Mart
from serving.api.figures import Figures
from serving.api.problems import ProblemError
from serving.api.query import parsed
from serving.api.state import State

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

MART = re.compile(r"/v1/marts/([^/]+)")
METRICS = re.compile(r"/v1/metrics/([^/]+)")
MOST_KNOWN = 10_000  # requests for metrics whose mart is known
LONGEST_QUERY = 16_384  # bytes of a query string
PATHS = ("/v1/marts", "/v1/metrics", "/health", "/ready", "/metrics", "/docs", "/openapi.json")
LOG = logging.getLogger("marquee.api")
_NO_GZIP = re.compile(rb"gzip\s*;\s*q=0(\.0*)?\s*(,|$)")


class Gate:
    """An ASGI application around another one, which serves what is not kept here.

    Args:
        app: FastAPI's.
        state: of this process.
    """

    def __init__(self, app: Any, state: State) -> None:
        self.app, self.state = app, state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        path, status = scope["path"], 0
        mart = MART.fullmatch(path)  # FastAPI's routing costs more than a cached answer

        async def noted(message: dict[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if path.startswith("/v1/"):
                self._admit(scope)
            if mart:
                await self._page(scope, noted, mart[1])
            elif metrics := METRICS.fullmatch(path):
                await self._figures(scope, noted, metrics[1])
            else:
                await self.app(scope, receive, noted)
        except ProblemError as problem:
            await answer(noted, problem.status, problem.headers(), problem.body())
        except Exception:
            LOG.exception("A request failed: %s", path)
            if not status:
                trouble = ProblemError(
                    500, "The server made a mistake.", "Its log says which; tell its operator."
                )
                await answer(noted, 500, trouble.headers(), trouble.body())
        finally:
            label, name = self._label(path, mart)
            measures.requests_of(label, name, status).inc()
            measures.seconds_of(label).observe(time.perf_counter() - started)

    def _label(self, path: str, mart: re.Match[str] | None) -> tuple[str, str]:
        if mart:
            return "/v1/marts/{mart}", mart[1] if mart[1] in self.state.marts else ""
        if path in PATHS:
            return path, ""
        if METRICS.fullmatch(path):
            return "/v1/metrics/{metrics}", ""
        known = path.startswith("/v1/marts/") and path.endswith("/schema")
        return "/v1/marts/{mart}/schema" if known else "other", ""

    def _admit(self, scope: Scope) -> None:
        """Refuse who has no key, or sends too much.

        Raises:
            ProblemError: it is refused.
        """
        scheme, _, given = header(scope, b"authorization").partition(b" ")
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
        if len(scope["query_string"]) > LONGEST_QUERY:
            raise ProblemError(
                414,
                f"The query has more than {LONGEST_QUERY} bytes.",
                "Give fewer or shorter values.",
            )

    async def _page(self, scope: Scope, send: Send, name: str) -> None:
        _check_method(scope)
        mart = self.state.marts.get(name)
        if mart is None:
            raise ProblemError(404, "There is no such mart.", "GET /v1/marts lists them.")
        await self._answer(
            scope, send, mart, lambda build: self._made(mart, build, scope["query_string"])
        )

    async def _figures(self, scope: Scope, send: Send, names: str) -> None:
        _check_method(scope)
        metrics, query_string = self.state.metrics, scope["query_string"]
        if metrics is None:
            raise ProblemError(
                503,
                "No metrics are served; the server's log says why.",
                "Let the server's operator run `marquee run`.",
                retry_after=30,
            )

        async def asked() -> Figures:
            # MetricFlow takes some milliseconds, in which others are answered
            return await asyncio.to_thread(
                figures.parsed, metrics, self.state.marts, names, query_string
            )

        request = (scope["path"], query_string)
        mart, first = self.state.figured.get(request), None
        if mart is None:
            first = await asked()
            mart = first.mart
            if len(self.state.figured) >= MOST_KNOWN:
                self.state.figured.clear()
            self.state.figured[request] = mart

        async def made(build: Build | None) -> Answer:
            wanted = first or await asked()
            content = await self.state.reader.figures(wanted, build.token if build else None)
            return Answer(content, [(b"content-type", formats.CONTENT_TYPES[wanted.format])])

        await self._answer(scope, send, mart, made)

    async def _answer(
        self,
        scope: Scope,
        send: Send,
        mart: Mart,
        make: Callable[[Build | None], Awaitable[Answer]],
    ) -> None:
        """Answer from the cache, or with what is made of the mart's latest build."""
        build = self.state.build_of(mart)
        builds = (build.token,) if build else ()
        headers = self._headers(build)
        if build:
            tag = tag_of(scope["path"], scope["query_string"], builds)
            headers.append((b"etag", tag))
            if tag in [one.strip() for one in header(scope, b"if-none-match").split(b",")]:
                await answer(send, 304, headers, b"")
                return
        key = (scope["path"], scope["query_string"], builds)
        found = self.state.answers.get(key)
        if found is None:
            measures.MISSES.inc()
            found = await self.state.answers.made(
                key,
                lambda: make(build),
                keep=bool(build) and self.state.builds.is_connected,
            )
        else:
            measures.HITS.inc()
        content = found.content
        if len(content) >= SMALLEST_PACKED and accepts_gzip(scope):
            if found.packed is None:
                await found.in_gzip()
                self.state.answers.resize(key)
            content = found.packed or content
            headers.append((b"content-encoding", b"gzip"))
        await answer(send, 200, found.headers + headers, content)

    def _headers(self, build: Build | None) -> Headers:
        """Headers that say which build an answer is of, and how old that may be."""
        if build is None:
            return [(b"cache-control", b"no-store"), (b"vary", b"accept-encoding, authorization")]
        headers = [
            (b"cache-control", b"private, no-cache"),
            (b"vary", b"accept-encoding, authorization"),
            (b"warehouse-build", build.invocation_id.encode()),
        ]
        if not self.state.builds.is_connected:
            age = int(self.state.builds.age)
            headers.append((b"age", str(age).encode()))
            headers.append((b"warning", b'110 marquee "The warehouse does not answer"'))
        return headers

    async def _made(self, mart: Mart, build: Build | None, query_string: bytes) -> Answer:
        query = parsed(mart, query_string)
        token = build.token if build else None
        if query.build is not None and query.build != token and not query.goes_on:
            raise ProblemError(
                409,
                f"{mart.name} was built anew since the first page.",
                "Begin again without a cursor, or go on in the new build: on_rebuild=continue",
                "cursor",
            )
        content, cursor = await self.state.reader.page(query, token)
        headers = [(b"content-type", formats.CONTENT_TYPES[query.format])]
        if cursor:
            others = parse_qsl(query_string.decode("ascii"), keep_blank_values=True)
            pairs = [(n, v) for n, v in others if n != "cursor"]
            following = urlencode([*pairs, ("cursor", cursor)])
            headers.append((b"link", f'<?{following}>; rel="next"'.encode("ascii")))
            headers.append((b"next-cursor", cursor.encode("ascii")))
        return Answer(content, headers)


def _check_method(scope: Scope) -> None:
    if scope["method"] not in ("GET", "HEAD"):
        raise ProblemError(405, "It can only be read.", "Send GET.")


def header(scope: Scope, name: bytes) -> bytes:
    """The value of a header; nothing if it is not there."""
    for found, value in scope["headers"]:
        if found == name:
            return value
    return b""


def accepts_gzip(scope: Scope) -> bool:
    accepted = header(scope, b"accept-encoding")
    return b"gzip" in accepted and not _NO_GZIP.search(accepted)


async def answer(send: Send, status: int, headers: Headers, content: bytes) -> None:
    """Send an answer whole."""
    headers = [*headers, (b"x-content-type-options", b"nosniff")]
    if status != 304:
        headers.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
