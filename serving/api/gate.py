"""The way in: keys, limits, the cache. What is in the cache is answered here, below FastAPI."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

from serving.api import making, measures
from serving.api.answers import Headers, tag_of
from serving.api.builds import Build
from serving.api.making import LONGEST_QUERY, Asked
from serving.api.problems import ProblemError
from serving.api.state import State

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

MART = re.compile(r"/v1/marts/([^/]+)")
METRICS = re.compile(r"/v1/metrics/([^/]+)")
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
        await self._answer(scope, send, making.rows(self.state, name, scope["query_string"]))

    async def _figures(self, scope: Scope, send: Send, names: str) -> None:
        _check_method(scope)
        await self._answer(
            scope, send, await making.figures_of(self.state, names, scope["query_string"])
        )

    async def _answer(self, scope: Scope, send: Send, asked: Asked) -> None:
        """Answer from the cache, or with what is made of the mart's latest build."""
        build = self.state.build_of(asked.mart)
        headers = self._headers(build)
        key = making.key_of(self.state, scope["path"], scope["query_string"], build)
        if build:
            tag = tag_of(*key)
            headers.append((b"etag", tag))
            if tag in [one.strip() for one in header(scope, b"if-none-match").split(b",")]:
                await answer(send, 304, headers, b"")
                return
        found = await making.answered(self.state, key, asked, build)
        size = found.size
        if found.is_packable and accepts_gzip(scope):
            content = await found.in_gzip()
            headers.append((b"content-encoding", b"gzip"))
        else:
            content = await found.plain()
        if found.size != size:
            self.state.answers.resize(key)
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
