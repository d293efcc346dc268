"""What to do with each file given: land it, from which line on, or why not."""

from __future__ import annotations

import dataclasses
import errno
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from ingestion.errors import UserError, is_passing
from ingestion.progress import task
from ingestion.sources.transactions.inputs.files import Inbox, LocalFile, RemoteFile
from ingestion.sources.transactions.inputs.prepare import with_rules
from ingestion.sources.transactions.inputs.source_file import SourceFile, look_at, probe
from ingestion.sources.transactions.ledger import Landed

if TYPE_CHECKING:
    from collections.abc import Callable

    from ingestion.sources.transactions.mapping.spec import Mapping


_CHANGED = (
    "{} has changed since it landed ({}).\n"
    "If this is a corrected version, add --replace: the facts then leave out what landed from there"
    " before. If it holds other transactions, give it another name."
)
_READ_ANEW = (
    "{} has grown since it landed ({}), by another mapping.\n"
    "To land all of it by this one, add --replace: the facts then leave out what landed from there"
    " before."
)


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
        refused: the same by the place of the file.
        passing: the places of those whose reason passes by itself.
        cause: the first error behind them, for its traceback.
    """

    files: list[SourceFile] = field(default_factory=list)
    replacements: set[str] = field(default_factory=set)
    replaced: set[str] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    passing: set[str] = field(default_factory=set)
    cause: BaseException | None = None

    def refuse(self, place: str, message: str, error: Exception | None = None) -> None:
        """A file must not land; ``error`` says so, if it is not what is known of it that does."""
        self.problems.append(message)
        self.refused[place] = message
        if error is not None and is_passing(error):
            self.passing.add(place)


@dataclass(frozen=True)
class Asked:
    """What the user has asked for.

    Attributes:
        replace: land what has changed, in place of what landed from there before.
        mapping: how all files are read; None: each by its columns.
    """

    replace: bool = False
    mapping: Mapping | None = None


def make_plan(
    found: list[LocalFile | RemoteFile], ledger: list[Landed], inbox: Inbox, asked: Asked
) -> Plan:
    """Decide for each file whether it lands, from which line on, or why not."""
    result = Plan()
    whole = [row for row in ledger if not row.replay_of]
    known = Known({row.checksum: row for row in whole}, {row.path: row for row in whole})
    # known places first: what is replaced at one may have moved to another, and must land there
    found = sorted(found, key=lambda given: given.place not in known.by_path)
    megabytes = sum(given.bytes for given in found) / 1e6
    with task("Checking what has landed", total=megabytes, unit="MB") as advance:
        fetch = partial(inbox.fetch, advance=advance)
        for given in found:
            try:
                file, beginning = _open(given, known, result, fetch, asked)
                if file:
                    file = with_rules(file, asked.mapping, inbox.prepared)
                    _decide(file, beginning, known, result, asked)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise
                message = f"{given.name} cannot be read: {error.strerror}.\nCheck it."
                result.refuse(given.place, message, error)
            except UserError as error:
                result.refuse(given.place, error.message, error)
            if isinstance(given, LocalFile):
                advance(given.bytes / 1e6)
            elif given.place not in (file.place for file in result.files[-1:]):
                inbox.drop(given)
    return result


@dataclass(frozen=True)
class Known:
    """What has landed: by the checksum of its content, and the latest by its place."""

    by_content: dict[str, Landed]
    by_path: dict[str, Landed]


def _open(
    given: LocalFile | RemoteFile,
    known: Known,
    result: Plan,
    fetch: Callable[[RemoteFile], tuple[Path, str | None]],
    asked: Asked,
) -> tuple[SourceFile | None, str | None]:
    """The file, and the checksum of as much of it as landed before; None where it has, whole."""
    name, place = given.name, given.place
    earlier = known.by_path.get(place)
    if isinstance(given, RemoteFile):
        if earlier and given.etag and given.etag == earlier.etag and not asked.mapping:
            # no need to fetch it
            result.notes.append(f"{name} has landed before ({_when(earlier)}); skipped.")
            return None, None
        path, etag = fetch(given)
    elif given.path.is_file():
        path, etag = given.path, None
    else:
        raise UserError(f"{name} is no file.\nPipe it in: marquee ingest transactions - < {name}")
    size, checksum, beginning = probe(path, earlier.bytes if earlier else 0)
    look = look_at(path, name)
    file = SourceFile(
        name,
        path,
        size,
        checksum,
        look.form,
        look.gzipped,
        look.is_plain,
        place=place,
        etag=etag,
        header=look.header,
        header_line=look.header_line,
        is_query=isinstance(given, LocalFile) and given.is_query,
        cursor_value=given.cursor_value if isinstance(given, LocalFile) else None,
    )
    return file, beginning


def open_file(given: LocalFile) -> SourceFile:
    """A file as it is read where nothing has landed.

    Raises:
        UserError: it cannot be read.
    """
    try:
        file, _ = _open(given, Known({}, {}), Plan(), lambda _: (given.path, None), Asked())
        if file is None:
            raise AssertionError("nothing has landed")
        with TemporaryDirectory() as folder:
            return with_rules(file, None, Path(folder))
    except OSError as error:
        raise UserError(f"{given.name} cannot be read: {error.strerror}.\nCheck it.") from error


def _decide(
    file: SourceFile, beginning: str | None, known: Known, result: Plan, asked: Asked
) -> None:
    name = file.name
    earlier = known.by_path.get(file.place)
    grown = earlier is not None and beginning == earlier.checksum
    same = known.by_content.get(file.checksum) if grown or not earlier or file.is_query else None
    if same and same.path in result.replaced:
        same = None
    is_read_anew = earlier is not None and _is_read_otherwise(earlier, file)
    twin = next((other for other in result.files if other.checksum == file.checksum), None)
    if not file.bytes:
        result.empty.append(name)
    elif same and not (is_read_anew and asked.replace):
        alias = "" if same.path == file.place else f" as {same.name}"
        anew = f" {_how_to_read_anew(file)}" if is_read_anew else ""
        result.notes.append(f"{name} has landed before{alias} ({_when(same)}); skipped.{anew}")
    elif twin:
        result.notes.append(f"{name} has the same content as {twin.name}; skipped.")
    elif earlier is None or file.is_query:
        result.files.append(file)
    elif (
        grown and not is_read_anew and file.is_plain and file.form != "parquet" and not file.gzipped
    ):
        file = dataclasses.replace(file, landed_bytes=earlier.bytes, landed_lines=earlier.last_line)
        result.files.append(file)
        result.notes.append(f"{name} has grown since it landed: only its new lines are read.")
    elif asked.replace:
        result.files.append(file)
        result.replacements.add(name)
        result.replaced.add(file.place)
        result.notes.append(f"{name} replaces what landed from there before.")
    else:
        why = (_READ_ANEW if grown and is_read_anew else _CHANGED).format(name, _when(earlier))
        result.refuse(file.place, why)


def _is_read_otherwise(earlier: Landed, file: SourceFile) -> bool:
    now = file.rules.mapping
    return earlier.mapping_checksum != (now.checksum if now else None)


def _how_to_read_anew(file: SourceFile) -> str:
    if file.rules.mapping:
        return "Its mapping has changed since: --replace lands it anew."
    return "A mapping read it then, and none does now: name it with --mapping."


def _when(row: Landed) -> str:
    return f"{row.landed_at:%Y-%m-%d %H:%M %Z}"
