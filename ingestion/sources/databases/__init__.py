"""Tables of any database as they are, into ``raw_<name>``, by dlt's ``sql_database``.

A table lands in full, in place of what landed before, or only its rows at or after the last value
of a cursor column, merged by key. Each table is a load of its own: one that is refused keeps no
other from landing. Where it stopped is in the warehouse (``ingestion.table_ledger``), nowhere else,
so a killed run is repeated and nothing is lost. docs/databases.md has the rules and the types.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from ingestion.errors import UserError
from ingestion.pipeline import LoadReport, make_pipeline, one_at_a_time
from ingestion.sources.databases.connecting import connect, place_of, refuse_without
from ingestion.sources.databases.settings import Asked, configured, source_name

if TYPE_CHECKING:
    import dlt

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
    refuse_without("sqlalchemy", "Reading a database")
    from ingestion.sources.databases.looking import find_tables
    from ingestion.sources.databases.tables import Landing

    with_name = asked.name or place_of(asked.url).rpartition("/")[2].partition(".")[0]
    name = source_name(with_name)
    engine = connect(asked.url)
    report = LoadReport(name, rejects="_ingest_rejects")
    problems: list[str] = []
    try:
        tables = find_tables(engine, asked)
        warehouse = target(name) if callable(target) else target
        with one_at_a_time(name, warehouse):
            pipeline = pipeline or make_pipeline(
                name, warehouse, replace_strategy="insert-from-staging"
            )
            landing = Landing(engine, asked, warehouse, pipeline)
            landing.begin()
            for table in tables:
                try:
                    landing.land(table, report)
                except UserError as error:
                    problems.append(error.message)
    finally:
        engine.dispose()
    report.seconds = time.monotonic() - began
    if problems:
        landed = ", ".join(report.rows)
        others = f"\nThese have landed: {landed}." if landed else ""
        raise UserError("\n".join(problems) + others)
    return report


__all__ = ["Asked", "configured", "ingest"]
