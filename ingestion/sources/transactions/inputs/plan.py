"""What to do with each file given: land it, from which line on, or why not."""

from __future__ import annotations

import dataclasses
import errno
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from ingestion.errors import UserError
from ingestion.progress import task
from ingestion.sources.transactions.inputs.files import Inbox, LocalFile, RemoteFile
from ingestion.sources.transactions.inputs.source_file import SourceFile, form_of, header_of, probe
from ingestion.sources.transactions.ledger import Landed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


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


def make_plan(
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
