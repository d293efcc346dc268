"""Where files of transactions come from: the disk, an object store, standard input.

What is not on this disk is copied below the state folder first. So it is hashed, compared with
what has landed and read as any local file is, and what came through a pipe outlives a kill.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ingestion.errors import PassingError, UserError
from ingestion.object_store import CHANGED, STORES, as_user_error, etag_of, objects_at, open_store
from ingestion.places import check_no_credentials, on_disk
from ingestion.progress import task
from ingestion.sources.transactions import settings
from ingestion.sources.transactions.inputs.database import (
    DatabaseTable,
    is_database,
    parse,
    write_rows,
)
from ingestion.sources.transactions.inputs.folders import files_below, meant

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

    from ingestion.sources.transactions.ledger import Landed

STDIN = "<stdin>"
KINDS = (
    "Their names end with .jsonl, .ndjson, .json, .csv, .tsv (each also .gz, .bz2, .xz, .zst),"
    " .parquet, .xlsx, .xlsb, .xls, .ods or .zip."
)


@dataclass(frozen=True)
class LocalFile:
    """A file on this disk.

    Attributes:
        name: the file as it was given, or folder and name.
        path: where it is.
        place: the same as text, for the ledger: files at one place are versions of one file.
        is_query: what was asked of a table there: another answer is no other version of the first.
        cursor_value: up to which value of a cursor that answer goes.
    """

    name: str
    path: Path
    place: str
    is_query: bool = False
    cursor_value: str | None = None

    @property
    def bytes(self) -> int:
        """Its size, as far as it can be known."""
        try:
            return self.path.stat().st_size
        except OSError:
            return 0


@dataclass(frozen=True)
class RemoteFile:
    """An object in a store; its URL is both its name and its place.

    Attributes:
        url: ``s3://``, ``gs://`` or ``az://``, bucket, key; ``hdfs://``, name node, path.
        bytes: its size.
        etag: what the store calls this version of it, if it says.
        store: the file system of fsspec that has it.
    """

    url: str
    bytes: int = 0
    etag: str | None = None
    store: AbstractFileSystem = field(default=None, compare=False, repr=False)

    @property
    def name(self) -> str:
        return self.url

    @property
    def comes_whole(self) -> bool:
        """Whether nobody sees it before it is whole; HDFS shows what is still being written."""
        return not self.url.startswith("hdfs:")

    @property
    def place(self) -> str:
        return self.url


@dataclass(frozen=True)
class StandardInput:
    """What is piped in, not read yet."""

    name: str = STDIN
    place: str = STDIN


Input = LocalFile | RemoteFile | StandardInput | DatabaseTable


class NoFileError(UserError):
    """Nothing is there that could land."""


class Found(list[Input]):
    """Files that are meant, each once; ``notes`` say what was left out."""

    def __init__(self, files: Iterable[Input], notes: list[str]) -> None:
        super().__init__(files)
        self.notes = notes


def find_files(paths: Sequence[str | Path | Input]) -> Found:
    """The files that are meant, each once.

    Args:
        paths: files, folders (all files of a known kind below) and glob patterns; URLs of
            objects, of prefixes with a ``/`` at the end (all objects of a known kind below) and
            globs; ``-`` for standard input; what this function has found before.

    Raises:
        UserError: there is no such file.
    """
    if isinstance(paths, Found):
        return paths
    found: dict[str, Input] = {}
    notes: list[str] = []
    for given in paths:
        if isinstance(given, Input):
            files: list[Input] = [given]
        elif not str(given):  # the current folder, to Path
            raise UserError("A path is empty.\nIs a variable not set? . is the current folder.")
        elif str(given) == "-":
            files = [StandardInput()]
        elif str(given).lower().startswith("file:/"):
            files = _local_files(str(on_disk(given, "The file")), notes)
        elif is_database(str(given)):
            files = [parse(str(given))]
        elif "://" in str(given):
            files = _remote_files(str(given), notes)
        else:
            files = _local_files(str(given), notes)
        for file in files:
            found.setdefault(file.place, file)
    return Found(found.values(), notes)


def printable(path: str | Path) -> str:
    """A path as text that can be stored: bytes that are not UTF-8 are written as ``\\x``."""
    return os.fsencode(path).decode(errors="backslashreplace")


def _local_files(given: str, notes: list[str]) -> list[Input]:
    try:
        path = Path(given).expanduser()
        is_folder, is_there = path.is_dir(), path.exists()
    except PermissionError as error:
        raise UserError(f"{given} cannot be read: {error.strerror}.\nCheck it.") from error
    except (OSError, RuntimeError) as error:  # a name that is too long, ~ of nobody
        raise UserError(f"There is no file {given}.\nCheck the path.") from error
    if is_folder:
        below = (file for file in files_below(path) if Path(file).is_file())
        names, said = meant(below, str(path))
        notes += map(printable, said)
        if not names:
            raise NoFileError(f"There is no file of transactions in {given}.\n{KINDS}")
    elif is_there:
        return [LocalFile(printable(given), path, printable(path.resolve()))]
    else:
        matching = glob.glob(str(path), recursive=True)  # noqa: PTH207
        names = sorted(name for name in matching if Path(name).is_file())
        if not names:
            raise NoFileError(f"There is no file {given}.\n{_check(given)}")
    files = ((name, Path(name)) for name in names)
    return [LocalFile(printable(name), file, printable(file.resolve())) for name, file in files]


def _check(path: str) -> str:
    """What to do about a path where nothing is."""
    if "%" in path:
        return "If it has a day in it, as dt=%Y-%m-%d has, say which: --since YYYY-MM-DD."
    return "Check the URL." if "://" in path else "Check the path."


# Object stores


def _remote_files(url: str, notes: list[str]) -> list[Input]:
    protocol, _, path = url.partition("://")
    bucket, _, key = path.partition("/")
    check_no_credentials(protocol, bucket)
    if protocol not in STORES:
        raise UserError(
            f"Transactions are not read from {protocol}:// addresses.\n"
            "Give files, folders, globs, s3://, gs://, az:// and hdfs:// URLs, or -"
            " for standard input."
        )
    with as_user_error(f"{protocol}://"):
        store = open_store(protocol)
    with as_user_error(url):
        if not key or key.endswith("/"):
            objects = store.find(path, detail=True)
            below = sorted(name for name in objects if not name.endswith("/"))
            names, said = meant(below, path)
            notes += (f"{protocol}://{note}" for note in said)
            if not names:
                raise NoFileError(f"There is no file of transactions below {url}.\n{KINDS}")
        else:
            objects = objects_at(store, path)
            names = sorted(name for name, info in objects.items() if info["type"] == "file")
            if not names and objects:
                raise UserError(
                    f"{url} is no object, but there are objects below it.\n"
                    "To land them, write a / at its end."
                )
            if not names:
                raise NoFileError(f"There is no {url}.\n{_check(url)}")
        return [
            RemoteFile(f"{protocol}://{n}", objects[n]["size"], etag_of(objects[n]), store)
            for n in names
        ]


# Copies


class Inbox:
    """Copies of what is not on this disk, below a folder.

    Those of objects go when this is closed. What came through a pipe goes only when all went well:
    otherwise ``receive`` gives it again in the next run.

    Attributes:
        notes: what the user may want to know of that.
        prepared: a folder for what ``prepare`` makes of files.
    """

    def __init__(self, folder: Path) -> None:
        self.notes: list[str] = []
        self.prepared = folder / "prepared"
        self._objects, self._piped = folder / "objects", folder / "piped"

    def __enter__(self) -> Inbox:
        self._clear()
        self._objects.mkdir(parents=True)
        self.prepared.mkdir()
        self._piped.mkdir(exist_ok=True)
        for half in self._piped.glob("*.part"):
            half.unlink()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._clear()
        if kind is None:
            shutil.rmtree(self._piped, ignore_errors=True)

    def _clear(self) -> None:
        for folder in (self._objects, self.prepared):
            shutil.rmtree(folder, ignore_errors=True)

    def receive(
        self, found: list[Input], landed: Sequence[Landed] = ()
    ) -> list[LocalFile | RemoteFile]:
        """The same files, standard input read to its end, and what an earlier run had read of it.

        Of tables, what is new in them by the ledger.

        Raises:
            UserError: standard input or a table cannot be read.
        """
        earlier = [_piped_file(path) for path in sorted(self._piped.iterdir())]
        if earlier:
            self.notes.append(f"{STDIN}: what an earlier, killed run had read is taken up.")
        received: list[LocalFile | RemoteFile] = [*earlier]
        for file in found:
            if isinstance(file, DatabaseTable):
                received += self._query(file, landed)
            else:
                received.append(self._read_stdin() if isinstance(file, StandardInput) else file)
        return received

    def _query(self, table: DatabaseTable, landed: Sequence[Landed]) -> list[LocalFile]:
        """The rows of a table that are new; none is no file."""
        values = [row.cursor_value for row in landed if row.path == table.place]
        last = next((value for value in reversed(values) if value), None)
        path = self._objects / hashlib.sha256(table.place.encode()).hexdigest()
        value = write_rows(table, last, path)
        if path.stat().st_size:
            return [LocalFile(table.name, path, table.place, is_query=True, cursor_value=value)]
        self.notes.append(f"{table.name} has no rows{' that are new' if last else ''}.")
        return []

    def fetch(self, file: RemoteFile, advance: Callable) -> tuple[Path, str | None]:
        """A copy of an object, and the version that it is of; ``advance`` is told the megabytes.

        Raises:
            UserError: it cannot be read, or not to its end.
        """
        copy = self._copy_of(file)
        path = file.url.partition("://")[2]
        # without a cache each read is one request, for the version that was there when it opened
        with (
            as_user_error(file.url),
            file.store.open(path, "rb", cache_type="none") as source,
            copy.open("wb") as out,
        ):
            _copy(source, out, advance)
            if out.tell() != source.size:
                raise PassingError(CHANGED.format(file.url))
            etag = etag_of(getattr(source, "details", None) or {})
            if etag and etag != etag_of(file.store.info(path)):
                raise PassingError(CHANGED.format(file.url))
            return copy, etag

    def drop(self, file: RemoteFile) -> None:
        """Remove the copy of an object, if there is one."""
        self._copy_of(file).unlink(missing_ok=True)

    def _copy_of(self, file: RemoteFile) -> Path:
        return self._objects / hashlib.sha256(file.url.encode()).hexdigest()

    def _read_stdin(self) -> LocalFile:
        if sys.stdin is None:
            raise UserError("There is no standard input.\nPipe something in, or give a file.")
        half = self._piped / f"{os.getpid()}.part"
        try:
            with half.open("wb") as out, task("Reading standard input", unit="MB") as advance:
                checksum = _copy(sys.stdin.buffer, out, advance)
        except OSError as error:
            half.unlink(missing_ok=True)
            if error.errno == errno.ENOSPC:
                raise
            raise UserError(f"{STDIN} cannot be read: {error.strerror}.\nCheck it.") from error
        return _piped_file(half.rename(half.with_name(checksum)))


def _piped_file(path: Path) -> LocalFile:
    """Each input is a file of its own: another one is no other version of it."""
    return LocalFile(STDIN, path, f"{STDIN} {path.name}")


def _copy(source: IO[bytes], out: IO[bytes], advance: Callable) -> str:
    """Copy to the end; the sha-256 of it all, hexadecimal."""
    whole = hashlib.sha256()
    while data := source.read(settings.CHUNK_BYTES):
        out.write(data)
        whole.update(data)
        advance(len(data) / 1e6)
    return whole.hexdigest()
