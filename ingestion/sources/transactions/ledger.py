"""What has landed, as the ledger in the warehouse says, and so what to do with the files given."""

from __future__ import annotations

import dataclasses
import errno
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING

from ingestion.errors import UserError
from ingestion.progress import task
from ingestion.sources.transactions.inputs.files import Inbox, LocalFile, RemoteFile
from ingestion.sources.transactions.reader import SourceFile, form_of, header_of, probe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ingestion.warehouse.target import Target


CLOCK_PATIENCE = 10  # seconds; clocks of two machines may differ by less, and are waited for


@dataclass(frozen=True)
class Landed:
    """One row of the ledger: lines of a file that count.

    Attributes:
        etag: what an object store called this version of it.
        replay_of: the load whose rejects these lines were, mended since.
    """

    load_id: str
    name: str
    path: str
    checksum: str
    bytes: int
    last_line: int
    rows: int
    rejected: int
    landed_at: datetime
    is_replacement: bool
    etag: str | None
    replay_of: str | None


@dataclass
class Plan:
    """What to do.

    Attributes:
        files: the files to read.
        replacements: names of those that replace what landed from there before.
        replaced: the places of those.
        notes: a sentence for each file that is skipped.
        empty: names of files without a byte.
        problems: a message for each file that must not land.
        cause: the first error behind them, for its traceback.
    """

    files: list[SourceFile] = field(default_factory=list)
    replacements: set[str] = field(default_factory=set)
    replaced: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    cause: BaseException | None = None


def landed(target: Target, dataset: str) -> list[Landed]:
    """What counts of the ledger, oldest first: completed loads, without what was replaced."""
    if not _exists(target, dataset, "files"):
        return []
    found = _run(
        target,
        "select _dlt_load_id, _file_name, path, _file_checksum, bytes, last_line, rows_landed,"
        " rows_rejected, landed_at, is_replacement,"
        # columns that the table of an older release has not
        " to_jsonb(files) ->> 'etag', to_jsonb(files) ->> 'replay_of'"
        " from {files} as files where _dlt_load_id in"
        " (select load_id from {loads} where status = 0) order by _dlt_load_id",
        files=(dataset, "files"),
        loads=(dataset, "_dlt_loads"),
    )
    rows = [Landed(*row) for row in found]
    replaced = {row.path: row.load_id for row in rows if row.is_replacement}
    return [row for row in rows if row.load_id >= replaced.get(row.path, "")]


def unlisted(target: Target, dataset: str) -> list[str]:
    """Loads whose rows are there, which dlt does not list as completed: a run was killed there."""
    names = {"files": (dataset, "files"), "loads": (dataset, "_dlt_loads")}
    if not all(_exists(target, *name) for name in names.values()):
        return []
    query = (
        # waits for what a killed run has asked of the server at the last moment
        "lock table {files}, {loads} in share mode;"
        " select distinct _dlt_load_id from {files} where _dlt_load_id not in"
        " (select load_id from {loads} where status = 0) order by 1"
    )
    return [load_id for (load_id,) in _run(target, query, **names)]


def check_clock(target: Target, dataset: str) -> None:
    """See to it that a load which begins now counts as later than all before.

    Loads are told apart by when they finished, by the clock of the machine that ran them.

    Raises:
        UserError: this machine's clock is behind that of the newest load.
    """
    if not _exists(target, dataset, "_dlt_loads"):
        return
    query = "select max(inserted_at) from {loads}"
    [(newest,)] = _run(target, query, loads=(dataset, "_dlt_loads"))
    behind = (newest - datetime.now(timezone.utc)).total_seconds() if newest else 0
    if behind > CLOCK_PATIENCE:
        raise UserError(
            f"This machine's clock is {behind:,.0f} s behind the newest load:"  # noqa: S608
            " what lands now would count as old.\n"
            "Set the clock right. If it was wrong for that load, instead:"
            f" update {dataset}._dlt_loads set inserted_at = now() where inserted_at > now();"
            " and dbt build --full-refresh"
        )
    if behind > 0:
        time.sleep(behind)


