"""Answers to requests, whoever sends them: checked, then from the cache or made anew."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode

from serving.api import figures, formats, measures
from serving.api.answers import Answer
from serving.api.builds import Build
from serving.api.catalogue import Mart
from serving.api.figures import Figures
from serving.api.problems import ProblemError
from serving.api.query import parsed
from serving.api.state import CacheKey, State

LONGEST_QUERY = 16_384  # bytes of a query string
MOST_KNOWN = 2_000  # requests, about 1 kB each, of which more is known than they say


class Asked(NamedTuple):
    """A request: the mart that it reads, and how its answer is made of a build of that."""

    mart: Mart
    make: Callable[[Build | None], Awaitable[Answer]]


def rows(state: State, name: str, query_string: bytes) -> Asked:
    """A request for rows of a mart.

    Raises:
        ProblemError: there is no such mart.
    """
    mart = state.marts.get(name)
    if mart is None:
        raise ProblemError(404, "There is no such mart.", "GET /v1/marts lists them.")

    async def made(build: Build | None) -> Answer:
        return await _page(state, mart, build, query_string)

    return Asked(mart, made)


async def figures_of(state: State, names: str, query_string: bytes) -> Asked:
    """A request for figures of metrics.

    Raises:
        ProblemError: there are no metrics; or the request, which was not seen before, cannot be
            answered.
    """
    metrics = state.metrics
    if metrics is None:
        raise ProblemError(
            503,
            "No metrics are served; the server's log says why.",
            "Let the server's operator run `marquee run`.",
            retry_after=30,
        )

    async def asked() -> Figures:
        # MetricFlow takes some milliseconds, in which others are answered
        return await asyncio.to_thread(figures.parsed, metrics, state.marts, names, query_string)

    request = (names, query_string)
    mart, first = state.figured.get(request), None
    if mart is None:
        first = await asked()
        mart = first.mart
        if len(state.figured) >= MOST_KNOWN:
            state.figured.clear()
        state.figured[request] = mart

    async def made(build: Build | None) -> Answer:
        wanted = first or await asked()
        content = await state.reader.figures(wanted, build.token if build else None)
        return Answer(content, [(b"content-type", formats.CONTENT_TYPES[wanted.format])])

    return Asked(mart, made)


def key_of(state: State, path: str, query_string: bytes, build: Build | None) -> CacheKey:
    """What decides an answer: the request, and what it reads."""
    return path, query_string, (state.shape, build.token) if build else ()


def kept(state: State, key: CacheKey) -> Answer | None:
    """The answer to a request, if the cache of this process has it."""
    found = state.answers.get(key)
    if found is not None:
        measures.GATHERED.count(measures.HITS)
    return found


async def made(state: State, key: CacheKey, asked: Asked, build: Build | None) -> Answer:
    """The answer to a request that is not kept: a shared one, or a new one.

    Raises:
        ProblemError: it cannot be answered, or not now.
    """
    measures.GATHERED.count(measures.MISSES)
    return await state.answers.made(
        key,
        lambda: asked.make(build),
        keep=bool(build) and state.builds.is_connected,
        look=bool(build),
    )


async def _page(state: State, mart: Mart, build: Build | None, query_string: bytes) -> Answer:
    query = parsed(mart, query_string)
    token = build.token if build else None
    if query.build is not None and query.build != token and not query.goes_on:
        raise ProblemError(
            409,
            f"{mart.name} was built anew since the first page.",
            "Begin again without a cursor, or go on in the new build: on_rebuild=continue",
            "cursor",
        )
    content, cursor = await state.reader.page(query, token)
    headers = [(b"content-type", formats.CONTENT_TYPES[query.format])]
    if cursor:
        others = parse_qsl(query_string.decode("ascii"), keep_blank_values=True)
        pairs = [(n, v) for n, v in others if n != "cursor"]
        following = urlencode([*pairs, ("cursor", cursor)])
        headers.append((b"link", f'<?{following}>; rel="next"'.encode("ascii")))
        headers.append((b"next-cursor", cursor.encode("ascii")))
    return Answer(content, headers)
