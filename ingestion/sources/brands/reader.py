"""Reads the brands source's flat files as they come: delimiter, encoding, headers, number style.

Raw is raw: a title lands as the file has it (typographic quotes too), only the white space around
it goes. What cannot be read without guessing is not guessed: the line goes to the rejects with its
text and the reason.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ingestion.errors import UserError
from ingestion.sources.brands.header import find_header, fit, simplified
from ingestion.sources.brands.settings import (
    BRANDS,
    HARMLESS,
    MAX_LINE,
    SUMMARY_NAMES,
    FileKind,
)
from ingestion.sources.brands.text import MARKS, content_of, decode, has_text, split
from ingestion.sources.brands.values import Layout, UnreadableRow, row_of
from ingestion.texts import normalize
from ingestion.warehouse.paths import PROJECT_DIR


@dataclass
class Reading:
    """One version of one file, read.

    Attributes:
        kind: what the file is.
        name: its path as given.
        checksum: SHA-256 of its content, hexadecimal.
        size: bytes.
        rows: the rows to land, as the raw table has them (`settings.TABLES`), in file order.
        rejects: every other line below or above the header, blank lines left out.
        notes: sentences worth the user's attention.
    """

    kind: FileKind
    name: str
    checksum: str
    size: int
    rows: list[dict] = field(default_factory=list)
    rejects: list[dict] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def rows_read(self) -> int:
        """Lines that are neither blank nor the header."""
        return len(self.rows) + len(self.rejects)


def read(file: Path | None, kind: FileKind) -> Reading:
    """Read one file (None: the bundled sample).

    Raises:
        UserError: there is no such file; it is empty, not text, or has no header of its kind; it
            has no readable row, or more than half of its rows cannot be read.
    """
    path = file or kind.sample
    name = str(file or path.relative_to(PROJECT_DIR).as_posix())
    content = content_of(path, name)
    reading = Reading(kind, name, hashlib.sha256(content).hexdigest(), len(content))
    if file is None:
        reading.notes.append(f"No file given: the bundled sample of {kind.what} is read, {name}.")

    # a byte order mark stands at the start of each file that went into this one
    decoded = (MARKS.sub("", line) for line in decode(content, name))
    lines = {n: line for n, line in enumerate(decoded, 1) if has_text(line)}
    if not lines:
        raise UserError(f"{name} is empty.\nGive a file with a header and rows.")
    header, delimiter, layout = find_header(lines, kind, name)
    if header is None:
        reading.notes.append(
            f"{name} has no header: read as Brand, Total, Releases, #1 Release, Lifetime Gross."
        )
    _read_rows(reading, lines, header, delimiter, layout)
    _refuse_if_unreadable(reading)
    return reading


def _read_rows(
    reading: Reading, lines: dict[int, str], header: int | None, delimiter: str, layout: Layout
) -> None:
    """Fill the reading's rows and rejects."""
    fields_of = split(lines, delimiter)
    headers = fields_of.pop(header, None) if header else None
    empty = dict.fromkeys(column.name for column in reading.kind.columns)
    reject_repeats = _repeats(reading.kind)
    for number, fields in fields_of.items():
        where = {
            "_file_name": reading.name,
            "_file_line": number,
            "_file_checksum": reading.checksum,
        }
        try:
            _reject_furniture(fields, number < (header or 0), headers)
            row = empty | row_of(fit(fields, lines[number], delimiter, layout), layout)
            _reject_summary(row)
            reject_repeats(row, number)
        except UnreadableRow as error:
            reject = {
                "kind": reading.kind.name,
                "raw_text": lines[number],
                "reason_code": error.code,
                "reason": str(error),
            }
            reading.rejects.append(reject | where)
        else:
            reading.rows.append(row | where)
    _number_rows(reading)


def _reject_furniture(fields: list[str], is_above: bool, headers: list[str] | None) -> None:
    """Tell titles, notes and repeated headers from rows."""
    if fields == headers:
        raise UnreadableRow("repeated_header", "The line repeats the header.")
    if is_above:
        raise UnreadableRow("above_header", "The line is above the header.")
    if max(map(len, fields)) > MAX_LINE:
        raise UnreadableRow("line_too_long", f"More than {MAX_LINE} characters.")
    if sum(map(bool, fields)) <= 1:
        raise UnreadableRow("note", "Only one cell is filled.")


def _reject_summary(row: dict) -> None:
    if simplified(row["brand"]) in SUMMARY_NAMES:
        raise UnreadableRow("summary_row", "A line of totals is no brand.")


def _repeats(kind: FileKind) -> Callable[[dict, int], None]:
    """A check that raises for what an earlier row of the file has said: the first one stands."""
    seen: dict[tuple, int] = {}

    def check(row: dict, number: int) -> None:
        brand = normalize(row["brand"]).casefold()
        keys: list[tuple[Any, ...]] = [("duplicate_row", repr(sorted(row.items())))]
        if kind is BRANDS:
            keys.append(("duplicate_brand", brand))
        elif row["position"] is not None:
            keys.append(("duplicate_position", brand, row["position"]))
        for key in keys:
            if key in seen:
                what = key[0].removeprefix("duplicate_")
                raise UnreadableRow(key[0], f"Line {seen[key]} has the same {what}.")
        seen.update(dict.fromkeys(keys, number))

    return check


def _number_rows(reading: Reading) -> None:
    """Give rows without a rank or position their place in the file, or among their brand's rows."""
    placed: dict[str | None, int] = {}
    for row in reading.rows:
        group = None if reading.kind is BRANDS else normalize(row["brand"])
        placed[group] = placed.get(group, 0) + 1
        column = reading.kind.columns[0].name
        row[column] = placed[group] if row[column] is None else row[column]


def _refuse_if_unreadable(reading: Reading) -> None:
    bad = [reject for reject in reading.rejects if reject["reason_code"] not in HARMLESS]
    if reading.rows and len(bad) <= len(reading.rows):
        return
    if not bad:
        raise UserError(f"{reading.name} has a header but no rows.\nGive a file with rows.")
    raise UserError(
        f"{len(bad)} of {len(reading.rows) + len(bad)} rows of {reading.name} cannot be read;"
        f" line {bad[0]['_file_line']}: {bad[0]['reason']}\n"
        "Nothing was landed: correct the file and run this again."
    )
