"""A flat file's bytes as lines, and lines as fields."""

from __future__ import annotations

import csv
import re
from io import StringIO
from pathlib import Path
from typing import Literal

from ingestion.encodings import check_western, decoded, wide_encoding
from ingestion.errors import UserError
from ingestion.sources.brands.settings import (
    DELIMITERS,
    MAX_BYTES,
    MAX_LINE,
    WIDE,
)
from ingestion.texts import WHITE_SPACE, trim

Quoting = Literal[0, 3]  # csv.QUOTE_MINIMAL, csv.QUOTE_NONE
MARKS = re.compile(r"^ *\ufeff[ \ufeff]*")
_CONTAINERS = {
    b"PK\x03\x04": "an Excel or OpenDocument workbook",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
}


def content_of(path: Path, name: str) -> bytes:
    try:
        if path.is_dir():
            raise UserError(f"{name} is a folder.\nGive the path of one file.")
        if path.stat().st_size > MAX_BYTES:
            raise UserError(
                f"{name} is larger than {MAX_BYTES // 2**20} MB, far more than a list of brands.\n"
                "Check the path."
            )
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"There is no file {name}.\nCheck the path.") from error
    except OSError as error:
        raise UserError(
            f"{name} cannot be read: {error.strerror}.\nCheck its permissions."
        ) from error
    for magic, what in _CONTAINERS.items():
        if content.startswith(magic):
            raise UserError(f"{name} is {what}.\nSave the sheet as CSV (UTF-8) and give that file.")
    return content


def decode(content: bytes, name: str) -> list[str]:
    """The physical lines.

    Raises:
        UserError: it is not text, or in an encoding that cannot be told.
    """
    if encoding := wide_encoding(content):
        text = content.decode(encoding, errors="replace").replace("\0", "")  # PostgreSQL has no NUL
        return re.split(r"\r\n|\r|\n", text)
    if b"\0" in content:
        raise UserError(
            f"{name} is not a text file.\nSave the table as CSV (UTF-8) and give that file."
        )
    check_western([content], name)
    content = content.removeprefix(b"\xef\xbb\xbf")
    return [decoded(line) for line in re.split(rb"\r\n|\r|\n", content)]


def has_text(line: str) -> bool:
    return bool(line.strip(WHITE_SPACE + DELIMITERS + '"'))


def split(lines: dict[int, str], delimiter: str) -> dict[int, list[str]]:
    """Line number to fields, stripped.

    A record never spans lines, so a stray quote cannot swallow its neighbours. Quotes that do not
    enclose a whole field (``"Weird Al" Story``) are part of its text.
    """
    fields = {}
    alike: dict[tuple[Quoting, int], dict[int, str]] = {}
    for n, line in lines.items():
        if len(line) > MAX_LINE:
            fields[n] = [line]
        else:
            key = quoting_of(line, delimiter), line.count(delimiter)
            alike.setdefault(key, {})[n] = line
    for (quoting, delimiters), part in alike.items():
        if delimiters < WIDE:
            fields |= _read_csv(part, delimiter, quoting, width=delimiters + 1)
            continue
        for n, line in part.items():  # to pandas each column is work, filled or not
            found = csv.reader([line], delimiter=delimiter, quoting=quoting, skipinitialspace=True)
            fields[n] = [trim(text) for text in next(found)]
    return {n: fields[n] for n in lines}


def quoting_of(line: str, delimiter: str) -> Quoting:
    """How pandas and csv are to take the line's quotes: as enclosing fields, or as text."""
    try:
        next(csv.reader([line], delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error:
        return csv.QUOTE_NONE
    return csv.QUOTE_MINIMAL


def _read_csv(
    lines: dict[int, str], delimiter: str, quoting: Quoting, width: int
) -> dict[int, list[str]]:
    import pandas as pd

    frame = pd.read_csv(
        StringIO("\n".join(lines.values())),
        sep=delimiter,
        header=None,
        names=range(width),
        index_col=False,
        dtype=str,
        keep_default_na=False,  # a film may be called None or NA; a missing field is still null
        quoting=quoting,
        skipinitialspace=True,
        skip_blank_lines=False,
        engine="python",
    )
    return {
        n: [trim(value) for value in row if isinstance(value, str)]
        for n, row in zip(lines, frame.itertuples(index=False, name=None), strict=True)
    }
