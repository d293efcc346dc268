"""Answers, kept for as long as the marts that they come from are not built anew."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Protocol

from isal import isal_zlib

from ingestion import __version__
from serving.api import measures

SMALLEST_PACKED = 1024  # bytes; what is smaller is sent as it is
LARGEST_AT_ONCE = 256 * 1024  # bytes that are packed without a thread
OVERHEAD = 1000  # bytes that an entry takes besides its content, about
GZIP = 31  # zlib's number for gzip with the largest window
Headers = list[tuple[bytes, bytes]]


@dataclass
class Answer:
    """What is sent for a request, as it is or in gzip; one is made of the other when asked for.

    Attributes:
        content: the body.
        headers: of the body, whoever gets it.
        packed: the body in gzip.
    """

    content: bytes | None
    headers: Headers
    packed: bytes | None = field(default=None, repr=False)

    @property
    def size(self) -> int:
        return OVERHEAD + len(self.content or b"") + len(self.packed or b"")

    @property
    def is_packable(self) -> bool:
        """Whether it is long enough to be sent in gzip."""
        return self.content is None or len(self.content) >= SMALLEST_PACKED

    async def in_gzip(self) -> bytes:
        if self.packed is None:
            self.packed = await _off_loop(_pack, self.content or b"", LARGEST_AT_ONCE)
        return self.packed

    async def plain(self) -> bytes:
        if self.content is None:
            self.content = await _off_loop(_unpack, self.packed or b"", LARGEST_AT_ONCE // 8)
        return self.content


def _pack(content: bytes) -> bytes:
    return isal_zlib.compress(content, 1, GZIP)


def _unpack(packed: bytes) -> bytes:
    return isal_zlib.decompress(packed, GZIP)


async def _off_loop(make: Callable[[bytes], bytes], content: bytes, at_once: int) -> bytes:
    """Pack or unpack; what is large in a thread, so that others are answered meanwhile."""
    if len(content) > at_once:
        return await asyncio.to_thread(make, content)
    return make(content)


def tag_of(path: str, query_string: bytes, builds: tuple[str, ...]) -> bytes:
    """The ETag of an answer, known before it is made: builds and request decide what it is."""
    packed = f"{__version__} {path} {' '.join(builds)} ".encode() + query_string
    return b'W/"' + hashlib.blake2b(packed, digest_size=16).hexdigest().encode() + b'"'


class Shared(Protocol):
    """A cache behind this one, which other processes use, too."""

    async def get(self, key: Hashable) -> Answer | None: ...

    async def put(self, key: Hashable, answer: Answer) -> None: ...


class Answers:
    """A cache bounded in bytes; what is asked for at the same time is made once.

    Args:
        most: bytes that it holds. The entries used least recently go first.
        shared: asked for what is not here, and told what was made.
    """

    def __init__(self, most: int, shared: Shared | None = None) -> None:
        self.most, self.shared = most, shared
        self.held = 0
        self._kept: OrderedDict[Hashable, tuple[Answer, int]] = OrderedDict()
        self._under_way: dict[Hashable, asyncio.Task[Answer]] = {}
        self._sharing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable) -> Answer | None:
        """The answer that is kept under a key."""
        if found := self._kept.get(key):
            self._kept.move_to_end(key)
            return found[0]
        return None

    async def made(
        self,
        key: Hashable,
        make: Callable[[], Awaitable[Answer]],
        *,
        keep: bool,
        look: bool = False,
    ) -> Answer:
        """The answer of a key: the one that is being made, a shared one, or a new one.

        One who leaves does not stop it, as others may wait for it.

        Args:
            key: the request with the builds of all that it reads.
            make: makes it.
            keep: whether it may serve later requests, too.
            look: whether a shared one will do.
        """
        # before a task is made, which would cost as much as the look itself
        shared = self.shared if look and key not in self._under_way else None
        if shared and (found := await shared.get(key)):
            if keep:
                self._put(key, found)
            return found
        task = self._under_way.get(key)
        if task is None:
            task = asyncio.ensure_future(self._make(key, make, keep=keep))
            self._under_way[key] = task
            task.add_done_callback(lambda done: self._done(key, done))
        else:
            measures.COALESCED.inc()
        return await asyncio.shield(task)

    def clear(self) -> None:
        """Forget all answers; those under way are not kept either."""
        self._kept.clear()
        self._under_way.clear()
        self._hold(0)

    def keep_only(self, is_current: Callable[[Hashable], bool]) -> None:
        """Forget the answers whose keys are of the past."""
        for key in [key for key in self._kept if not is_current(key)]:
            self._drop(key)

    def resize(self, key: Hashable) -> None:
        """Count an answer anew, after it was packed."""
        if key in self._kept:
            self._put(key, self._kept[key][0])

    async def _make(
        self, key: Hashable, make: Callable[[], Awaitable[Answer]], *, keep: bool
    ) -> Answer:
        answer = await make()
        if keep and self._under_way.get(key) is asyncio.current_task():
            self._put(key, answer)
            if self.shared:  # nobody waits for it
                task = asyncio.ensure_future(self._share(self.shared, key, answer))
                self._sharing.add(task)
                task.add_done_callback(self._sharing.discard)
        return answer

    async def _share(self, shared: Shared, key: Hashable, answer: Answer) -> None:
        await shared.put(key, answer)
        self.resize(key)

    def _done(self, key: Hashable, task: asyncio.Task[Answer]) -> None:
        if self._under_way.get(key) is task:
            del self._under_way[key]
        if not task.cancelled():
            task.exception()  # all who asked have it

    def _put(self, key: Hashable, answer: Answer) -> None:
        self._drop(key)
        if answer.size > self.most // 8:  # one that would push out many others
            return
        self._kept[key] = (answer, answer.size)
        self._hold(self.held + answer.size)
        while self.held > self.most:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: Hashable) -> None:
        if found := self._kept.pop(key, None):
            self._hold(self.held - found[1])

    def _hold(self, size: int) -> None:
        self.held = size
        measures.CACHE_BYTES.set(size)