def _exists(target: Target, dataset: str, table: str) -> bool:
    query = "select 1 from pg_tables where schemaname = %s and tablename = %s"
    return bool(_run(target, query, dataset, table))


def _run(target: Target, query: str, *values: str, **names: tuple[str, str]) -> list[tuple]:
    """Run a query with names of tables (schema and table) and values in it."""
    from psycopg2 import sql

    tables = {key: sql.Identifier(*name) for key, name in names.items()}
    connection = target.connect()
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(sql.SQL(query).format(**tables), values)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def plan(
    found: list[LocalFile | RemoteFile], ledger: list[Landed], inbox: Inbox, *, replace: bool
) -> Plan:
    """Decide for each file whether it lands, from which line on, or why not."""
    result = Plan()
    whole = [row for row in ledger if not row.replay_of]
    by_content = {row.checksum: row for row in whole}
    by_path = {row.path: row for row in whole}  # the latest
    # known places first: what is replaced at one may have moved to another, and must land there
    found = sorted(found, key=lambda given: given.place not in by_path)
    megabytes = sum(given.bytes for given in found) / 1e6
    with task("Checking what has landed", total=megabytes, unit="MB") as advance:
        fetch = partial(inbox.fetch, advance=advance)
        for given in found:
            try:
                _decide(given, by_content, by_path, result, fetch, replace=replace)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise
                result.problems.append(f"{given.name} cannot be read: {error.strerror}.\nCheck it.")
            except UserError as error:
                result.problems.append(error.message)
            if isinstance(given, LocalFile):
                advance(given.bytes / 1e6)
            elif given.place not in (file.place for file in result.files[-1:]):
                inbox.drop(given)
    return result


def _decide(
    given: LocalFile | RemoteFile,
    by_content: dict[str, Landed],
    by_path: dict[str, Landed],
    result: Plan,
    fetch: Callable[[RemoteFile], tuple[Path, str | None]],
    *,
    replace: bool,
) -> None:
    name, place = given.name, given.place
    earlier = by_path.get(place)
    if isinstance(given, RemoteFile):
        if earlier and given.etag and given.etag == earlier.etag:  # no need to fetch it
            result.notes.append(f"{name} has landed before ({_when(earlier)}); skipped.")
            return
        path, etag = fetch(given)
    elif given.path.is_file():
        path, etag = given.path, None
    else:
        raise UserError(f"{name} is no file.\nPipe it in: marquee ingest transactions - < {name}")
    size, checksum, beginning = probe(path, earlier.bytes if earlier else 0)
    form, gzipped = form_of(path, name)
    header = header_of(path, gzipped=gzipped) if form == "csv" else None
    file = SourceFile(
        name, path, size, checksum, form, gzipped, place=place, etag=etag, header=header
    )
    grown = earlier and beginning == earlier.checksum
    same = by_content.get(checksum) if grown or not earlier else None
    if same and same.path in result.replaced:
        same = None
    twin = next((other for other in result.files if other.checksum == checksum), None)
    if not size:
        result.empty.append(name)
    elif same:
        alias = "" if same.path == place else f" as {same.name}"
        result.notes.append(f"{name} has landed before{alias} ({_when(same)}); skipped.")
    elif twin:
        result.notes.append(f"{name} has the same content as {twin.name}; skipped.")
    elif earlier is None:
        result.files.append(file)
    elif grown and file.form != "parquet" and not file.gzipped:
        file = dataclasses.replace(file, landed_bytes=earlier.bytes, landed_lines=earlier.last_line)
        result.files.append(file)
        result.notes.append(f"{name} has grown since it landed: only its new lines are read.")
    elif replace:
        result.files.append(file)
        result.replacements.add(name)
        result.replaced.add(place)
        result.notes.append(f"{name} replaces what landed from there before.")
    else:
        result.problems.append(
            f"{name} has changed since it landed ({_when(earlier)}).\n"
            "If this is a corrected version, add --replace: the facts then leave out what landed "
            "from there before. If it holds other transactions, give it another name."
        )


def _when(row: Landed) -> str:
    return f"{row.landed_at:%Y-%m-%d %H:%M %Z}"
