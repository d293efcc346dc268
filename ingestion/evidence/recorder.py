"""Writes what a command does to the schema ``ops``, from its start on.

Each command has one row in ``invocations``, which says "running" until it ends; steps and landings
hang on it. While it runs, a session holds an advisory lock in the name of that row: where nobody
holds it, the process was killed, and the next one marks the row as lost.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timezone
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click
import psycopg2

from ingestion import __version__, interrupts
from ingestion.errors import PASSING, UserError, error_line, is_passing
from ingestion.evidence import run_id, tables
from ingestion.pipeline import REPORTS
from ingestion.terminal import printable
from ingestion.warehouse.target import project

if TYPE_CHECKING:
    from ingestion.warehouse.target import Target

LOCKS = 1_836_020_595  # class of the advisory locks: "mops"
FLUSH_SECONDS = 10.0  # how often a stream's landings are written while it is followed
MESSAGE = 2_000  # characters of an error that are kept
_SESSION = {
    "lock_timeout": "2s",
    "statement_timeout": "10s",
    "idle_session_timeout": "0",
    "TimeZone": "UTC",
}
_LOST = """
    update invocations set status = 'lost'
    where program = 'marquee' and status = 'running' and not exists (
        select from pg_locks
        where locktype = 'advisory' and granted and objsubid = 2
        and database = (select oid from pg_database where datname = current_database())
        and classid = %(locks)s and objid = hashtext(invocation_id)::bigint & 4294967295
    )
"""
_BEGIN = """
    insert into invocations
        (invocation_id, run_id, program, command, target_name, version, status, started_at)
    values (%(id)s, %(run)s, 'marquee', %(command)s, %(target)s, %(version)s, 'running', %(began)s)
    on conflict do nothing
"""
_END = """
    update invocations set
        status = %(status)s, exit_code = %(code)s, error = %(error)s, ended_at = now(),
        database_bytes = pg_database_size(current_database())
    where invocation_id = %(id)s;
    update steps set status = %(status)s, ended_at = now()
    where invocation_id = %(id)s and status = 'running';
    delete from invocations
    where status <> 'running'
    and coalesce(ended_at, started_at) < now() - %(days)s * interval '1 day'
"""
_STEP = """
    insert into steps (invocation_id, step_number, step_name, status, started_at, ended_at, said)
    values (%(id)s, %(number)s, %(name)s, %(status)s, %(began)s, %(ended)s, %(said)s)
    on conflict (invocation_id, step_number) do update set
        status = excluded.status, ended_at = excluded.ended_at, said = excluded.said
"""
# totals grow by what is new since these landings were written the last time
_LANDED = """
    with found as (
        select * from json_to_recordset(%(landings)s) as rows (
            source_name text, table_name text, rows_landed bigint, rows_rejected bigint
        )
    ),
    known as (
        select source_name, table_name, rows_landed, rows_rejected
        from landings where invocation_id = %(id)s
    ),
    put as (
        insert into landings select %(id)s, found.* from found
        on conflict (invocation_id, source_name, table_name) do update set
            rows_landed = excluded.rows_landed, rows_rejected = excluded.rows_rejected
    )
    insert into totals
    select
        source_name, table_name,
        found.rows_landed - coalesce(known.rows_landed, 0),
        found.rows_rejected - coalesce(known.rows_rejected, 0)
    from found left join known using (source_name, table_name)
    on conflict (source_name, table_name) do update set
        rows_landed = totals.rows_landed + excluded.rows_landed,
        rows_rejected = totals.rows_rejected + excluded.rows_rejected
