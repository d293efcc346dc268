"""The builds of the marts, as they happen: which answers are still those of the warehouse.

A build writes a row of ``ops.mart_builds`` and notifies in its own transaction
(macros/operations/mart_builds.sql). After a restart of the database the row is read again, as a
notification is heard only by who is connected.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import asyncpg

from serving.api import measures
from serving.api.catalogue import quoted

if TYPE_CHECKING:
    from serving.api.reading import Reader

CHANNEL = "marquee_mart_builds"
POLL, PATIENCE = 30.0, 10.0  # seconds between looks without a notification; of a look
PAUSE = 0.5  # seconds before the next attempt to connect
LOG = logging.getLogger("marquee.api")


@dataclass(frozen=True)
class Build:
    """The latest build of a mart.

    Attributes:
        invocation_id: dbt's, as in ``ops.invocations``.
        built_at: when, in UTC.
        token: a short text that no other build of the mart has.
    """

    invocation_id: str
    built_at: datetime
    token: str

    @classmethod
    def of(cls, invocation_id: str, built_at: datetime) -> Build:
        packed = f"{invocation_id} {built_at.astimezone(timezone.utc).isoformat()}".encode()
        token = hashlib.blake2b(packed, digest_size=8).hexdigest()
        return cls(invocation_id, built_at, token)


class Builds:
    """Builds by the name of their relation, followed for as long as ``follow`` runs.

    Args:
        reader: whose login listens.
        schema: of the table.
        on_reconnect: called when the warehouse is back, before anything is known of it.
        on_look: called after each look at the table.
    """

    def __init__(
        self,
        reader: Reader,
        schema: str,
        on_reconnect: Callable[[], None],
        on_look: Callable[[], None],
    ) -> None:
        self.reader, self.schema = reader, schema
        self.on_reconnect, self.on_look = on_reconnect, on_look
        self.known: dict[str, Build] = {}
        self.is_connected = False
        self.trouble = "not connected yet"
        self._looked = time.monotonic()
        self._news, self._seen = asyncio.Event(), asyncio.Event()

    @property
    def age(self) -> float:
        """Seconds since the builds were known for certain; 0 while notifications arrive."""
        return 0.0 if self.is_connected else time.monotonic() - self._looked

    @property
    def looked(self) -> float:
        """Seconds since the table was read."""
        return time.monotonic() - self._looked

    async def first_look(self, most: float) -> None:
        """Wait until the table was read once; not longer than some seconds."""
        with suppress(asyncio.TimeoutError, TimeoutError):
            await asyncio.wait_for(self._seen.wait(), most)

    async def follow(self) -> None:
        """Follow the builds until cancelled; what goes wrong is said in ``trouble``."""
        first = True
        while True:
            connection = None
            try:
                connection = await self.reader.connect()
                await connection.add_listener(CHANNEL, self._wake)
                connection.add_termination_listener(self._wake)
                if not first:
                    self.on_reconnect()
                first = False
                await self._stay(connection)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                self._lost(error)
            except asyncio.TimeoutError as error:  # another class before Python 3.11
                self._lost(error)
            finally:
                self.is_connected = False
                measures.CONNECTED.set(0)
                if connection is not None:
                    with suppress(Exception):
                        connection.terminate()
            await asyncio.sleep(PAUSE)

    async def _stay(self, connection: Any) -> None:
        while True:
            self._news.clear()  # what comes from now on is read in the next round
            await asyncio.wait_for(self._look(connection), PATIENCE)
            self.is_connected = True
            measures.CONNECTED.set(1)
            self.on_look()
            with suppress(asyncio.TimeoutError, TimeoutError):
                await asyncio.wait_for(self._news.wait(), POLL)
            if connection.is_closed():
                raise ConnectionError("the connection was closed")

    async def _look(self, connection: Any) -> None:
        table = quoted(self.schema, "mart_builds")
        try:
            rows = await connection.fetch(
                f"select relation_name, invocation_id, built_at from {table}"  # noqa: S608
            )
            self.trouble = ""
        except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError):
            rows, self.trouble = [], f"{self.schema}.mart_builds is missing: marquee run"
        except asyncpg.InsufficientPrivilegeError:
            rows, self.trouble = [], f"{self.schema} may not be read: marquee db roles"
        self._looked = time.monotonic()
        self.known = {name: Build.of(invocation, at) for name, invocation, at in rows}
        self._seen.set()

    def _lost(self, error: BaseException) -> None:
        self.trouble = f"{type(error).__name__}: {error}".splitlines()[0]
        if self.is_connected:
            LOG.warning("The warehouse went away: %s", self.trouble)

    def _wake(self, *_: Any) -> None:
        self._news.set()
