"""Bytes of a file as text: as UTF-8, and as PostgreSQL can store them."""

from __future__ import annotations

from contextlib import suppress

BOM = b"\xef\xbb\xbf"


def as_utf8(line: bytes) -> bytes:
    """A line of CSV as UTF-8: what is none is Windows-1252, the Latin-1 of spreadsheets."""
    for encoding in ("utf-8", "cp1252", "latin-1"):  # cp1252 leaves five bytes undefined
        with suppress(UnicodeDecodeError):
            return line.decode(encoding).encode()
    raise AssertionError("Latin-1 takes any byte")


def readable(line: bytes) -> str:
    """A line as text that PostgreSQL can store: other bytes are written as ``\\x``, two digits."""
    return line.strip(b"\r\n").decode(errors="backslashreplace").replace("\0", "\\x00")
