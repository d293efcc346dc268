"""A file to read: its size, checksum and form, by its first bytes and its name."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from pathlib import Path

from ingestion.encodings import wide_encoding
from ingestion.errors import UserError
from ingestion.sources.transactions.encoding import BOM, as_utf8, readable
from ingestion.sources.transactions.inputs.header import find_header
from ingestion.sources.transactions.inputs.json_documents import is_document
from ingestion.sources.transactions.inputs.packed import errors_of, unpacked
from ingestion.sources.transactions.mapping.rules import CONTRACT, Rules
from ingestion.sources.transactions.settings import CHUNK_BYTES, HEADER_WITHIN

HEAD_BYTES = 1 << 20
PARQUET = b"PAR1"
_QUOTED = re.compile(r'"[^"]*"')
LONE_CR = re.compile(r"\r(?!\n)")
MACINTOSH = (
    "{} has Macintosh line ends (CR alone){}.\n"
    "Save it with LF or CRLF line ends, in Excel as CSV UTF-8."
)


@dataclass(frozen=True)
class SourceFile:
    """A file to read, and from where.

    Attributes:
        name: the file as it was given.
        path: where it is.
        bytes: its size; what is appended meanwhile is left for the next time.
        checksum: sha-256 of these bytes, hexadecimal.
        form: ``jsonl``, ``csv`` or ``parquet``; or what ``prepare`` makes one of them of: ``json``
            (one document), ``workbook``.
        gzipped: whether it is packed with gzip.
        is_plain: whether readers take it as it is.
        landed_bytes: leading bytes that have landed before.
        landed_lines: lines in these bytes.
        place: where it is as the ledger has it: an absolute path, a URL.
        etag: what an object store calls this version of it.
        header, header_line: the header of CSV, and where it is.
        rules: what becomes of its records.
        is_query, cursor_value: as in ``files.LocalFile``.
    """

    name: str
    path: Path
    bytes: int
    checksum: str
    form: str
    gzipped: bool = False
    is_plain: bool = True
    landed_bytes: int = 0
    landed_lines: int = 0
    place: str = ""
    etag: str | None = None
    header: str | None = None
    header_line: int = 1
    rules: Rules = CONTRACT
    is_query: bool = False
    cursor_value: str | None = None


def probe(path: Path, prefix: int = 0) -> tuple[int, str, str | None]:
    """Size and checksum of a file, and the checksum of its first ``prefix`` bytes (None: shorter).

    Raises:
        OSError: it cannot be read.
    """
    whole, size, at_prefix = hashlib.sha256(), 0, None
    with path.open("rb") as file:
        while data := file.read(min(CHUNK_BYTES, prefix - size) if size < prefix else CHUNK_BYTES):
            whole.update(data)
            size += len(data)
            if size == prefix:
                at_prefix = whole.hexdigest()
    return size, whole.hexdigest(), at_prefix


@dataclass(frozen=True)
class Look:
    """What a file is, by its beginning and its name.

    Attributes:
        form: as in ``SourceFile``.
        layers: what it is packed in, from without.
        encoding: UTF-16 or UTF-32, if it is in one of them.
        header: the header of CSV as text that can be stored.
        header_line: number of its line; what is above it is left out.
    """

    form: str
    layers: tuple[str, ...] = ()
    encoding: str | None = None
    header: str | None = None
    header_line: int = 1

    @property
    def gzipped(self) -> bool:
        return self.layers == ("gzip",)

    @property
    def is_plain(self) -> bool:
        """Whether readers take it as it is."""
        if self.form == "parquet":
            return not self.layers
        packed = self.layers in ((), ("gzip",))
        return packed and not self.encoding and self.form in ("jsonl", "csv")


def look_at(path: Path, name: str = "") -> Look:
    """What a file is: its first bytes say so, or its name, or its first line.

    Args:
        path: where it is.
        name: the file as it was given, if it is a copy.

    Raises:
        OSError: it cannot be read.
        UserError: it is packed in a way that is not known, or CSV with Macintosh line ends.
    """
    name = name or path.name
    with unpacked(path, name) as inner:
        if inner.is_workbook:
            return Look("workbook", inner.layers)
        try:
            with errors_of(name, inner.layers):
                head = inner.stream.read(HEAD_BYTES)
        except UserError:
            if inner.layers != ("gzip",):
                raise
            head = b""  # the reader says what is wrong with it
    if head.startswith(PARQUET):
        return Look("parquet", inner.layers)
    encoding = wide_encoding(head)
    text = head.decode(encoding, errors="ignore").encode() if encoding else head
    look = _form_of(text.removeprefix(BOM), inner.name.lower(), name)
    return replace(look, layers=inner.layers, encoding=encoding)


def _form_of(head: bytes, inner: str, name: str) -> Look:
    """``jsonl``, ``json`` or ``csv``, and the header of that."""
    lines = [readable(as_utf8(line)) for line in head.split(b"\n", HEADER_WITHIN)[:HEADER_WITHIN]]
    at, has_names = find_header(lines)
    is_json = inner.endswith((".jsonl", ".ndjson", ".json")) or lines[0].lstrip()[:1] in ("{", "[")
    is_named_csv = inner.endswith((".csv", ".tsv", ".txt"))
    if not is_named_csv and (is_json or not has_names):
        text, is_whole = head.decode(errors="surrogateescape"), len(head) < HEAD_BYTES
        return Look("json" if is_document(text, is_whole=is_whole) else "jsonl")
    if LONE_CR.search(_QUOTED.sub("", lines[at])):
        raise UserError(MACINTOSH.format(name, ""))
    return Look("csv", header=lines[at], header_line=at + 1)
