"""One transaction of COPY into the raw tables, in a thread of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Lock
from typing import Any

import pyarrow as pa

from ingestion.sources.transactions import settings

# Rows of one load lie side by side, so an index of page ranges finds them, takes no room and costs
# a load next to nothing. Whoever does not own the table goes without. An index is made once: making
# one waits for all who write.
INDEXES = {
    ("transactions", "transactions_by_load"): "brin (_dlt_load_id) with (pages_per_range = 32)",
    ("_dlt_loads", "dlt_loads_by_time"): "btree (inserted_at)",
    ("files", "files_by_last_line"): "btree (_file_checksum, last_line)",
}
MISSING = """
    select from pg_class
    where oid = 'DATASET.TABLE'::regclass and pg_has_role(relowner, 'usage')
    and to_regclass('DATASET.INDEX') is null
"""
SUMMARIZE = """
    select brin_summarize_new_values(oid::regclass) from pg_class
    where oid = to_regclass('DATASET.transactions_by_load') and pg_has_role(relowner, 'usage')
"""
# Microseconds, and behind them who it is: two connections never have the same id.
NEW_ID = (
    "select cast(extract(epoch from clock_timestamp()) as text)"
    " || lpad(cast(pg_backend_pid() as text), 7, '0')"
)
# The line that makes a load count, as dlt would write it. Whoever holds the lock commits before the
# next one is stamped, so loads become visible in the order of their stamps: a build that has seen
# one never meets an earlier one later.
LIST = (
    "lock table DATASET._dlt_loads in share row exclusive mode",
    """
    insert into DATASET._dlt_loads
        (load_id, schema_name, status, inserted_at, schema_version_hash)
    select
        'LOAD_ID', 'transactions', 0,
        greatest(
            clock_timestamp(),
            (select max(inserted_at) + interval '1 microsecond' from DATASET._dlt_loads)
        ),
        (
            select version_hash from DATASET._dlt_version
            where schema_name = 'transactions' order by inserted_at desc limit 1
        )
    """,
)

_WAKE_EVERY, _CANCEL_EVERY = 1, 0.2  # seconds


class Overtaken(Exception):
    """Somebody has landed meanwhile what a load was to land."""


class Copy:
    """One transaction that fills raw tables by COPY, in a thread of its own.

    What is asked for is done later, in the same order, while the caller goes on; an error comes up
    in a later call. Nothing of it stays without ``commit``.

    Args:
        url: of the warehouse.
        dataset: the schema.

    Attributes:
        load_id: the load, for ``_dlt_load_id``: seconds since 1970 by the server's clock.
        rows: number of rows written and not rolled back.
    """

    def __init__(self, url: str, dataset: str) -> None:
        from adbc_driver_postgresql import dbapi

        self._dataset = dataset
        self._connection = dbapi.connect(url)
        self._cursor = self._connection.cursor()
        self._thread = ThreadPoolExecutor(1)
        self._asked: deque[Future] = deque()
        self._at_work, self._is_closing = Lock(), False
        self.begin()

    def begin(self) -> None:
        """Begin a load; the one before has been committed."""
        self.rows = self._rows_before = 0
        self.load_id = self._query(NEW_ID)[0][0]

    def write(self, table: str, rows: pa.Table) -> None:
        """Append rows to a table, whose columns have the same names."""
        if rows.num_rows:
            self.rows += rows.num_rows
            self._ask(
                self._cursor.adbc_ingest, table, rows, mode="append", db_schema_name=self._dataset
            )

    def savepoint(self) -> None:
        """What is written from now on can be rolled back."""
        self._rows_before = self.rows
        self._ask(self._cursor.execute, "savepoint marquee")

    def release(self) -> None:
        """What was written since the savepoint stays."""
        self._ask(self._cursor.execute, "release savepoint marquee")

    def rollback(self) -> None:
        """What was written since the savepoint goes."""
        self.rows = self._rows_before
        self._ask(self._cursor.execute, "rollback to savepoint marquee")
        self.release()

    def commit(self, unless: str | None = None) -> None:
        """Wait until all of it is done, make its rows quick to find by load, list it, commit.

        Args:
            unless: a query that is asked when no other load can be listed any more.

        Raises:
            Overtaken: that query has found a row. Nothing of the load stays.
        """
        self._ask(self._end, unless)
        self._wait(0)

    def ask(self, query: str) -> list[tuple]:
        """The rows of a query, at once and in a transaction of its own.

        To be called between a ``commit`` and what is written next. Only locks of the session stay.
        """
        found = self._query(query)
        self._connection.commit()
        return found

    def run(self, statement: str) -> None:
        """The same for a statement without rows."""
        self._cursor.execute(statement)
        self._connection.commit()

    def close(self) -> None:
        """End it; what is under way in the server is broken off."""
        self._is_closing = True
        self._thread.shutdown(wait=False, cancel_futures=True)
        # more than once, for the server drops a request that comes between two statements
        while not self._at_work.acquire(timeout=_CANCEL_EVERY):
            self._cursor.adbc_cancel()
        self._at_work.release()
        self._thread.shutdown()
        self._cursor.close()
        self._connection.close()

    def _query(self, query: str) -> list[tuple]:
        self._cursor.execute(query)
        return self._cursor.fetchall()

    def _end(self, unless: str | None) -> None:
        for (table, index), kind in INDEXES.items():
            names = {"TABLE": table, "INDEX": index}
            if self._query(self._with_names(MISSING, names)):
                self._cursor.execute(
                    self._with_names(f"create index INDEX on DATASET.TABLE using {kind}", names)
                )
        self._cursor.execute(self._with_names(SUMMARIZE))
        lock, insert = LIST
        self._cursor.execute(self._with_names(lock))
        if unless and self._query(self._with_names(unless, {"LOAD_ID": self.load_id})):
            self._connection.rollback()
            raise Overtaken
        self._cursor.execute(self._with_names(insert, {"LOAD_ID": self.load_id}))
        self._connection.commit()

    def _with_names(self, statement: str, names: dict[str, str] | None = None) -> str:
        for name, value in {"DATASET": self._dataset, **(names or {})}.items():
            statement = statement.replace(name, value)
        return statement

    def _ask(self, call: Callable, *arguments: Any, **options: Any) -> None:
        self._wait(settings.COPY_AHEAD)
        self._asked.append(self._thread.submit(self._do, call, *arguments, **options))

    def _do(self, call: Callable, *arguments: Any, **options: Any) -> None:
        with self._at_work:
            if not self._is_closing:
                call(*arguments, **options)

    def _wait(self, left: int) -> None:
        while len(self._asked) > left:
            # not for ever: Python sees an interrupt that came just before only when it wakes
            if wait([self._asked[0]], timeout=_WAKE_EVERY).done:
                self._asked[0].result()
                self._asked.popleft()
