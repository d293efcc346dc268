"""Which lines of CSV belong together: a value in quotes may hold line ends (RFC 4180).

A quote that somebody forgot must not take good lines with it. So lines are one record only if that
is beyond doubt: the record is strictly CSV, has as many values as the header, is of a sane length
and holds no line that would be a transaction by itself. Otherwise the line where the quote opens is
refused, and each line after it stands for itself.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ingestion.sources.transactions.amounts import ANY_FILE
from ingestion.sources.transactions.contract import Refused
from ingestion.sources.transactions.encoding import as_utf8
from ingestion.sources.transactions.formats.lines import CR, LF, QUOTE, Block
from ingestion.sources.transactions.mapping.names import Names, word
from ingestion.sources.transactions.mapping.rules import Rules
from ingestion.sources.transactions.settings import (
    MAX_LINE_BYTES,
    MAX_RECORD_BYTES,
    MAX_RECORD_LINES,
)
from ingestion.texts import trim

csv.field_size_limit(MAX_LINE_BYTES)


class Header(NamedTuple):
    """The columns of a CSV file, what parts them, and what becomes of a record.

    Attributes:
        names: those that are wanted as they are wanted; others as they are, without a mapping in
            lower case.
        delimiter: one character.
        rules: what becomes of a record.
        line: 1-based number of its line.
    """

    names: list[str]
    delimiter: str
    rules: Rules
    line: int = 1

    @classmethod
    def of(cls, line: bytes, file: str, rules: Rules, at: int = 1) -> Header:
        """The header in a line; the delimiter is what gives most wanted fields, or most at all.

        Raises:
            UserError: a mandatory field is not in it, or a field is twice.
        """
        names, delimiter = names_of(line, rules.names)
        rules.check(names, file)
        layout = rules.names.layout(names)
        others = names if rules.mapping else [name.lower() for name in names]
        known = [wanted or other for wanted, other in zip(layout, others, strict=True)]
        return cls(known, delimiter, rules, at)

    def lines_in(self, block: Block) -> int:
        """Number of lines of a block that are the header or above it."""
        return min(max(0, self.line + 1 - block.first), len(block))


def names_of(line: bytes, wanted: Names) -> tuple[list[str], str]:
    """The names of columns in a header, and the delimiter between them."""
    text = as_utf8(line).decode().rstrip("\r\n").translate({0: " ", 13: " "})
    words = {word(name) for name in wanted.wanted}
    found = (
        (
            [
                trim(name)
                for name in next(csv.reader([text], delimiter=mark, skipinitialspace=True), [])
            ],
            mark,
        )
        for mark in ",;\t|"
    )
    return max(found, key=lambda each: (len(words & {word(n) for n in each[0]}), len(each[0])))


_CLOSED = "a quote closes amid a value; within quotes write it twice"


@dataclass
class Records:
    """The records of a block that are not just a line, by the line they start on (0-based).

    Attributes:
        longer: number of lines of those that span lines.
        refused: why a line whose quote stays open is no record.
        by_hand: lines with blanks before a quote, which Python takes apart.
        waits: the line of a record that the block ends within; None if there is none.
    """

    longer: dict[int, int] = field(default_factory=dict)
    refused: dict[int, Refused] = field(default_factory=dict)
    by_hand: list[int] = field(default_factory=list)
    waits: int | None = None

    @classmethod
    def of(cls, block: Block, header: Header, *, is_last: bool) -> Records:
        """The records of a block.

        Args:
            block: of which lines up to the header are none of a record.
            header: of the file.
            is_last: whether the file ends with the block, so that nothing waits.
        """
        found, at = cls(), header.lines_in(block)
        delimiter = header.delimiter
        for start in _perhaps_open(block, delimiter).tolist():
            if start < at:
                continue
            try:
                text = _text(block, start)
                if not _is_open(text, delimiter):
                    values_of(text, delimiter)
                    if _has_spaced_quotes(text, delimiter):
                        found.by_hand.append(start)
                    continue
                lines = _lines_of(block, start, header, is_last=is_last)
            except Refused as refusal:
                found.refused[start] = refusal
                continue
            if not lines:
                found.waits = start
                break
            found.longer[start] = lines
            at = start + lines
        return found


def values_of(text: str, delimiter: str) -> list[str]:
    """The values of a record, by RFC 4180: in quotes, a quote is written as two.

    Raises:
        Refused: a quote stays open, or closes amid a value (another dialect writes quotes as
            ``\\"``, and which of the two was meant nobody knows).
    """
    skips = _has_spaced_quotes(text, delimiter)
    records = csv.reader([text, ""], delimiter=delimiter, strict=True, skipinitialspace=skips)
    try:
        values = next(records)
    except csv.Error as error:
        is_open = records.line_num > 1
        detail = "a quote is never closed" if is_open else _CLOSED if '"' in text else str(error)
        raise Refused("not_csv", detail) from None
    if '\\"' in text and any('"' in value for value in values):
        raise Refused("not_csv", "a quote follows a backslash; within quotes write it twice")
    return values


def _has_spaced_quotes(text: str, delimiter: str) -> bool:
    """Whether a value in quotes has blanks before it, as in ``a, "b, c"``."""
    if ' "' not in text:
        return False
    values = next(csv.reader(re.split("(?<=\n)", text), delimiter=delimiter), [])
    return any(value[:1] == " " and value.lstrip(" ")[:1] == '"' for value in values)


def is_transaction(text: str, header: Header) -> bool:
    """Whether a line, perhaps cut off behind, has what a transaction must have."""
    if header.delimiter not in text:
        return False
    try:
        values = next(csv.reader([text], delimiter=header.delimiter), [])
        if len(values) > len(header.names):
            return False
        fields = {n: v for n, v in zip(header.names, values, strict=False) if v}
        return header.rules.row(fields, decimals=ANY_FILE) is not None
    except (csv.Error, Refused):
        return False


def _perhaps_open(block: Block, delimiter: str) -> np.ndarray:
    """The lines (0-based) that may end within quotes.

    In the others each quote stands where it belongs: the first, third, ... of a line after a
    delimiter, or doubled; the second, fourth, ... before one, or doubled; and they are even.
    """
    if b'"' not in block.data:
        return np.empty(0, np.int64)
    quotes = np.flatnonzero(np.frombuffer(block.data, np.uint8) == QUOTE)
    first = np.searchsorted(quotes, block.starts)
    counts = np.diff(np.append(first, len(quotes)))
    odd = np.flatnonzero(counts % 2)
    if len(odd):
        is_opening = (np.arange(len(quotes)) - np.repeat(first, counts)) % 2 == 0
        opening, closing = quotes[is_opening], quotes[~is_opening]
    else:
        opening, closing = quotes[::2], quotes[1::2]
    around = np.frombuffer(b"\n" + block.data + b"\n", np.uint8)  # moved by one
    before, after, mark = around[opening], around[closing + 2], ord(delimiter)
    astray = [
        opening[(before != mark) & (before != LF) & (before != QUOTE)],
        closing[(after != mark) & (after != LF) & (after != CR) & (after != QUOTE)],
    ]
    return np.union1d(odd, np.searchsorted(block.ends, np.concatenate(astray), side="right"))


def _text(block: Block, at: int) -> str:
    """A line as text in which quotes, delimiters and the contract's numbers are as they were."""
    line = block.line(at).strip(b"\r\n").decode("latin-1")
    return line.translate({0: " ", CR: " "}) + "\n"  # both stop the csv module


def _is_open(text: str, delimiter: str) -> bool:
    skips = _has_spaced_quotes(text, delimiter)
    reader = csv.reader([text, ""], delimiter=delimiter, skipinitialspace=skips)
    next(reader)
    return reader.line_num > 1


def _lines_of(block: Block, start: int, header: Header, *, is_last: bool) -> int:
    """Number of lines of the record that starts on a line; 0 if the block ends within it.

    Raises:
        Refused: they are no record.
    """
    longest = int(np.searchsorted(block.ends, block.starts[start] + MAX_RECORD_BYTES, "right"))
    stop = min(start + MAX_RECORD_LINES, max(longest, start + 1), len(block))
    ran_out = False

    def texts() -> Iterator[str]:
        nonlocal ran_out
        for at in range(start, stop):
            yield _text(block, at)
        ran_out = True

    skips = _has_spaced_quotes(_text(block, start), header.delimiter)
    reader = csv.reader(texts(), delimiter=header.delimiter, strict=True, skipinitialspace=skips)
    try:
        values = next(reader)
    except csv.Error:
        if ran_out and stop < len(block):
            limit = f"{MAX_RECORD_LINES:,} lines and {MAX_RECORD_BYTES >> 20} MiB"
            raise Refused("not_csv", f"a quote is not closed within {limit}") from None
        if ran_out and not is_last:
            return 0
        raise Refused("not_csv", "a quote is never closed") from None
    lines = reader.line_num
    if len(values) != len(header.names):
        detail = f"{len(values)} instead of {len(header.names)}, over {lines:,} lines"
        raise Refused("column_count", f"a quote is left open; {detail}")
    for value in values:
        for piece in value.split("\n")[1:]:
            if is_transaction(piece, header):
                raise Refused("not_csv", "a quote is closed only after other transactions")
    return lines
