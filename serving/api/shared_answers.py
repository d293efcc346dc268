"""Answers that the processes of all servers share, in Redis: the second level of the cache.

A key is made of all that decides what an answer is: the request, the builds that it reads, the
shape of the marts and metrics, and this code. So a value is never out of date; old ones are not
asked for again, and go by their time or Redis' own limit.

What is in Redis is not trusted. A value is signed with a secret that is made of the login which
reads the warehouse: what others wrote, what was cut short, and what was moved from another key is
no answer. Keys of the API are checked before anything is looked up.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Hashable
from pathlib import Path

from ingestion.warehouse.target import Target
from serving.api import measures
from serving.api.answers import Answer, Headers
from serving.api.redis_link import Redis

SECONDS = 24 * 3600  # that a value stays in Redis
LARGEST = 1024**2  # bytes of a value; a larger one would hold up those behind it
LARGEST_CONTENT = 8 * LARGEST  # bytes of an answer before gzip
_SIGNED = 16  # bytes of a signature
_PACKED = b"\0packed"  # stands for a header


class SharedAnswers:
    """Answers in a Redis.

    Args:
        redis: it.
        login: that reads the warehouse.
        is_current: whether the builds of a key are still the latest ones.
    """

    def __init__(self, redis: Redis, login: Target, is_current: Callable[[Hashable], bool]) -> None:
        self.redis, self.is_current = redis, is_current
        # slow to make, so that nobody finds the password by trying which one has signed a value
        salt = f"marquee {login.user} {login.dbname} {_code()}".encode()
        self._secret = hashlib.scrypt(login.password.encode(), salt=salt, n=2**14, r=8, p=1)

    async def get(self, key: Hashable) -> Answer | None:
        """The answer of a key; None where there is none, or Redis does not say."""
        place = self._place(key)
        value = await self.redis.get(place, LARGEST + 1)
        answer = None if value is None else self._read(place, value)
        found = measures.REDIS_MISSES if answer is None else measures.REDIS_HITS
        measures.GATHERED.count(found)
        return answer

    async def put(self, key: Hashable, answer: Answer) -> None:
        """Share an answer, in gzip, unless it is large."""
        if not self.redis.is_connected or answer.size > LARGEST_CONTENT:
            return
        packed = answer.is_packable
        body = await (answer.in_gzip() if packed else answer.plain())
        if not self.is_current(key):  # it may be of a build that came meanwhile
            return
        headers = [*answer.headers, (_PACKED, b"")] if packed else answer.headers
        head = b"".join(b"%b:%b\n" % pair for pair in headers)
        value = b"%d\n%b%b" % (len(head), head, body)
        if len(value) + _SIGNED <= LARGEST:
            place = self._place(key)
            self.redis.set(place, self._sign(place, value) + value, SECONDS)

    def _place(self, key: Hashable) -> bytes:
        return b"marquee:answer:" + self._hash(repr(key).encode(), 20).hex().encode()

    def _hash(self, content: bytes, size: int) -> bytes:
        return hashlib.blake2b(content, digest_size=size, key=self._secret).digest()

    def _sign(self, place: bytes, value: bytes) -> bytes:
        return self._hash(place + b" " + value, _SIGNED)

    def _read(self, place: bytes, value: bytes) -> Answer | None:
        signature, signed = value[:_SIGNED], value[_SIGNED:]
        if not hmac.compare_digest(self._sign(place, signed), signature):
            return None
        length, _, rest = signed.partition(b"\n")
        head, body = rest[: int(length)], rest[int(length) :]
        headers: Headers = []
        packed = None
        for line in head.splitlines():
            name, _, content = line.partition(b":")
            if name == _PACKED:
                packed = body
            else:
                headers.append((name, content))
        return Answer(None if packed else body, headers, packed)


def _code() -> str:
    """A digest of this package: another version may answer the same request otherwise."""
    found = hashlib.blake2b(digest_size=16)
    for path in sorted(Path(__file__).parent.parent.rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()
