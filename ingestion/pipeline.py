"""The one factory of dlt pipelines, and what each load reports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ingestion.errors import UserError
from ingestion.warehouse import STATE_DIR, Target

if TYPE_CHECKING:
    import dlt


@dataclass
class LoadReport:
    """What one load did.

    Attributes:
        source: name of the source, such as ``tmdb``.
        rows: raw table name to rows landed by this load (0 when nothing was new).
        rejected: rows kept in the source's ``rejects`` table instead.
        seconds: wall time.
        notes: sentences worth a user's attention.
    """

    source: str
    rows: dict[str, int] = field(default_factory=dict)
    rejected: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


def make_pipeline(source: str, target: Target, pipelines_dir: Path | None = None) -> dlt.Pipeline:
    """The dlt pipeline of one source: it lands in schema ``raw_<source>`` of the target's database.

    dlt keeps its working files below ``.marquee/dlt``, one folder a warehouse, so that two
    warehouses never share state.
    """
    import dlt
    from dlt.destinations import postgres

    return dlt.pipeline(
        pipeline_name=source,
        dataset_name=f"raw_{source}",
        # dlt insists on a password, also where the server asks for none
        destination=postgres(credentials=replace(target, password=target.password or "-").url),
        pipelines_dir=str(pipelines_dir or working_dir(target)),
    )


def working_dir(target: Target) -> Path:
    """Where dlt keeps what it has not loaded yet, for all sources of one warehouse."""
    return STATE_DIR / "dlt" / f"{target.host}-{target.port}-{target.dbname}"


@contextmanager
def one_at_a_time(source: str, target: Target) -> Iterator[None]:
    """Hold the warehouse's lock for loads of one source; a second load is told who is running.

    Raises:
        UserError: another load of this source is under way.
    """
    connection = target.connect()
    try:
        with connection.cursor() as cursor:
            cursor.execute(
                "select pg_try_advisory_lock(hashtext(%s)::bigint)", (f"marquee:{source}",)
            )
            if not cursor.fetchone()[0]:
                cursor.execute(
                    "select pid, client_addr, backend_start from pg_stat_activity where pid in"
                    " (select pid from pg_locks where locktype = 'advisory' and objid ="
                    " (hashtext(%s)::bigint & 4294967295)::oid and granted)",
                    (f"marquee:{source}",),
                )
                other = cursor.fetchone()
                since = f", since {other[2]:%Y-%m-%d %H:%M:%S %Z}" if other else ""
                raise UserError(
                    f"Another load of {source} is running on this warehouse{since}.\n"
                    "Wait until it has finished, then run this again."
                )
        connection.commit()  # the lock belongs to the session; no transaction stays open meanwhile
        yield
    finally:
        connection.close()