"""


class Recorder:
    """The evidence of one command; every method does nothing where nothing can be written."""

    def __init__(self, command: str) -> None:
        self.command = command
        self._began = datetime.now(timezone.utc)
        self._id = str(uuid.uuid4())
        self._seen = len(REPORTS)
        self._steps = 0
        self._target: Target | None = None
        self._connection: Any = None
        self._busy = threading.RLock()
        self._ended = threading.Event()

    def open(self, target: Target) -> None:
        """Begin to write, now that the warehouse is known and there."""
        if self._target is not None:
            return
        self._target = target
        self._do((_LOST, {"locks": LOCKS}), (_BEGIN, self._row()))

    def step(self, name: str) -> Callable[[str, str], None]:
        """Note that a step has begun; what is returned notes its end: status, what was said."""
        self._steps += 1
        row = {"id": self._id, "number": self._steps, "name": name, "began": _now()}
        self._do((_STEP, row | {"status": "running", "ended": None, "said": None}))

        def end(status: str, said: str) -> None:
            done = {"status": status, "ended": _now(), "said": printable(said)[:MESSAGE]}
            self._do((_STEP, row | done))
            self.flush()

        return end

    def flush(self) -> None:
        """Write what has landed so far."""
        landings = self._landings()
        if landings:
            self._do((_LANDED, {"id": self._id, "landings": json.dumps(landings)}))

    def flush_often(self) -> None:
        """Write it every few seconds from now on, in a thread."""

        def go_on() -> None:
            written: list[dict] = []
            while not self._ended.wait(FLUSH_SECONDS):
                if self._landings() != written:
                    written = self._landings()
                    self.flush()

        threading.Thread(target=go_on, name="evidence", daemon=True).start()

    def close(self, status: str, code: int | None = 0, error: str | None = None) -> None:
        """Note how the command has ended."""
        self._ended.set()
        self.flush()
        self._do((_END, self._end(status, code, error)))
        with suppress(psycopg2.Error):
            if self._connection is not None:
                self._connection.close()

    def interrupted(self) -> None:
        """Note the end in an interrupt, which has cut the session off; another one is quick."""
        self._ended.set()
        if self._target is None or self._connection is None:
            return
        landed = (_LANDED, {"id": self._id, "landings": json.dumps(self._landings())})
        with suppress(psycopg2.Error, UserError), closing(self._session()) as connection:
            self._write(connection, (landed, (_END, self._end("interrupted", None, None))))

    def _do(self, *statements: tuple[str, dict[str, Any]]) -> None:
        """Run statements, in a new session where the last one was lost; give up in silence."""
        if self._target is None:
            return
        with self._busy:
            for _ in range(2):
                try:
                    if self._connection is None or self._connection.closed:
                        self._connection = self._session()
                    self._write(self._connection, statements)
                except UserError:
                    if self._connection is None:  # it was never there: no use to wait again
                        self._target = None
                    return
                except (psycopg2.Error, ValueError):
                    if not self._connection or not self._connection.closed:
                        return  # it is in use, or not ours to write
                else:
                    return

    def _session(self) -> Any:
        """A session that holds the lock of this row, on tables that are there."""
        assert self._target is not None  # noqa: S101 - for the types
        folder = tables.schema(self._target)
        connection = self._target.connect(**_SESSION)
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                if not tables.are_there(cursor, folder):
                    tables.make(cursor, folder)
                path = "select set_config('search_path', quote_ident(%s), false)"
                cursor.execute(path, (folder,))
                lock = "select pg_advisory_lock_shared(%s, hashtext(%s))"
                cursor.execute(lock, (LOCKS, self._id))
        except psycopg2.Error:
            connection.close()
            raise
        return connection

    def _write(self, connection: Any, statements: tuple[tuple[str, dict[str, Any]], ...]) -> None:
        with connection.cursor() as cursor:
            for statement, values in statements:
                cursor.execute(statement, values)

    def _row(self) -> dict[str, Any]:
        return {
            "id": self._id,
            "run": run_id.settle(),
            "command": self.command,
            "target": self._target and self._target.name,
            "version": __version__,
            "began": self._began,
        }

    def _end(self, status: str, code: int | None, error: str | None) -> dict[str, Any]:
        days = project()["vars"].get("ops_keep_days")
        days = days if isinstance(days, int) and days >= 0 else None  # then nothing is deleted
        error = error and printable(error)[:MESSAGE]
        return {"id": self._id, "status": status, "code": code, "error": error, "days": days}

    def _landings(self) -> list[dict[str, Any]]:
        """What this command has landed, by source and table."""
        found: dict[tuple[str, str], list[int]] = {}
        for report in REPORTS[self._seen :]:
            for table, rows in dict(report.rows).items():
                found.setdefault((report.source, table), [0, 0])[0] += rows
            found.setdefault((report.source, report.rejects), [0, 0])[1] += report.rejected
        return [
            {
                "source_name": source,
                "table_name": table,
                "rows_landed": landed,
                "rows_rejected": rejected,
            }
            for (source, table), (landed, rejected) in found.items()
        ]


def _now() -> datetime:
    return datetime.now(timezone.utc)


_current: list[Recorder] = []


def current() -> Recorder | None:
    """The recorder of the command that runs, if it is recorded."""
    return _current[-1] if _current else None


@contextmanager
def recording(command: str) -> Iterator[Recorder]:
    """Record a command, once somebody calls ``open``: how it ends, and with which error."""
    recorder = Recorder(command)
    _current.append(recorder)
    try:
        with interrupts.giving_back(recorder.interrupted):
            yield recorder
    except BaseException as error:
        recorder.close("failed", exit_code(error), _said(error))
        raise
    else:
        recorder.close("succeeded")
    finally:
        _current.remove(recorder)


def exit_code(error: BaseException) -> int:
    """The code with which a command ends that raises this."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, click.ClickException):
        return error.exit_code
    return PASSING if is_passing(error) else 1


def _said(error: BaseException) -> str:
    return error.message if isinstance(error, UserError) else error_line(error)


Command = TypeVar("Command", bound=Callable[..., Any])


def recorded(name: str) -> Callable[[Command], Command]:
    """Decorator of a command that leaves evidence."""

    def decorate(command: Command) -> Command:
        @wraps(command)
        def call(*args: Any, **options: Any) -> Any:
            with recording(name):
                return command(*args, **options)

        return call  # type: ignore[return-value]

    return decorate


__all__ = ["Recorder", "current", "exit_code", "recorded", "recording"]
