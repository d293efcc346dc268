"""A plain copy of a file that is not yet lines of UTF-8, or Parquet on this disk.

The copy is what is read. Name, place, size and checksum in the ledger stay those of the file as it
was given.
"""

from __future__ import annotations

import codecs
import errno
import gzip
import hashlib
import shutil
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ingestion import interrupts
from ingestion.encodings import check_western
from ingestion.errors import PassingError, UserError
from ingestion.sources.transactions.inputs.json_documents import json_lines
from ingestion.sources.transactions.inputs.packed import errors_of, unpacked
from ingestion.sources.transactions.inputs.source_file import (
    HEAD_BYTES,
    Look,
    SourceFile,
    look_at,
    probe,
)
from ingestion.sources.transactions.inputs.workbook import rows_of_workbook
from ingestion.sources.transactions.mapping.choose import rules_for
from ingestion.sources.transactions.settings import CHUNK_BYTES, MAX_LINE_BYTES, MIN_FREE_BYTES

if TYPE_CHECKING:
    from ingestion.sources.transactions.mapping.spec import Mapping

# Half a character of UTF-16, or none: its line is refused, as no line with a NUL can be stored.
codecs.register_error("nul", lambda error: ("\0", getattr(error, "end", 0)))


@contextmanager
def prepared(file: SourceFile, folder: Path) -> Iterator[SourceFile]:
    """A file as it is read: itself, or a plain copy, which goes with the end of the block.

    Args:
        file: as it was given.
        folder: for the copy.

    Raises:
        OSError: it cannot be read, or the disk is full.
        UserError: it cannot be made plain, or is in another encoding.
    """
    copy = folder / file.checksum
    with interrupts.giving_back(copy.unlink):
        try:
            with _errors_of_disk(file.name):
                ready = file if file.is_plain else _copied(file, copy)
                _check_encoding(ready)
            yield ready
        finally:
            copy.unlink(missing_ok=True)


def with_rules(file: SourceFile, given: Mapping | None, folder: Path) -> SourceFile:
    """A file with what becomes of its records, by its columns or by a mapping that was given.

    Raises:
        OSError: it cannot be read.
        UserError: it cannot be made plain, or several mappings fit.
    """
    if file.is_plain or given:
        return replace(file, rules=rules_for(file, given))
    copy = folder / file.checksum
    with interrupts.giving_back(copy.unlink):
        try:
            with _errors_of_disk(file.name):
                ready = _copied(file, copy, enough=HEAD_BYTES)
            return replace(file, rules=rules_for(ready, given))
        finally:
            copy.unlink(missing_ok=True)


@contextmanager
def _errors_of_disk(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise UserError(f"{name} cannot be read: {error}.\nRun this again.") from error


def _copied(file: SourceFile, copy: Path, enough: int | None = None) -> SourceFile:
    """What is read in the place of a file, after it has been written; of text, enough bytes."""
    look = look_at(file.path, file.name)
    is_text = look.form != "parquet"
    pieces = _pieces(file, look)
    with closing(pieces):
        size, checksum = _write(pieces, copy, file, is_text=is_text, enough=is_text and enough)
    if not enough and probe(file.path)[1] != file.checksum:
        raise PassingError(f"{file.name} was changed while it was read.\nRun this again.")
    form = "jsonl" if look.form in ("json", "workbook") else look.form
    ready = replace(file, path=copy, bytes=size, checksum=checksum, form=form)
    return replace(ready, gzipped=False, is_plain=True)


def _pieces(file: SourceFile, look: Look) -> Generator[bytes, None, None]:
    with unpacked(file.path, file.name) as inner, errors_of(file.name, inner.layers):
        if look.form == "workbook":
            yield from rows_of_workbook(inner.stream, file.name)
            return
        pieces: Iterable[bytes] = iter(lambda: inner.stream.read(CHUNK_BYTES), b"")
        if look.encoding:
            pieces = _as_utf8(pieces, look.encoding)
        yield from json_lines(pieces, file.name) if look.form == "json" else pieces


def _as_utf8(pieces: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)("nul")
    for piece in pieces:
        yield decoder.decode(piece).encode()
    yield decoder.decode(b"", final=True).encode()


def _write(
    pieces: Iterable[bytes],
    copy: Path,
    file: SourceFile,
    *,
    is_text: bool,
    enough: int | bool | None,
) -> tuple[int, str]:
    """Write a copy, or enough of one; its size, and its sha-256, hexadecimal.

    A few bytes can unpack to more than a disk holds. So it stops where a line has no end, and
    before the disk is full.
    """
    whole, size, line_start, checked = hashlib.sha256(), 0, 0, 0
    with copy.open("wb") as out:
        for piece in pieces:
            out.write(piece)
            whole.update(piece)
            end = piece.rfind(b"\n") + 1
            line_start = size + end if end else line_start
            size += len(piece)
            if is_text and size - line_start > MAX_LINE_BYTES:
                raise UserError(
                    f"{file.name} has a line of more than {MAX_LINE_BYTES >> 20} MiB.\n"
                    "Give one transaction a line."
                )
            if enough and size >= enough:
                break
            if size - checked < CHUNK_BYTES:
                continue
            checked = size
            if shutil.disk_usage(copy).free < MIN_FREE_BYTES:
                raise UserError(
                    f"{file.name} does not fit on the disk when it is unpacked:"
                    f" {size / 1e9:.1f} GB so far.\nMake room, or give it in parts."
                )
    return size, whole.hexdigest()


def _check_encoding(file: SourceFile) -> None:
    """
    Raises:
        UserError: it is CSV, and neither UTF-8 nor Windows-1252.
    """
    if file.form != "csv":
        return
    with file.path.open("rb") as raw, suppress(EOFError, gzip.BadGzipFile, zlib.error):
        stream: Any = gzip.GzipFile(fileobj=raw) if file.gzipped else raw
        check_western(_of_whole_lines(stream), file.name)


def _of_whole_lines(stream: IO[bytes]) -> Iterator[bytes]:
    rest = b""
    while piece := stream.read(CHUNK_BYTES):
        end = piece.rfind(b"\n") + 1
        if end:
            yield rest + piece[:end]
            rest = piece[end:]
        elif len(rest) < MAX_LINE_BYTES:  # beyond, the reader refuses it
            rest += piece
    yield rest
