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
# a load next to nothing. Whoever does not own the table goes without.
OWNED = """
    select from pg_class where oid = 'DATASET.transactions'::regclass
    and pg_has_role(relowner, 'usage')
"""


INDEX = (
    "create index if not exists transactions_by_load on DATASET.transactions"
    " using brin (_dlt_load_id) with (pages_per_range = 32)",
    "select brin_summarize_new_values('DATASET.transactions_by_load')",
)

_WAKE_EVERY, _CANCEL_EVERY = 1, 0.2  # seconds


class Copy:
    """One transaction that fills raw tables by COPY, in a thread of its own.

    What is asked for is done later, in the same order, while the caller goes on; an error comes up
    in a later call. Nothing of it stays without ``commit``.

    Args:
        url: of the warehouse.
        dataset: the schema.
        load_id: the load, for ``_dlt_load_id``.

    Attributes:
        rows: number of rows written and not rolled back.
    """

    def __init__(self, url: str, dataset: str, load_id: str) -> None:
        from adbc_driver_postgresql import dbapi

        self.load_id, self.rows, self._rows_before = load_id, 0, 0
        self._dataset = dataset
        self._connection = dbapi.connect(url)
        self._cursor = self._connection.cursor()
        self._thread = ThreadPoolExecutor(1)
        self._asked: deque[Future] = deque()
        self._at_work, self._is_closing = Lock(), False

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

    def commit(self) -> None:
        """Wait until all of it is done, make its rows quick to find by load, and make it last."""
        self._ask(self._index)
        self._ask(self._connection.commit)
        self._wait(0)

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

    def _index(self) -> None:
        self._cursor.execute(OWNED.replace("DATASET", self._dataset))
        if self._cursor.fetchone() is not None:
            for statement in INDEX:
                self._cursor.execute(statement.replace("DATASET", self._dataset))

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
