"""Which columns a flat file has, by its header, and how a line fits them."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Sequence
from itertools import islice

from ingestion.errors import UserError
from ingestion.sources.brands.settings import (
    BRANDS,
    DELIMITERS,
    HEADER_WITHIN,
    HEADERLESS_BRANDS,
    KINDS,
    MAX_COLUMNS,
    MAX_EXTRA_DELIMITERS,
    Column,
    FileKind,
)
from ingestion.sources.brands.text import quoting_of, split
from ingestion.sources.brands.values import Layout, UnreadableRow, is_readable, row_of
from ingestion.texts import trim


def simplified(header: str) -> str:
    """A header without case, accents (sound or mis-encoded), spaces and what brackets enclose."""
    text = unicodedata.normalize("NFKD", re.sub(r"\(.*?\)", "", header)).lower()
    return re.sub(r"[^a-z0-9#]", "", text)


def _layout(headers: Sequence[str], kind: FileKind) -> Layout | None:
    """The columns these headers name, or None where a required one is missing."""
    layout: Layout = []
    width = max((n for n, header in enumerate(headers, 1) if header), default=0)
    if width > MAX_COLUMNS:
        return None
    for position, header in enumerate(headers[:width], 1):
        name = simplified(header)
        known = [column for column in kind.columns if name in column.headers]
        extra = header or f"column_{position}"
        while extra in layout:
            extra += "_"
        layout.append(known[0] if known and known[0] not in layout else extra)
    missing = [column for column in kind.columns if column.required and column not in layout]
    return None if missing else layout


def _best_header(lines: dict[int, str], kind: FileKind) -> tuple[int, str, Layout] | None:
    """Line number, delimiter and layout of the first line that names most of the kind's columns."""
    found = []
    top = dict(islice(lines.items(), HEADER_WITHIN))
    for delimiter in DELIMITERS:
        for number, headers in split(top, delimiter).items():
            layout = _layout(headers, kind)
            if layout:
                known = sum(isinstance(column, Column) for column in layout)
                found.append((-known, number, delimiter, layout))
    return min(found, key=lambda each: each[:2])[1:] if found else None


def find_header(lines: dict[int, str], kind: FileKind, name: str) -> tuple[int | None, str, Layout]:
    """Line number of the header (None: the first line is a row already), delimiter and layout."""
    header = _best_header(lines, kind)
    if header:
        return header
    if kind is BRANDS:
        by_name = {column.name: column for column in kind.columns}
        layout: Layout = [by_name[column] for column in HEADERLESS_BRANDS]
        first = dict(islice(lines.items(), 1))
        for delimiter in DELIMITERS:
            for fields in split(first, delimiter).values():
                if _shows_index_row(fields, layout):
                    return None, delimiter, layout
    for other in KINDS.values():
        if _best_header(lines, other):
            raise UserError(f"{name} is not {kind.what} but {other.what}.\nLoad it as such.")
    needed = " and ".join(column.name.capitalize() for column in kind.columns if column.required)
    raise UserError(
        f"{name} has no line with the headers of {kind.what}.\n"
        f"It needs the columns {needed} (English or French), between tabs, commas, semicolons or |."
    )


def _shows_index_row(fields: list[str], layout: Layout) -> bool:
    """Whether a line can only be a row of the index.

    None of the five values is missing or of another kind, and the total is not below the gross of
    one release.
    """
    if len(fields) != len(layout):
        return False
    try:
        row = row_of(fields, layout)
    except UnreadableRow:
        return False
    return None not in map(row.get, HEADERLESS_BRANDS) and row["total"] >= row["lifetime_gross"]


def fit(fields: list[str], line: str, delimiter: str, layout: Layout) -> list[str]:
    """As many fields as the layout has columns."""
    width = len(layout)
    filled = len(fields)
    while filled > width and not fields[filled - 1]:
        filled -= 1
    fields = fields[:filled]
    if any(text.count('"') % 2 for text in fields):
        raise UnreadableRow("broken_quotes", "A quote is opened and not closed on the same line.")
    if any('\\"' in text for text in fields):
        raise UnreadableRow("broken_quotes", "A quote follows a backslash: write it twice.")
    if len(fields) < width:
        raise UnreadableRow(
            "too_few_columns", f"{len(fields)} columns where the header has {width}."
        )
    return fields if len(fields) == width else _realign(line, delimiter, layout)


def _realign(line: str, delimiter: str, layout: Layout) -> list[str]:
    """Put a title with bare delimiters in it back together, if there is one way only."""
    quoting = quoting_of(line, delimiter)
    pieces = next(csv.reader([line], delimiter=delimiter, quoting=quoting))
    ways = 0
    read: list[str] = []
    if len(layout) <= len(pieces) <= len(layout) + MAX_EXTRA_DELIMITERS:
        ways, read = _alignments(pieces, layout, delimiter)
    if ways != 1:
        how = "can be read in several ways" if ways else "no reading fits"
        raise UnreadableRow(
            "too_many_columns",
            f"{len(pieces)} columns where the header has {len(layout)}, and {how}: quote texts.",
        )
    return read


def _alignments(pieces: list[str], layout: Layout, delimiter: str) -> tuple[int, list[str]]:
    """The ways to join neighbouring pieces to one readable value a column: how many, and one.

    Two stand for more. From the last column to the first, so that each join is tried once: the
    work grows with the columns and the square of the surplus pieces, whatever is in them.
    """
    surplus = len(pieces) - len(layout)
    # by the surplus pieces that stand further left: ways of what is right of here, and one of them
    after: list[tuple[int, tuple | None]] = [*[(0, None)] * surplus, (1, None)]
    for at in reversed(range(len(layout))):
        here = []
        for start in range(at, at + surplus + 1):
            ways, read = 0, None
            for end in range(start + 1, at + surplus + 2):
                further, rest = after[end - at - 1]
                if not further:
                    continue
                text = trim(delimiter.join(pieces[start:end]))
                if is_readable(text, layout[at]):
                    ways, read = min(ways + further, 2), (text, rest)
            here.append((ways, read))
        after = here
    ways, read = after[0]
    texts = []
    while read:
        text, read = read
        texts.append(text)
    return ways, texts
