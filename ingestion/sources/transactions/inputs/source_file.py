"""A file to read: its size, checksum and form, by its first bytes and its name."""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from ingestion.errors import UserError
from ingestion.sources.transactions.encoding import BOM, as_utf8, readable
from ingestion.sources.transactions.mapping.rules import CONTRACT, Rules
from ingestion.sources.transactions.settings import CHUNK_BYTES, MANDATORY

_HEADER_BYTES = 1 << 20
_PACKED = {
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "packed with zstd",
    b"BZh": "packed with bzip2",
    b"\xfd7zXZ": "packed with xz",
}
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
        form: ``jsonl``, ``csv`` or ``parquet``.
        gzipped: whether it is packed.
        landed_bytes: leading bytes that have landed before.
        landed_lines: lines in these bytes.
        place: where it is as the ledger has it: an absolute path, a URL.
        etag: what an object store calls this version of it.
        header: the first line of CSV.
        rules: what becomes of its records.
    """

    name: str
    path: Path
    bytes: int
    checksum: str
    form: str
    gzipped: bool = False
    landed_bytes: int = 0
    landed_lines: int = 0
    place: str = ""
    etag: str | None = None
    header: str | None = None
    rules: Rules = CONTRACT


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


def form_of(path: Path, name: str = "") -> tuple[str, bool]:
    """What a file is (``jsonl``, ``csv``, ``parquet``), and whether it is gzipped.

    Its first bytes say so, or its name, or its first line.

    Args:
        path: where it is.
        name: the file as it was given, if it is a copy.

    Raises:
        OSError: it cannot be read.
        UserError: it is UTF-16, packed in another way, or CSV with Macintosh line ends.
    """
    name = name or path.name
    with path.open("rb") as file:
        start = file.read(6)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise UserError(f"{name} is UTF-16.\nSave it as UTF-8.")
    for magic, kind in _PACKED.items():
        if start.startswith(magic):
            raise UserError(f"{name} is {kind}.\nUnpack it, or pack it with gzip.")
    if start[:4] == b"PAR1":
        return "parquet", False
    gzipped = start[:2] == b"\x1f\x8b"
    base = name.lower().removesuffix(".gz")
    if base.endswith((".jsonl", ".ndjson", ".json")):
        return "jsonl", gzipped
    first = header_of(path, gzipped=gzipped) or ""
    names = first.lstrip().lower()
    is_csv = MANDATORY[0] in names and names[0] not in "{["
    if not is_csv and not base.endswith((".csv", ".tsv", ".txt")):
        return "jsonl", gzipped
    if LONE_CR.search(_QUOTED.sub("", first)):
        raise UserError(MACINTOSH.format(name, ""))
    return "csv", gzipped


def header_of(path: Path, *, gzipped: bool) -> str | None:
    """The first line of a file as text that can be stored; None when it cannot be had.

    Raises:
        OSError: it cannot be read.
    """
    try:
        with path.open("rb") as raw:
            data = gzip.GzipFile(fileobj=raw) if gzipped else raw
            return readable(as_utf8(data.readline(_HEADER_BYTES).removeprefix(BOM)))
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return None
