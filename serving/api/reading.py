"""Rows of a mart from PostgreSQL, a whole page at a time.

A page is in memory before its first byte is sent, so no lock on a table is held for a slow client:
dbt's rename would wait for it, and all other readers behind that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from serving.api import cursors, figures, formats, measures
from serving.api.catalogue import Column, Mart
from serving.api.figures import Figures
from serving.api.problems import ProblemError
from serving.api.query import EXPORT, Query

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ingestion.warehouse.target import Target

LARGEST = 64 * 1024**2  # bytes of a page
LOG = logging.getLogger("marquee.api")
Page = tuple[bytes, "str | None"]  # content, and the cursor of the next page
T = TypeVar("T")

_GONE = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
    OSError,
)
_NOT_AS_DESCRIBED = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.InvalidSchemaNameError,
)


class Reader:
    """The login that reads the marts, and its connections.

    Args:
        login: whom to read as.
        connections: at most, of this process.
        wait: seconds that a request waits for one of them.
        timeout: seconds that a query may take.
    """

    def __init__(self, login: Target, connections: int, wait: float, timeout: int) -> None:
        self.login, self.connections, self.wait, self.timeout = login, connections, wait, timeout
        self._pool: Any = None

    async def connect(self, **more: Any) -> Any:
        """A connection that can only read, and whose queries end in time."""
        return await asyncpg.connect(**self._arguments(), **more)

    async def open(self) -> None:
        self._pool = await asyncpg.create_pool(
            **self._arguments(), min_size=0, max_size=self.connections, reset=_leave
        )

    async def close(self) -> None:
        if self._pool:
            self._pool.terminate()

    async def page(self, query: Query, build: str | None) -> Page:
        """A page.

        Args:
            query: what is asked.
            build: of the mart, which the cursor names.

        Raises:
            ProblemError: the database is away or busy, the query is slow, or a value is none.
        """
        return await self._tried(lambda: self._page(query, build), query.mart)

    async def figures(self, asked: Figures, build: str | None) -> bytes:
        """The rows of metrics, all of them.

        Args:
            asked: what is asked.
            build: of the mart, which JSON names.

        Raises:
            ProblemError: as ``page``; or there are more rows than an answer may have.
        """
        return await self._tried(lambda: self._figures(asked, build), asked.mart)

    async def _tried(self, read: Callable[[], Awaitable[T]], mart: Mart) -> T:
        try:
            try:
                return await read()
            except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError):
                # a connection of before a restart; another one is made
                return await read()
        except Exception as error:
            raise self._problem(error, mart) from error

    async def _figures(self, asked: Figures, build: str | None) -> bytes:
        async with self._connection() as connection:
            measures.GATHERED.count(measures.QUERIES)
            if asked.format in ("csv", "arrow"):
                content, rows = await _figures_copied(connection, asked)
            else:
                text = figures.sql(asked, lambda n: f"${n}", "row_to_json(page)::text")
                found = await connection.fetch(text, *asked.query.parameters)
                lines = [row[0] for row in found]
                rows = len(lines)
        figures.check_whole(rows)
        if asked.format == "json":
            return await _off_loop(formats.json_page, lines, build, None)
        if asked.format == "ndjson":
            return await _off_loop(formats.json_lines, lines)
        if asked.format == "arrow":
            return await _off_loop(formats.arrow_stream, content, asked.columns)
        return bytes(content)

    async def _page(self, query: Query, build: str | None) -> Page:
        async with self._connection() as connection:
            measures.GATHERED.count(measures.QUERIES)
            content: Any  # CSV, or a list of rows in JSON
            if query.format in ("csv", "arrow"):
                content, values = await _copied(connection, query)
            else:
                content, values = await _fetched(connection, query)
        cursor = cursors.written(query.print_of, build, values) if values else None
        if query.format == "json":
            return await _off_loop(formats.json_page, content, build, cursor), cursor
        if query.format == "ndjson":
            return await _off_loop(formats.json_lines, content), cursor
        if query.format == "arrow":
            return await _off_loop(formats.arrow_stream, content, query.selected), cursor
        return bytes(content), cursor

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        waits = nullcontext() if self._pool.get_idle_size() else measures.QUEUE.track_inprogress()
        with waits:
            try:
                connection = await self._pool.acquire(timeout=self.wait)
            except (TimeoutError, asyncio.TimeoutError):
                raise ProblemError(
                    503,
                    f"All {self.connections} connections are busy.",
                    "Try again in a moment; ask for fewer rows at once.",
                    retry_after=1,
                ) from None
        try:
            yield connection
        finally:
            await self._pool.release(connection)

    def _problem(self, error: Exception, mart: Mart) -> Exception:  # noqa: PLR0911
        if isinstance(error, ProblemError):
            return error
        if isinstance(error, asyncpg.QueryCanceledError):
            return ProblemError(
                504,
                f"The query took longer than {self.timeout} s.",
                "Filter by the columns of the key or by dates, or write all rows to files: "
                f"{EXPORT.format(mart.name)} --to FOLDER",
            )
        if isinstance(error, _NOT_AS_DESCRIBED):
            LOG.warning("%s is not as dbt's manifest says: %s", mart.name, error)
            return ProblemError(
                503,
                f"{mart.name} is not built as it is described.",
                "Try again when `marquee run` has built it.",
                retry_after=30,
            )
        if isinstance(error, asyncpg.InsufficientPrivilegeError):
            return ProblemError(
                503,
                f"{self.login.user} may not read {mart.name}.",
                "Let the server's operator run `marquee db roles`, then `marquee run`.",
                retry_after=30,
            )
        if isinstance(error, _GONE):
            LOG.warning("The warehouse does not answer: %s", error)
            return ProblemError(
                503, "The warehouse does not answer.", "Try again in a moment.", retry_after=5
            )
        if isinstance(error, asyncpg.DataError):
            return ProblemError(
                400, "PostgreSQL does not take a value of the query.", "Check cursor and values."
            )
        return error

    def _arguments(self) -> dict[str, Any]:
        login = self.login
        return {
            "host": login.host,
            "port": login.port,
            "user": login.user,
            "password": login.password,
            "database": login.dbname,
            **({"ssl": login.sslmode} if login.sslmode else {}),
            "timeout": 10,
            # of the connection, not of the role, which others share
            "server_settings": {
                "application_name": "marquee api",
                "default_transaction_read_only": "on",
                "statement_timeout": f"{self.timeout}s",
                "idle_in_transaction_session_timeout": "60s",
                "TimeZone": "UTC",
                "DateStyle": "ISO, YMD",
                "search_path": "pg_catalog",
            },
        }


async def _leave(connection: Any) -> None:
    """Nothing outlives a transaction, and the reporter may not ask what asyncpg asks by default."""


async def _off_loop(make: Callable[..., bytes], *arguments: Any) -> bytes:
    """Make a page's bytes; a large one in a thread, so that others are answered meanwhile."""
    if len(arguments[0]) < 1000:  # rows, or bytes of CSV
        return make(*arguments)
    return await asyncio.to_thread(make, *arguments)


