"""Lines that could not land and still wait: the open rejects of all sources.

Nothing is deleted from raw data, so whether a reject is open follows from what landed later:

- transactions: it is closed once a later load has read its line again (the file was replaced, or
  its last line had been cut off), or a corrected text has landed in its place: a row with the file,
  the line and the checksum of the reject, of a load that the ledger calls a replay.
- brands: the newest version of a file is what counts, and so do its rejects.
- tmdb: a value of a film is closed once the film has been pulled again, one of a list at the next
  pull. Its place is what was asked for and the field.

Loads that have not finished are not there yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ingestion.warehouse.target import Target

# Open rejects with the columns of `Reject`; a column of an older release's table may be missing.
OPEN = {
    "transactions": """
        with files as (
            select
                _dlt_load_id, _file_checksum, path, first_line,
                to_jsonb(files) ->> 'header' as header,
                to_jsonb(files) ->> 'mapping_document' as mapping,
                to_jsonb(files) ->> 'replay_of' as replay_of
            from raw_transactions.files as files
            where _dlt_load_id in (
                select load_id from raw_transactions._dlt_loads where status = 0
            )
        ),
        read as (
            select *, min(first_line) over (
                partition by path order by _dlt_load_id
                rows between 1 following and unbounded following
            ) as read_again_from
            from files where replay_of is null
        ),
        replayed as materialized (
            select _file_checksum, _file_line, _dlt_load_id
            from raw_transactions.transactions
            where _dlt_load_id in (select _dlt_load_id from files where replay_of is not null)
        )
        select
            _file_name as file, _file_line as line, _file_checksum as checksum,
            _dlt_load_id as load_id, reason_code, reason, raw_text, path as place, header,
            mapping
        from raw_transactions.rejects as rejects
        inner join read using (_dlt_load_id, _file_checksum)
        where (read_again_from is null or _file_line < read_again_from)
        and not exists (
            select 1 from replayed
            where replayed._file_checksum = rejects._file_checksum
            and replayed._file_line = rejects._file_line
            and replayed._dlt_load_id > rejects._dlt_load_id
        )
    """,
    "brands": """
        with newest as (
            select distinct on (kind) kind, _dlt_load_id
            from raw_brands.files
            where _dlt_load_id in (select load_id from raw_brands._dlt_loads where status = 0)
            order by kind, landed_at desc
        )
        select
            _file_name as file, _file_line as line, _file_checksum as checksum,
            _dlt_load_id as load_id, reason_code, reason, raw_text, null as place, null as header,
            null as mapping
        from raw_brands.rejects
        inner join newest using (kind, _dlt_load_id)
    """,
    "tmdb": """
        select
            path || ' ' || field as file, 1 as line, '' as checksum, _dlt_load_id as load_id,
            reason_code, reason, raw_text, null as place, null as header,
            null as mapping
        from raw_tmdb.rejects as rejects
        where _dlt_load_id in (select load_id from raw_tmdb._dlt_loads where status = 0)
        and pulled_at >= coalesce(
            (select pulled_at from raw_tmdb.movies where id = rejects.movie_id),
            (select max(pulled_at) from raw_tmdb.movie_metrics)
        )
    """,
}
SOURCES = tuple(OPEN)


@dataclass(frozen=True)
class Reject:
    """One line that could not land.

    Attributes:
        file, line: where it is.
        checksum: of the file's content.
        load_id: the load that put it aside.
        reason_code, reason: why.
        raw_text: the line as it stood.
        place: the ledger's path of the file.
        header: the first line of the file, if it is CSV.
        mapping: by which it was read, as JSON.
    """

    file: str
    line: int
    checksum: str
    load_id: str
    reason_code: str
    reason: str
    raw_text: str
    place: str | None
    header: str | None
    mapping: str | None


def counts(target: Target) -> list[tuple[str, str, int, str, int]]:
    """Source, reason code, number of open rejects, the latest file with one, and a line of it."""
    query = (
        "select distinct on (reason_code) reason_code, count(*) over (partition by reason_code),"
        " file, line from open order by reason_code, load_id desc, line"
    )
    return [
        (source, *row) for source in SOURCES for row in _rows(target, source, query, reason=None)
    ]


def open_rejects(
    target: Target, source: str, reason: str | None = None, limit: int | None = None
) -> Iterator[Reject]:
    """The open rejects of a source in the order in which they landed, few in memory at a time.

    Args:
        target: the warehouse.
        source: one of ``SOURCES``.
        reason: only those with this reason code.
        limit: at most so many.
    """
    columns = ", ".join(Reject.__annotations__)
    query = f"select {columns} from open order by load_id, file, line limit {limit or 'all'}"  # noqa: S608
    return (Reject(*row) for row in _rows(target, source, query, reason))


def _rows(target: Target, source: str, query: str, reason: str | None) -> Iterator[tuple]:
    with closing(target.connect()) as connection:
        with connection.cursor() as cursor:
            cursor.execute("select to_regclass(%s)", (f"raw_{source}.rejects",))
            if cursor.fetchone() == (None,):
                return
            # a table that has just been filled has no statistics: without this, rejects times rows
            cursor.execute("set enable_nestloop = off")
        with connection.cursor(name="rejects") as cursor:
            found = f"select * from ({OPEN[source]}) as rejects"  # noqa: S608 - ours
            wanted = "where %(reason)s is null or reason_code = %(reason)s"
            cursor.execute(f"with open as ({found} {wanted}) {query}", {"reason": reason})
            yield from cursor
