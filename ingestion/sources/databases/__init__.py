"""Tables of any database as they are, into ``raw_<name>``, by dlt's ``sql_database``.

A table lands in full, in place of what landed before, or only its rows at or after the last value
of a cursor column, merged by key. Each table is a load of its own: one that is refused keeps no
other from landing. Where it stopped is in the warehouse (``ingestion.table_ledger``), nowhere else,
so a killed run is repeated and nothing is lost. docs/databases.md has the rules and the types.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from ingestion.databases.asked import Asked, TableAsked
from ingestion.databases.connecting import connect, errors_of, place_of, refuse_without
from ingestion.errors import UserError
from ingestion.pipeline import LoadReport, make_pipeline, one_at_a_time, put_away
from ingestion.sources.databases.loading import Loading
from ingestion.sources.databases.settings import configured, source_name

if TYPE_CHECKING:
    import dlt

    from ingestion.sources.databases.loading import Readable
    from ingestion.warehouse.target import Target


def ingest(
    asked: Asked,
    target: Callable[[str], Target] | Target,
    pipeline: dlt.Pipeline | None = None,
) -> LoadReport:
    """Land tables of a database.

    Args:
        asked: which ones, and how.
        target: the warehouse, or what gives it for the name of a source.
        pipeline: another pipeline than the target's, for tests.

    Returns:
        Rows landed by table; rows put aside; notes.

    Raises:
        UserError: the database does not answer; there is no such table or column; a type has no
            place. Other tables have landed then, and the message says so.
    """
    began = time.monotonic()
    with_name = asked.name or place_of(asked.url).rpartition("/")[2].partition(".")[0]
    report = LoadReport(source_name(with_name), rejects="_ingest_rejects")
    problems: list[str] = []
    with _opened(asked, report.source) as tables:
        warehouse = target(report.source) if callable(target) else target
        with one_at_a_time(report.source, warehouse):
            pipeline = pipeline or make_pipeline(
                report.source, warehouse, replace_strategy="insert-from-staging"
            )
            put_away(pipeline, warehouse)
            _land(tables, Loading(warehouse, pipeline, asked.url), report, problems)
    report.seconds = time.monotonic() - began
    if problems:
        landed = ", ".join(report.rows)
        others = f"\nThese have landed: {landed}." if landed else ""
        raise UserError("\n".join(problems) + others)
    return report


def _land(
    tables: list[Callable[[], Readable]], loading: Loading, report: LoadReport, problems: list[str]
) -> None:
    for look in tables:
        try:
            loading.land(look(), report)
        except UserError as error:
            problems.append(error.message)


@contextmanager
def _opened(asked: Asked, source: str) -> Iterator[list[Callable[[], Readable]]]:
    """What looks at each table that is meant, while its database is open."""
    if asked.url.startswith(("mongodb://", "mongodb+srv://")):
        refuse_without("pymongo", "Reading MongoDB")
        from ingestion.databases import mongodb

        with mongodb.opened(asked, source) as collections:
            yield list(collections)
        return
    refuse_without("sqlalchemy", "Reading a database")
    from ingestion.databases.looking import find_tables, look_at
    from ingestion.sources.databases.tables import SqlTable

    engine, place = connect(asked.url), place_of(asked.url)

    def look(table: TableAsked) -> Readable:
        with errors_of(asked.url):
            return SqlTable(engine, look_at(engine, table, asked.schema, source), place)

    try:
        yield [partial(look, table) for table in find_tables(engine, asked)]
    finally:
        engine.dispose()


__all__ = ["Asked", "configured", "ingest"]