async def _fetched(connection: Any, query: Query) -> tuple[list[str], Any]:
    """Rows as JSON, and the values of the last one if others follow."""
    arguments: list[str] = []

    def bind(value: str) -> str:
        arguments.append(value)
        return f"${len(arguments)}::text"

    columns = ", ".join(column.quoted for column in query.selected)
    select = query.sql(bind, columns, f"limit {query.limit + 1}")
    text = f"select row_to_json(page)::text from ({select}) as page"  # noqa: S608

    async def rows() -> list[str]:
        return [row[0] for row in await connection.fetch(text, *arguments)]

    if query.ends_with_order():
        found = await rows()
        values = None
        if len(found) > query.limit:
            found.pop()
            values = formats.values_of_json(found[-1], _order(query))
    else:
        async with _moment(connection, query.mart):
            found = await rows()
            values = None
            if len(found) > query.limit:
                found.pop()
                values = await _values_at(connection, query)
    return found, values


async def _csv(connection: Any, select: str, settings: list[str]) -> tuple[bytearray, int]:
    """Rows as CSV with a header, and how many; in a transaction, which has the values."""
    content = bytearray()

    async def take(some: bytes) -> None:
        content.extend(some)
        if len(content) > LARGEST:
            raise ProblemError(
                400,
                f"The page has more than {LARGEST // 1024**2} MB.",
                "Give a smaller limit, or select fewer columns.",
                "limit",
            )

    if settings:  # COPY takes no parameters
        calls = ", ".join(
            f"set_config('{_setting(place)}', ${place}, true)"
            for place in range(1, len(settings) + 1)
        )
        await connection.fetchrow(f"select {calls}", *settings)
    status = await connection.copy_from_query(select, output=take, format="csv", header=True)
    return content, int(status.split()[-1])


def _setting(place: int) -> str:
    return f"marquee.v{place}"


async def _figures_copied(connection: Any, asked: Figures) -> tuple[bytearray, int]:
    columns = ", ".join(_as_text(column) for column in asked.columns)
    select = figures.sql(asked, lambda n: f"current_setting('{_setting(n)}')", columns)
    async with _moment(connection, asked.mart):
        content, rows = await _csv(connection, select, asked.texts())
    return content, rows


async def _copied(connection: Any, query: Query) -> tuple[bytearray, Any]:
    """Rows as CSV with a header, and the values of the last one if others follow."""
    settings: list[str] = []

    def bind(value: str) -> str:
        settings.append(value)
        return f"current_setting('{_setting(len(settings))}')"

    columns = ", ".join(_as_text(column) for column in query.selected)
    select = query.sql(bind, columns, f"limit {query.limit + 1}")
    async with _moment(connection, query.mart):
        content, rows = await _csv(connection, select, settings)
        if rows <= query.limit:
            return content, None
        del content[formats.last_record(content) :]
        if query.ends_with_order():
            record = bytes(content[formats.last_record(content) :])
            return content, formats.values_of_csv(record, query.selected, _order(query))
        return content, await _values_at(connection, query)


@asynccontextmanager
async def _moment(connection: Any, mart: Mart) -> AsyncIterator[None]:
    """A transaction that sees one moment of the mart.

    The lock comes before the snapshot: a statement that waits for dbt's rename with a snapshot
    taken before would see the new table without its rows.
    """
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.execute(f"lock table {mart.relation} in access share mode")
        yield


async def _values_at(connection: Any, query: Query) -> tuple[str | None, ...]:
    """Values of the order's columns in the page's last row, where the page lacks some of them."""
    arguments: list[str] = []

    def bind(value: str) -> str:
        arguments.append(value)
        return f"${len(arguments)}::text"

    columns = ", ".join(
        f'cast({column.quoted} as text) as "no column {place}"'  # else the order would be by text
        for place, column in enumerate(_order(query))
    )
    select = query.sql(bind, columns, f"limit 1 offset {query.limit - 1}")
    return tuple(await connection.fetchrow(select, *arguments))


def _order(query: Query) -> list[Column]:
    return [ordered.column for ordered in query.order]


def _as_text(column: Column) -> str:
    """A column of a CSV: true and false, which PostgreSQL writes as t and f."""
    if column.kind == "boolean":
        return f"cast({column.quoted} as text) as {column.quoted}"
    return column.quoted
