"""One connection to Redis that never makes a request wait for long, whatever Redis does.

All requests of a process share it: commands are sent one after the other, and answers come in the
same order. hiredis reads them. A command that is not answered in time is given up, and none is
sent until all that were sent are answered, or the connection is made anew.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import hiredis

from ingestion.errors import UserError
from serving.api import measures

PASSWORD = "MARQUEE_REDIS_PASSWORD"  # noqa: S105 - the name of a variable
CONNECT = 1.0  # seconds that a connection, or what was sent on it, may take before it is made anew
PAUSE = 0.5  # seconds between attempts to connect
MOST_UNSENT = 8 * 1024**2  # bytes
SCHEMES = ("redis", "rediss", "unix")
LOG = logging.getLogger("marquee.api")


@dataclass(frozen=True)
class Address:
    """Where a Redis is.

    Attributes:
        host: its name; nothing for a socket of this machine.
        port: its port.
        path: of the socket of this machine.
        database: its number.
        user: of Redis' ACL; nothing for the default one.
        tls: whether the connection is encrypted.
    """

    host: str
    port: int
    path: str
    database: int
    user: str
    tls: bool

    @classmethod
    def of(cls, url: str) -> Address:
        """The address that ``redis://[USER@]HOST[:PORT][/DATABASE]`` says.

        ``rediss://`` is with TLS; ``unix:///PATH?db=DATABASE`` a socket of this machine.

        Raises:
            UserError: it is no such address, or has a password in it.
        """
        wrong = UserError(
            f"{url.rpartition('@')[2]} is no address of a Redis.\n"
            "Write it as redis://127.0.0.1:6379/0, rediss://... with TLS, or unix:///PATH."
        )
        try:
            found = urlsplit(url)
            port, password = found.port, found.password
            is_socket = found.scheme == "unix"
            number = found.query.removeprefix("db=") if is_socket else found.path.strip("/")
            database = int(number or 0)
        except ValueError:
            raise wrong from None
        if password is not None:
            raise UserError(
                "The address of Redis has a password in it, which `ps` would show.\n"
                f"Leave it out, and set {PASSWORD} or {PASSWORD}_FILE."
            )
        if found.scheme not in SCHEMES or not (found.path if is_socket else found.hostname):
            raise wrong
        return cls(
            host=found.hostname or "",
            port=port or 6379,
            path=found.path if is_socket else "",
            database=database,
            user=unquote(found.username or ""),
            tls=found.scheme == "rediss",
        )


class Link(asyncio.Protocol):
    """A connection: what was sent and not answered yet, in order."""

    def __init__(self) -> None:
        self.transport: Any = None
        self.lost = asyncio.get_running_loop().create_future()
        self.is_late = False
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._reader = hiredis.Reader()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                future, _ = self._waiting.popleft()
                if not future.done():
                    future.set_result(reply)
        except (
            hiredis.ProtocolError,
            IndexError,
        ):  # it is no Redis, or said more than it was asked
            self.transport.abort()
        self.is_late = self.is_late and bool(self._waiting)

    def connection_lost(self, error: Exception | None) -> None:
        for future, _ in self._waiting:
            if not future.done():
                future.set_result(ConnectionError(str(error or "closed")))
        if not self.lost.done():
            self.lost.set_result(None)

    @property
    def is_usable(self) -> bool:
        """Whether it answers; one that is lost may not be told so yet."""
        return not self.is_late and not self.transport.is_closing()

    @property
    def overdue(self) -> float:
        """Seconds for which the oldest command has waited."""
        return time.monotonic() - self._waiting[0][1] if self._waiting else 0.0

    def send(self, *parts: bytes) -> asyncio.Future[Any]:
        """Send a command; what comes of it: bytes, a number, None, or an exception as a value."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((future, time.monotonic()))
        packed = [b"*%d\r\n" % len(parts)]
        for part in parts:
            packed += (b"$%d\r\n" % len(part), part, b"\r\n")
        self.transport.write(b"".join(packed))
        return future

    def give_up(self, future: asyncio.Future[Any]) -> None:
        """Let a command wait no longer; its answer is thrown away when it comes."""
        if not future.done():
            self.is_late = True
            future.set_result(TimeoutError("no answer in time"))


