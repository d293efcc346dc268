"""Bytes of a file as text: as UTF-8, and as PostgreSQL can store them."""

from __future__ import annotations

from ingestion.encodings import decoded

BOM = b"\xef\xbb\xbf"


def as_utf8(line: bytes) -> bytes:
    """Return a line of CSV as UTF-8; read it as Windows-1252 if it is not valid UTF-8."""
    return decoded(line).encode()


def readable(line: bytes) -> str:
    """A line as text that PostgreSQL can store: other bytes are written as ``\\x``, two digits."""
    return line.strip(b"\r\n").decode(errors="backslashreplace").replace("\0", "\\x00")
