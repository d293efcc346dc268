"""What has landed, as the ledger in the warehouse says, and so what to do with the files given."""

from __future__ import annotations

import dataclasses
import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ingestion.errors import UserError
from ingestion.progress import task
from ingestion.sources.transactions import settings
from ingestion.sources.transactions.reader import SourceFile, form_of, probe

if TYPE_CHECKING:
    from ingestion.warehouse import Target


@dataclass(frozen=True)
class Landed:
    """One row of the ledger: lines of a file that count."""

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


@dataclass
class Plan:
    """What to do.

    Attributes:
        files: the files to read.
        replacements: names of those that replace what landed from there before.
        notes: a sentence for each file that is skipped.
        empty: names of files without a byte.
        problems: a message for each file that must not land.
    """

    files: list[SourceFile] = field(default_factory=list)
    replacements: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def find_files(paths: Sequence[str | Path]) -> dict[str, Path]:
    """The files that are meant, by the name they go by: as given, or folder and name.

    Args:
        paths: files, folders (the files of a known kind in them) and glob patterns.

    Raises:
        UserError: there is no such file.
    """
    found: dict[str, Path] = {}
    for given in map(str, paths):
        path = Path(given).expanduser()
        if path.is_dir():
            inside = {file for kind in settings.PATTERNS for file in path.glob(kind)}
            names = sorted(str(file) for file in inside if file.is_file())
            if not names:
                raise UserError(
                    f"There is no file of transactions in {given}.\n"
                    "Their names end with .jsonl, .json, .csv (each also .gz) or .parquet."
                )
        elif path.exists():
            names = [given]
        else:
            names = sorted(
                name
                for name in glob.glob(str(path), recursive=True)  # noqa: PTH207
                if Path(name).is_file()
            )
            if not names:
                raise UserError(f"There is no file {given}.\nCheck the path.")
        seen = {file.resolve() for file in found.values()}
        for name in names:
            file = Path(name).expanduser()
            if file.resolve() not in seen:
                found[printable(name)] = file
    return found


def printable(path: str | Path) -> str:
    """A path as text that can be stored: bytes that are not UTF-8 are written as ``\\x``."""
    return os.fsencode(path).decode(errors="backslashreplace")


def landed(target: Target, dataset: str) -> list[Landed]:
    """What counts of the ledger, oldest first: completed loads, without what was replaced."""
    if not _exists(target, dataset, "files"):
        return []
    found = _run(
        target,
        "select _dlt_load_id, _file_name, path, _file_checksum, bytes, last_line, rows_landed,"
        " rows_rejected, landed_at, is_replacement from {files} where _dlt_load_id in"
        " (select load_id from {loads} where status = 0) order by _dlt_load_id",
        files=(dataset, "files"),
        loads=(dataset, "_dlt_loads"),
    )
    rows = [Landed(*row) for row in found]
    replaced = {row.path: row.load_id for row in rows if row.is_replacement}
    return [row for row in rows if row.load_id >= replaced.get(row.path, "")]


def is_complete(target: Target, dataset: str, load_id: str) -> bool:
    """Whether the warehouse lists a load as completed."""
    query = "select 1 from {loads} where load_id = %s and status = 0"
    loads = (dataset, "_dlt_loads")
    return _exists(target, *loads) and bool(_run(target, query, load_id, loads=loads))


def forget(target: Target, dataset: str, load_id: str) -> None:
    """Delete all rows of a load that was not completed."""
    for table in ("transactions", "rejects", "files", "_dlt_pipeline_state"):
        if _exists(target, dataset, table):
            query = "delete from {table} where _dlt_load_id = %s"
            _run(target, query, load_id, table=(dataset, table))


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


def plan(found: dict[str, Path], ledger: list[Landed], *, replace: bool) -> Plan:
    """Decide for each file whether it lands, from which line on, or why not."""
    result = Plan()
    by_content = {row.checksum: row for row in ledger}
    by_path = {row.path: row for row in ledger}  # the latest
    with task("Checking what has landed", total=len(found), unit="files") as advance:
        for name, path in found.items():
            try:
                _decide(name, path, by_content, by_path, result, replace=replace)
            except OSError as error:
                result.problems.append(f"{name} cannot be read: {error.strerror}.\nCheck it.")
            except UserError as error:
                result.problems.append(error.message)
            advance()
    return result


def _decide(
    name: str,
    path: Path,
    by_content: dict[str, Landed],
    by_path: dict[str, Landed],
    result: Plan,
    *,
    replace: bool,
) -> None:
    if not path.is_file():
        raise UserError(f"{name} is no file.\nWrite it to a file first.")
    place = printable(path.resolve())
    earlier = by_path.get(place)
    size, checksum, beginning = probe(path, earlier.bytes if earlier else 0)
    file = SourceFile(name, path, size, checksum, *form_of(path))
    grown = earlier and beginning == earlier.checksum
    same = by_content.get(checksum) if grown or not earlier else None
    twin = next((other for other in result.files if other.checksum == checksum), None)
    if not size:
        result.empty.append(name)
    elif same:
        alias = "" if same.path == place else f" as {same.name}"
        when = f"{same.landed_at:%Y-%m-%d %H:%M %Z}"
        result.notes.append(f"{name} has landed before{alias} ({when}); skipped.")
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
        result.notes.append(f"{name} replaces what landed from there before.")
    else:
        result.problems.append(
            f"{name} has changed since it landed ({earlier.landed_at:%Y-%m-%d %H:%M %Z}).\n"
            "If this is a corrected version, add --replace: the facts then leave out what landed "
            "from there before. If it holds other transactions, give it another name."
        )