class Redis:
    """A Redis, as long as ``follow`` runs; away where it cannot be asked.

    Args:
        address: of it. The password is in the environment.
        wait: seconds that a request waits for an answer.
    """

    def __init__(self, address: Address, wait: float) -> None:
        self.address, self.wait = address, wait
        self.trouble = "not connected yet"
        self._link: Link | None = None
        measures.REDIS_CONNECTED.set(0)

    @property
    def is_connected(self) -> bool:
        return self._link is not None

    async def get(self, key: bytes, most: int) -> bytes | None:
        """The first bytes of a value; None where there is none, or Redis does not answer in time.

        Args:
            key: of it.
            most: bytes that are read. Whoever else writes there may have written more.
        """
        link = self._link
        if link is None or not link.is_usable:
            measures.REDIS_ERRORS.inc()
            return None
        future = link.send(b"GETRANGE", key, b"0", b"%d" % (most - 1))
        timer = asyncio.get_running_loop().call_later(self.wait, link.give_up, future)
        reply = await future
        timer.cancel()
        if isinstance(reply, bytes):
            return reply or None  # there is no difference between none and an empty one
        measures.REDIS_ERRORS.inc()
        return None

    def set(self, key: bytes, value: bytes, seconds: int) -> None:
        """Send a value, which nobody waits for; it is left out where Redis is away or behind."""
        link = self._link
        if link is None or not link.is_usable:
            return
        if link.transport.get_write_buffer_size() > MOST_UNSENT:
            return
        link.send(b"SET", key, value, b"EX", b"%d" % seconds).add_done_callback(_note)

    async def follow(self) -> None:
        """Keep a connection until cancelled; what goes wrong is said in ``trouble``."""
        while True:
            link = None
            try:
                link = await asyncio.wait_for(self._connect(), CONNECT)
                self._link, self.trouble = link, ""
                measures.REDIS_CONNECTED.set(1)
                await self._stay(link)
                self._away("the connection was closed")
            except (OSError, TimeoutError, asyncio.TimeoutError, UserError) as error:
                self._away(f"{type(error).__name__}: {error}".rstrip(": "))
            finally:
                self._link = None
                measures.REDIS_CONNECTED.set(0)
                if link:
                    link.transport.abort()
            await asyncio.sleep(PAUSE)

    async def _connect(self) -> Link:
        loop, one = asyncio.get_running_loop(), self.address
        link: Link
        if one.path:
            _, link = await loop.create_unix_connection(Link, one.path)
        else:
            _, link = await loop.create_connection(Link, one.host, one.port, ssl=one.tls or None)
        try:
            password = os.environ.get(PASSWORD, "")
            if password:
                login = (one.user, password) if one.user else (password,)
                _check(await link.send(b"AUTH", *(part.encode() for part in login)))
            _check(await link.send(b"SELECT", b"%d" % one.database))
        except BaseException:
            link.transport.abort()
            raise
        return link

    async def _stay(self, link: Link) -> None:
        while not link.lost.done():
            with suppress(asyncio.TimeoutError, TimeoutError):
                await asyncio.wait_for(asyncio.shield(link.lost), CONNECT)
            if link.overdue > CONNECT:
                raise TimeoutError("Redis does not answer")

    def _away(self, trouble: str) -> None:
        if self._link is not None or trouble != self.trouble:
            LOG.warning("Answers are not shared for now, as Redis is away: %s", trouble)
        self.trouble = trouble


def _check(reply: Any) -> None:
    if isinstance(reply, Exception):
        raise ConnectionError(str(reply))


def _note(done: asyncio.Future[Any]) -> None:
    if not done.cancelled() and isinstance(done.result(), Exception):
        measures.REDIS_ERRORS.inc()
