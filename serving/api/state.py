"""One process of a server: the catalogue, the cache, and what keeps them true."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Hashable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ingestion.errors import UserError
from ingestion.evidence import tables
from ingestion.warehouse import access
from ingestion.warehouse.paths import STATE_DIR
from ingestion.warehouse.target import Target
from serving.api import catalogue, figures, measures
from serving.api.answers import Answers
from serving.api.builds import Build, Builds
from serving.api.catalogue import Mart
from serving.api.keys import Keys
from serving.api.rates import Rates
from serving.api.reading import Reader
from serving.api.redis_link import Address, Redis
from serving.api.settings import Settings, reader
from serving.api.shared_answers import SharedAnswers
from serving.metrics import Metrics

LOG = logging.getLogger("marquee.api")
THREADS = 4
CacheKey = tuple[str, bytes, tuple[str, ...]]  # path, query string, shape and tokens of builds


class State:
    """What the requests of a process share.

    Args:
        settings: of the server.

    Raises:
        UserError: there is no manifest, or the profile cannot be read.
    """

    marts: dict[str, Mart]
    metrics: Metrics | None
    shape: str

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.target = access.load_target(settings.target_name)
        self.manifest = Path(settings.manifest)
        self.figured: dict[
            tuple[str, bytes], Mart
        ] = {}  # marts of requests for metrics, by request
        self._read_manifest()
        self._tokens: set[str] = set()
        self.keys = Keys(STATE_DIR)
        self.rates = Rates(settings.rates)
        login = reader(self.target)
        self.redis, shared = _shared(settings, login, self._is_current)
        self.answers = Answers(settings.cache_bytes, shared)
        self.reader = Reader(login, settings.connections, settings.wait, settings.timeout)
        self.builds = Builds(
            self.reader, tables.schema(self.target), self.answers.clear, self._looked
        )
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        # few threads: each makes the bytes of one large answer
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS))
        await self.reader.open()
        self._start(self.builds.follow())
        if self.redis:
            self._start(self.redis.follow())
        self._start(self._prepare())

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await self.reader.close()
        measures.GATHERED.add()

    def build_of(self, mart: Mart) -> Build | None:
        """The build that a mart's answers are of; none of a view, whose rows change without one."""
        return None if mart.is_live else self.builds.known.get(mart.relation_name)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _looked(self) -> None:
        """After each look at the builds: forget old answers, and see whether models changed."""
        self._forget()
        if self._manifest_mark() != self._mark:
            self._start(self._renew())

    def _forget(self) -> None:
        tokens = {self.shape, *(build.token for build in self.builds.known.values())}
        if tokens != self._tokens:
            self._tokens = tokens
            self.answers.keep_only(self._is_current)
            for mart in self.marts.values():
                if build := self.builds.known.get(mart.relation_name):
                    measures.BUILT_AT.labels(mart.name).set(build.built_at.timestamp())

    def _is_current(self, key: Hashable) -> bool:
        found: CacheKey = key  # type: ignore[assignment]
        return self._tokens.issuperset(found[2])

    async def _renew(self) -> None:
        try:
            await asyncio.to_thread(self._read_manifest)
        except UserError as error:
            LOG.warning("The marts of before are served: %s", error.message)
            return
        self._forget()
        await self._prepare()

    async def _prepare(self) -> None:
        """Import what makes SQL of metrics, so that no request waits for it."""
        if self.metrics:
            await asyncio.to_thread(self.metrics.prepare)

    def _read_manifest(self) -> None:
        """Serve what dbt has written, all of it or nothing.

        Raises:
            UserError: it cannot be read, or not yet.
        """
        self._mark = self._manifest_mark()
        marts = catalogue.read(self.manifest, self.target, self.settings.schema)
        files = figures.written(self.manifest)
        metrics: Metrics | None = None
        trouble = ""
        try:
            metrics = figures.load(*files, marts)
        except UserError as error:
            trouble = error.message
        source = figures.source(self.manifest)
        if self._manifest_mark() != self._mark:
            raise UserError(f"{self.manifest} is being written.\nTry again in a moment.")
        if trouble:
            LOG.warning("No metrics are served: %s", trouble)
        self.marts, self.metrics = marts, metrics
        self.shape = catalogue.shape(marts, source)
        self.figured.clear()

    def _manifest_mark(self) -> list[tuple[int, int] | None]:
        return [_mark_of(path) for path in (self.manifest, figures.semantic_of(self.manifest))]


def _mark_of(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _shared(
    settings: Settings, login: Target, is_current: Callable[[Hashable], bool]
) -> tuple[Redis | None, SharedAnswers | None]:
    if settings.redis is None:
        return None, None
    redis = Redis(Address.of(settings.redis), settings.redis_wait)
    return redis, SharedAnswers(redis, login, is_current)
