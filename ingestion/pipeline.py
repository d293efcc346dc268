"""The one factory of dlt pipelines, and what each load reports."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psycopg2 import sql

from ingestion.errors import PassingError, UserError
from ingestion.warehouse import advice
from ingestion.warehouse.fitness import refuse_unfit
from ingestion.warehouse.paths import STATE_DIR, make_state_dir
from ingestion.warehouse.target import Target

if TYPE_CHECKING:
    import dlt


LOCK = "_load_lock"  # in every raw schema: who loads holds it
REPORTS: list[LoadReport] = []  # of all loads of this process, for the evidence of its command


@dataclass
class LoadReport:
    """What one load did.

    Attributes:
        source: name of the source, such as ``tmdb``.
        rows: raw table name to rows landed by this load (0 when nothing was new).
        rejected: rows kept in the source's table of rejects instead.
        seconds: wall time.
        notes: sentences worth a user's attention.
        rejects: the table of rejects.
    """

    source: str
    rows: dict[str, int] = field(default_factory=dict)
    rejected: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    rejects: str = "rejects"

    def __post_init__(self) -> None:
        REPORTS.append(self)  # also of a load that fails on the way


def make_pipeline(
    source: str, target: Target, pipelines_dir: Path | None = None, **options: Any
) -> dlt.Pipeline:
    """The dlt pipeline of one source: it lands in schema ``raw_<source>`` of the target's database.

    dlt keeps its working files below ``.marquee/dlt``, one folder a warehouse, so that two
    warehouses never share state. ``options`` are those of dlt's destination.
    """
    import dlt
    from dlt.common.configuration.specs import configspec
    from dlt.destinations import postgres
    from dlt.destinations.impl.postgres.configuration import PostgresCredentials

    @configspec(init=False)
    class Credentials(PostgresCredentials):
        def to_native_representation(self) -> str:
            # libpq takes no blank in a URL, and says what stands around it: the password
            url = super().to_native_representation().replace(" ", "%20")
            return url if target.password else url.replace(":-@", "@", 1)

    # dlt insists on a password, also where the server asks for none, or libpq finds it (~/.pgpass)
    with_password = replace(target, password=target.password or "-")
    credentials = Credentials(url_of_loads(source, with_password))
    credentials.resolve()  # dlt makes its own class of others
    return dlt.pipeline(
        pipeline_name=source,
        dataset_name=f"raw_{source}",
        destination=postgres(credentials=credentials, **options),
        pipelines_dir=str(make_state_dir(pipelines_dir or working_dir(target))),
    )


def url_of_loads(source: str, target: Target) -> str:
    """The URL by which loads of a source connect, so that they are known in the warehouse."""
    url = target.url
    session = f"application_name={_mark(source)}&client_encoding=utf8"
    return f"{url}{'&' if '?' in url else '?'}{session}"


def working_dir(target: Target) -> Path:
    """Where dlt keeps what it has not loaded yet, for all sources of one warehouse."""
    place = f"{target.host}-{target.port}-{target.dbname}".replace("/", "_")  # a socket's folder
    return STATE_DIR / "dlt" / place


@contextmanager
def one_at_a_time(source: str, target: Target) -> Iterator[None]:
    """Hold the warehouse's lock for loads of one source; a second load is told who is running.

    It waits a second first: the server needs a moment to notice that a load has ended.

    Raises:
        UserError: another load of this source is under way, or nothing can land there.
    """
    connection = target.connect()
    try:
        refuse_unfit(connection, target)
        _lock(connection, source, target)
        yield
        _analyze_new_tables(connection, source)
    finally:
        connection.close()


def _analyze_new_tables(connection: Any, source: str) -> None:
    """Tell the planner of tables that it has never looked at: a build may come before autovacuum.

    Without that it takes any of them for a thousand rows. A load does not fail for it.
    """
    import psycopg2

    new = (
        "select relname from pg_class where relnamespace = to_regnamespace(%s)"
        " and relkind = 'r' and pg_relation_size(oid) > 0 and not exists"
        " (select from pg_stats where schemaname = %s and tablename = relname)"
    )
    with suppress(psycopg2.Error), connection.cursor() as cursor:
        schema = f"raw_{source}"
        cursor.execute(new, (sql.Identifier(schema).as_string(connection), schema))
        for (table,) in cursor.fetchall():
            cursor.execute(sql.SQL("analyze {}").format(sql.Identifier(schema, table)))
        connection.commit()


def _lock(connection: Any, source: str, target: Target) -> None:
    """Take the lock of a source, until the connection is closed."""
    import psycopg2

    try:
        table = _lock_table(connection, source)
        with connection.cursor() as cursor:
            # it lasts as long as its transaction, which waits here for as long as a load takes
            cursor.execute(
                "select set_config(name, '0', true) from pg_settings where name in"
                " ('idle_in_transaction_session_timeout', 'transaction_timeout')"
            )
            cursor.execute("set local lock_timeout = '1s'")
            cursor.execute(sql.SQL("lock table {} in exclusive mode").format(table))
    except psycopg2.errors.LockNotAvailable as error:
        connection.rollback()
        with connection.cursor() as cursor:
            since = _locked_since(cursor, table.as_string(connection))
        raise PassingError(
            f"Another load of {source} is running on this warehouse{since}.\n"
            "Wait until it has finished, then run this again."
        ) from error
    except psycopg2.errors.InsufficientPrivilege as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{target.user} may not land {source} in this warehouse: {reason}\n"
            f"{advice.on_privilege(error)} Or log in as the loader, which marquee db roles makes."
        ) from error


def _lock_table(connection: Any, source: str) -> sql.Identifier:
    """The empty table that is locked while a source is loaded; made with its schema when absent.

    A table, for only who may write it can lock it: an advisory lock is free for everybody.
    """
    import psycopg2

    schema, table = sql.Identifier(f"raw_{source}"), sql.Identifier(f"raw_{source}", LOCK)
    steps = (
        ("select to_regnamespace(%s)", "create schema {}", schema),
        ("select to_regclass(%s)", "create table {} ()", table),
    )
    with connection.cursor() as cursor:
        try:
            for find, make, name in steps:
                cursor.execute(find, (name.as_string(connection),))
                if cursor.fetchone()[0] is None:
                    cursor.execute(sql.SQL(make).format(name))
            connection.commit()
        except (psycopg2.IntegrityError, psycopg2.errors.DuplicateTable):
            connection.rollback()  # another load has made it in the same moment
    return table


def _locked_since(cursor: Any, table: str) -> str:
    cursor.execute(
        "select min(backend_start) from pg_locks inner join pg_stat_activity using (pid)"
        " where relation = to_regclass(%s) and mode = 'ExclusiveLock' and granted"
        " and database = (select oid from pg_database where datname = current_database())",
        (table,),
    )
    since = cursor.fetchone()[0]  # hidden where another login runs it
    return f", since {since:%Y-%m-%d %H:%M:%S %Z}" if since else ""


def load(pipeline: dlt.Pipeline) -> None:
    """Send what is extracted to the warehouse, each job in a transaction.

    Raises:
        UserError: the warehouse does not take it. ``finish_pending`` takes it up again.
    """
    with refusals(pipeline.pipeline_name):
        pipeline.normalize()
        pipeline.load(workers=4)  # a connection each; dlt's own 20 are more than servers may allow


@contextmanager
def refusals(source: str) -> Iterator[None]:
    """Say in two lines what the warehouse does not take of a load.

    Raises:
        UserError: that.
    """
    import psycopg2
    from adbc_driver_manager import Error as AdbcError

    try:
        yield
    except Exception as error:
        if not isinstance(error, psycopg2.Error | AdbcError) and not _is_of_dlt(error):
            raise
        cause: BaseException | None = error
        while cause and not isinstance(cause, psycopg2.Error | AdbcError):
            cause = cause.__cause__ or cause.__context__
        if not cause:
            raise
        if advice.is_loss(cause) and (why := advice.on_loss()):
            raise UserError(why) from error
        reason = (str(cause).strip().splitlines() or ["no answer"])[0]
        if "42501" in (getattr(cause, "pgcode", None), getattr(cause, "sqlstate", None)):
            remedy = advice.on_privilege(cause)
            raise UserError(
                f"The warehouse did not take the load of {source}: {reason}\n{remedy}"
            ) from error
        raise UserError(
            f"The warehouse did not take the load of {source}: {reason}\n"
            "Correct that and run the same command again: it goes on where this one stopped."
        ) from error


def _is_of_dlt(error: Exception) -> bool:
    """Whether a step of dlt failed; where dlt was not imported, none did."""
    exceptions = sys.modules.get("dlt.pipeline.exceptions")
    return exceptions is not None and isinstance(error, exceptions.PipelineStepFailed)


def finish_pending(pipeline: dlt.Pipeline, target: Target) -> list[str]:
    """Land what an earlier run had read when it was killed; for sources that append.

    dlt would go on job by job, but cannot tell whether a job that it had begun was committed. So a
    load starts again from its first job, after all its rows have been deleted; one that the
    warehouse lists as complete is only tidied away. What a run was still reading goes.

    To be called while ``one_at_a_time`` holds the source.

    Returns:
        Ids of the loads, the oldest first; some of them may have been complete.

    Raises:
        UserError: the warehouse does not take it.
    """
    working = Path(pipeline.working_dir)
    extracted, normalized = working / "normalize" / "extracted", working / "load" / "normalized"
    for folder in (*working.glob("normalize/*"), *working.glob("load/loaded/*")):
        if folder.is_dir() and folder != extracted:
            shutil.rmtree(folder)  # half an extraction, or a load that is done
    for load_id in pipeline.list_normalized_load_packages():
        # killed between dlt's handing on of a package and the end of its deletion here
        shutil.rmtree(extracted / load_id, ignore_errors=True)
    if pipeline.list_extracted_load_packages():
        pipeline.normalize()
    load_ids = list(pipeline.list_normalized_load_packages())
    if not load_ids:
        return []
    with closing(target.connect()) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            end_connections(cursor, pipeline.pipeline_name)
            tables = _tables_of_loads(cursor, pipeline.dataset_name)
            complete = _complete_loads(cursor, tables.pop("_dlt_loads", None))
            for load_id in load_ids:
                package = normalized / load_id
                if load_id in complete:
                    shutil.rmtree(package)
                    continue
                for table in tables.values():
                    delete = sql.SQL("delete from {} where _dlt_load_id = %s").format(table)
                    cursor.execute(delete, (load_id,))
                _start_again(package)
    load(pipeline)
    return load_ids


def put_away(pipeline: dlt.Pipeline, target: Target) -> None:
    """Put away what a killed run has left, for sources that read it again.

    To be called while ``one_at_a_time`` holds the source.
    """
    with closing(target.connect()) as connection, connection.cursor() as cursor:
        end_connections(cursor, pipeline.pipeline_name)
    if pipeline.has_pending_data:
        pipeline.drop()
    pipeline.sync_destination()


def end_connections(cursor: Any, source: str) -> None:
    """End what a killed run has open: its last COMMIT may still be under way in the server.

    To be called while ``one_at_a_time`` holds the source.
    """
    cursor.execute(
        "select pg_terminate_backend(pid, 10000) from pg_stat_activity where application_name = %s"
        " and datname = current_database() and usename = current_user",
        (_mark(source),),
    )


def _tables_of_loads(cursor: Any, dataset: str) -> dict[str, sql.Identifier]:
    """Tables whose rows belong to a load, and the list of loads."""
    cursor.execute(
        "select table_name from information_schema.columns natural join information_schema.tables"
        " where table_schema = %s and column_name in ('_dlt_load_id', 'load_id')"
        " and table_type = 'BASE TABLE'",
        (dataset,),
    )
    return {name: sql.Identifier(dataset, name) for (name,) in cursor}


def _complete_loads(cursor: Any, loads: sql.Identifier | None) -> set[str]:
    if loads is None:
        return set()
    cursor.execute(sql.SQL("select load_id from {} where status = 0").format(loads))
    return {load_id for (load_id,) in cursor}


def _start_again(package: Path) -> None:
    """Put a load package back to where no job of it has begun and no table is known to be there."""
    for job in (*package.glob("started_jobs/*"), *package.glob("completed_jobs/*")):
        job.rename(package / "new_jobs" / job.name)
    for note in package.glob(".pending_transitions/*"):
        note.unlink()
    # dlt makes missing tables only where this file is; in it, what it expects to change
    (package / "schema_updates.json").write_text("{}")


def _mark(source: str) -> str:
    """What the locks and connections of a source's loads are called in the warehouse."""
    return f"marquee:{source}"
